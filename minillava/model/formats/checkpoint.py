"""Checkpoints in and out: the published formats, the authors' projectors, and our own folder for a whole LLaVA.

- `load_vision` reads a CLIPVisionModel or CLIPModel folder, `load_language` a Llama, Vicuna, Mistral or Qwen2 folder:
  config.json with safetensors or pytorch_model.bin, one file or sharded. `save_vision` and `save_language` write what
  `transformers` loads.
- `load_llava` reads our own folder, one of LlavaForConditionalGeneration or the authors'. `save_llava` writes our own:
  model.safetensors and llava.json, which says all that the weights need: both towers' names and sizes, the feature
  layer (section 4.1), the projector's type and sizes, and `about`. `save_pretrained` (pretrained.py) writes the other
  kind.
- `load_projector` reads the authors' mm_projector.bin, a W from stage 1.

A source is a local folder or a hub id; nothing is inferred from its name. Loading is strict: every name and shape must
fit (files.py). Nothing that is loaded can run code.

Try it: `save_language(model, "out")`, then `transformers.LlamaForCausalLM.from_pretrained("out")`.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch

from minillava.model.formats.authors import NOT_VISION, check_authors, is_authors, load_authors
from minillava.model.formats.files import (
    CheckpointError,
    end_ids,
    find_checkpoint,
    is_finite,
    load_strictly,
    open_tensors,
    origin,
    reading_config,
    safe_tensors,
    write_checkpoint,
)
from minillava.model.formats.pickled import load_pickle
from minillava.model.formats.published import (
    language_config,
    language_name,
    language_published,
    llava_config,
    llava_names,
    settle_head,
    vision_config,
    vision_name,
    vision_published,
)
from minillava.model.language import LanguageConfig, LanguageModel
from minillava.model.llava import Llava, LlavaConfig
from minillava.model.vision import VisionConfig, VisionTower
from minillava.text import few

REQUIRED_ABOUT = ("template", "trained on")  # what `about` must say of a LLaVA


def load_vision(source, dtype=torch.float32, device="cpu"):
    """The vision tower of a CLIPVisionModel or CLIPModel folder or hub id. dtype None keeps what is stored."""
    folder = find_checkpoint(source, judge=vision_config)
    with reading_config(folder / "config.json") as published:
        config = vision_config(published)
    stored = open_tensors(folder, skip=NOT_VISION)
    # CLIPModel, and CLIPVisionModel until late in transformers 5, put vision_model. before every name.
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in stored) else ""
    tower = load_strictly(VisionTower, config, stored, folder, lambda ours: vision_name(ours, prefix), dtype, device)
    tower.origin = origin(source)
    return tower


def load_language(source, dtype=torch.float32, device="cpu"):
    """The language model of a Llama, Mistral or Qwen2 ForCausalLM folder or hub id. dtype None keeps what is stored."""
    folder = find_checkpoint(source, judge=language_config)
    with reading_config(folder / "config.json") as published:
        config = replace(language_config(published), ends=end_ids(folder))
    stored = open_tensors(folder)
    config = settle_head(config, stored, "lm_head.weight", "model.embed_tokens.weight", folder)
    model = load_strictly(LanguageModel, config, stored, folder, language_name, dtype, device)
    model.origin = origin(source)
    return model


def load_llava(source, dtype=torch.float32, device="cpu"):
    """(model, about) of a folder or hub id of `save_llava`, LlavaForConditionalGeneration or the authors (authors.py).

    about: what `save_llava` was given; {} for a folder of others. dtype None keeps what is stored.
    """
    folder = find_checkpoint(
        source, judge=lambda config: (check_authors if is_authors(config) else llava_config)(config)
    )
    path = folder / "llava.json"
    if not path.exists() and (folder / "config.json").exists():
        with reading_config(folder / "config.json") as published:
            authors = is_authors(published)
        return (load_authors(folder, dtype, device), {}) if authors else _load_published(folder, dtype, device)
    if not path.exists():
        inner = f"; take {folder / 'model'}" if (folder / "model" / path.name).exists() else ""
        raise CheckpointError(f"{folder}: neither {path.name} nor config.json is here, so this is no LLaVA{inner}")
    config, about, towers = read_llava(folder)
    model = load_strictly(Llava, config, open_tensors(folder), folder, str, dtype, device)
    _set_origins(model, towers)
    return model, about


def read_llava(folder):
    """(LlavaConfig, about, names of the towers) of a folder of `save_llava`; reads no weights."""
    path = Path(folder) / "llava.json"
    with reading_config(path) as written:
        vision, language = VisionConfig(**written["vision"]), LanguageConfig(**written["language"])
        config = LlavaConfig(vision, language, written["select_layer"], written["projector"]["type"])
        sizes, about = (written["projector"]["in"], written["projector"]["out"]), _known_about(written["about"])
        towers = {name: written.get("towers", {}).get(name) for name in ("vision", "language")}
    if sizes != (config.vision.hidden_size, config.language.hidden_size):
        raise CheckpointError(
            f"{path}: the projector maps {sizes[0]} to {sizes[1]}, but the vision tower gives "
            f"{config.vision.hidden_size} and the language model takes {config.language.hidden_size}"
        )
    if "ends" not in written["language"]:  # folders written before there were any
        config = replace(config, language=replace(config.language, ends=end_ids(Path(folder))))
    return config, about, towers


def _known_about(about):
    if not isinstance(about, dict) or not isinstance(about.get("template"), str | None):
        raise CheckpointError("`about` must be an object, and its template a name")
    return about


def _load_published(folder, dtype, device):
    """(model, about) of a LlavaForConditionalGeneration folder, in any layout of its tensors' names."""
    with reading_config(folder / "config.json") as published:
        config, written = llava_config(published), published.get("minillava", {})
        about, towers = _known_about(written.get("about", {})), written.get("towers", {})
        towers = {name: towers.get(name) for name in ("vision", "language")}
        # In what `save_pretrained` wrote, generation_config.json has the template's stop too, or the last token of it.
        named = written.get("ends", published["text_config"].get("eos_token_id"))  # older exports have no "ends"
        ends = tuple(named or ()) if written else end_ids(folder)
    stored = open_tensors(folder)
    name_of = llava_names(stored)
    head, table = name_of("language_model.lm_head.weight"), name_of("language_model.embed_tokens.weight")
    language = settle_head(replace(config.language, ends=ends), stored, head, table, folder)
    config = replace(config, language=language)
    if config.projector == "linear":
        fold_projector(stored, name_of, config, folder)
    model = load_strictly(Llava, config, stored, folder, name_of, dtype, device)
    _set_origins(model, towers)
    return model, about


class Folded(NamedTuple):
    """A tensor computed from stored ones, and read like them."""

    values: torch.Tensor  # float64
    stored_as: torch.dtype
    kind: str  # its type in safetensors

    @property
    def shape(self):
        return tuple(self.values.shape)

    def read(self, dtype=None, device="cpu"):
        return self.values.to(device=device, dtype=dtype or self.stored_as)


def fold_projector(stored, name_of, config, folder):
    """Make one matrix of a projector that has two without a GELU: W = linear_2 linear_1, b = linear_2 b_1 + b_2.

    Raises CheckpointError where one of the four tensors is missing or has another shape.
    """
    D, Dv = config.language.hidden_size, config.vision.hidden_size
    shapes = {"weight": (D, Dv), "bias": (D,), "2.weight": (D, D), "2.bias": (D,)}
    names = [name_of(f"projector.{part}") for part in shapes]
    for name, shape in zip(names, shapes.values()):
        if name not in stored or stored[name].shape != shape:
            found = stored[name].shape if name in stored else "missing"
            raise CheckpointError(f"{folder}: {name} is {found}, expected {shape}")
    kinds = [(tensor.read().dtype, tensor.kind) for tensor in (stored[name] for name in names[:2])]
    W, b, second, shift = (stored.pop(name).read(torch.float64) for name in names)
    stored[names[0]], stored[names[1]] = Folded(second @ W, *kinds[0]), Folded(second @ b + shift, *kinds[1])


def load_projector(model, source):
    """Load a projector of stage 1 into `model`: our projector.safetensors, or the authors' mm_projector.bin.

    source: the file, or a folder or hub id with the latter, a torch pickle, read so that it cannot run code. If its folder has a config.json, its
    feature layer must be the model's. Raises CheckpointError for a projector that was made for another model.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        path = find_checkpoint(source, only=["config.json", "mm_projector.bin"]) / "mm_projector.bin"
    safe = path.suffix == ".safetensors"
    stored = {name: t.read() for name, t in safe_tensors(path).items()} if safe else load_pickle(path)
    if not all(map(_is_weight, stored.values())):
        raise CheckpointError(f"{path}: not a file of named tensors of numbers")
    if (path.parent / "config.json").exists():
        with reading_config(path.parent / "config.json") as written:
            layer = written.get("mm_vision_select_layer", model.config.select_layer)
        if layer != model.config.select_layer:
            raise CheckpointError(
                f"{path}: made for features of layer {layer}, this model reads layer {model.config.select_layer}"
            )
    named = {name.removeprefix("model.").removeprefix("mm_projector."): t for name, t in stored.items()}
    if any("embed" in name for name in named):
        raise CheckpointError(
            f"{path}: also holds {few(n for n in stored if 'embed' in n)}: it was trained with marker tokens around "
            "the picture, which the paper's sequence (Table 2) does not have; take a projector made without them"
        )
    kinds = {("bias", "weight"): "linear", ("0.bias", "0.weight", "2.bias", "2.weight"): "mlp2x_gelu"}
    kind = kinds.get(tuple(sorted(named)))
    if kind is None:
        raise CheckpointError(
            f"{path}: holds {few(stored)}; expected model.mm_projector.weight and .bias (the paper's W), or the same "
            "of model.mm_projector.0 and .2 (the two-layer GELU)"
        )
    if kind != model.config.projector:
        raise CheckpointError(f"{path}: a {kind} projector, but the model was built with {model.config.projector!r}")
    Dv, D = model.config.vision.hidden_size, model.config.language.hidden_size
    first = named[min(named).replace("bias", "weight")]
    if first.dim() == 2 and first.shape != (D, Dv):
        raise CheckpointError(
            f"{path}: this projector was made for a {first.shape[1]}-wide vision tower and a {first.shape[0]}-wide "
            f"language model; here they are {Dv} and {D} wide"
        )
    wrong = [name for name, p in model.projector.named_parameters() if named[name].shape != p.shape]
    if wrong:
        raise CheckpointError(f"{path}: {few(wrong)} misshapen: {[tuple(named[name].shape) for name in wrong]}")
    broken = [name for name, tensor in stored.items() if not is_finite(tensor.float())]
    if broken:
        raise CheckpointError(f"{path}: {few(broken)} holds values that are not finite; fetch the file again")
    model.projector.load_state_dict(named)


def _is_weight(value):
    return value.is_floating_point() and value.layout == torch.strided


def save_vision(tower, folder, dtype=None):
    """Write a folder that `transformers.CLIPVisionModel.from_pretrained` loads, in version 5 and before."""
    write_checkpoint(folder, {"config.json": vision_published(tower.config)}, named_tensors(tower, vision_name), dtype)


def save_language(model, folder, dtype=None, template=None):
    """Write a folder that `transformers` loads with equal logits: LlamaForCausalLM, or with biases Qwen2ForCausalLM.

    template: the name of the conversation's format that the model has learned, if it is one of `data.template`.
    """
    tensors, written = named_tensors(model, language_name), language_published(model.config)
    write_checkpoint(folder, {"config.json": written | ({"template": template} if template else {})}, tensors, dtype)


def save_llava(model, folder, about, dtype=None):
    """Write all parts into one folder. about: what else a user must know, as JSON: its "template", its "trained on"."""
    config, known = model.config, metadata(model, about)
    sizes = {"in": config.vision.hidden_size, "out": config.language.hidden_size}
    written = asdict(config) | {"projector": {"type": config.projector} | sizes} | known
    write_checkpoint(folder, {"llava.json": written}, named_tensors(model, str), dtype)


def metadata(model, about):
    """What a checkpoint says besides sizes: towers and `about`. Raises CheckpointError if `about` lacks a key."""
    absent = [key for key in REQUIRED_ABOUT if key not in about]
    if absent:
        raise CheckpointError(f"about must say its {' and '.join(map(repr, absent))}: a user cannot know it otherwise")
    towers = {"vision": model.vision_tower, "language": model.language_model}
    return {"towers": {name: getattr(tower, "origin", None) for name, tower in towers.items()}, "about": about}


def _set_origins(model, towers):
    model.vision_tower.origin, model.language_model.origin = towers.get("vision"), towers.get("language")


def named_tensors(model, name_of):
    return {name_of(ours): tensor for ours, tensor in model.state_dict().items()}
