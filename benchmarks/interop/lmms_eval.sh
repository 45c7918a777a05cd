#!/usr/bin/env bash
# lmms-eval's llava_hf on our exported LLaVA, beside `minillava answer`: its tasks pope, scienceqa_img and scienceqa, on
# this project's rows in the columns of the hub's, as the hub's are not fetched. Greedy, float32, the same questions.
. benchmarks/interop/common.sh
export_model
cp -r data_samples/bench/coco "$home/bench"
cp -r data_samples/quiz "$home/quiz"
# llava_hf imports decord, which lmms-eval does not bring; lmms-eval imports a module that filelock 4 lacks.
install lmms-eval==0.7.3 decord==0.6.0 filelock==3.32.7
run <<'P'
import json
import os
from importlib.metadata import version
from pathlib import Path

import datasets
from lmms_eval import evaluator
from lmms_eval.models.simple.llava_hf import LlavaHf
from loguru import logger

logger.remove()
picture = datasets.Image()
rows = [json.loads(line) for line in Path("bench/pope.jsonl").read_text().splitlines()][:40]
pope = {
    "question_id": [str(row["question_id"]) for row in rows], "question": [row["text"] for row in rows],
    "answer": [row["label"] for row in rows], "image": [f"bench/images/{row['image']}" for row in rows],
}  # fmt: skip
problems = json.loads(Path("quiz/problems.json").read_text())
test = [(name, problems[name]) for name in json.loads(Path("quiz/pid_splits.json").read_text())["test"]]


def science(some):
    return {
        "question": [p["question"] for _, p in some], "choices": [p["choices"] for _, p in some],
        "answer": [p["answer"] for _, p in some], "hint": [p["hint"] for _, p in some],
        "image": [f"quiz/images/test/{name}/image.png" if p["image"] else None for name, p in some],
    }  # fmt: skip


def text(sample):
    """The question as the task writes it; it is the first of the request's arguments."""
    return next(value for value in sample["arguments"] if isinstance(value, str))


tables = {"pope": pope, "pope, without its last line": pope, "scienceqa_img": science([one for one in test if one[1]["image"]]), "scienceqa": science(test)}
asked = []
for task, table in tables.items():
    plain = datasets.Dataset.from_dict(table).cast_column("image", picture)
    with_bytes = [{"path": None, "bytes": Path(path).read_bytes()} if path else None for path in table["image"]]
    plain = plain.remove_columns("image").add_column("image", with_bytes, feature=picture)
    plain.to_parquet("rows.parquet")
    name, _, bare = task.partition(",")
    config = {"task": name, "dataset_path": "parquet", "dataset_name": None,
              "dataset_kwargs": {"data_files": {"test": "rows.parquet"}}}  # fmt: skip
    if bare:
        config["lmms_eval_specific_kwargs"] = {"default": {"pre_prompt": "", "post_prompt": ""}}
    model = LlavaHf(pretrained=os.environ["MODEL"], device="cpu", device_map="cpu", dtype="float32")
    found = evaluator.simple_evaluate(model=model, tasks=[config], batch_size=1, bootstrap_iters=0)
    scores = {key.partition(",")[0]: v for key, v in found["results"][name].items() if isinstance(v, float)}
    for sample in sorted(found["samples"][name], key=lambda sample: sample["doc_id"]):
        n = sample["doc_id"]
        asked.append({
            "task": task, "image": table["image"][n], "text": text(sample), "answer": sample["resps"][0][0],
            "target": sample["target"], "choices": len(table["choices"][n]) if "choices" in table else 0,
        })  # fmt: skip
    print(f"{task}: scores of lmms-eval:", {name: round(value, 4) for name, value in scores.items() if "stderr" not in name})
print(*(f"{name} {version(name)}" for name in ("lmms_eval", "transformers", "datasets")))
json.dump(asked, open("asked.json", "w"))
P
"$ours" - "$home" <<'P'
import json
import sys
from pathlib import Path

from minillava.chat import Chat
from minillava.judging.pope import read_yes_no
from minillava.judging.scienceqa import AnswerError, read_answer

home, chat = Path(sys.argv[1]), Chat("data_samples/weights/llava")
asked = json.loads((home / "asked.json").read_text())
for task, most in (("pope", 128), ("pope, without its last line", 128), ("scienceqa_img", 16)):
    rows, same, right, theirs = [row for row in asked if row["task"] == task], 0, 0, 0
    for row in rows:
        chat.look(home / row["image"])
        answer = chat.ask(row["text"], max_new_tokens=most).strip()
        same += answer == row["answer"].strip()
        theirs += answer.lower() == row["target"].lower()
        if "pope" in task:
            right += read_yes_no(answer) == row["target"]
        else:
            try:
                right += "ABCDE"[read_answer(answer, row["choices"])] == row["target"]
            except AnswerError:
                pass
    print(f"{task}: {same} of {len(rows)} answers equal to `chat`'s, such as {rows[0]['answer']!r}; right by their rule "
          f"{theirs}, by ours {right}")  # fmt: skip
rows = [row for row in asked if row["task"] == "scienceqa"]
shown = {row["answer"] for row in rows if row["image"]}
texts = [row["answer"] for row in rows if not row["image"]]
print(f"scienceqa: of {len(texts)} problems without a picture {texts.count('')} got no answer, and "
      f"{sum(text in shown for text in texts)} the answer to another problem, which has one")  # fmt: skip
P
