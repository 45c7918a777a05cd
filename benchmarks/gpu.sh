#!/usr/bin/env bash
# All that this project wants to know from a GPU, in one command of at most 9 minutes on a card of 80 GB:
#
#   right   is it the same on a GPU?        equalities in bf16 and fp16      80 s   gpu-right.json
#   fast    how fast, how much memory?      0.5B and 7B, by parts           170 s   gpu-fast.json
#   seen    what does a model learn there?  SmolLM2-135M, three seeds       290 s   gpu-seen.json
#
#   bash benchmarks/gpu.sh                       # all three; the results are in benchmarks/results/
#   bash benchmarks/gpu.sh right fast            # some of them
#   bash benchmarks/gpu.sh --dry --out runs/dry  # all at mock size, on a CPU too, in two minutes: to see that it runs
#
# Each figure is written as it ends, so the same command goes on after an interruption. It needs torch 2.11 and
# transformers 5.17 or later (PYTHON=... names another Python). SMOL=DIR is the language model of `seen` (`make real`).
set -u
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3} out=benchmarks/results dry="" parts="" failed=0
while [ $# -gt 0 ]; do
  case $1 in
    --dry) dry=--dry ;;
    --out) out=$2 && shift ;;
    right | fast | seen) parts="$parts $1" ;;
    *) echo "gpu.sh: $1: it knows right, fast, seen, --dry and --out DIR" >&2 && exit 2 ;;
  esac
  shift
done
mkdir -p "$out" || exit 1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True

# part, seconds after which nothing new begins, seconds after which it is ended, other options
measure() {
  case "${parts:- right fast seen}" in *" $1"*) ;; *) return ;; esac
  echo "== $1" && begun=$SECONDS
  timeout -k 5 "$3" "$python" "benchmarks/gpu_$1.py" --json "$out/gpu-$1.json" --seconds "$2" $dry "${@:4}" ||
    { failed=1 && echo "$1: ended with status $?"; }
  echo "== $1: $((SECONDS - begun)) s"
}

measure right 70 90
measure fast 130 170
measure seen 265 290 --out "$out/gpu-seen" ${SMOL:+--language-model "$SMOL"}
exit $failed
