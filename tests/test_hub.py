"""The table of what the hub holds, and both real scales from the first cell to an answer, from a stand-in that serves it.

Without the packages of the extra "real" only `colab` runs.
"""

import fnmatch
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in import HAS_SENTENCEPIECE, commit, datasets, models, stand_in

from minillava import cli, scales
from minillava.course.dial import PROJECTORS
from minillava.fetch.hub import HUB_DATASETS
from minillava.fetch.listing import HUB, weight_bytes

ROOT = Path(__file__).parents[1]
OWNERS = sorted({id.partition("/")[0] for id in HUB})
# openai/... is also the name of models behind an API, so of that owner only CLIP.
NAMED = re.compile(rf"\b(?:openai(?=/clip)|{'|'.join(o for o in OWNERS if o != 'openai')})/[A-Za-z0-9][\w.-]*\w")
needs_sentencepiece = pytest.mark.skipif(not HAS_SENTENCEPIECE, reason="the extra real is not installed")


def named_ids():
    """Every hub id in the texts of the repository, the tests apart."""
    paths = [p for p in ROOT.rglob("*") if p.suffix in (".py", ".md", ".ipynb", ".toml") and p.is_file()]
    paths = [p for p in paths if not {".venv", "tests", "runs"} & {*p.relative_to(ROOT).parts}]
    return {id for path in paths for id in NAMED.findall(path.read_text(encoding="utf-8"))}


def test_every_hub_id_that_the_project_names_is_in_the_table():
    of_the_hub = [scale for scale in scales.REAL_SCALES.values() if scale is not scales.SMOL]
    used = {part for scale in of_the_hub for part in (scale.vision_tower, scale.language_model)}
    used |= {*PROJECTORS.values()} | {dataset.repo for dataset in HUB_DATASETS.values()}
    found = named_ids()
    assert used <= found and found <= HUB.keys(), found - HUB.keys()


def test_a_row_says_what_is_there_where_that_was_read_and_what_was_not_seen():
    for id, row in HUB.items():
        assert row["kind"] in ("model", "dataset") and re.fullmatch("[0-9a-f]{7,40}", row["revision"]), id
        assert row["licence"] and row["layout"] and row["read"] and row["not_seen"] and row["files"], id
        for size in row["files"].values():
            assert [*size] in (["bytes"], ["about"]) and (size.get("about", 0) is None or min(size.values()) >= 0), id
        assert row["kind"] == "dataset" or row["configs"]["config.json"]["model_type"], id
    for dataset in HUB_DATASETS.values():
        names = HUB[dataset.repo]["files"]
        assert all(len(fnmatch.filter(names, pattern)) == 1 for pattern in dataset.files.values())


def test_cost_says_what_a_real_scale_downloads_and_under_which_licence(capsys):
    assert weight_bytes(scales.COLAB.vision_tower) == 598_641_023 and weight_bytes(PROJECTORS["full-7b"]) == 8_400_000
    assert weight_bytes(scales.FULL_13B.vision_tower) == 1_710_540_580  # the safetensors, not the pickle beside it
    cli.main(["cost", "--scale", "full-13b"])
    said = capsys.readouterr().out
    assert "lmsys/vicuna-13b-v1.3, 26 GB, licence: non-commercial" in said and "1.71 GB" in said


# from the stand-in

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from minillava import cli
from minillava.course.dial import dial
from minillava.fetch import hub
from PIL import Image

torch.set_num_threads(1)
Real, url, name = hub.Endpoints, sys.argv[1], sys.argv[2]
hub.Endpoints = lambda **more: Real(url, f"{url}/coco", **more)
picture, asked = Image.new("RGB", (90, 60), "red"), "What is in this picture?"

def answer(scale):
    chat = scale.chat()
    chat.look(picture)
    return chat.ask(asked, max_new_tokens=4), chat.about["trained on"]

scale = dial(name)
print("before:", *answer(scale))
if sys.argv[3:]:
    sys.exit()
for source, count in (("pretrain", 12), ("instruct", 12)):
    cli.main(["fetch", source, "--limit", str(count), "--out", "data"])
cli.main(["train", "data", "--scale", scale.name, "--out", "out", "--batch", "6", "--epochs", "1"])
assert len(list(Path("out/stage2").glob("*"))) > 1
print("after:", *answer(dial(name, weights="out/model")))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with stand_in(models(datasets(tmp_path_factory.mktemp("hub")))) as server:
        yield server


def run(hub, folder, script, *arguments):
    """Run a script in a fresh process whose hub is the stand-in. Returns what it printed, and the paths it asked for."""
    hub.asked.clear()
    more = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "0"}
    more |= {"MINILLAVA_DATA": str(folder / "fetched"), "CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_OFFLINE": "1"}
    command = [sys.executable, "-c", script, hub.url, *arguments]
    done = subprocess.run(command, env=os.environ | more, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout, {path for path, _ in hub.asked}


@pytest.mark.parametrize(
    "name, scale",
    [
        ("colab", scales.COLAB),
        pytest.param("full", scales.FULL_7B, marks=needs_sentencepiece),
        pytest.param("full-13b", scales.FULL_13B, marks=needs_sentencepiece),
    ],
)
def test_a_real_scale_runs_from_the_dial_to_a_step_of_stage_2_and_an_answer(hub, tmp_path, name, scale):
    said, asked = run(hub, tmp_path, SCRIPT, name, *(["talk only"] if name == "full-13b" else []))
    assert f"scale {scale.name}" in said and re.search(r"^before:.*W: ", said, re.M)
    if name != "full-13b":
        assert "stage 2: 12 samples, 2 steps of 6" in said and re.search(
            r"^after:.*stage 2: data, 12 records", said, re.M
        )
    for part in (scale.vision_tower, scale.language_model):
        files = HUB[part]["files"]
        fetched = {path.rpartition("/")[2] for path in asked if path.startswith(f"/{part}/resolve/")}
        weights = [file for file in files if file.endswith(".safetensors")] or [
            file for file in files if file.startswith("pytorch_model")
        ]
        assert {*weights, "config.json"} <= fetched <= files.keys()
        assert not [file for file in fetched - {*weights} if not file.endswith((".json", ".txt", ".model"))]


REVISION = """
import sys
from minillava import cli
from minillava.errors import UserError
from minillava.model import find_checkpoint, load_language, load_vision

id, stem = sys.argv[2], "model-00001-of-00001"
for source in (id, id + "@refs/pr/4", id + "@main"):
    model, folder = load_language(source), find_checkpoint(source)
    print(source, model.origin, float(model.norm.weight[0]), sorted(path.suffix for path in folder.glob("*model*")), folder.name)
try:
    load_language(id + "@nothing")
except UserError as error:
    print(error)
"""


@needs_sentencepiece
def test_an_id_may_name_a_revision_and_safetensors_are_taken_where_a_revision_has_them(hub, tmp_path):
    import torch
    from safetensors.torch import save_file

    id = scales.FULL_7B.language_model
    other = hub.root / f"{id}@refs_pr_4"
    other.mkdir(exist_ok=True)
    tensors = {}
    for shard in sorted((hub.root / id).glob("*.bin")):
        tensors |= torch.load(shard)
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], 7.0)
    save_file(tensors, other / "model.safetensors")
    (other / "pytorch_model.bin").write_text("not fetched")
    (other / "onnx").mkdir()
    (other / "onnx" / "config.json").write_text("not fetched either")
    (other / "config.json").write_text((hub.root / id / "config.json").read_text())
    said, asked = run(hub, tmp_path, REVISION, id)
    main, pull, again, nothing = said.splitlines()
    assert main.split()[2] == "1.0" and "safetensors" not in main and main.endswith(commit("main"))
    assert pull.split()[:3] == [f"{id}@refs/pr/4", f"{id}@refs/pr/4", "7.0"] and pull.endswith(commit("refs/pr/4"))
    assert ".bin" not in pull and not [path for path in asked if commit("refs/pr/4") in path and path.endswith(".bin")]
    assert not [path for path in asked if "onnx" in path]
    assert again.split()[2:] == main.split()[2:]
    assert nothing.startswith(f"{id}@nothing: no such folder here, and as a hub id neither in the cache")


JUDGED = """
import sys

from minillava.model import CheckpointError, load_llava

try:
    load_llava(sys.argv[2])
except CheckpointError as error:
    print(error)
"""


def test_a_model_that_cannot_be_loaded_is_refused_before_its_weights_are_fetched(hub, tmp_path):
    folder = hub.root / "someone" / "llava-next"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llava_next", "text_config": {}, "vision_config": {}})
    )
    (folder / "model.safetensors").write_text("14 GB")
    said, asked = run(hub, tmp_path, JUDGED, "someone/llava-next")
    assert "llava_next" in said and not [path for path in asked if path.endswith(".safetensors")]
