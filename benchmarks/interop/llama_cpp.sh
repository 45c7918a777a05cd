#!/usr/bin/env bash
# llama.cpp, in the prebuilt wheel xllamacpp 2026.10.11549: 50 questions about 50 pictures to the LLaVA that ships, as
# `minillava export --to gguf` writes it, with the position table as it is and rolled by one. Greedy, on one thread.
# Expected: text as exact as the kernels; pictures lose the first patch (llama.cpp's issue 25814).
#   bash benchmarks/interop/llama_cpp.sh          writes benchmarks/results/interop/llama_cpp.json
set -euo pipefail
cd "$(dirname "$0")/../.."
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export OMP_NUM_THREADS=1
python=${PYTHON:-.venv/bin/python}
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check xllamacpp==2026.10.11549
"$python" -m pip install -q --disable-pip-version-check --no-deps --target "$home/site" gguf==0.19.0
for name in as-it-is rolled; do
  mkdir "$home/$name"
  PYTHONPATH="$PWD:$home/site" "$python" benchmarks/interop/ours.py "$home/$name" \
    --to gguf $(test $name = rolled && echo --roll-positions)
done
"$home/venv/bin/python" - "$home" <<'P'
import base64
import json
import sys
from importlib.metadata import version
from pathlib import Path

import xllamacpp

home, found = Path(sys.argv[1]), {"xllamacpp": version("xllamacpp"), "gguf": "0.19.0"}
for flash in ("DISABLED", "AUTO"):
    for name in ("as-it-is", "rolled"):
        asked = json.loads((home / name / "asked.json").read_text())
        p = xllamacpp.CommonParams()
        p.model.path, p.mmproj.path = str(home / name / "model/model.gguf"), str(home / name / "model/mmproj.gguf")
        p.use_jinja, p.warmup, p.n_ctx, p.n_parallel, p.cpuparams.n_threads, p.verbosity = True, False, 1024, 1, 1, 0
        p.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{flash}")
        server, differ = xllamacpp.Server(p), []
        for row in asked:
            data = base64.b64encode(Path(row["picture"]).read_bytes()).decode()
            picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
            message = {"role": "user", "content": [picture, {"type": "text", "text": row["question"]}]}
            reply = server.handle_chat_completions({"messages": [message], "temperature": 0, "max_tokens": 60})
            answer = reply["choices"][0]["message"]["content"].strip()
            if answer != row["answer"]:
                differ.append({"question": row["question"], "chat": row["answer"], "llama.cpp": answer})
        what = f"positions {name}, flash attention {flash.lower()}"
        found[what] = {"questions": len(asked), "equal": len(asked) - len(differ), "different": differ[:3]}
        print(f"{what}: {len(asked) - len(differ)} of {len(asked)} answers equal", flush=True)
out = Path("benchmarks/results/interop/llama_cpp.json")
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps(found, indent=1) + "\n")
P
