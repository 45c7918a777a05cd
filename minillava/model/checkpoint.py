"""Checkpoints: the published formats in and out, and our own folder for a whole LLaVA. Never pickle, never half a file.

- `load_vision` reads a CLIPVisionModel or CLIPModel folder, `load_language` a Llama, Vicuna, Mistral or Qwen2 folder:
  config.json and safetensors, one file or sharded. `save_vision` and `save_language` write what `transformers` loads.
- `save_llava` writes model.safetensors and llava.json, which says all that the weights need: both configs, the feature
  layer (section 4.1), the projector's type and sizes, the template, and what you tell `about` it.

Notable
- Strict: before a tensor is read, every name and shape in the files is compared with what the config asks for. Missing,
  unexpected and misshapen tensors are listed in one error; the few that are rightly skipped are named below.
- Files are written beside their place, flushed to disk and only then renamed, so a crash leaves the old ones whole.

Try it: `save_language(model, "out")`, then `transformers.LlamaForCausalLM.from_pretrained("out")`.
"""

import json
import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from minillava.model.language import LanguageConfig, LanguageModel
from minillava.model.llava import Llava, LlavaConfig
from minillava.model.vision import VisionConfig, VisionTower


class CheckpointError(ValueError):
    """A folder does not hold what it says, or cannot be written."""


# Our names and the published ones, with the value a published file means when it leaves the name out.
NEEDED = object()
VISION_NAMES = {
    "image_size": ("image_size", 224),
    "patch_size": ("patch_size", 32),
    "hidden_size": ("hidden_size", 768),
    "intermediate_size": ("intermediate_size", 3072),
    "num_layers": ("num_hidden_layers", 12),
    "num_heads": ("num_attention_heads", 12),
    "layer_norm_eps": ("layer_norm_eps", 1e-5),
}
LANGUAGE_NAMES = {
    "vocab_size": ("vocab_size", NEEDED),
    "hidden_size": ("hidden_size", NEEDED),
    "intermediate_size": ("intermediate_size", NEEDED),
    "num_layers": ("num_hidden_layers", NEEDED),
    "num_heads": ("num_attention_heads", NEEDED),
    "num_kv_heads": ("num_key_value_heads", None),
    "head_dim": ("head_dim", None),
    "rms_norm_eps": ("rms_norm_eps", 1e-6),
    "max_position": ("max_position_embeddings", 2048),
    "tie_embeddings": ("tie_word_embeddings", False),
}
# Tensors in published files that are rightly not loaded: CLIP's other tower and its contrastive head, and tables that
# older versions of transformers stored although they follow from the config.
NOT_VISION = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
DERIVED = (".position_ids", ".rotary_emb.inv_freq")


def load_vision(folder, dtype=torch.float32):
    """The vision tower of a CLIPVisionModel or CLIPModel folder. dtype None keeps what is stored."""
    config = vision_config(read_json(Path(folder) / "config.json"))
    with ExitStack() as files:
        stored = _open(folder, files, skip=NOT_VISION)
        # CLIPModel, and CLIPVisionModel until late in transformers 5, put vision_model. before every name.
        prefixed = any(name.startswith("vision_model.") for name in stored)
        return _fill(VisionTower, config, stored, folder, dtype, _vision_name if prefixed else _bare_vision_name)


def load_language(folder, dtype=torch.float32):
    """The language model of a Llama, Mistral or Qwen2 ForCausalLM folder. dtype None keeps what is stored."""
    config = language_config(read_json(Path(folder) / "config.json"))
    with ExitStack() as files:
        stored = _open(folder, files)
        if config.tie_embeddings and "lm_head.weight" in stored:  # some files store the tied table twice
            head, table = stored.pop("lm_head.weight"), stored.get("model.embed_tokens.weight")
            if table is None or not torch.equal(_read(head), _read(table)):
                raise CheckpointError(f"{folder}: config.json ties lm_head to embed_tokens, but the tensors differ")
        return _fill(LanguageModel, config, stored, folder, dtype, _language_name)


def load_llava(folder, dtype=torch.float32):
    """(model, about) as `save_llava` wrote them. dtype None keeps what is stored."""
    path = Path(folder) / "llava.json"
    written = read_json(path)
    try:
        config = LlavaConfig(
            vision=VisionConfig(**written["vision"]),
            language=LanguageConfig(**written["language"]),
            select_layer=written["select_layer"],
            projector=written["projector"]["type"],
        )
        sizes, about = (written["projector"]["in"], written["projector"]["out"]), written["about"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: {error} - not what save_llava writes") from error
    if sizes != (config.vision.hidden_size, config.language.hidden_size):
        raise CheckpointError(
            f"{path}: the projector maps {sizes[0]} to {sizes[1]}, but the vision tower gives "
            f"{config.vision.hidden_size} and the language model takes {config.language.hidden_size}"
        )
    with ExitStack() as files:
        return _fill(Llava, config, _open(folder, files), folder, dtype, str), about


def save_vision(tower, folder, dtype=None):
    """A folder that `transformers.CLIPVisionModel.from_pretrained` loads, in versions before 5 and since."""
    _save(folder, {"config.json": vision_published(tower.config)}, tower, dtype, _vision_name)


def save_language(model, folder, dtype=None):
    """A folder that `transformers.LlamaForCausalLM` loads (with biases Qwen2ForCausalLM), with equal logits."""
    _save(folder, {"config.json": language_published(model.config)}, model, dtype, _language_name)


def save_llava(model, folder, about, dtype=None):
    """All parts in one folder. about: what else a reader must know, as JSON; it must name the "template"."""
    if "template" not in about:
        raise CheckpointError('about must name the "template" that the model was trained with')
    config = model.config
    sizes = {"in": config.vision.hidden_size, "out": config.language.hidden_size}
    written = asdict(config) | {"projector": {"type": config.projector} | sizes, "about": about}
    _save(folder, {"llava.json": written}, model, dtype, str)


def vision_config(published):
    """VisionConfig from a published config.json of CLIPVisionModel, or of CLIPModel, which nests it."""
    published = published.get("vision_config", published)
    if published.get("hidden_act", "quick_gelu") != "quick_gelu":
        raise CheckpointError(f"hidden_act {published['hidden_act']!r}: only CLIP's quick_gelu is written out here")
    return VisionConfig(**{ours: published.get(*theirs) for ours, theirs in VISION_NAMES.items()})


def vision_published(config):
    sizes = {theirs: getattr(config, ours) for ours, (theirs, _) in VISION_NAMES.items()}
    return {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", "hidden_act": "quick_gelu"} | sizes


def language_config(published):
    """LanguageConfig from a published config.json of llama, mistral or qwen2. What we do not compute is an error."""
    kind = published.get("model_type")
    if kind not in ("llama", "mistral", "qwen2"):
        raise CheckpointError(f"model_type {kind!r}: only llama, mistral and qwen2 are written out here")
    for key, ours in (("hidden_act", "silu"), ("mlp_bias", False), ("attention_bias", False)):
        if published.get(key, ours) != ours:
            raise CheckpointError(f"{key} {published[key]!r}: only {ours!r} is written out here")
    sizes = {ours: published.get(*theirs) for ours, theirs in LANGUAGE_NAMES.items()}
    absent = [LANGUAGE_NAMES[ours][0] for ours, size in sizes.items() if size is NEEDED]
    if absent:
        raise CheckpointError(f"config.json does not say {', '.join(absent)}")
    if published.get("sliding_window") and published.get("use_sliding_window", True):
        sizes["max_position"] = min(sizes["max_position"], published["sliding_window"])  # within it, plain attention
    rope = published.get("rope_parameters") or published.get("rope_scaling") or {}  # transformers 5, and before
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        raise CheckpointError(f"rope type {rope_type!r}: only 'default' is written out here (no context extension)")
    theta = rope.get("rope_theta", published.get("rope_theta", 10000.0))
    return LanguageConfig(**sizes, rope_theta=float(theta), attention_bias=kind == "qwen2")


def language_published(config):
    kind, name = ("qwen2", "Qwen2ForCausalLM") if config.attention_bias else ("llama", "LlamaForCausalLM")
    return {"architectures": [name], "model_type": kind, "hidden_act": "silu"} | {
        **{theirs: getattr(config, ours) for ours, (theirs, _) in LANGUAGE_NAMES.items()},
        "rope_theta": config.rope_theta,  # where transformers 4 looks
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},  # where transformers 5 looks
        "bos_token_id": None,  # the tokenizer's business; left out, Llama's own 1 and 2 would be assumed
        "eos_token_id": None,
    }


def _bare_vision_name(ours):
    return "encoder." + ours if ours.startswith("layers.") else ours


def _vision_name(ours):
    return "vision_model." + _bare_vision_name(ours)


def _language_name(ours):
    return ours if ours == "lm_head.weight" else "model." + ours


def read_json(path):
    """The object in a JSON file, or a CheckpointError that names the file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _open(folder, files, skip=()):
    """{published name: (open file, name)} over one model.safetensors or all shards of its index; reads no tensor."""
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        shards = {"model.safetensors": None}
    elif index.exists():
        where = read_json(index)["weight_map"]
        shards = {shard: {k for k, s in where.items() if s == shard} for shard in sorted(set(where.values()))}
    else:
        pickled = " Its .bin is pickle and could run code: convert it first." if any(folder.glob("*.bin")) else ""
        raise CheckpointError(f"{folder}: no model.safetensors and no {index.name}.{pickled}")
    stored = {}
    for shard, promised in shards.items():
        try:
            file = files.enter_context(safe_open(folder / shard, framework="pt"))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder / shard}: {error}") from error
        names = set(file.keys())
        if promised is not None and names != promised:
            raise CheckpointError(f"{folder / shard}: {index.name} promises {_few(promised ^ names)} otherwise")
        stored |= {name: (file, name) for name in names if not name.startswith(skip) and not name.endswith(DERIVED)}
    return stored


def _read(where, dtype=None):
    file, name = where
    return file.get_tensor(name).to(dtype)


def _fill(build, config, stored, folder, dtype, name_of):
    """A model with every parameter from the files; or a CheckpointError that lists all that does not fit."""
    with torch.device("meta"):  # shapes without memory
        model = build(config)
    wanted = {name_of(ours): tensor.shape for ours, tensor in model.state_dict().items()}
    shapes = {name: tuple(file.get_slice(key).get_shape()) for name, (file, key) in stored.items()}
    wrong = {
        "missing": wanted.keys() - shapes.keys(),
        "unexpected": shapes.keys() - wanted.keys(),
        "misshapen": [
            f"{name} is {shapes[name]}, expected {tuple(shape)}"
            for name, shape in wanted.items()
            if name in shapes and shapes[name] != tuple(shape)
        ],
    }
    if any(wrong.values()):
        lines = [f"  {len(names)} {what}: {_few(names)}" for what, names in wrong.items() if names]
        raise CheckpointError(f"{folder} does not hold a {build.__name__} of {config}:\n" + "\n".join(lines))
    tensors = {ours: _read(stored[name_of(ours)], dtype) for ours in model.state_dict()}
    model.load_state_dict(tensors, assign=True)
    return model


def _few(names, limit=8):
    names = sorted(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _save(folder, jsons, model, dtype, name_of):
    """Weights and JSON files into `folder`, whole or not at all; files of other names that are there stay."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a checkpoint is a folder")
    if (folder / "model.safetensors.index.json").exists():
        raise CheckpointError(f"{folder} holds a sharded checkpoint; saving here would leave two sets of weights")
    tensors = {}
    for ours, tensor in model.state_dict().items():
        tensors[name_of(ours)] = stored = tensor.detach().to("cpu", dtype).contiguous()
        if not torch.isfinite(stored).all():
            raise CheckpointError(f"{ours} has values that are not finite in {stored.dtype}; nothing was saved")
    stored_as = {"dtype": str(stored.dtype).removeprefix("torch.")}
    texts = {name: json.dumps(written | stored_as, indent=2) + "\n" for name, written in jsons.items()}
    fresh = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        save_file(tensors, fresh / "model.safetensors", metadata={"format": "pt"})
        for name, text in texts.items():
            (fresh / name).write_text(text, encoding="utf-8")
        for path in [*fresh.iterdir(), fresh]:
            path.chmod(0o755 if path == fresh else 0o644)  # temporary folders and safetensors files come out private
            _flush(path)
        if not folder.exists():
            fresh.rename(folder)
        else:
            for name in ["model.safetensors", *texts]:
                (fresh / name).replace(folder / name)
            _flush(folder)
        _flush(folder.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {folder}: {error}") from error
    finally:
        if fresh is not None and fresh.exists():
            shutil.rmtree(fresh)


def _flush(path):
    """Ask the system to have this file or folder on disk before we go on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
