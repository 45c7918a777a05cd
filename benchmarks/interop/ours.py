"""This project's side of a comparison with another tool: an export, questions about pictures, and `chat`'s answers.

    python benchmarks/interop/ours.py FOLDER --count 50 --to gguf --roll-positions

Writes FOLDER/model, the export of the LLaVA that ships, FOLDER/pictures of held-out scenes, and FOLDER/asked.json: one
picture and question per row, with the greedy answer of at most 60 tokens, and the one to the same question asked again
in the same conversation. The pictures are squares of the vision tower's size,
so that no other way of resizing or cropping them plays a part.
"""

import argparse
from pathlib import Path

from minillava import scales
from minillava.chat import Chat
from minillava.cli import main
from minillava.data.images import crop
from minillava.files import write_json
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.scenes.questions import balanced_questions

WEIGHTS = scales.WEIGHTS / "llava"

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=50, help="questions, each about another picture where possible")
    options, more = parser.parse_known_args()  # what it does not know is for `minillava export`
    if status := main(["export", str(WEIGHTS), "--out", str(options.folder / "model"), *more]):
        raise SystemExit(status)
    chat, rows = Chat(WEIGHTS), []
    (options.folder / "pictures").mkdir()
    asked = balanced_questions(scenes("dev", 400), -(-options.count // 7))  # of each of 7 kinds
    for n in range(options.count):
        scene, question = asked[n * len(asked) // options.count]
        path = options.folder / "pictures" / f"{n}.png"
        crop(draw(scene), chat.preparation.size).save(path)
        chat.look(path)
        answer, again = (chat.ask(question.text, max_new_tokens=60) for _ in range(2))
        rows.append({"picture": str(path), "question": question.text, "answer": answer, "again": again})
    write_json(options.folder / "asked.json", rows)
