"""What ships of a real language model after an hour of seeing: W and LoRA for SmolLM2-135M-Instruct, and W's start.

benchmarks/results/smol-cpu.json has the run, and notebook 17 shows it. `make real` calls this:

    python -m minillava.standins.real runs/real/smollm2 --out runs/real   # projector.safetensors (the start), llava/
    minillava chat --weights runs/real/llava PICTURE
"""

import argparse
from pathlib import Path

from safetensors.torch import save_file

from minillava.data.tokenizer import load_tokenizer
from minillava.files import atomic_write, read_json
from minillava.judging.answers import vision_features
from minillava.model import Llava, load_projector
from minillava.model.formats.assemble import assemble, save_trained
from minillava.model.formats.chat_template import training_template
from minillava.model.formats.preparation import read_preparation
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.seeing import SHIPPED, SIZE
from minillava.standins.start import line_words, project_by_least_squares
from minillava.training import lora
from minillava.training.features import Features

VISION_TOWER = WEIGHTS / "vision_tower"


def start_w(model: Llava, tokenizer, boxes: int = 1200) -> None:
    """Set W by least squares from the boxes of so many training scenes."""
    some = scenes("train", boxes)
    values = vision_features(model, read_preparation(VISION_TOWER, SIZE), [draw(scene, SIZE) for scene in some])
    features = Features({f"{scene.id}.png": n for n, scene in enumerate(some)}, values)
    project_by_least_squares(model, tokenizer, some, features, line_words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("language_model", type=Path, help="a folder, such as `make real` makes")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model, tokenizer = assemble(VISION_TOWER, options.language_model, 0).eval(), load_tokenizer(options.language_model)
    start_w(model, tokenizer)
    with atomic_write(options.out / "projector.safetensors") as temporary:
        save_file({name: tensor.contiguous() for name, tensor in model.projector.state_dict().items()}, temporary)
    load_projector(model, SHIPPED / "projector.safetensors")
    lora.load_adapters(model, sorted(SHIPPED.glob("adapter-*.safetensors")))
    about = {"template": training_template(options.language_model).name, **read_json(SHIPPED / "card.json")}
    save_trained(model, tokenizer, VISION_TOWER, options.out / "llava", about)


if __name__ == "__main__":
    main()
