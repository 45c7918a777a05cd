# Sourced by the scripts of this folder, from the repository's root: what we make, and a throw-away home for the tool.
#   bash benchmarks/interop/trl.sh | tee benchmarks/results/interop/trl.txt
# PYTHON: ours (default: .venv/bin/python). MODEL: a folder of `minillava export --to hf` (default: the shipped LLaVA).
# VENV: where the tool is, or is to be, installed (default: a temporary folder).
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
ours=${PYTHON:-.venv/bin/python}
venv=${VENV:-$home/venv}
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HOME=$home/hub TMPDIR=$home

# The tool's packages, with their versions. On a CPU build of torch the torchvision of PyPI, made for CUDA, cannot be
# loaded, and transformers then fails; without it transformers works.
install() {
  if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 "$@" 2> "$home/pip.log" ||
      { tail -20 "$home/pip.log"; exit 1; }
    "$venv/bin/python" -c "import torchvision" 2> /dev/null || "$venv/bin/pip" uninstall -q -y torchvision 2> /dev/null
  fi
}

# Records of N pictures of the picture book in a form of `minillava generate`, in $home/made.
records() {
  "$ours" -m minillava generate --source picture-book --limit "$2" --out "$home/made" --format "$1" > "$home/log" 2>&1 ||
    { tail -20 "$home/log"; exit 1; }
}

# The shipped LLaVA as `transformers` loads it: $model.
export_model() {
  model=${MODEL:-$home/model}
  [ -d "$model" ] || "$ours" -m minillava export data_samples/weights/llava --to hf --out "$model" > "$home/log" 2>&1 ||
    { tail -20 "$home/log"; exit 1; }
  export MODEL=$model
}

# Run the tool's side, from $home; what it writes to stderr is shown only where it fails.
run() {
  cp /dev/stdin "$home/tool.py"
  model=$(realpath "${model:-$home}")
  (cd "$home" && MODEL=$model "$venv/bin/python" tool.py "$@" 2> "$home/log") || { tail -30 "$home/log"; exit 1; }
}
