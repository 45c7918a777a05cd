"""Write the small files of `data_samples/`: a dozen scenes with captions and boxes, and the records made from them.

Notable: these are the first scenes of the training split, so a test can make them again and compare.

    python -m minillava.experiments.samples
"""

import json
import shutil
import tempfile
import threading
from pathlib import Path

from minillava.asking.server import serve
from minillava.data.records import write_records
from minillava.data.scienceqa import SPLITS, write_problems
from minillava.datagen.generate import Settings, generate
from minillava.datagen.messages import TYPES
from minillava.datagen.sources import read_source
from minillava.datagen.teachers import OFFLINE, openai_teacher
from minillava.figures.data import gallery
from minillava.files import write_jsonl
from minillava.judging.bench import write_bench
from minillava.judging.pope import build_pope
from minillava.judging.rubric import RULES
from minillava.scales import WEIGHTS
from minillava.scenes.captions import caps_boxes
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.bench import SPLIT_OF, build
from minillava.standins.quiz import SKILLS, draw_quiz
from minillava.standins.records import caption_record, instruct
from minillava.standins.teacher import offline_reply

COUNT, BENCH, SIZE = 12, 4, 256


def write_samples(folder: Path) -> None:
    """Pictures, caps_boxes.jsonl, one record file a type, caption pairs, two benchmarks of four scenes with
    their pictures and yes-or-no questions, the judge's rubric, one problem of each skill and split of the science quiz, and recorded replies."""
    some = scenes("train", COUNT)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for scene in some:
        draw(scene, SIZE).save(folder / "pictures" / f"{scene.id}.png", optimize=True)
    write_jsonl([caps_boxes(s) for s in some], folder / "caps_boxes.jsonl")
    for kind in TYPES:
        write_records([instruct(s, kind) for s in some], folder / f"{kind}.json")
    write_records([caption_record(s) for s in some], folder / "caption.json")
    for name, split in SPLIT_OF.items():
        write_bench(build(name, BENCH), folder / "bench" / name)
        (folder / "bench" / name / "images").mkdir(exist_ok=True)
        write_jsonl(build_pope([caps_boxes(s) for s in scenes(split, BENCH)]), folder / "bench" / name / "pope.jsonl")
        for scene in scenes(split, BENCH):
            draw(scene, SIZE).save(folder / "bench" / name / "images" / f"{scene.id}.png", optimize=True)
    (folder / "bench" / "rule.json").write_text(json.dumps(RULES, indent=1) + "\n")
    quiz = folder / "quiz"
    write_problems(
        [p for split in SPLITS for p in draw_quiz(split, len(SKILLS), quiz / "images" / split, SIZE // 2)], quiz
    )
    gallery().savefig(folder / "gallery.png")
    write_replies(folder)


def write_replies(folder: Path) -> None:
    """`replies.jsonl`: the replies to all requests of section 3 about the sample pictures, to be replayed without a key.

    Asked with the real client, of the offline teacher behind a local server.
    """
    server = serve(offline_reply, model=OFFLINE)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        teacher = openai_teacher(OFFLINE, f"http://127.0.0.1:{server.server_port}/v1")
        pictures, _ = read_source(folder / "caps_boxes.jsonl", folder / "pictures")
        with tempfile.TemporaryDirectory() as out:
            generate(
                pictures, teacher, Path(out), Settings(), concurrency=1, progress=False
            )  # one by one: in this order
            shutil.copy(Path(out) / "replies.jsonl", folder / "replies.jsonl")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    write_samples(WEIGHTS.parent)
