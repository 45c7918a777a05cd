"""How pictures are prepared for a vision tower, from and to the files of its folder, as `transformers` reads them.

Version 5 writes the image processor's settings into processor_config.json; all versions read preprocessor_config.json.
Where both are there, version 5 takes the first, and so do we. A setting that we do not support is an error that names
it. What a file leaves out has CLIPImageProcessor's default.

Try it: `read_preparation("data_samples/weights/vision_tower", 96)`.
"""

import json
from dataclasses import replace
from pathlib import Path

from minillava.data.images import Preparation
from minillava.model.formats.authors import is_authors
from minillava.model.formats.files import CheckpointError, find_checkpoint, reading_config

NEW, OLD = "processor_config.json", "preprocessor_config.json"
KINDS = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPFeatureExtractor", "LlavaImageProcessor",
         "LlavaImageProcessorFast")  # fmt: skip
DEFAULTS = {  # do_convert_rgb is not among them: our pictures are RGB before
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,  # Pillow's number of bicubic
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
    "do_pad": False,
    "default_to_square": False,
    "use_square_size": False,
}


def read_preparation(source, size) -> Preparation:
    """The preparation that a folder or hub id asks for. size: its vision tower's image_size, pixels per side.

    In the authors' layout the vision tower's folder says it, and config.json whether pictures are padded. Raises
    CheckpointError for a folder without it, for a setting that is not supported, and for another size.
    """
    folder = find_checkpoint(source)
    if (folder / "config.json").exists():
        with reading_config(folder / "config.json") as config:
            if is_authors(config):
                made = read_preparation(config["mm_vision_tower"], size)
                return replace(made, padded=config.get("image_aspect_ratio") == "pad")
    path = folder / OLD
    if (folder / NEW).exists():
        with reading_config(folder / NEW) as config:
            path = path if config.get("image_processor") is None else folder / NEW
    with reading_config(path) as config:
        made = _preparation(config["image_processor"] if path.name == NEW else config)
        if made.size != size:
            raise CheckpointError(
                f"it prepares pictures of {made.size} x {made.size} pixels, but the vision tower takes {size} x {size}: "
                "take the file that belongs to these weights"
            )
    return made


def _preparation(settings: dict) -> Preparation:
    # null: no, as in version 5; where the default is another, it is refused below
    stated = DEFAULTS | {key: value for key, value in settings.items() if value is not None or DEFAULTS.get(key)}
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type") or KINDS[0]
    if kind not in KINDS:
        raise CheckpointError(f"image_processor_type {kind!r}: only CLIP's is supported")
    for key in (key for key, default in DEFAULTS.items() if isinstance(default, bool)):
        if not isinstance(stated[key], bool):
            raise CheckpointError(f"{key} {stated[key]!r} must be true or false")
    for key, supported in (("do_resize", True), ("do_pad", False), ("use_square_size", False)):
        if stated[key] != supported and not (key == "do_pad" and kind.startswith("Llava") and stated["do_normalize"]):
            raise CheckpointError(
                f"{key} {json.dumps(stated[key])} is not supported: a picture is resized, then its centre is cropped. "
                f"Where that is what the weights expect, set it to {json.dumps(supported)}"
            )
    edge, stretched = _sides("size", stated["size"], stated["default_to_square"])
    if not stretched and not stated["do_center_crop"]:
        raise CheckpointError(
            "do_center_crop false: pictures would stay oblong, and the vision tower takes squares. Set it to true, or "
            'give size as {"height": N, "width": N}'
        )
    size = _sides("crop_size", stated["crop_size"], True)[0] if stated["do_center_crop"] else edge
    if size > edge:
        raise CheckpointError(f"crop_size {size} is more than size {edge}: pictures would get black borders")
    if stated["resample"] not in range(6):
        raise CheckpointError(f"resample {stated['resample']!r} must be one of Pillow's numbers, 0 to 5")
    limits = {"image_mean": (3, -1e30), "image_std": (3, 1e-30), "rescale_factor": (1, 1e-30)}
    mean, std, (rescale,) = (_numbers(key, stated[key], *limit) for key, limit in limits.items())
    if not stated["do_normalize"]:
        mean, std = (0.0,) * 3, (1.0,) * 3
    rescale = rescale if stated["do_rescale"] else 1.0
    edge = edge if edge != size else None
    return Preparation(size, mean, std, edge, stretched, stated["resample"], rescale, stated["do_pad"])


def _numbers(key: str, value: object, count: int, low: float) -> tuple[float, ...]:
    """The numbers of a setting, which float32 can hold."""
    found = value if isinstance(value, list | tuple) else [value]
    if len(found) != count or not all(isinstance(x, int | float) and low < x < 1e30 for x in found):
        raise CheckpointError(f"{key} {json.dumps(value)} must be {count} number(s) between {low:g} and 1e+30")
    return tuple(map(float, found))


def _sides(key: str, value: object, square: bool) -> tuple[int, bool]:
    """(pixels, whether both sides get them) of a `size` or `crop_size`. square: what a single number means."""
    named = value
    if isinstance(value, int):
        named = {"height": value, "width": value} if square else {"shortest_edge": value}
    elif isinstance(value, list) and len(value) == 2:
        named = dict(zip(("height", "width"), value))
    names = sorted(named) if isinstance(named, dict) else []
    stretched = names == ["height", "width"]
    if not stretched and (names != ["shortest_edge"] or key == "crop_size"):
        raise CheckpointError(f"{key} {json.dumps(value)} is not supported: give one number, or height and width")
    side, other = named[names[0]], named[names[-1]]
    if isinstance(side, bool) or not isinstance(side, int) or side < 1 or side != other:
        raise CheckpointError(f"{key} {json.dumps(value)}: pixels of a square are supported, in whole numbers from 1")
    return side, stretched


def write_preparation(how: Preparation, folder) -> None:
    """Write preprocessor_config.json with every setting stated, so that all versions of `transformers` read it alike."""
    edge = how.edge or how.size
    settings = {
        "image_processor_type": "LlavaImageProcessor" if how.padded else "CLIPImageProcessor",
        "do_pad": how.padded,
        "do_resize": True,
        "size": {"height": edge, "width": edge} if how.stretched else {"shortest_edge": edge},
        "resample": int(how.resample),
        "do_center_crop": True,
        "crop_size": {"height": how.size, "width": how.size},
        "do_rescale": True,
        "rescale_factor": how.rescale,
        "do_normalize": True,
        "image_mean": list(how.mean),
        "image_std": list(how.std),
        "do_convert_rgb": True,
    }
    (Path(folder) / OLD).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
