"""One stage of `minillava train`: from records and pictures to W or to the whole model, on one device or on many.

Every process runs the same lines. Only rank 0 encodes records, computes features, reads weights and writes results.
"""

import shutil
from argparse import Namespace
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file

from minillava import files, scales
from minillava.commands.stage_report import loss_verdict, mover, step_reporter
from minillava.costs.preflight import disk_bytes, llava_config
from minillava.data.samples import fill_rate, micro_batches
from minillava.data.stored import StoredSamples, store_samples
from minillava.data.tokenizer import load_tokenizer
from minillava.machine import compute_dtype, progress_bar
from minillava.model import (
    Llava,
    find_checkpoint,
    load_language,
    load_llava,
    load_projector,
    load_vision,
    set_trainable,
)
from minillava.model.formats.assemble import save_trained
from minillava.model.formats.chat_template import training_template
from minillava.model.formats.checkpoint import read_llava
from minillava.model.formats.files import origin
from minillava.model.formats.marks import weights_checksum
from minillava.model.formats.preparation import read_preparation
from minillava.training import lora
from minillava.training.checkpoints import TrainingError, latest, refusal
from minillava.training.features import Features, LiveFeatures
from minillava.training.parallel import (
    broadcast,
    distribute,
    full_tensor,
    load_from_rank_0,
    on_rank_0,
    rank,
    world_size,
)
from minillava.training.stages import (
    COMPILED_FROM,
    TOKENS_PER_CORE,
    compile_blocks,
    language_parameters,
    recipe_of,
    recompute_activations,
    train_stage,
    useful_cores,
)


def say(text: str) -> None:
    """Print a line, once for all processes."""
    if rank() == 0:
        print(text, flush=True)


def training_dtype(options: Namespace, device: torch.device) -> torch.dtype:
    """The dtype that --dtype names, or else the device's best."""
    return getattr(torch, options.dtype) if options.dtype else compute_dtype(device.type)


def records_file(data: Path, number: int) -> Path:
    """The records of a stage: stageN.json or, where that is absent, stageN.jsonl. Either may hold JSON lines."""
    path = data / f"stage{number}.json"
    return path if path.is_file() else path.with_suffix(".jsonl")


def result_path(out: Path, number: int) -> Path:
    """The file that a finished stage leaves."""
    return out / ("stage1/projector.safetensors" if number == 1 else "model/llava.json")


def read_done(out: Path, number: int) -> dict:
    """What done.json says of a finished stage: its recipe, its data; {} without one. Raises TrainingError for damage."""
    path = out / f"stage{number}" / "done.json"
    try:
        return files.read_checked(path) if path.exists() else {}
    except files.FileError as error:
        raise TrainingError(f"{error}; remove {result_path(out, number)}, and train stage {number} again") from error


class StageRun:
    """One stage of one run. options: the verb's arguments, with both parts named. stage: the recipe."""

    def __init__(self, options: Namespace, scale, stage: scales.Stage, device: torch.device):
        self.options, self.scale, self.stage, self.device = options, scale, stage, device
        self.folder, self.result = options.out / f"stage{stage.number}", result_path(options.out, stage.number)
        self.images, self.dtype = options.images or options.data / "images", training_dtype(options, device)
        self.config, self.before = llava_config(options.vision_tower, options.language_model), None
        self.origins = {name: origin(getattr(options, name)) for name in ("vision_tower", "language_model")}
        if options.weights:
            _, self.before, towers = read_llava(options.weights)
            self.origins = dict(zip(self.origins, towers.values()))
        self.lora_rank, most = stage.lora if stage.number == 2 else 0, stage.micro * stage.longest_sample
        self.tokens = options.tokens or (min(TOKENS_PER_CORE, most) if device.type == "cpu" else most)  # at once

    @cached_property
    def parts(self) -> dict:
        """The parts' names, and checksums that tell them from others of the same names."""
        given = {name: getattr(self.options, name) for name in ("vision_tower", "language_model")}
        checks = {f"{name}_weights": weights_checksum(find_checkpoint(source)) for name, source in given.items()}
        return self.origins | checks

    def settings(self, samples: StoredSamples) -> dict:
        """The arguments of `train_stage` that its recipe is made of."""
        stage, W = self.stage, self.options.projector or result_path(self.options.out, 1)
        W = self.options.weights / "model.safetensors" if self.options.weights else W
        muon = "Muon" in stage.optimizer and stage.number == 2 and not stage.lora
        return dict(
            batch_size=stage.batch, steps=-(-len(samples) // stage.batch) * stage.epochs, lr=stage.lr, uneven=True,
            lr_muon=stage.lr if muon else 0.0, seed=self.options.seed,
            start=self.parts | ({"W": files.checksum(W)} if stage.number == 2 else {}),
            lr_w=self.options.w_lr if stage.number == 2 else None,
        )  # fmt: skip

    def recipe(self, samples: StoredSamples) -> dict:
        """What a finished stage is compared by."""
        return recipe_of(self.stage.number, samples, **self.settings(samples)) | {"lora": self.lora_rank}

    def finished(self, samples: StoredSamples) -> bool:
        """Whether the result is here. Raises TrainingError for one of another recipe, or one that is damaged."""
        if not self.result.exists():
            return False
        kept, recipe = read_done(self.options.out, self.stage.number), self.recipe(samples)
        if kept and kept["recipe"] != recipe:
            raise TrainingError(refusal(self.folder, kept["recipe"], recipe, "finished"))
        if not kept and not latest(self.folder):  # with a checkpoint the run was stopped while it wrote its result
            raise TrainingError(f"{self.result}: nothing says how it was trained; move it, or name another --out")
        return bool(kept)

    def samples(self) -> StoredSamples:
        """The stage's records as samples on disk, made by rank 0 unless they are there; says what was taken of them."""
        path, folder = records_file(self.options.data, self.stage.number), self.folder / "samples"
        longest = min(self.stage.max_length, self.config.language.max_position)
        patches, language_model = self.config.vision.num_patches, find_checkpoint(self.options.language_model)
        template, tokenizer, said = training_template(language_model), load_tokenizer(language_model), []

        def encode(beat):
            with progress_bar(None, "record", "encode") as bar:
                store_samples(path, self.images, template, tokenizer, longest, patches, folder, said.append,
                              mover(bar, beat), allow_bad=self.options.allow_bad, limit=self.options.limit)  # fmt: skip

        on_rank_0(encode)
        say("".join(said))
        return StoredSamples(folder)

    def build(self) -> Llava:
        """LLaVA as the stage starts: W random in stage 1, from stage 1 in stage 2; LoRA, checkpointing, split weights.

        With several processes, rank 0 reads the files into its machine's memory and deals every process its part.
        """
        model = self._prepared(self._loaded()) if rank() == 0 else None
        if world_size() > 1:
            tensors, self.config = model.state_dict() if model is not None else {}, broadcast(self.config)
            with torch.device("meta"):
                model = self._prepared(Llava(self.config))
            distribute(model, model.vision_tower, list(model.language_model.layers), self.dtype, self.stage.shard)
            load_from_rank_0(model, tensors, self.device)
        for part, name in self.origins.items():
            getattr(model, part).origin = name
        return model

    def _loaded(self) -> Llava:
        device = self.device if world_size() == 1 else torch.device("cpu")
        dtype = self.dtype if self.lora_rank else torch.float32
        if self.options.weights:
            model = load_llava(self.options.weights, device=device)[0]
            model.language_model.to(dtype)
            return model
        vision = load_vision(self.options.vision_tower, device=device)
        language = load_language(self.options.language_model, dtype, device)
        self.config = replace(self.config, language=language.config)  # its files say more than its config.json
        torch.manual_seed(self.options.seed)
        with torch.device(device):
            model = Llava(self.config, vision, language)
        if self.stage.number == 2:
            given, first = self.options.projector, read_done(self.options.out, 1).get("recipe", {})
            for name, mine in self.parts.items():
                if not given and first.get(name, mine) != mine:
                    W = result_path(self.options.out, 1)
                    raise TrainingError(f"{W}: trained with the {name} {first[name]}, not with {mine}")
            load_projector(model, given or result_path(self.options.out, 1))
        return model

    def _prepared(self, model: Llava) -> Llava:
        set_trainable(model, self.stage.number)
        if self.lora_rank:
            lora.add(model, self.lora_rank, dtype=self.dtype)
        if self.device.type == "cuda" and world_size() == 1 and language_parameters(model) >= COMPILED_FROM:
            compile_blocks(model)
        if self.stage.checkpointing:
            recompute_activations(model)
        return model

    def features(self, model: Llava, names: list[str]):
        """The vision features of these pictures, stored on disk if there is room; otherwise computed at every use."""
        vision, path = model.config.vision, self.folder / "features.jsonl"
        preparation = read_preparation(self.options.vision_tower, vision.image_size)
        needed = 2 * len(names) * vision.num_patches * vision.hidden_size
        stored = sum(p.stat().st_size for p in self.folder.glob(f"{path.name}*"))
        free = (
            shutil.disk_usage(self.folder).free
            + stored
            - disk_bytes(self.config, self.stage, self.device.type == "cuda")["total"]
        )
        if not broadcast(needed < free):
            say(f"{needed / 1e9:.1f} GB of features do not fit beside {path}: they are computed at every use")
            return LiveFeatures(model, self.images, preparation)

        def compute(beat):
            with progress_bar(len(names), "picture", "features") as bar:
                Features.cached(path, model, self.images, names, preparation, mover(bar, beat))

        on_rank_0(compute)
        return Features.load(path)

    def train(self) -> None:
        """Train the stage and write its result, unless the result exists."""
        stage, name, samples = self.stage, f"stage {self.stage.number}", StoredSamples(self.folder / "samples")
        if broadcast(rank() == 0 and self.finished(samples)):
            return say(f"{name}: done before, {self.result}")
        model, settings = self.build(), self.settings(samples)
        features, steps = self.features(model, samples.pictures()), settings["steps"]
        filled = self._fill_rate(samples.lengths(self.config.vision.num_patches))
        say(f"{name}: {len(samples):,} samples, {steps:,} steps of {stage.batch}, {world_size()} process(es), "
            f"{self.dtype}, up to {self.tokens} tokens at once, {100 * filled:.0f} % of them filled")  # fmt: skip
        with progress_bar(steps if rank() == 0 else 0, "step", name) as bar, step_reporter(self.folder, bar) as report:
            bar.disable |= rank() > 0  # TQDM_DISABLE stays
            train_stage(
                model, stage.number, samples, features, self.folder, progress=report, tokens=self.tokens,
                dtype=self.dtype, cores=useful_cores(model), **settings,
            )  # fmt: skip
        self.save(model, samples)
        broadcast(None)  # the others wait until rank 0 has written
        if rank() == 0:
            loss = loss_verdict(self.options, self.scale, stage.number, self.folder)
            say(f"{name}: {self.result.parent if stage.number == 2 else self.result}; loss: {loss}")

    def _fill_rate(self, lengths: list[int]) -> float:
        """The share of tokens that are not padding, in 50 batches of the shortest samples."""
        order = sorted(range(len(lengths)), key=lambda i: lengths[i])[: 50 * self.stage.batch]
        return fill_rate(lengths, micro_batches(lengths, order, self.tokens))

    def save(self, model: Llava, samples: StoredSamples) -> None:
        """Write the result from rank 0: W after stage 1, the whole model after stage 2, with LoRA merged into it."""
        whole, options = self.gather(model), self.options
        if whole is None:
            return
        trained_on, made = f"stage {self.stage.number}: {options.data.name}, {len(samples)} records", [self.result]
        if self.stage.number == 1:
            with files.atomic_write(self.result) as temporary:
                save_file({name: t.contiguous() for name, t in whole.projector.state_dict().items()}, temporary)
        else:
            if self.stage.lora:
                lora.save_adapters(whole, self.folder / "adapter.safetensors")
                lora.merge(whole)
            first = read_done(options.out, 1).get("trained on", "stage 1: not known")
            first = f"W: {options.projector.name}" if options.projector else first
            first = self.before["trained on"] if self.before else first
            trained_on = f"{first}; {trained_on}"
            parts = find_checkpoint(options.language_model), find_checkpoint(options.vision_tower)
            template = training_template(parts[0]).name
            about = {"template": template, "trained on": trained_on, "scale": self.scale.name}
            dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
            save_trained(whole, load_tokenizer(parts[0]), parts[1], options.out / "model", about, dtype)
            made = sorted(self.result.parent.iterdir())
        base = {"weights": options.weights} if options.weights else {"language model": options.language_model}
        about = {"recipe": self.recipe(samples), "trained on": trained_on}
        about |= {"base": {name: str(source) for name, source in base.items()}}
        files.write_checked(self.folder / "done.json", about, made)

    def gather(self, model: Llava) -> Llava | None:
        """The model with all its weights on rank 0's CPU; None on the other ranks."""
        state = {}
        for name, tensor in model.state_dict().items():
            tensor = full_tensor(tensor)  # every rank must take part
            if rank() == 0:
                state[name] = tensor.detach().cpu()
        if rank() > 0:
            return None
        with torch.device("meta"):
            whole = Llava(model.config)
            if self.lora_rank:
                lora.add(whole, self.lora_rank, dtype=self.dtype)
        whole.load_state_dict(state, assign=True)
        for part in ("vision_tower", "language_model"):
            getattr(whole, part).origin = getattr(model, part).origin
        return whole
