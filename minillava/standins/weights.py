"""`make weights`: train and export the stand-ins for CLIP and Vicuna, then the small LLaVA of `minillava chat`.

The folders have the published formats: `transformers.CLIPModel` and `LlamaForCausalLM` load them like the real ones. A
run that was stopped resumes. Every folder gets a card.json (recipe, seed, time, machine, figures), and gates.jsonl with
figures taken during training. The figures that count are taken at the end (`standins/gates.py`).

    python -m minillava.standins.weights            # hours; a card says how many
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import CLIPConfig

from minillava.data.images import Preparation
from minillava.data.samples import encode
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.messages import TYPES
from minillava.files import read_jsonl, write_json, write_jsonl
from minillava.machine import describe_machine, loss_reporter, progress_bar
from minillava.model import load_vision, save_language
from minillava.model.formats.assemble import assemble, save_trained
from minillava.model.formats.preparation import read_preparation, write_preparation
from minillava.model.formats.published import vision_published
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw_file
from minillava.scenes.world import Scene
from minillava.standins import language_model, vision_tower
from minillava.standins.evaluation import with_evaluation
from minillava.standins.gates import linear_probe, picture_accuracy, text_accuracy
from minillava.standins.records import caption_record, in_turns, instruction_record, question_record
from minillava.standins.text_lessons import COURSES
from minillava.training.checkpoints import training_seconds
from minillava.training.features import Features
from minillava.training.stages import train_stage

VISION_STEPS, LANGUAGE_STEPS = 3000, 4800
SMALL_WIDTH = 64  # of the smaller language model, for Table 8's comparison of language models
STORED_DTYPE = torch.float16  # loaded as float32
PICTURES = 48_000
RECORDS_PER_PICTURE = {"conversation": 0.5, "detail": 0.25, "complex": 0.75}  # records of each type, per picture
TURNS = 2  # questions per record of stage 2
# The second part of stage 2: for half of the pictures three single questions of these kinds, for a quarter a record.
ASKED, ASKED_FIRST = {"existence": 3, "count": 6, "relation": 3, "odd": 5, "colour": 1, "side": 1, "place": 0.3}, 0.65
ASKED_ODD = ASKED | {"odd": 20}  # where something is odd: two scenes in three have nothing, and the model would say so
SETTINGS = {
    "stage 1": {"batch_size": 64, "lr": 4e-3},
    "stage 2": {"batch_size": 48, "lr": 2e-3, "lr_muon": 2e-3},
    "stage 2, single questions": {"batch_size": 64, "lr": 1.5e-3, "lr_muon": 1.5e-3},
}
PARTS = ("vision_tower", "language_model", "language_model_small", "llava")


def export_vision_tower(clip: vision_tower.Clip, tokenizer, folder: Path) -> None:
    """Write a CLIPModel folder: both towers, their projections, the image processor's settings, the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, tensor in clip.state_dict().items():
        name = name.replace("vision_model.layers.", "vision_model.encoder.layers.")
        tensors[name] = tensor.detach().to(STORED_DTYPE).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    vision = {k: v for k, v in vision_published(clip.vision_model.config).items() if k != "architectures"}
    config = CLIPConfig(
        text_config=clip.text_model.config.to_dict(), vision_config=vision, projection_dim=vision_tower.PROJECTION_DIM
    )
    config.architectures = ["CLIPModel"]
    config.save_pretrained(folder)
    size = clip.vision_model.config.image_size
    write_preparation(Preparation(size, vision_tower.MEAN, vision_tower.STD), folder)
    tokenizer.save_pretrained(folder)


def picture_features(model, preparation: Preparation, some: list[Scene], folder: Path) -> Features:
    """The frozen features of these scenes, computed once and kept in `folder` with the drawn pictures."""
    pictures, names = folder / "pictures", [f"{scene.id}.png" for scene in some]
    for scene, name in zip(tqdm(some, desc="draw", unit="picture"), names):
        draw_file(scene, pictures / name, 96)
    with tqdm(total=len(some), desc="see", unit="picture") as bar:

        def update(done, _):
            bar.update(done - bar.n)

        return Features.cached(folder / "train.jsonl", model, pictures, names, preparation, update)


def train_llava(work: Path, weights: Path, out: Path, pictures: int = PICTURES) -> dict:
    """Train both stages in `work` and save the model to `out`. Returns its card, with exact match on the dev split."""
    vision, language = weights / "vision_tower", weights / "language_model"
    model, tokenizer = assemble(vision, language, seed=0), load_tokenizer(language)
    preparation, train = read_preparation(vision, model.config.vision.image_size), scenes("train", pictures)
    features = picture_features(model, preparation, train, work)
    counts = {kind: round(pictures * share) for kind, share in RECORDS_PER_PICTURE.items()}
    told = [instruction_record(s, kind) for kind in TYPES for s in train[: counts[kind]]]
    asked = [
        question_record(s, n, ASKED_ODD if s.odd else ASKED, ASKED_FIRST)
        for s in train[-pictures // 2 :]
        for n in range(3)
    ]
    asked += [instruction_record(s, TYPES[n % 3], 1) for n, s in enumerate(train[-pictures // 4 :])]
    lessons = ([caption_record(s) for s in train[: pictures // 4]], told, asked)
    steps = {}
    for (name, settings), records in zip(SETTINGS.items(), lessons, strict=True):
        samples = [encode(part, CHAT, tokenizer) for record in records for part in in_turns(record, TURNS)]
        folder, stage = work / name.replace(", ", "-").replace(" ", "-"), 1 if name == "stage 1" else 2
        steps[name] = count = len(samples) // settings["batch_size"]
        with progress_bar(count, "step", name) as progress:
            report = loss_reporter(progress)
            if stage == 2:
                report = with_evaluation(
                    report, model, partial(picture_accuracy, model, tokenizer, preparation), folder
                )
            train_stage(model, stage, samples, features, folder, steps=count, progress=report, **settings)
    figures = picture_accuracy(model.eval(), tokenizer, preparation, per_kind=80)
    other_order = picture_accuracy(model, tokenizer, preparation, per_kind=80, after=True)
    figures["picture after the question"] = other_order["picture"]  # Eq. 2 allows both
    about = {"template": CHAT.name, "trained on": f"{pictures} picture-book scenes"}
    save_trained(model, tokenizer, vision, out, about, STORED_DTYPE)
    made = "LLaVA: stage 1, stage 2 in two parts, from the shipped vision tower and language model"
    recipe = {"made as": made, "pictures": pictures, "steps": steps}
    return {"recipe": recipe, "figures": {"exact match, dev split, per cent": figures}}


def make_vision_tower(work: Path, out: Path, steps: int) -> dict:
    """Train and export the vision tower. Returns its card."""
    size = vision_tower.TINY_CLIP.image_size
    preparation = Preparation(size, vision_tower.MEAN, vision_tower.STD)

    def measure(clip):  # during training, with a smaller probe than at the end
        return {f"layer {k}": linear_probe(clip.vision_model, preparation, k, train=1500, test=400) for k in (-1, -2)}

    clip, tokenizer = vision_tower.train(work, steps, measure)
    export_vision_tower(clip, tokenizer, out)
    made = "CLIP, contrastive, pictures and captions of the picture book, and patches and names of things"
    recipe = {"made as": made, "steps": steps, "pairs": steps * 2 * vision_tower.SCENES_PER_BATCH}
    probed = {f"layer {k}": linear_probe(load_vision(out), preparation, k) for k in (-1, -2, -3)}
    return {"recipe": recipe, "figures": {"linear probe on an object's patches, dev split, per cent": probed}}


def make_language_model(work: Path, out: Path, steps: int, width: int) -> dict:
    """Train and export a language model of this width. Returns its card."""
    model, tokenizer = language_model.train(work, steps, partial(text_accuracy, per_kind=10), width)
    save_language(model, out, STORED_DTYPE, CHAT.name)
    tokenizer.save_pretrained(out)
    recipe = {
        "made as": "Llama, text only, questions and descriptions",
        "steps": {"first": steps, "second": language_model.SECOND_STEPS} | {k: n for k, (n, _) in COURSES.items()},
    }
    answers = text_accuracy(model.eval(), tokenizer)
    return {"recipe": recipe, "figures": {"exact match on scenes told in words, dev split, per cent": answers}}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the stand-ins and the small LLaVA.")
    parser.add_argument("--work", type=Path, default=Path("runs/weights"), help="where unfinished training is kept")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--vision-steps", type=int, default=VISION_STEPS)
    parser.add_argument("--language-steps", type=int, default=LANGUAGE_STEPS)
    options = parser.parse_args()
    for part in (options.only,) if options.only else PARTS:
        work, out = options.work / part, options.out / part
        print(f"{part}: training in {work}, to be exported to {out}", flush=True)
        if part == "vision_tower":
            card = make_vision_tower(work, out, options.vision_steps)
        elif part == "llava":
            card = train_llava(work, options.out, out)
        else:
            width = SMALL_WIDTH if part == "language_model_small" else 128
            card = make_language_model(work, out, options.language_steps, width)
        rows = []
        for path in sorted(work.glob("**/gates.jsonl")):  # one per phase of training
            before = rows[-1]["step"] if rows else 0
            rows += [row | {"step": before + row["step"]} for row in read_jsonl(path)]
        write_jsonl(rows, out / "gates.jsonl")
        seconds = sum(training_seconds(path.parent) for path in sorted(work.glob("**/checkpoints")))
        card |= {"seed": 0, "minutes": round(seconds / 60, 1), "machine": describe_machine()}
        write_json(out / "card.json", card)


if __name__ == "__main__":
    main()
