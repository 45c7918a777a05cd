"""`make weights`: train and export the stand-ins for CLIP and Vicuna, then the small LLaVA that `minillava chat` talks with.

Notable: the folders are of the published formats - `transformers.CLIPModel` and `LlamaForCausalLM` load the first two as
they load the real ones. Goes on where it was stopped. Every folder gets a card.json: recipe, seed, time, machine, figures.

    python -m minillava.training.weights            # about 2 hours on 2 cores
"""

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig

from minillava.miniature import WEIGHTS, machine
from minillava.model import save_language
from minillava.model.checkpoint import vision_published
from minillava.training import brain, eye, llava

EYE_STEPS, BRAIN_STEPS = 6000, 2000
PRECISION = torch.float16  # stored; loaded as float32


def write_card(folder: Path, card: dict) -> None:
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def export_eye(clip: eye.Clip, tokenizer, folder: Path) -> None:
    """A CLIPModel folder: both towers, their projections, the image processor's settings, the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, tensor in clip.state_dict().items():
        if name.startswith("vision_model.layers."):
            name = name.replace("vision_model.layers.", "vision_model.encoder.layers.")
        elif name.startswith("text_model.") and not name.startswith("text_model.text_model."):
            name = name if "position_ids" not in name else None
        if name:
            tensors[name] = tensor.detach().to(PRECISION).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    vision = {k: v for k, v in vision_published(clip.vision_model.config).items() if k != "architectures"}
    config = CLIPConfig(text_config=clip.text_model.config.to_dict(), vision_config=vision, projection_dim=eye.SHARED)
    config.architectures = ["CLIPModel"]
    config.save_pretrained(folder)
    size = clip.vision_model.config.image_size
    processor = {"image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": size}, "resample": 3,
                 "do_center_crop": True, "crop_size": {"height": size, "width": size}, "do_rescale": True, "rescale_factor": 1 / 255,
                 "do_normalize": True, "image_mean": list(eye.MEAN), "image_std": list(eye.STD), "do_convert_rgb": True}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the stand-ins and the small LLaVA.")
    parser.add_argument("--work", type=Path, default=Path("runs/weights"), help="where half-finished training is kept")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--only", choices=("eye", "brain", "llava"))
    parser.add_argument("--eye-steps", type=int, default=EYE_STEPS)
    parser.add_argument("--brain-steps", type=int, default=BRAIN_STEPS)
    options = parser.parse_args()
    for part in (options.only,) if options.only else ("eye", "brain", "llava"):
        start, work, out = time.monotonic(), options.work / part, options.out / part
        print(f"{part}: training in {work}, to be exported to {out}", flush=True)
        if part == "eye":
            model, tokenizer = eye.train(work, options.eye_steps)
            export_eye(model, tokenizer, out)
            card = {"made as": "CLIP, contrastive, pictures and captions of the picture book", "steps": options.eye_steps, "seed": 0,
                    "pairs": options.eye_steps * 2 * eye.PAIRS}  # fmt: skip
        elif part == "brain":
            model, tokenizer = brain.train(work, options.brain_steps)
            save_language(model, out, dtype=PRECISION)
            tokenizer.save_pretrained(out)
            card = {"made as": "Llama, text only", "steps": options.brain_steps, "seed": 0, "records": options.brain_steps * brain.BATCH}
        else:
            card = llava.train(work, options.out, out)
        metrics = [json.loads(line)["loss"] for line in (work / "metrics.jsonl").read_text().splitlines()] if part != "llava" else []
        if metrics:
            card["loss"] = round(sum(metrics[-50:]) / len(metrics[-50:]), 4)
        write_card(out, card | {"minutes": round((time.monotonic() - start) / 60, 1), "machine": machine()})


if __name__ == "__main__":
    main()
