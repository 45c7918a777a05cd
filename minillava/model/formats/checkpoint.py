"""Checkpoints in and out: the published formats, the authors' projectors, and our own folder for a whole LLaVA.

- `load_vision` reads a CLIPVisionModel or CLIPModel folder, `load_language` a Llama, Vicuna, Mistral or Qwen2 folder:
  config.json and safetensors, one file or sharded. `save_vision` and `save_language` write what `transformers` loads.
- `load_llava` reads our own folder or one of LlavaForConditionalGeneration. `save_llava` writes our own:
  model.safetensors and llava.json, which says all that the weights need: both towers' names and sizes, the feature layer
  (section 4.1), the projector's type and sizes, and what you tell `about` it. `save_pretrained` writes the other.
- `load_projector` reads the authors' mm_projector.bin, a stage-1 W.

Notable: a source is a local folder or a hub id, the same argument everywhere; nothing is inferred from its name. Strict:
each name and shape is accounted for (files.py). Nothing that is loaded can run code.

Try it: `save_language(model, "out")`, then `transformers.LlamaForCausalLM.from_pretrained("out")`.
"""

import json
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from pickle import UnpicklingError

import torch

from minillava.model.formats.files import CheckpointError, fill, find, finite, meant, open_tensors, origin, write
from minillava.model.formats.published import (
    language_config,
    language_name,
    language_published,
    llava_config,
    llava_names,
    llava_published,
    vision_config,
    vision_name,
    vision_published,
)
from minillava.model.language import LanguageConfig, LanguageModel
from minillava.model.llava import Llava, LlavaConfig
from minillava.model.vision import VisionConfig, VisionTower
from minillava.text import few

# What a CLIPModel has beside its vision tower: rightly not loaded.
NOT_VISION = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
ABOUT = ("template", "trained on")  # what a whole LLaVA must say of itself


def load_vision(source, dtype=torch.float32, device="cpu"):
    """The vision tower of a CLIPVisionModel or CLIPModel folder or hub id. dtype None keeps what is stored."""
    folder = find(source)
    with meant(folder / "config.json") as published:
        config = vision_config(published)
    stored = open_tensors(folder, skip=NOT_VISION)
    # CLIPModel, and CLIPVisionModel until late in transformers 5, put vision_model. before every name.
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in stored) else ""
    tower = fill(VisionTower, config, stored, folder, lambda ours: vision_name(ours, prefix), dtype, device)
    tower.origin = origin(source)
    return tower


def load_language(source, dtype=torch.float32, device="cpu"):
    """The language model of a Llama, Mistral or Qwen2 ForCausalLM folder or hub id. dtype None keeps what is stored."""
    folder = find(source)
    with meant(folder / "config.json") as published:
        config = language_config(published)
    stored = open_tensors(folder)
    if config.tie_embeddings:
        _untwin(stored, "lm_head.weight", "model.embed_tokens.weight", folder)
    model = fill(LanguageModel, config, stored, folder, language_name, dtype, device)
    model.origin = origin(source)
    return model


def load_llava(source, dtype=torch.float32, device="cpu"):
    """(model, about) of a folder or hub id, as `save_llava` or as LlavaForConditionalGeneration wrote it.

    about: what `save_llava` was told; {} for a folder that only `transformers` wrote. dtype None keeps what is stored.
    """
    folder = find(source)
    if not (folder / "llava.json").exists() and (folder / "config.json").exists():
        return _load_published(folder, dtype, device)
    path = folder / "llava.json"
    with meant(path) as written:
        config = LlavaConfig(
            vision=VisionConfig(**written["vision"]),
            language=LanguageConfig(**written["language"]),
            select_layer=written["select_layer"],
            projector=written["projector"]["type"],
        )
        sizes, about = (written["projector"]["in"], written["projector"]["out"]), written["about"]
        towers = {name: written.get("towers", {}).get(name) for name in ("vision", "language")}
    if sizes != (config.vision.hidden_size, config.language.hidden_size):
        raise CheckpointError(
            f"{path}: the projector maps {sizes[0]} to {sizes[1]}, but the vision tower gives "
            f"{config.vision.hidden_size} and the language model takes {config.language.hidden_size}"
        )
    model = fill(Llava, config, open_tensors(folder), folder, str, dtype, device)
    _name_towers(model, towers)
    return model, about


def _load_published(folder, dtype, device):
    """(model, about) of a LlavaForConditionalGeneration folder, in either layout of its names."""
    stored = open_tensors(folder)
    with meant(folder / "config.json") as published:
        config, written = llava_config(published), published.get("minillava", {})
        about, towers = written.get("about", {}), written.get("towers", {})
        towers = {name: towers.get(name) for name in ("vision", "language")}
    name_of = llava_names(stored)
    if config.language.tie_embeddings:
        head, table = name_of("language_model.lm_head.weight"), name_of("language_model.embed_tokens.weight")
        _untwin(stored, head, table, folder)
    if config.projector == "linear":
        for part, plain in (("weight", torch.eye), ("bias", torch.zeros)):
            name = name_of(f"projector.2.{part}")
            second = stored.pop(name).read(torch.float32) if name in stored else None
            if second is None or not torch.equal(second, plain(config.language.hidden_size)):
                raise CheckpointError(
                    f"{folder}: {name} is not {'the identity' if part == 'weight' else 'zero'}, so this projector is two "
                    "matrices without anything between; only one (the paper's W) and the two-layer GELU are written out"
                )
    model = fill(Llava, config, stored, folder, name_of, dtype, device)
    _name_towers(model, towers)
    return model, about


def load_projector(model, source):
    """Put the authors' stage-1 projector into `model`: an mm_projector.bin, or a folder or hub id that has one.

    The file is torch's pickle, read with weights_only=True, so it cannot run code. Where a config.json lies beside it,
    its feature layer must be the model's. Raises CheckpointError for what does not fit, saying what it was made for.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        path = find(source, also=["mm_projector.bin"]) / "mm_projector.bin"
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(f"{path}: torn, or more than tensors, which could run code; it is not loaded") from error
    except (OSError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: cannot be read ({str(error).partition('.')[0] or 'it is empty'})") from error
    if not isinstance(stored, dict) or not all(isinstance(n, str) and _is_weight(t) for n, t in stored.items()):
        raise CheckpointError(f"{path}: not a file of named tensors")
    if (path.parent / "config.json").exists():
        with meant(path.parent / "config.json") as written:
            layer = written.get("mm_vision_select_layer", model.config.select_layer)
        if layer != model.config.select_layer:
            raise CheckpointError(
                f"{path}: made for features of layer {layer}, this model reads layer {model.config.select_layer}"
            )
    named = {name.removeprefix("model.").removeprefix("mm_projector."): t for name, t in stored.items()}
    if any("embed" in name for name in named):
        raise CheckpointError(
            f"{path}: also holds {few(n for n in stored if 'embed' in n)}: it was trained with marker tokens around the "
            "picture, which the paper's sequence (Table 2) does not have; take a projector made without them"
        )
    kinds = {frozenset(("weight", "bias")): "linear", frozenset(("0.weight", "0.bias", "2.weight", "2.bias")): "mlp2x_gelu"}  # fmt: skip
    kind = kinds.get(frozenset(named))
    if kind is None:
        raise CheckpointError(
            f"{path}: {few(stored)}; expected model.mm_projector.weight and .bias (the paper's W), or the same of "
            "model.mm_projector.0 and .2 (the two-layer GELU)"
        )
    if kind != model.config.projector:
        raise CheckpointError(f"{path}: a {kind} projector, but the model was built with {model.config.projector!r}")
    Dv, D, made = model.config.vision.hidden_size, model.config.language.hidden_size, named[min(named)[:-4] + "weight"]
    if made.dim() == 2 and made.shape != (D, Dv):
        raise CheckpointError(
            f"{path}: this projector was made for a {made.shape[1]}-wide vision tower and a {made.shape[0]}-wide language "
            f"model; here they are {Dv} and {D} wide"
        )
    wrong = [name for name, p in model.projector.named_parameters() if named[name].shape != p.shape]
    if wrong:
        raise CheckpointError(f"{path}: {few(wrong)} misshapen: {[tuple(named[name].shape) for name in wrong]}")
    broken = [name for name, tensor in stored.items() if not finite(tensor.float())]
    if broken:
        raise CheckpointError(f"{path}: {few(broken)} holds values that are not finite; fetch the file again")
    model.projector.load_state_dict(named)


def _is_weight(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.layout == torch.strided


def save_vision(tower, folder, dtype=None):
    """A folder that `transformers.CLIPVisionModel.from_pretrained` loads, in versions before 5 and since."""
    write(folder, {"config.json": vision_published(tower.config)}, _renamed(tower, vision_name), dtype)


def save_language(model, folder, dtype=None):
    """A folder that `transformers.LlamaForCausalLM` loads (with biases Qwen2ForCausalLM), with equal logits."""
    write(folder, {"config.json": language_published(model.config)}, _renamed(model, language_name), dtype)


def save_llava(model, folder, about, dtype=None):
    """All parts in one folder. about: what else a reader must know, as JSON: its "template" and what it was "trained on"."""
    config, known = model.config, _known(model, about)
    sizes = {"in": config.vision.hidden_size, "out": config.language.hidden_size}
    written = asdict(config) | {"projector": {"type": config.projector} | sizes} | known
    write(folder, {"llava.json": written}, _renamed(model, str), dtype)


def save_pretrained(model, folder, tokenizer, vision_tower, template, about, dtype=None):
    """A folder that `transformers`' LlavaForConditionalGeneration and LlavaProcessor load, with equal logits.

    vision tower: where the vision tower's preprocessor_config.json is. template: a data.template.Template, for a chat template.
    There a picture stands as P tokens `<image>`, so the vocabulary gains that token where it lacks it; its score is the
    mean of all scores, and so never the highest. Ids equal ours where a conversation begins; a later answer may begin
    with another token, as `transformers` tokenizes the joined text and not piece by piece.
    """
    from transformers import AddedToken, AutoImageProcessor, GenerationConfig, LlavaProcessor

    known, tensors, V = _known(model, about), _renamed(model, llava_names()), model.config.language.vocab_size
    if len(tokenizer) > V:
        raise CheckpointError(f"the tokenizer has {len(tokenizer)} tokens, the model {V}: they do not belong together")
    tokenizer, stop = deepcopy(tokenizer), tokenizer.encode(template.stop, add_special_tokens=False)
    if len(stop) == 1:  # never merged with what stands before it, as in our sequences
        tokenizer.add_tokens([AddedToken(template.stop, normalized=False)])
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    config, image_token = model.config, tokenizer.convert_tokens_to_ids("<image>")
    if image_token == V:
        config = replace(config, language=replace(config.language, vocab_size=V + 1))
        for ours in ("embed_tokens.weight", *([] if config.language.tie_embeddings else ["lm_head.weight"])):
            name = llava_names()("language_model." + ours)
            tensors[name] = torch.cat([tensors[name], tensors[name].float().mean(0, keepdim=True).to(tensors[name])])
    if config.projector == "linear":  # linear_2 (published.py)
        D = config.language.hidden_size
        tensors[llava_names()("projector.2.weight")], tensors[llava_names()("projector.2.bias")] = (
            torch.eye(D),
            torch.zeros(D),
        )
    pictures = AutoImageProcessor.from_pretrained(str(find(vision_tower)))
    sizes = dict(patch_size=config.vision.patch_size, num_additional_image_tokens=1)  # the class token
    chat = {"chat_template": _jinja(template), "vision_feature_select_strategy": "default"}
    processor = LlavaProcessor(pictures, tokenizer, **sizes, **chat)
    ends = GenerationConfig(
        eos_token_id=stop[-1], bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id
    )

    def also(fresh):
        processor.save_pretrained(fresh)
        pictures.save_pretrained(fresh)  # preprocessor_config.json, where versions before 5 look
        ends.save_pretrained(fresh)

    write(folder, {"config.json": llava_published(config, image_token) | {"minillava": known}}, tensors, dtype, also)


def _jinja(template):
    """The template as the chat template of a processor. content: text, or parts of type "image" and "text"."""
    human, assistant, stop, system = (
        json.dumps(getattr(template, k)) for k in ("human", "assistant", "stop", "system")
    )
    lines = [
        "{{ bos_token or '' }}",
        f"{{{{ {system} + {stop} + '\n' }}}}" if template.system else "",
        "{% for message in messages %}",
        f"{{{{ {human} if message['role'] == 'user' else {assistant} }}}}",
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}",
        "{{ ('' if loop.first else '\n') + ('<image>' if part['type'] == 'image' else part['text']) }}",
        "{% endfor %}{% endif %}",
        f"{{{{ {stop} + '\n' }}}}",
        f"{{% endfor %}}{{% if add_generation_prompt %}}{{{{ {assistant} }}}}{{% endif %}}",
    ]
    return "".join(lines)


def _known(model, about):
    """What a whole LLaVA says of itself beside its sizes, or a CheckpointError that names what is left out."""
    absent = [key for key in ABOUT if key not in about]
    if absent:
        raise CheckpointError(
            f"about must say its {' and '.join(map(repr, absent))}: a reader cannot know it otherwise"
        )
    towers = {"vision": model.vision_tower, "language": model.language_model}
    return {"towers": {name: getattr(tower, "origin", None) for name, tower in towers.items()}, "about": about}


def _name_towers(model, towers):
    model.vision_tower.origin, model.language_model.origin = towers.get("vision"), towers.get("language")


def _renamed(model, name_of):
    return {name_of(ours): tensor for ours, tensor in model.state_dict().items()}


def _untwin(stored, head, table, folder):
    """Some files store a tied table twice: leave out the head, which must be equal."""
    if head in stored:
        twin = stored.pop(head)
        if table not in stored or not torch.equal(twin.read(), stored[table].read()):
            raise CheckpointError(f"{folder}: config.json ties lm_head to embed_tokens, but the tensors differ")
