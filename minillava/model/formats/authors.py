"""The authors' own checkpoints: a language model's files with the projector in them (liuhaotian/llava-v1.5-7b).

config.json is the language model's, with model_type llava or llava_llama and the keys mm_*. The tensors are the language
model's, `model.mm_projector.*`, and in some files the vision tower under `model.vision_tower.vision_tower.*`. Its sizes,
and where they are absent its weights, are those of `mm_vision_tower`, a folder or hub id. How pictures are prepared stands
there too (preparation.py). The authors' files do not say their template: LLaVA-1.5's is `vicuna_v1`.

Try it: `load_llava("liuhaotian/llava-v1.5-7b")`.
"""

from dataclasses import replace

from minillava.model.formats.files import (
    CheckpointError,
    end_ids,
    find_checkpoint,
    load_strictly,
    open_tensors,
    origin,
    reading_config,
)
from minillava.model.formats.published import (
    feature_layer,
    language_config,
    language_name,
    settle_head,
    vision_config,
    vision_name,
)
from minillava.model.llava import Llava, LlavaConfig

# What a CLIPModel has besides its vision tower; it is not loaded.
NOT_VISION = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
TOWER = "model.vision_tower.vision_tower."
# The settings that mean what this project does; None: the key is absent.
SUPPORTED = {
    "mm_projector_type": (None, "linear", "mlp2x_gelu"),
    "mm_vision_select_feature": (None, "patch"),
    "mm_use_im_start_end": (None, False),  # marker tokens around the picture, which Table 2 does not have
    "mm_resampler_type": (None,),
    "mm_patch_merge_type": (None, "flat"),
    "image_aspect_ratio": (None, "square", "pad"),  # not LLaVA-1.6's anyres: each picture in several tiles
}


def is_authors(published):
    """Whether a config.json is of the authors' layout; `transformers` nests the language model's in text_config."""
    return published.get("model_type") in ("llava", "llava_llama") and "text_config" not in published


def check_authors(published):
    """Raise CheckpointError, naming the key, for a config.json in the authors' layout that cannot be loaded."""
    for key, values in SUPPORTED.items():
        if published.get(key) not in values:
            known = " and ".join(repr(value) for value in values if value is not None) or "null"
            raise CheckpointError(
                f"{key} {published[key]!r}: only {known} can be loaded; take other weights, such as "
                "liuhaotian/llava-v1.5-7b"
            )
    if not isinstance(published.get("mm_vision_tower"), str):
        raise CheckpointError("mm_vision_tower is missing: the folder or hub id of the CLIP vision tower")


def load_authors(folder, dtype, device):
    """The LLaVA of a folder in the authors' layout. Raises CheckpointError for settings that are not supported."""
    with reading_config(folder / "config.json") as published:
        check_authors(published)
        language = replace(language_config(published | {"model_type": "llama"}), ends=end_ids(folder))
        projector, layer = (
            published.get("mm_projector_type", "linear"),
            feature_layer(published, "mm_vision_select_layer"),
        )
        tower = find_checkpoint(published["mm_vision_tower"])
    with reading_config(tower / "config.json") as written:
        vision = vision_config(written)
    stored = open_tensors(folder)
    if not any(name.startswith(TOWER) for name in stored):
        stored |= {TOWER + name: tensor for name, tensor in open_tensors(tower, skip=NOT_VISION).items()}
    language = settle_head(language, stored, "lm_head.weight", "model.embed_tokens.weight", folder)
    config = LlavaConfig(vision, language, layer, projector or "linear")
    model = load_strictly(Llava, config, stored, folder, authors_names(stored), dtype, device)
    model.vision_tower.origin, model.language_model.origin = origin(published["mm_vision_tower"]), None
    return model


def authors_names(stored):
    """A function from our name of a LLaVA tensor to the authors', as the names `stored` have it."""
    deeper = f"{TOWER}vision_model."  # CLIPModel, and CLIPVisionModel until late in transformers 5
    tower = deeper if any(name.startswith(deeper) for name in stored) else TOWER
    projector = "mm_projector." if any(name.startswith("mm_projector.") for name in stored) else "model.mm_projector."

    def name_of(ours):
        part, _, rest = ours.partition(".")
        if part == "vision_tower":
            return vision_name(rest, tower)
        return projector + rest if part == "projector" else language_name(rest)

    return name_of
