"""A small training file with the shapes of the field's large ones (llava_v1_5_mix665k, LLaMA-Factory, ms-swift, TRL), made here."""

import json

import numpy as np
from PIL import Image


def turns(*values, opened_by="human"):
    names = ("human", "gpt") if opened_by == "human" else ("gpt", "human")
    return [{"from": names[n % 2], "value": value} for n, value in enumerate(values)]


def said(*contents):
    return [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]


def picture(path, n=0, kind=None):
    """A picture of 40 x 30 noisy pixels, in the format of its name or another `kind`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(n).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path, kind)
    return path.name


def write_mix(folder):
    """Write 18 pictures and 20 records into a folder: 15 can be used, two of them without a picture. Returns the records."""
    images = folder / "images"
    for name in (*(f"coco/{n:012}.jpg" for n in range(11)), *"abcd"):
        picture(images / (name if "/" in name else f"{name}.png"), len(name))
    picture(images / "ocr_vqa" / "1.jpg", kind="GIF")  # GIF bytes under .jpg
    data = picture(images / "vg" / "torn.jpg") and (images / "vg" / "torn.jpg").read_bytes()
    (images / "vg" / "torn.jpg").write_bytes(data[: len(data) * 2 // 3])  # a download that broke off
    (images / "vg" / "html.jpg").write_text("<html>404</html>")
    coco = [{"id": f"{n:012}", "image": f"coco/{n:012}.jpg"} for n in range(11)]
    ask = turns("<image>\nWhat is in the picture?\nAnswer briefly.", "Noise.", "And its colours?", "Many.")
    rows = [
        coco[0] | {"conversations": ask},
        coco[1] | {"model": "", "conversations": turns("What is this?\n<image>", "Noise.")},
        {"id": "wgByO4Y_0", "model": "", "conversations": turns("Tell me a joke.", "Why did the pixel cross the picture?")},
        {"id": "wgByO4Y_1", "conversations": turns("Once upon a time", "Go on.", "there was", opened_by="gpt")},
        {"id": "empty", "conversations": turns("Say nothing.", "")},
        {"id": 7, "image": "ocr_vqa/1.jpg", "conversations": turns("<image>\nWho wrote this book?", "Nobody.")},
        coco[2] | {"conversations": [{"from": "system", "value": "Be kind."}, *ask]},
        coco[3] | {"conversations": [*ask, *turns("And now?")]},
        coco[4] | {"image": ["coco/000000000004.jpg"], "conversations": ask},
        {"id": "null", "image": None, "conversations": turns("What is two plus two?", "Four.")},
        {"images": ["a.png", "b.png"], "messages": said("<image>Compare it with <image>.", "Both are noise.", "Why?", "I see no shape.")},
        {"images": ["c.png"], "messages": said([{"type": "image"}, {"type": "text", "text": "What?"}], [{"type": "text", "text": "Noise."}])},
        coco[5] | {"image": "d.png", "conversations": turns("Is there a picture?", "There is.")},
        coco[6] | {"conversations": turns("<image>\nDescribe <s>it.", "It has two parts.\n\n### Colour\nMany.\n\n#### Shape\nNone.</s>")},
        coco[7] | {"conversations": turns("<image>\r\nWhat colour?", "Nice \ud83d")},
        coco[8] | {"conversations": turns("First a greeting.", "Hello.", "<image>\nAnd now?", "Noise.")},
        {"id": "blind", "conversations": turns("<image>\nWhat is it?", "A cat.")},
        {"id": "torn", "image": "vg/torn.jpg", "conversations": turns("<image>\nWhat?", "Noise.")},
        {"id": "html", "image": "vg/html.jpg", "conversations": turns("<image>\nWhat?", "Noise.")},
        {"id": "gone", "image": "vg/gone.jpg", "conversations": turns("<image>\nWhat?", "Noise.")},
    ]  # fmt: skip
    (folder / "stage1.json").write_text(json.dumps(rows))
    return rows
