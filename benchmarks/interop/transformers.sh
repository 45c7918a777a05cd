#!/usr/bin/env bash
# transformers 5.23.0 and 4.57.6: pipeline("image-text-to-text") on the LLaVA that ships, as `minillava export --to hf`
# writes it: 20 questions and a second one in the same conversation, beside `chat`. Greedy, on one thread, in float32.
# Expected: equal answers, no stop in a text, and no doubled one in the next turn.
#   bash benchmarks/interop/transformers.sh       writes benchmarks/results/interop/transformers.json
set -euo pipefail
cd "$(dirname "$0")/../.."
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
PYTHONPATH=$PWD "${PYTHON:-.venv/bin/python}" benchmarks/interop/ours.py "$home" --count 20 --to hf
for version in 5.23.0 4.57.6; do
  rm -rf "$home/venv"
  python3 -m venv "$home/venv"
  "$home/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==$version pillow==12.0.0
  "$home/venv/bin/python" - "$home" 2> "$home/said.txt" <<'P' || { tail -5 "$home/said.txt"; exit 1; }
import json
import sys
from pathlib import Path

import torch
import transformers

home, out = Path(sys.argv[1]), Path("benchmarks/results/interop/transformers.json")
pipe = transformers.pipeline("image-text-to-text", model=str(home / "model"), dtype=torch.float32)
asked, differ, doubled = json.loads((home / "asked.json").read_text()), {"first": [], "second": []}, 0
for row in asked:
    words = {"type": "text", "text": row["question"]}
    talk = [{"role": "user", "content": [{"type": "image", "url": row["picture"]}, words]}]
    for turn, expected in zip(differ, (row["answer"], row["again"])):
        answer = pipe(text=talk, max_new_tokens=60, do_sample=False, return_full_text=False)[0]["generated_text"]
        if answer != expected:
            differ[turn].append({"question": row["question"], "chat": expected, "transformers": answer})
        talk.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        talk.append({"role": "user", "content": [words]})
    doubled += "######" in pipe.processor.apply_chat_template(talk, add_generation_prompt=True)
found = json.loads(out.read_text()) if out.exists() else {}
found[transformers.__version__] = {"questions": len(asked), "conversations with a doubled stop": doubled} | {
    f"{turn} answer": {"equal": len(asked) - len(rows), "different": rows[:3]} for turn, rows in differ.items()
}
print(transformers.__version__, *(f"{turn} answer: {len(asked) - len(rows)} of {len(asked)} equal" for turn, rows in differ.items()))
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps(found, indent=1) + "\n")
P
done
