"""The published formats: what a config.json means, and what each of our tensors is called there.

They are CLIPVisionModel and CLIPModel, the causal language models Llama (Vicuna), Mistral and Qwen2, and
LlavaForConditionalGeneration. A setting that we do not support is an error that names it, so no model is computed
differently than its makers meant.

`transformers`' projector is linear_2(act(linear_1(x))). The paper's linear W is exactly this with the activation
"linear" (none) and the identity matrix as linear_2. Once PEFT, Trainer or TRL has trained both, checkpoint.py
makes one matrix of them again.

Try it: `language_config({"model_type": "llama", ...})`.
"""

import math
import sys
from dataclasses import asdict, replace

import torch

from minillava.model.formats.files import CheckpointError, checked
from minillava.model.language import LanguageConfig
from minillava.model.llava import LlavaConfig
from minillava.model.rope import KINDS, Rope
from minillava.model.vision import VisionConfig

# Our names, the published ones, and the value that a published file means when it leaves the name out.
REQUIRED = object()
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
    "vocab_size": ("vocab_size", REQUIRED),
    "hidden_size": ("hidden_size", REQUIRED),
    "intermediate_size": ("intermediate_size", REQUIRED),
    "num_layers": ("num_hidden_layers", REQUIRED),
    "num_heads": ("num_attention_heads", REQUIRED),
    "num_kv_heads": ("num_key_value_heads", None),
    "head_dim": ("head_dim", None),
    "rms_norm_eps": ("rms_norm_eps", 1e-6),
    "max_position": ("max_position_embeddings", 2048),
    "tie_embeddings": ("tie_word_embeddings", False),
}
LANGUAGES = ("llama", "mistral", "qwen2")
VISION_TOWERS = (None, "clip", "clip_vision_model")  # model_type; files that leave it out mean CLIP's
TILED = ("llava_next", "llava_next_video", "llava_onevision")  # LLaVA-1.6 and later: each picture in several tiles
PROJECTORS = {"linear": "linear", "gelu": "mlp2x_gelu"}  # projector_hidden_act -> ours


def vision_config(published):
    """VisionConfig from a published config.json of CLIPVisionModel, or of CLIPModel, which nests it."""
    nested = published.get("vision_config", published)
    for kind in (published.get("model_type"), nested.get("model_type")):
        if kind not in VISION_TOWERS:
            raise CheckpointError(
                f"model_type {kind!r}: only CLIP's vision towers are supported, such as openai/clip-vit-large-patch14"
            )
    published = nested
    if published.get("hidden_act", "quick_gelu") != "quick_gelu":
        raise CheckpointError(f"hidden_act {published['hidden_act']!r}: only CLIP's quick_gelu is supported")
    return checked(VisionConfig(**{ours: published.get(*theirs) for ours, theirs in VISION_NAMES.items()}))


def vision_published(config):
    """config.json of a CLIPVisionModel."""
    sizes = {theirs: getattr(config, ours) for ours, (theirs, _) in VISION_NAMES.items()}
    return {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", "hidden_act": "quick_gelu"} | sizes


def language_config(published):
    """LanguageConfig from a published config.json of llama, mistral or qwen2."""
    kind = published.get("model_type")
    if kind not in LANGUAGES:
        raise CheckpointError(f"model_type {kind!r}: only llama, mistral and qwen2 are supported")
    for key, ours in (("hidden_act", "silu"), ("mlp_bias", False), ("attention_bias", False)):
        if published.get(key, ours) != ours:
            raise CheckpointError(f"{key} {published[key]!r}: only {ours!r} is supported")
    sizes = {ours: published.get(*theirs) for ours, theirs in LANGUAGE_NAMES.items()}
    absent = [LANGUAGE_NAMES[ours][0] for ours, size in sizes.items() if size is REQUIRED]
    if absent:
        raise CheckpointError(f"config.json does not say {', '.join(absent)}")
    theta, rope = _rope(published, sizes["max_position"])
    if rope and rope.kind != "linear":  # published files give the length before or after scaling
        sizes["max_position"] = max(sizes["max_position"], int(rope.factor * rope.original))
    if published.get("sliding_window") and published.get("use_sliding_window", True):
        sizes["max_position"] = min(sizes["max_position"], published["sliding_window"])  # up to there all see all
    return checked(LanguageConfig(**sizes, rope_theta=theta, attention_bias=kind == "qwen2", rope=rope))


def _rope(published, trained):
    """(theta, Rope or None) from rope_parameters (transformers 5) or rope_scaling (earlier versions)."""
    stated = dict(published.get("rope_parameters") or published.get("rope_scaling") or {})
    theta = float(stated.pop("rope_theta", None) or published.get("rope_theta", 10000.0))
    older = stated.pop("type", "default")
    kind = stated.pop("rope_type", older)
    if kind == "default":
        return theta, None
    if kind not in KINDS:
        raise CheckpointError(f"rope type {kind!r}: only default, {', '.join(KINDS)} are supported")
    original = stated.pop("original_max_position_embeddings", None) or trained
    mscale, mscale_all, factor = (stated.pop(key, None) for key in ("mscale", "mscale_all_dim", "factor"))
    if kind == "dynamic":
        original = trained  # as transformers reads it
    if factor is None:
        if kind != "yarn":
            raise CheckpointError(f"rope type {kind!r} without a factor")
        factor = trained / original
    if kind == "yarn" and stated.get("attention_factor") is None:  # YaRN, section 3.4: 0.1 ln(s) + 1

        def sharper(by):
            return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

        stated["attention_factor"] = sharper(mscale) / sharper(mscale_all) if mscale and mscale_all else sharper(1)
    known = Rope.__dataclass_fields__.keys() - {"kind", "factor", "original"}
    if stated.keys() - known:
        raise CheckpointError(f"rope type {kind!r}: {', '.join(sorted(stated.keys() - known))} is not supported")
    stated = {key: value for key, value in stated.items() if value is not None}
    return theta, Rope(kind, float(factor), int(original), **stated)


def language_published(config):
    """config.json of a LlamaForCausalLM, or with attention biases a Qwen2ForCausalLM."""
    kind, name = ("qwen2", "Qwen2ForCausalLM") if config.attention_bias else ("llama", "LlamaForCausalLM")
    sizes = {theirs: getattr(config, ours) for ours, (theirs, _) in LANGUAGE_NAMES.items()}
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope:
        stated = asdict(config.rope)
        used = {
            "llama3": ("low_freq_factor", "high_freq_factor"),
            "yarn": ("beta_fast", "beta_slow", "truncate", "attention_factor"),
        }
        rope |= {"rope_type": stated["kind"], "factor": stated["factor"]}
        rope |= {key: stated[key] for key in used.get(config.rope.kind, ())}
        if config.rope.kind in used:
            rope["original_max_position_embeddings"] = config.rope.original
        if config.rope.kind == "dynamic":
            sizes["max_position_embeddings"] = config.rope.original
    scaling = {k: v for k, v in rope.items() if k != "rope_theta"} if config.rope else None
    return {"architectures": [name], "model_type": kind, "hidden_act": "silu"} | {
        **sizes,
        "rope_theta": config.rope_theta,  # where transformers 4 looks
        "rope_scaling": scaling,
        "rope_parameters": rope,  # where transformers 5 looks
        "bos_token_id": None,  # the tokenizer has it; without these two lines Llama's 1 and 2 are assumed
        "eos_token_id": list(config.ends) or None,
    }


def llava_config(published):
    """LlavaConfig from a published config.json of LlavaForConditionalGeneration."""
    kind = published.get("model_type")
    if kind != "llava":
        tiles = ", which reads a picture in several tiles (anyres)" if kind in TILED else ""
        raise CheckpointError(
            f"model_type {kind!r}{tiles}: only LLaVA and LLaVA-1.5 are supported; take weights of model_type 'llava', "
            "such as llava-hf/llava-1.5-7b-hf or liuhaotian/llava-v1.5-7b"
        )
    for key, ours in (("vision_feature_select_strategy", "default"), ("multimodal_projector_bias", True)):
        if published.get(key, ours) != ours:
            raise CheckpointError(f"{key} {published[key]!r}: only {ours!r} is supported")
    act = published.get("projector_hidden_act", "gelu")
    if act not in PROJECTORS:
        raise CheckpointError(f"projector_hidden_act {act!r}: only {', '.join(PROJECTORS)} are supported")
    text = published["text_config"]
    text = _defaults(text.get("model_type", "llama")) | text
    text["tie_word_embeddings"] = text["tie_word_embeddings"] or published.get("tie_word_embeddings", False)
    vision = vision_config(published.get("vision_config", {}))
    return LlavaConfig(vision, language_config(text), feature_layer(published, "vision_feature_layer"), PROJECTORS[act])


def feature_layer(published, key):
    """The layer that the vision features are read from: -2, or [-2] in some files."""
    layer = published.get(key, -2)
    layer = layer[0] if isinstance(layer, list) and len(layer) == 1 else layer
    if not isinstance(layer, int):
        raise CheckpointError(f"{key} {layer}: only one layer is supported")
    return layer


def _defaults(kind):
    """The sizes that a text_config of this kind means when it leaves them out (published ones do)."""
    from transformers import CONFIG_MAPPING

    if kind not in LANGUAGES:
        raise CheckpointError(f"text_config of model_type {kind!r}: only llama, mistral and qwen2 are supported")
    default = CONFIG_MAPPING[kind]().to_dict()
    derived = ("head_dim", "num_key_value_heads") if kind == "llama" else ("head_dim",)  # from other sizes
    return {"model_type": kind} | {key: default[key] for key, _ in LANGUAGE_NAMES.values() if key not in derived}


def llava_published(config, image_token):
    """config.json of LlavaForConditionalGeneration. image_token: the id of a picture's patches there."""
    acts = {ours: theirs for theirs, ours in PROJECTORS.items()}
    text, vision = language_published(config.language), vision_published(config.vision)
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "text_config": text,
        "vision_config": {key: value for key, value in vision.items() if key != "architectures"},
        "image_token_index": image_token,
        "image_seq_length": config.vision.num_patches,
        "projector_hidden_act": acts[config.projector],
        "multimodal_projector_bias": True,
        "vision_feature_layer": config.select_layer,
        "vision_feature_select_strategy": "default",  # the patches, without the class token
        "tie_word_embeddings": config.language.tie_embeddings,
    }


def settle_head(config, stored, head, table, folder):
    """A LanguageConfig that ties its head to its table as the files have them; a head stored twice leaves `stored`.

    Where both differ, the head is what was trained: it is kept apart, and this is said, as `transformers` does.
    """
    if not config.tie_embeddings or head not in stored:
        return config
    if table in stored and torch.equal(stored[head].read(), stored[table].read()):
        del stored[head]
        return config
    print(
        f"{folder}: config.json ties {head} to {table}, but the stored tensors differ; both are used as they are",
        file=sys.stderr,
    )
    return replace(config, tie_embeddings=False)


# names


def vision_name(ours, prefix="vision_model."):
    """A vision tower tensor's name in CLIP's files; some of them put a prefix before every name."""
    return prefix + ("encoder." + ours if ours.startswith("layers.") else ours)


def language_name(ours):
    """A language model tensor's name in Llama's files."""
    return ours if ours == "lm_head.weight" else "model." + ours


def llava_names(stored=()):
    """A function from our name of a LLaVA tensor to the published one, in the layout that the names `stored` have.

    transformers before 4.52 writes language_model.model.*; later versions use model.language_model.* in memory and in
    some files. Without names the result is the earlier layout, which all versions load.
    """

    def first(*prefixes):
        return next((p for p in prefixes if any(name.startswith(p) for name in stored)), prefixes[0])

    tower = "vision_tower."
    vision = first(f"{tower}vision_model.", f"model.{tower}vision_model.", f"model.{tower}", tower)
    language = first("language_model.model.", "model.language_model.")
    projector = first("multi_modal_projector.", "model.multi_modal_projector.")
    head = "lm_head.weight" if "lm_head.weight" in stored else "language_model.lm_head.weight"
    layers = {"projector.0.": "linear_1.", "projector.2.": "linear_2.", "projector.": "linear_1."}

    def name_of(ours):
        part, _, rest = ours.partition(".")
        if part == "vision_tower":
            return vision_name(rest, vision)
        if part == "language_model":
            return head if rest == "lm_head.weight" else language + rest
        layer = next(layer for layer in layers if ours.startswith(layer))
        return projector + layers[layer] + ours.removeprefix(layer)

    return name_of
