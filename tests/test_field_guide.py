"""The field guide: what holds each of its rows exists, and every surprise that has a script is in it."""

import re

import pytest

from minillava.scales import WEIGHTS

ROOT = WEIGHTS.parents[1]
GUIDE = ROOT / "docs/field-guide.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in GUIDE.read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| you would"))
]
FILE = re.compile(r"`((?:findings|benchmarks|tests(?:_browser)?|minillava)/[\w./-]+)`")


def shown(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_a_row_has_all_its_cells_and_what_holds_it_is_there(row):
    assert len(row) == 5 and all(row)
    assert re.search(r"\d", row[2]), "which version?"
    named = FILE.findall(row[4])
    assert named or "LOG.md" in row[4]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_finding_is_in_the_guide_and_in_the_list_of_findings():
    guide, listed = GUIDE.read_text(encoding="utf-8"), (ROOT / "findings/README.md").read_text(encoding="utf-8")
    for path in (ROOT / "findings").glob("*.sh"):
        assert shown(path) in guide and f"`{path.name}`" in listed, path.name


def test_the_guide_leads_to_each_of_its_sections():
    text = GUIDE.read_text(encoding="utf-8")
    anchors = {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in re.findall(r"^## (.+)$", text, re.M)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) == anchors
