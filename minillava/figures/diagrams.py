"""The course's diagrams of data, training and judging: what the paper does, on one glance each.

Notable: every number comes from `paper.py` or `scales.py`. Colours are those of the figures: the vision tower is blue,
W orange, the language model green. What happens inside the model is in `model_diagrams.py`.

    from minillava.figures import diagrams
    diagrams.what_trains("stage 1")      # as the last line of a cell
"""

import re

from minillava import paper
from minillava.figures.drawing import Drawing
from minillava.figures.style import BLUE, GREEN, ORANGE, PALE, PINK, SKY, WHITE, YELLOW
from minillava.scales import REAL_SCALES, TINY

TYPES = {"conversation": YELLOW, "detail": GREEN, "complex": SKY}  # as in style.WORN


def thousands(count: int) -> str:
    return f"{count // 1000}K"


def three_passes() -> Drawing:
    """How the course reads the paper: each pass ends with something finished."""
    d = Drawing("Three passes: you may stop after any of them with a finished thing",
                "Three boxes in a row, one per pass, each with an arrow down to what it leaves.", 760, 240)  # fmt: skip
    passes = (("First pass", "notebook 00", "title, abstract, Figure 1,", "conclusion", "a card, and a decision"),
              ("Second pass", "notebooks 01 to 05", "every section,", "every table", "a summary to explain to others"),
              ("Third pass", "notebooks 06 to 16", "build each part again,", "compare", "your own LLaVA"))  # fmt: skip
    for n, (*words, left) in enumerate(passes):
        x = 20 + 250 * n
        d.box(x, 45, 220, 90, "\n".join(words), (SKY, YELLOW, GREEN)[n])
        d.arrow(x + 110, 135, x + 110, 180)
        d.box(x, 182, 220, 38, left, WHITE)
        if n < 2:
            d.arrow(x + 220, 90, x + 250, 90)
    return d


def three_ways() -> Drawing:
    """Sections 1 and 2: one model per task, a system of tools, one model for all."""
    d = Drawing("Three ways to a machine that answers about pictures",
                "Three columns: a model per task with a fixed output; a language model that calls other models; one "
                "model that reads picture and question together.", 760, 290)  # fmt: skip
    for n, name in enumerate(("one model per task", "a system of tools", "one model, end to end")):
        d.text(130 + 250 * n, 56, name, bold=True)
    for n, (model, out) in enumerate((("detector", "boxes"), ("captioner", "a caption"), ("classifier", "a label"))):
        d.box(20, 75 + 60 * n, 110, 40, model, BLUE)
        d.arrow(130, 95 + 60 * n, 170, 95 + 60 * n)
        d.box(172, 75 + 60 * n, 78, 40, out, WHITE)
        d.box(270, 75 + 60 * n, 100, 40, model, BLUE)
        d.arrow(400, 155, 372, 95 + 60 * n)
    d.box(402, 120, 98, 70, "language\nmodel\ncalls them", GREEN)
    d.box(520, 75, 220, 40, "picture and instruction", WHITE)
    d.arrow(630, 115, 630, 133)
    d.box(520, 135, 220, 40, "CLIP, W, language model", GREEN)
    d.arrow(630, 175, 630, 193)
    d.box(520, 195, 220, 40, "an answer in words", WHITE)
    for n, words in enumerate(("the task is fixed", "nothing is learned together", "LLaVA: trained as one")):
        d.text(130 + 250 * n, 268, words)
    return d


def picture_to_record() -> Drawing:
    """Section 3: how a model that cannot see writes instruction data about pictures."""
    d = Drawing("The teacher never sees the picture: it reads symbols",
                "Picture, symbols, GPT-4 and record in a row; the picture joins the record again below.", 760, 210)  # fmt: skip
    d.box(20, 60, 130, 80, "Picture\nXv", ORANGE)
    d.arrow(150, 100, 230, 100, "people")
    d.box(232, 60, 140, 80, "Symbols\ncaptions\nnames and boxes", PALE)
    d.arrow(372, 100, 420, 100)
    d.box(422, 60, 130, 80, "GPT-4\nreads text only", PINK)
    d.arrow(552, 100, 600, 100)
    d.box(602, 60, 140, 80, "Record\nquestion Xq\nanswer Xa", GREEN)
    d.box(20, 160, 640, 32, "picture + question + answer are put together again only for training", WHITE, dashed=True)
    d.arrow(85, 140, 85, 160, dashed=True)
    d.arrow(672, 140, 645, 160, dashed=True)
    return d


def table_1_card() -> Drawing:
    """Table 1: two contexts lead to three types of response."""
    d = Drawing(f"Table 1: two contexts become three types of response, {thousands(paper.DATA['instruct'].value)} in all",
                "Captions and boxes on the left, GPT-4 in the middle, three types of response on the right.", 760, 270)  # fmt: skip
    d.box(20, 60, 200, 70, "Context 1: captions\nfive people, five sentences", PALE)
    d.box(20, 170, 200, 70, "Context 2: boxes\na name and four numbers", PALE)
    d.box(300, 110, 120, 80, "GPT-4\nno picture", PINK)
    d.arrow(220, 95, 298, 132)
    d.arrow(220, 205, 298, 168)
    told = {"conversation": ("what can be seen,", "from captions alone"), "detail": ("everything,", "in order"),
            "complex": ("why, what next:", "no caption says it")}  # fmt: skip
    for n, (kind, count) in enumerate(paper.DATA["instruct_types"].value.items()):
        d.arrow(420, 150, 508, 80 + 75 * n)
        d.box(510, 48 + 75 * n, 230, 64, "\n".join((f"{kind}: {thousands(count)}", *told[kind])), TYPES[kind])
    return d


def concept_filter() -> Drawing:
    """Appendix E: which captions of CC3M are kept for stage 1, by how often their noun phrases occur."""
    rare, common, phrases = (paper.DATA[name].value for name in ("rare_below", "common_above", "phrases"))
    d = Drawing(f"The concept filter: {phrases['before']:,} noun phrases become {phrases['after']:,}",
                "A noun phrase is skipped, kept with all its captions, or kept with some, by its frequency.", 760, 252)  # fmt: skip
    d.box(20, 100, 170, 60, "CC3M\nnoun phrases, counted", PALE)
    fates = ((f"fewer than {rare} times", "skipped: too rare", WHITE), (f"{rare} to {common} times", "all captions", GREEN),
             (f"more than {common} times", f"{common} captions at random", YELLOW))  # fmt: skip
    for n, (often, fate, colour) in enumerate(fates):
        d.arrow(190, 130, 258, 75 + 60 * n)
        d.box(260, 52 + 60 * n, 230, 46, f"{often}\n{fate}", colour)
        if n:
            d.arrow(490, 75 + 60 * n, 558, 145 + 20 * (n - 1))
    d.box(
        560,
        115,
        180,
        70,
        f"Stage 1's data\n{thousands(paper.DATA['pairs'].value)} pairs of\npicture and caption",
        ORANGE,
    )
    d.text(
        14, 242, "rarest phrases first, so that a caption may be in already when a frequent phrase comes", "start", 12
    )
    return d


def messages() -> Drawing:
    """Table 13: what is sent to GPT-4 for one picture."""
    d = Drawing("Table 13: a request is a conversation that has been written for it",
                "A column of messages: system, examples of user and assistant, then the new context.", 760, 270)  # fmt: skip
    rows = (("system", "what to write, and that it should sound as if one saw the picture", PALE),
            ("user", "context of example 1", WHITE), ("assistant", "a reply that people wrote for it", GREEN),
            ("user, assistant", "the same for each further example", WHITE),
            ("user", "the new picture's captions (and boxes)", ORANGE))  # fmt: skip
    for n, (role, words, colour) in enumerate(rows):
        d.text(130, 67 + 40 * n, role, "end", bold=True)
        d.box(145, 46 + 40 * n, 440, 33, words, colour)
    d.arrow(587, 222, 628, 222)
    d.box(630, 195, 112, 55, "GPT-4\nits reply", PINK)
    return d


def request_path() -> Drawing:
    """What may happen to one request of the data generation, until it is a record or has a reason not to be."""
    d = Drawing("Every request ends as a record, or with a reason, and is paid for once",
                "Request, journal, budget, server and reply in a row; refused requests go back, replies split below.", 760, 262)  # fmt: skip
    steps = (("Request", "its hash", PALE), ("Journal", "known already?", WHITE), ("Budget", "is enough left?", WHITE),
             ("Server", "GPT-4", PINK), ("Reply", "written at once", GREEN))  # fmt: skip
    for n, (name, words, colour) in enumerate(steps):
        d.box(20 + 150 * n, 75, 120, 60, f"{name}\n{words}", colour)
        if n:
            d.arrow(150 * n - 10, 105, 150 * n + 19, 105)
    d.arrow(530, 66, 385, 66, "busy: wait, then ask again", dashed=True)
    for n, (words, x, colour) in enumerate((("yes: reuse the reply", 150, PALE), ("no: stop, resume later", 315, PALE),
                                            ("else: quarantine", 480, YELLOW), ("in form: record", 640, GREEN))):  # fmt: skip
        x1, wide = (230, 380, 650, 690)[n], 110 if n == 3 else 150
        d.box(x, 195, wide, 40, words, colour)
        d.arrow(x1, 135, x + wide / 2, 193)
    return d


def table_4_sets() -> Drawing:
    """Table 4's mixtures: how much of each type is in, and the score. The rows are not steps of one ladder."""
    d = Drawing("Table 4: five mixtures of three types; rows 2 and 3 do not contain each other",
                "A row per mixture, a bar per type, filled as far as it is used, and the score.", 760, 330)  # fmt: skip
    wide = {kind: count / 500 for kind, count in paper.DATA["instruct_types"].value.items()}
    left = {kind: 245 + 12 * n + sum(list(wide.values())[:n]) for n, kind in enumerate(wide)}
    for kind, x in left.items():
        d.text(x, 54, f"{kind}", "start", 12)
    d.text(690, 54, "All", bold=True)
    for n, row in enumerate(paper.TABLE_4.rows):
        y = 66 + 50 * n
        d.text(14, y + 22, row, "start", 12)
        for kind, share in mixture(row).items():
            d.box(left[kind], y, wide[kind], 34, "", WHITE, dashed=True)
            if share:
                words = thousands(paper.DATA["instruct_types"].value[kind]) if share == 1 else ""
                d.box(left[kind], y, wide[kind] * share, 34, words, TYPES[kind])
        d.text(690, y + 22, f"{paper.TABLE_4.value(row, 'All')}", bold=True)
    return d


def mixture(row: str) -> dict[str, float]:
    """Type of record -> the share of it that a row of Table 4 trains on, read from the row's name."""
    found = dict.fromkeys(TYPES, 1.0 if row == "Full data" else 0.0)
    for percent, word in re.findall(r"(?:(\d+)% )?(Conv|Detail|Complex)", row):
        kind = next(kind for kind in TYPES if kind.startswith(word.lower()))
        found[kind] = int(percent) / 100 if percent else 1.0
    return found


def judge_triangle() -> Drawing:
    """Section 5.1: two answers to one question, and a judge that reads text only."""
    low, high = paper.JUDGE["scale"].value
    d = Drawing("The judge sees two answers and a text about the picture, never the picture",
                "Text and question lead to a reference answer, picture and question to LLaVA's; both to a judge.", 760, 330)  # fmt: skip
    d.box(20, 48, 190, 50, "Text about the picture\ncaptions, boxes", PALE)
    d.box(285, 48, 190, 50, "Question", WHITE)
    d.box(550, 48, 190, 50, "Picture", ORANGE)
    d.box(140, 140, 190, 54, "text-only GPT-4\nreference answer", PINK)
    d.box(430, 140, 190, 54, "LLaVA\nits answer", GREEN)
    for x1, x2 in ((130, 190), (345, 285), (415, 475), (630, 570)):
        d.arrow(x1, 98, x2, 139)
    d.box(270, 236, 220, 54, f"Judge: text-only GPT-4\ntwo scores, {low} to {high}", PINK)
    d.arrow(245, 194, 330, 235)
    d.arrow(515, 194, 430, 235)
    d.arrow(60, 98, 60, 261)
    d.arrow(60, 262, 268, 262, "reads the text too")
    d.text(380, 316, f"relative score = {paper.JUDGE['score'].value.replace('*', 'x')}", bold=True)
    return d


def complement() -> Drawing:
    """Section 5.2, the first ensemble, as a decision tree."""
    return _tree("LLaVA+GPT-4 (complement)", "Complement: LLaVA fills in where GPT-4 gives no answer",
                 "Did GPT-4 give an answer?", ("yes", "take GPT-4's"), ("no", "take LLaVA's"))  # fmt: skip


def judge_ensemble() -> Drawing:
    """Section 5.2, the second ensemble, as a decision tree."""
    return _tree("LLaVA+GPT-4 (judge)", "Judge: GPT-4 is asked again, only where the two differ",
                 "Do GPT-4 and LLaVA differ?", ("no", "take their answer"), ("yes", "ask GPT-4 again, with both answers"))  # fmt: skip


def _tree(row: str, title: str, question: str, left: tuple, right: tuple) -> Drawing:
    d = Drawing(title, f"{question} {left[0]}: {left[1]}; {right[0]}: {right[1]}.", 620, 200)
    d.box(190, 45, 240, 44, question, WHITE)
    for x, (word, then) in ((20, left), (330, right)):
        d.arrow(310 + (x - 175) * 0.35, 89, x + 135, 128)
        d.text(180 if x < 100 else 440, 108, word, "end" if x < 100 else "start", bold=True)
        d.box(x, 130, 270, 36, then, GREEN if "LLaVA" in then else PINK if "GPT" in then else PALE)
    d.text(
        310,
        188,
        f"{paper.TABLE_7.value(row, 'Avg')} % on ScienceQA (LLaVA alone {paper.TABLE_7.value('LLaVA', 'Avg')})",
    )
    return d


def two_orders() -> Drawing:
    """Section 5.2: reasons before the answer, or after it."""
    d = Drawing("Reasons first: the answer can use them. Answer first: it cannot",
                "Two rows of tokens, left to right; an arrow from what comes first to what comes later.", 760, 210)  # fmt: skip
    for n, (name, first, then, words) in enumerate((("reasons first", "lecture, solution", "The answer is B.", "is read before it answers"),
                                                    ("answer first", "The answer is B.", "lecture, solution", "can only explain the answer"))):  # fmt: skip
        y = 60 + 75 * n
        d.text(14, y + 25, name, "start", bold=True)
        d.box(130, y, 150, 40, "picture, question", ORANGE)
        for x, part in ((290, first), (510, then)):
            d.box(x, y, 150, 40, part, YELLOW if "answer" in part else GREEN)
        d.arrow(440, y + 20, 510, y + 20)
        d.text(475, y + 58, words, size=12)
    return d


def scales_ladder() -> Drawing:
    """The scales of this project, from a laptop to the paper's own."""
    steps = (TINY, *REAL_SCALES.values())
    d = Drawing("One code, five scales: what changes is the parts and the data",
                "Five steps upwards, each with its vision tower, language model, data and machine.", 760, 64 + 50 * len(steps))  # fmt: skip
    for n, scale in enumerate(steps):
        y, x = d.height - 66 - 50 * n, 90 + 20 * n
        d.text(80 + 20 * n, y + 28, scale.name, "end", bold=True)
        model, eye = (
            getattr(scale, part).replace("\\", "/").split("/")[-1] for part in ("language_model", "vision_tower")
        )
        one, two = (scale.stage(f"stage {k}").samples for k in (1, 2))
        d.box(
            x,
            y,
            560,
            46,
            f"{eye} + {model}\n{one:,} pairs, {two:,} records; {scale.hardware}",
            (PALE, SKY, YELLOW, GREEN, ORANGE)[n],
        )
    return d
