"""The paper's figures, written a second time as Markdown tables and numbers, equal those of `minillava.paper`."""

import dataclasses
import re
import runpy

import pytest

from minillava import later, paper

TABLE_4 = """
| Training data | Conv | Detail | Complex | All |
| Full data | 83.1 | 75.3 | 96.5 | 85.1 |
| Detail + Complex | 81.5 (-1.6) | 73.3 (-2.0) | 90.8 (-5.7) | 81.9 (-3.2) |
| Conv + 5% Detail + 10% Complex | 81.0 (-2.1) | 68.4 (-7.1) | 91.5 (-5.0) | 80.5 (-4.4) |
| Conversation | 76.5 (-6.6) | 59.8 (-16.2) | 84.9 (-12.4) | 73.8 (-11.3) |
| No Instruction Tuning | 22.0 (-61.1) | 24.0 (-51.3) | 18.5 (-78.0) | 21.5 (-63.6) |
"""
TABLE_5 = """
| | Conv | Detail | Complex | All |
| OpenFlamingo | 19.3+-0.5 | 19.0+-0.5 | 19.1+-0.7 | 19.1+-0.4 |
| BLIP-2 | 54.6+-1.4 | 29.1+-1.2 | 32.9+-0.7 | 38.1+-1.0 |
| LLaVA | 57.3+-1.9 | 52.5+-6.3 | 81.7+-1.8 | 67.3+-2.0 |
| LLaVA (dagger) | 58.8+-0.6 | 49.2+-0.8 | 81.4+-0.3 | 66.7+-0.3 |
"""
TABLE_7 = """
| Method | NAT | SOC | LAN | TXT | IMG | NO | G1-6 | G7-12 | Avg |
| Human | 90.23 | 84.97 | 87.48 | 89.60 | 87.50 | 88.10 | 91.59 | 82.42 | 88.40 |
| GPT-3.5 | 74.64 | 69.74 | 76.00 | 74.44 | 67.28 | 77.42 | 76.80 | 68.89 | 73.97 |
| GPT-3.5 w/ CoT | 75.44 | 70.87 | 78.09 | 74.68 | 67.43 | 79.93 | 78.23 | 69.68 | 75.17 |
| LLaMA-Adapter | 84.37 | 88.30 | 84.36 | 83.72 | 80.32 | 86.90 | 85.83 | 84.05 | 85.19 |
| MM-CoT Base | 87.52 | 77.17 | 85.82 | 87.88 | 82.90 | 86.83 | 84.65 | 85.37 | 84.91 |
| MM-CoT Large | 95.91 | 82.00 | 90.82 | 95.26 | 88.80 | 92.89 | 92.44 | 90.31 | 91.68 |
| GPT-4 (text only) | 84.06 | 73.45 | 87.36 | 81.87 | 70.75 | 90.73 | 84.69 | 79.10 | 82.69 |
| LLaVA | 90.36 | 95.95 | 88.00 | 89.49 | 88.00 | 90.66 | 90.93 | 90.90 | 90.92 |
| LLaVA+GPT-4 (complement) | 90.36 | 95.50 | 88.55 | 89.05 | 87.80 | 91.08 | 92.22 | 88.73 | 90.97 |
| LLaVA+GPT-4 (judge) | 91.56 | 96.74 | 91.09 | 90.62 | 88.99 | 93.52 | 92.73 | 92.16 | 92.53 |
"""
TABLE_8 = """
| Variant | Avg |
| Best variant | 90.92 |
| Last layer | 89.96 (-0.96) |
| Answer first | 89.77 (-1.15) |
| No stage 1 | 85.81 (-5.11) |
| 7B | 89.84 (-1.08) |
"""
EXPECTED = {"Table 4": TABLE_4, "Table 5": TABLE_5, "Table 7": TABLE_7, "Table 8": TABLE_8}
GROUPS = ("IDENTITY", "STRUCTURE", "DATA", "ARCHITECTURE", "JUDGE", "EQUATIONS")


def cells(markdown):
    """A Markdown table -> its columns, and {(row, column): the numbers in that cell}."""
    columns, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in markdown.strip().split("\n"))
    numbers = {
        (row[0], c): [float(x) for x in re.findall(r"(?<!\d)-?\d+\.\d+", text.replace("+-", " "))]
        for row in rows
        for c, text in zip(columns[1:], row[1:], strict=True)
    }
    return tuple(columns[1:]), numbers


def values(facts):
    return {name: fact.value for name, fact in facts.items()}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_cell_is_the_papers(name):
    table, (columns, expected) = paper.TABLES[name], cells(EXPECTED[name])
    assert table.columns == columns
    assert [*table.rows] == [*dict.fromkeys(row for row, _ in expected)]
    for (row, column), numbers in expected.items():
        value = table.value(row, column)
        got = [*value] if isinstance(value, tuple) else [value]
        assert got + ([table.delta(row, column)] if row in table.deltas else []) == numbers, (row, column)


def test_every_row_has_a_value_in_every_column():
    assert {name: (len(table.rows), len(table.columns)) for name, table in paper.TABLES.items()} == {
        "Table 4": (5, 4),
        "Table 5": (4, 4),
        "Table 7": (10, 9),
        "Table 8": (5, 1),
    }
    for table in paper.TABLES.values():
        for row in [*table.rows.values(), *table.deltas.values()]:
            assert len(row) == len(table.columns)
        assert set(table.deltas) <= set(table.rows)


def test_averages_lie_between_their_parts():
    for row in paper.TABLE_7.rows:
        for parts in (("NAT", "SOC", "LAN"), ("G1-6", "G7-12")):
            scores = [paper.TABLE_7.value(row, part) for part in parts]
            assert min(scores) <= paper.TABLE_7.value(row, "Avg") <= max(scores), row


def test_unknown_names_say_which_exist():
    with pytest.raises(KeyError, match="Detail \\+ Complex.*No Instruction Tuning"):
        paper.TABLE_4.value("Detail", "All")
    with pytest.raises(KeyError, match="'Conv', 'Detail', 'Complex', 'All'"):
        paper.TABLE_4.value("Full data", "Avg")
    with pytest.raises(KeyError, match="'Table 4', 'Table 5', 'Table 7', 'Table 8'"):
        paper.TABLES["Table 6"]
    with pytest.raises(KeyError, match="'Detail \\+ Complex'"):
        paper.TABLE_4.delta("Full data", "All")  # the first row has no difference to itself


def test_four_printed_differences_of_table_4_do_not_follow_from_its_scores():
    assert paper.TABLE_4.mismatches() == [
        ("Conv + 5% Detail + 10% Complex", "Detail", -7.1, -6.9),
        ("Conv + 5% Detail + 10% Complex", "All", -4.4, -4.6),
        ("Conversation", "Detail", -16.2, -15.5),
        ("Conversation", "Complex", -12.4, -11.6),
    ]
    assert paper.TABLE_8.mismatches() == []


def test_mismatches_are_recomputed_from_the_scores():
    rows = paper.Named(paper.TABLE_8.rows | {"7B": (89.00,)})
    assert dataclasses.replace(paper.TABLE_8, rows=rows).mismatches() == [("7B", "Avg", -1.08, -1.92)]


@pytest.mark.parametrize(
    "name, data, samples, epochs, trainable, rate, batch, per_gpu, hours, steps",
    [
        ("stage 1", "CC-595K", 595_375, 1, ("W",), 0.002, 128, 16, 4, 4651),
        ("stage 2", "Instruct-158K", 158_000, 3, ("W", "LLM"), 0.00002, 32, 4, 10, 14_812),
        ("ScienceQA", "ScienceQA train", 12_726, 12, ("W", "LLM"), 0.00002, 32, 4, 4, 4772),
    ],
)
def test_recipes(name, data, samples, epochs, trainable, rate, batch, per_gpu, hours, steps):
    r = paper.RECIPES[name]
    assert (r.data, r.samples, r.epochs, r.trainable) == (data, samples, epochs, trainable)
    assert (r.learning_rate, r.global_batch, r.per_gpu_batch, r.wall_hours) == (rate, batch, per_gpu, hours)
    assert r.steps == steps == int(samples * epochs / batch)
    assert (r.gpus, r.gpu, r.optimizer, r.weight_decay) == (8, "A100-80GB", "Adam", 0)
    assert (r.schedule, r.warmup_ratio, r.precision, r.max_length) == ("cosine", 0.03, "bf16 + tf32", 2048)


def test_recipes_say_what_the_paper_does_not_state():
    unstated = {name: set(recipe.from_code) for name, recipe in paper.RECIPES.items()}
    common = {"gpu", "per_gpu_batch", "max_length"}
    assert unstated == {
        "stage 1": common | {"samples"},
        "stage 2": common,
        "ScienceQA": common | {"learning_rate", "global_batch"},
    }
    for recipe in paper.RECIPES.values():
        assert all(hasattr(recipe, name) and where for name, where in recipe.from_code.items())
    assert {name for name, recipe in paper.RECIPES.items() if "FSDP" in recipe.memory} == {"stage 2", "ScienceQA"}


def test_identity():
    identity = values(paper.IDENTITY)
    assert identity["title"] == "Visual Instruction Tuning"
    assert identity["authors"] == ("Liu", "Li", "Wu", "Lee")
    assert (identity["arxiv"], identity["venue"]) == ("2304.08485", "NeurIPS 2023")
    assert identity["chat_headline"] == 85.1 == paper.TABLE_4.value("Full data", "All")
    assert identity["science_headline"] == 92.53 == paper.TABLE_7.value("LLaVA+GPT-4 (judge)", "Avg")


def test_data_counts():
    assert values(paper.DATA) == {
        "instruct": 158_000,
        "instruct_types": {"conversation": 58_000, "detail": 23_000, "complex": 77_000},
        "unique_images": 80_000,
        "pairs": 595_000,
        "pairs_released": 595_375,
        "rare_below": 3,
        "common_above": 100,
        "phrases": {"before": 108_182, "after": 31_423},
        "instructions": {"brief": 11, "detailed": 16},
        "coco_bench": {"pictures": 30, "questions": 90},
        "wild_bench": {"pictures": 24, "questions": 60},
        "wild_types": {"conv": 17, "detail": 15, "complex": 28},
        "science_splits": {"train": 12_726, "val": 4_241, "test": 4_241},
        "science_tree": {"subjects": 3, "topics": 26, "categories": 127, "skills": 379},
        "checkpoint": 25,
    }


def test_counts_add_up():
    data = values(paper.DATA)
    assert sum(data["instruct_types"].values()) == data["instruct"] == paper.RECIPES["stage 2"].samples
    assert sum(data["wild_types"].values()) == data["wild_bench"]["questions"]
    assert data["coco_bench"]["pictures"] * 3 == data["coco_bench"]["questions"]
    assert data["science_splits"]["train"] == paper.RECIPES["ScienceQA"].samples
    assert data["pairs_released"] == paper.RECIPES["stage 1"].samples
    assert 21_000 < sum(data["science_splits"].values()) < 22_000  # the paper says 21k


def test_architecture():
    """Without the values whose source is general knowledge."""
    model = values(paper.ARCHITECTURE)
    assert (model["image_size"], model["patch_size"], model["feature_layer"]) == (224, 14, -2)
    assert model["patch_tokens"] == 256 == (model["image_size"] // model["patch_size"]) ** 2
    assert (model["vision"]["width"], model["widths"]) == (1024, {"13B": 5120, "7B": 4096})
    assert model["layers"]["7B"] == 32
    assert model["projector"] == {"13B": 5_248_000, "7B": 4_198_400}
    for size, width in model["widths"].items():
        assert model["projector"][size] == model["vision"]["width"] * width + width


def test_judge():
    judge = values(paper.JUDGE)
    assert judge["criteria"] == ("helpfulness", "relevance", "accuracy", "level of detail")
    assert (judge["scale"], judge["order"]) == ((1, 10), ("reference", "candidate"))
    assert judge["reference"] == "text-only GPT-4"
    assert judge["call"] == {"model": "gpt-4-0314", "temperature": 0.2, "max_tokens": 1024}
    assert judge["score"] == "100 * mean(candidate) / mean(reference)"


def test_structure_holds_every_part_in_reading_order():
    names = [*paper.STRUCTURE]
    numbered = {kind: [int(n.split()[1]) for n in names if n.startswith(kind)] for kind in ("Table", "Figure")}
    assert sorted(numbered["Table"]) == [*range(1, 17)] and sorted(numbered["Figure"]) == [*range(1, 8)]
    assert [n.split()[0] for n in names if n[0].isdigit()] == ["1", "2", "3", "4", "4.1", "4.2", "5", "5.1", "5.2", "6"]
    assert [n for n in names if n.startswith("Appendix")] == [f"Appendix {letter}" for letter in "ABCDEF"]
    assert names[0] == "Abstract" and len(names) == 1 + 16 + 7 + 10 + 6
    starts = [int(part.value.split("-")[0]) for part in paper.STRUCTURE.values()]
    assert starts == sorted(starts) and starts[0] == 1 and starts[-1] == 25


def test_structure_pages():
    pages = {
        "Table 1": "3",
        "Figure 1": "4",
        "Table 2": "5",
        "Table 3": "6",
        "Table 4": "7",
        "Table 5": "7",
        "Table 6": "8",
        "Table 7": "9",
        "Table 8": "9",
        "Table 9": "15",
        "Table 10": "19",
        "Table 11": "20",
        "Table 12": "21",
        "Figure 7": "21",
        "Table 14": "23",
        "Table 15": "24",
        "Table 16": "25",
        "5.1 Multimodal Chatbot": "5-8",
        "5.2 ScienceQA": "8-9",
        "4.2 Training": "4-5",
        "Appendix C": "20",
        "Appendix E": "20-21",
    }
    assert {name: paper.STRUCTURE[name].value for name in pages} == pages
    for name, table in paper.TABLES.items():
        assert table.source == paper.STRUCTURE[name].source == f"{name}, p.{pages[name]}"


def test_equations():
    latex = values(paper.EQUATIONS)
    assert [*latex] == ["Eq. 1", "Eq. 2", "Eq. 3"]
    assert latex["Eq. 1"].startswith(r"H_v = W \cdot Z_v") and "g(X_v)" in latex["Eq. 1"]
    assert "[X_q^1, X_v]" in latex["Eq. 2"] and "[X_v, X_q^1]" in latex["Eq. 2"] and "t > 1" in latex["Eq. 2"]
    assert r"\prod_{i=1}^{L}" in latex["Eq. 3"] and "X_{a, <i}" in latex["Eq. 3"]
    for formula in latex.values():
        assert formula.count("{") == formula.count("}") and "\n" not in formula
        assert formula.count(r"\begin") == formula.count(r"\end")
    assert [fact.source for fact in paper.EQUATIONS.values()] == ["Eq. 1, p.4", "Eq. 2, p.4", "Eq. 3, p.5"]


def test_claims_say_these_figures():
    assert {claim.id: [*claim.figures.values()] for claim in paper.CLAIMS} == {
        "more_data_types": [85.1, 81.9, 80.5, 73.8],
        "reasoning_helps_chat": [83.1, 81.0, 76.5],
        "tuning_is_needed": [85.1, 73.8, 21.5],
        "little_goes_far": [85.1, 80.5, 73.8],
        "beats_captioners": [67.3, 38.1, 19.1],
        "judge_ensemble": [92.53, 90.97, 90.92, 82.69],
        "stage_1_matters": [90.92, 89.96, 89.84, 89.77, 85.81],
        "reasoning_first": [90.92, 89.77, 6, 12],
        "layer_before_last": [90.92, 89.96],
        "bigger_is_better": [90.92, 89.84],
    }


@pytest.mark.parametrize("claim", paper.CLAIMS, ids=lambda claim: claim.id)
def test_the_figures_of_a_claim_are_in_its_table_and_in_this_order(claim):
    _, expected = cells(EXPECTED[claim.source.split(",")[0]])
    scores = {tuple(at.rsplit(", ", 1)): figure for at, figure in claim.figures.items() if not at.endswith("epochs")}
    assert {at: expected[at][0] for at in scores} == scores
    ordered = [*scores.values()]
    assert len(ordered) >= 2 and ordered == sorted(set(ordered), reverse=True), "the best first"


def test_reasoning_first_needs_half_the_epochs():
    (claim,) = (claim for claim in paper.CLAIMS if claim.id == "reasoning_first")
    assert claim.figures["Reasoning first, epochs"] * 2 == claim.figures["Answer first, epochs"] == 12


def test_everything_has_a_source():
    items = [fact for group in GROUPS for fact in getattr(paper, group).values()]
    items += [*paper.TABLES.values(), *paper.RECIPES.values(), *paper.CLAIMS]
    assert len(items) > 80
    place = r"p\.\d+|code|issue|PR #\d+|arXiv|general knowledge"
    assert [item for item in items if not re.search(place, item.source)] == []
    assert all(fact.meaning for group in GROUPS for fact in getattr(paper, group).values())
    pages = [int(n) for item in items for p in re.findall(r"p\.(\d+(?:-\d+)?)", item.source) for n in p.split("-")]
    assert min(pages) == 1 and max(pages) == 25


def test_sources_name_the_page():
    pages = {"instruct": "p.4", "unique_images": "p.6", "pairs": "p.5", "rare_below": "p.20-21", "phrases": "p.21"}
    pages |= {"common_above": "p.20-21", "coco_bench": "p.7", "wild_bench": "p.7", "science_splits": "p.8"}
    assert {name: paper.DATA[name].source.split(", ")[-1] for name in pages} == pages
    chat, science = "Sec. 4.2, p.5; App. C, p.20", "Sec. 5.2, p.8; App. C, p.20"
    assert [recipe.source for recipe in paper.RECIPES.values()] == [chat, chat, science]


def test_data_is_frozen():
    for thing in (paper.TABLE_4, paper.RECIPES["stage 1"], paper.CLAIMS[0], paper.DATA["pairs"]):
        with pytest.raises(AttributeError):  # dataclasses.FrozenInstanceError is one
            thing.source = "elsewhere"


def test_printed_as_text(capsys):
    runpy.run_path(paper.__file__, run_name="__main__")  # python -m minillava.paper
    lines = capsys.readouterr().out.splitlines()
    for row in (
        "Conversation 76.5 (-6.6) 59.8 (-16.2) 84.9 (-12.4) 73.8 (-11.3)",
        "Full data 83.1 75.3 96.5 85.1",
        "LLaVA 57.3 ± 1.9 52.5 ± 6.3 81.7 ± 1.8 67.3 ± 2.0",
        "7B 89.84 (-1.08)",
        "Human 90.23 84.97 87.48 89.60 87.50 88.10 91.59 82.42 88.40",
    ):
        assert row in [" ".join(line.split()) for line in lines], row
    for name in (*paper.STRUCTURE, *paper.DATA, *paper.RECIPES, *paper.EQUATIONS, *(c.id for c in paper.CLAIMS)):
        assert any(line.strip().startswith(f"{name}:") for line in lines), name
    assert sum(": printed -" in line for line in lines) == 4


def test_later_changes_are_compared_with_the_papers_own_values():
    changes = later.LLAVA_15
    assert changes["patch_tokens"][:2] == (256, 576) and (changes["image_size"].later // 14) ** 2 == 576
    assert changes["projector"][:2] == ("linear", "mlp2x_gelu")
    one, two = paper.RECIPES["stage 1"], paper.RECIPES["stage 2"]
    assert changes["stage1_batch"][:2] == (one.global_batch, 256)
    assert changes["stage2_batch"][:2] == (two.global_batch, 128)
    assert changes["stage1_lr"][:2] == (one.learning_rate, 0.001)
    assert changes["stage2_lr"][:2] == (two.learning_rate, 2e-5)
    assert changes["stage1_pairs"][:2] == (595_000, 558_000) and changes["stage2_records"][:2] == (158_000, 665_000)
    assert all(change.meaning and change.source for change in changes.values())
