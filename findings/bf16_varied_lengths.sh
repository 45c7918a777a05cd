#!/usr/bin/env bash
# torch 2.13.0 on a CPU with bfloat16 in hardware: the memory of a process that trains 24 linear layers under autocast.
# Guess: bfloat16 needs less memory than float32, and of batches of varied lengths the longest one decides. Seen: with one
# length bfloat16 needs less; with varied lengths it needs several times as much as float32 does and grows for hundreds
# of steps. Lengths rounded up to a multiple of 512 bring it back. (oneDNN keeps what it made for each shape.)
set -euo pipefail
grep -qm1 -e avx512_bf16 -e amx_bf16 /proc/cpuinfo || { echo "no bfloat16 in hardware here: nothing measured"; exit 0; }
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.3.4
cat > "$home/train.py" <<'P'
import random
import sys

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
rng, kind = random.Random(0), sys.argv[2]
layers = nn.Sequential(*[nn.Linear(*((128, 384) if n % 2 == 0 else (384, 128))) for n in range(24)])
optimizer = torch.optim.SGD(layers.parameters(), lr=1e-4)


def resident():
    """Megabytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


before = resident()
for _ in range(240):
    varied = rng.randint(500, 4000)
    rows = {"one length": 4000, "varied": varied, "rounded": -(-varied // 512) * 512}[kind]
    with torch.autocast("cpu", torch.bfloat16, enabled=sys.argv[1] == "bfloat16"):
        loss = layers(torch.randn(rows, 128)).float().square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(round(resident() - before))
P
"$home/venv/bin/python" -c "import torch; print('torch', torch.__version__)"
declare -A grown
for setting in "float32/one length" "float32/varied" "bfloat16/one length" "bfloat16/varied" "bfloat16/rounded"; do
  grown[$setting]=$(OMP_NUM_THREADS=1 "$home/venv/bin/python" "$home/train.py" "${setting%/*}" "${setting#*/}")
  echo "$setting: ${grown[$setting]} MB more than before the first step"
done
[ "${grown[bfloat16/varied]}" -gt $((3 * grown[float32/varied])) ] &&
  [ "${grown[bfloat16/one length]}" -lt "${grown[float32/one length]}" ] &&
  [ $((3 * grown[bfloat16/rounded])) -lt "${grown[bfloat16/varied]}" ] || { echo "this is no longer so"; exit 1; }
echo "as seen: varied lengths cost bfloat16 $((grown[bfloat16/varied] / grown[float32/varied])) times float32's memory"
