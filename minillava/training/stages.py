"""The two stages of section 4.2, as two calls of one function: stage 1 trains W, stage 2 W and the language model.

Notable: the eye is frozen in both stages, so its features are computed once a picture and shared by stages, epochs and
ablations (`Features`). Stage 1 reads brief questions and captions, stage 2 instruction records; the sequence and the
loss are the same (Table 2, Eq. 3).
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from minillava.data.images import open_picture, pixels
from minillava.data.samples import Sample, plan
from minillava.model import Batch, Llava, LlavaConfig, load_language, load_vision, save_llava, set_trainable
from minillava.model.checkpoint import read_json
from minillava.model.llava import STAGES
from minillava.training.loop import compute_dtype, fit
from minillava.training.optim import adam, muon


def assemble(eye: str | Path, brain: str | Path, seed: int, select_layer: int = -2) -> Llava:
    """LLaVA before any training: a frozen eye, a language model, and a W that is random by `seed`."""
    vision, language = load_vision(eye), load_language(brain)
    torch.manual_seed(seed)
    return Llava(LlavaConfig(vision.config, language.config, select_layer), vision, language)


def normalisation(eye: str | Path) -> tuple[tuple, tuple]:
    """(mean, std) that the eye's own preprocessor_config.json states."""
    stated = read_json(Path(eye) / "preprocessor_config.json")
    return tuple(stated["image_mean"]), tuple(stated["image_std"])


def save_trained(model: Llava, tokenizer, eye: str | Path, folder: str | Path, about: dict, dtype=None) -> None:
    """A trained LLaVA with all that talking with it needs: weights, tokenizer, and how the eye wants its pictures."""
    save_llava(model, folder, about, dtype)
    tokenizer.save_pretrained(folder)
    shutil.copy(Path(eye) / "preprocessor_config.json", Path(folder) / "preprocessor_config.json")


class Features:
    """Zv of every picture: name -> (P, Dv), in bfloat16, kept in one file and computed once."""

    def __init__(self, table: dict[str, int], values: torch.Tensor):
        self.table, self.values = table, values

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.values[self.table[name]].float()

    @classmethod
    def of(
        cls, model: Llava, folder: Path, names: list[str], mean, std, progress: Callable[[int, int], None]
    ) -> "Features":
        """Look at every picture of a folder with the frozen eye, 64 at a time."""
        size, dtype, parts = model.config.vision.image_size, compute_dtype("cpu"), []
        for start in range(0, len(names), 64):
            pictures = [open_picture(folder / name) for name in names[start : start + 64]]
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                parts.append(model.features(pixels(pictures, size, mean, std)).bfloat16())
            progress(min(start + 64, len(names)), len(names))
        return cls({name: n for n, name in enumerate(names)}, torch.cat(parts))

    def save(self, path: Path) -> None:
        beside = path.with_suffix(".part")
        save_file({"features": self.values}, beside, metadata={"names": "\n".join(self.table)})
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Features":
        with safe_open(path, "pt") as file:
            names = file.metadata()["names"].split("\n")
            return cls({name: n for n, name in enumerate(names)}, file.get_tensor("features"))


def train_stage(
    model: Llava,
    stage: int,
    samples: list[Sample],
    features: Features,
    folder: Path,
    *,
    batch_size: int,
    steps: int,
    lr: float,
    lr_muon: float = 0.0,
    seed: int = 0,
    progress: Callable[[int, int, float], None] = lambda *a: None,
) -> list[float]:
    """Stage 1 or 2 on these samples; goes on where `folder` stands. Returns the loss of every step.

    lr_muon 0 is the paper's Adam; above 0 the matrices inside the blocks are trained by Muon with that rate.
    """
    set_trainable(model, stage)
    parts = [getattr(model, name) for name in STAGES[stage]]
    optimizer = muon(parts, lr_muon, lr) if lr_muon else adam(parts, lr)
    batches = plan([len(s.ids) for s in samples], batch_size, steps, seed)
    dtype = compute_dtype("cpu")

    def loss_at(step):
        chosen = [samples[i] for i in batches[step]]
        batch = Batch(
            [s.ids for s in chosen],
            [s.labels for s in chosen],
            [[features[s.image]] if s.image else [] for s in chosen],
        )
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss, _ = model.loss(batch)
        return loss

    recipe = {
        "stage": stage,
        "samples": len(samples),
        "batch": batch_size,
        "steps": steps,
        "lr": lr,
        "muon": lr_muon,
        "seed": seed,
    }
    return fit(model, optimizer, loss_at, steps, folder, recipe, progress)
