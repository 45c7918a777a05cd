"""A reader's note about the paper, claims right and wrong, and the place in the paper that decides each.

Notable: the claims are in our own words, and the wrong ones are misreadings that readers make. All scores come from
`minillava.paper`. What is shown and printed is English and Chinese at once, since both editions share the outputs.

    check({1: "right", 2: "wrong"})  # prints what decides the claims that have a mark
"""

from typing import NamedTuple

from minillava import paper
from minillava.errors import UserError
from minillava.paper import DATA, STRUCTURE, TABLES

MARKS = {"right": "对", "wrong": "错"}


class Claim(NamedTuple):
    """One sentence of the note. place: the part of the paper that decides it, a name in `paper.STRUCTURE`."""

    right: bool
    place: str
    english: str
    chinese: str
    why: str
    why_in_chinese: str


class Page(str):
    """Markdown that a notebook displays."""

    _repr_markdown_ = __repr__ = str.__str__


def cell(number: int, row: str, column: str) -> str:
    """A score of Table 4, 5, 7 or 8 with as many digits as the paper prints, without its spread."""
    (value,) = TABLES[f"Table {number}"].cells(column, row).values()
    return f"{value:.{1 if number < 7 else 2}f}"


FULL, BOTH, LITTLE, CONVERSATION, UNTUNED = (cell(4, row, "All") for row in TABLES["Table 4"].rows)
ALL_TYPES, ONE_TYPE = (cell(4, row, "Conv") for row in ("Full data", "Conversation"))
ANSWERED, JUDGED = (TABLES["Table 5"].value(row, "All")[1] for row in ("LLaVA", "LLaVA (dagger)"))
HUMAN, LARGE, LLAVA, JUDGE = (cell(7, r, "Avg") for r in ("Human", "MM-CoT Large", "LLaVA", "LLaVA+GPT-4 (judge)"))
SEEN, LIFTED = (cell(7, row, "IMG") for row in ("LLaVA", "LLaVA+GPT-4 (judge)"))
COCO, WILD = (DATA[name].value["questions"] for name in ("coco_bench", "wild_bench"))
EPOCHS = next(claim.figures for claim in paper.CLAIMS if claim.id == "reasoning_first")
SOON, LATE = (round(EPOCHS[f"{first} first, epochs"]) for first in ("Reasoning", "Answer"))
OUTSIDE, GOAL = cell(5, "LLaVA", "All"), cell(8, "Answer first", "Avg")

CLAIMS = (
    Claim(True, "3 GPT-assisted Visual Instruction Data Generation",
          "For conversation data GPT-4 read the captions of a picture, and no boxes.",
          "生成对话数据时，GPT-4 只读图片说明，不读边界框。",
          "The section names both together. The authors' conversation prompts hold captions only (issue 87).",
          "这一节把两样放在一起说。作者生成对话用的提示词里只有图片说明（issue 87）。"),
    Claim(False, "Table 2", "Of a training sequence only the words of the answers carry loss.",
          "一个训练序列里，只有回答的文字计入损失。",
          "The stop after each answer carries loss too: the model also learns where to stop.",
          "每个回答后面的停止符也计入损失：模型还要学会在哪里停下。"),
    Claim(True, "4.2 Training", "The vision tower is never trained; the language model is frozen in stage 1 only.",
          "视觉编码器从头到尾不训练；语言模型只在第一阶段冻结。",
          "Stage 1 trains W alone, stage 2 trains W and the language model.",
          "第一阶段只训练 W，第二阶段训练 W 和语言模型。"),
    Claim(False, "Table 3", "LLaVA names what the man does: extreme ironing.",
          "LLaVA 说出了那个人在做什么：极限熨烫。",
          "That is the example's title. LLaVA: he irons on the back of a minivan or van, not a usual or a safe place.",
          "那是这个例子的标题。LLaVA 说的是：他在小型客车或厢式车的车尾熨衣服，那里不寻常，也不安全。"),
    Claim(True, "Table 3", "That he dries his clothes on the hood of his car is OpenFlamingo's answer, not BLIP-2's.",
          "“他在汽车引擎盖上晾衣服”是 OpenFlamingo 的回答，不是 BLIP-2 的。",
          "BLIP-2 says that he sits on the back of a yellow cab. Neither tells what is unusual, as was asked.",
          "BLIP-2 说他坐在一辆黄色出租车的车尾。问的是哪里不寻常，两个都没有答到。"),
    Claim(False, "5.1 Multimodal Chatbot", f"LLaVA does {FULL} % as well as a GPT-4 that looks at the same pictures.",
          f"LLaVA 达到了看着同样图片的 GPT-4 的 {FULL} %。",
          "The reference, to which LLaVA's marks are compared, is text-only GPT-4: it reads captions and boxes.",
          "LLaVA 的分数是和参考答案比的，参考答案来自只读文本的 GPT-4：它读的是图片说明和边界框。"),
    Claim(False, "Table 4", f"Conversation data with a little detail and reasoning added reach {BOTH}.",
          f"在对话数据里加一点详细描述和推理，就达到 {BOTH}。",
          f"{BOTH} is all of detail and all of reasoning, without conversation. The row with a little is {LITTLE}.",
          f"{BOTH} 是全部详细描述加全部推理，没有对话。两样各加一点的那一行是 {LITTLE}。"),
    Claim(True, "Table 4", f"Detail and reasoning data help conversation too: from {ONE_TYPE} to {ALL_TYPES} with all.",
          f"详细描述和推理的数据对日常对话也有帮助：三种类型都用，从 {ONE_TYPE} 提高到 {ALL_TYPES}。",
          "Column Conv, first and fourth row. The paper draws this conclusion itself.",
          "看 Conv 一列的第一行和第四行。这也是论文自己的结论。"),
    Claim(False, "Table 4", "Table 4 is a ladder, bottom up: each row has the data of the row below, and more.",
          "表 4 从下往上是一架梯子：每一行都有下面一行的数据，再多一些。",
          "The second row has no conversation at all, and the third has all of it: neither contains the other.",
          "第二行完全没有对话数据，第三行却有全部对话数据：谁也不包含谁。"),
    Claim(False, "4.2 Training", f"No Instruction Tuning, with its {UNTUNED}, is a model that was never trained.",
          f"得 {UNTUNED} 分的 No Instruction Tuning，是一个从没训练过的模型。",
          "It went through stage 1, so W is trained; stage 2 is what it did not get. It can see, and cannot chat.",
          "它经过了第一阶段，W 是训练过的；它缺的是第二阶段。它看得见，但不会聊天。"),
    Claim(False, "5.1 Multimodal Chatbot", f"{FULL} and {OUTSIDE} are two scores on the same questions.",
          f"{FULL} 和 {OUTSIDE} 是同一批问题上的两个得分。",
          f"Two benchmarks: Table 4 has {COCO} questions about COCO pictures, Table 5 {WILD} of In-the-Wild.",
          f"这是两个基准测试：表 4 是 COCO 图片上的 {COCO} 个问题，表 5 是 In-the-Wild 图片上的 {WILD} 个问题。"),
    Claim(True, "Table 5", "In Table 5 the row with the dagger shows how much the judge alone varies.",
          "表 5 里带 † 的那一行，只反映评审模型自己的波动。",
          f"One set of answers, judged three times: spread {JUDGED}. LLaVA asked three times, a row above: {ANSWERED}.",
          f"同一组回答评了三次：波动 {JUDGED}。上面一行是 LLaVA 回答了三次：{ANSWERED}。"),
    Claim(True, "Table 7", f"On ScienceQA LLaVA alone, {LLAVA}, beats humans, {HUMAN}, but not MM-CoT Large, {LARGE}.",
          f"在 ScienceQA 上，单独的 LLaVA 是 {LLAVA}，高于人类的 {HUMAN}，低于 MM-CoT Large 的 {LARGE}。",
          f"Column Avg. Of LLaVA's rows only the one with GPT-4 as judge, {JUDGE}, is above MM-CoT Large.",
          f"看 Avg 一列。有 LLaVA 的各行里，只有让 GPT-4 当评审的 {JUDGE} 高于 MM-CoT Large。"),
    Claim(False, "5.2 ScienceQA", f"For the {JUDGE} on ScienceQA, GPT-4 was asked a second time about every question.",
          f"为了在 ScienceQA 上得到 {JUDGE}，每一道题都再问了 GPT-4 一次。",
          "Only where its answer and LLaVA's differ, with both before it. Where they agree there is nothing to ask.",
          "只在它和 LLaVA 的答案不一致时才再问，并把两个答案都给它看。一致的地方没什么可问。"),
    Claim(True, "Table 7", f"As judge, text-only GPT-4 lifts even picture questions of ScienceQA: {SEEN} to {LIFTED}.",
          f"只读文本的 GPT-4 当评审，连 ScienceQA 里带图片的题也提高了：从 {SEEN} 到 {LIFTED}。",
          "Column IMG. The paper says why: some of these questions can be answered without their picture.",
          "看 IMG 一列。论文说了原因：其中有些题，不看图片也能答。"),
    Claim(True, "5.2 ScienceQA", f"Reasons first reach {GOAL} on ScienceQA in {SOON} epochs, answer first in {LATE}.",
          f"在 ScienceQA 上先讲理由，{SOON} 个训练轮次就达到 {GOAL}；先给答案要 {LATE} 个。",
          "In the end reasons first lead by about a point (Table 8); what the paper stresses is the speed.",
          "最后，先讲理由高出约一分（表 8）；论文强调的是学得快。"),
)  # fmt: skip


def show() -> Page:
    """The note, for the last line of a notebook's cell."""
    return Page("\n\n".join(f"**{n}.** {claim.english}<br>{claim.chinese}" for n, claim in enumerate(CLAIMS, 1)))


def agrees(claim: Claim, mark: str) -> bool:
    """Whether a mark says of a claim what the paper says."""
    return (mark == "right") == claim.right


def check(marks: dict[int, str | None]) -> None:
    """Print what decides each claim that has a mark, then how many marks agree with the paper.

    marks: number of a claim -> "right", "wrong", or None for none yet. Raises UserError.
    """
    if not isinstance(marks, dict):
        raise UserError(f'marks is {marks!r:.40}; write a dict, such as {{1: "right", 2: "wrong"}}（请写成字典）')
    for number, mark in marks.items():
        if number not in range(1, len(CLAIMS) + 1):
            raise UserError(f"no claim has the number {number!r}; write 1 to {len(CLAIMS)}（请写 1 到 {len(CLAIMS)}）")
        if mark not in (*MARKS, None):
            raise UserError(f'claim {number} is marked {mark!r}; write "right", "wrong" or None（请写这三种之一）')
    marked = {number: mark for number, mark in sorted(marks.items()) if mark}
    for number, mark in marked.items():
        claim, decided = CLAIMS[number - 1], ("wrong", "right")[CLAIMS[number - 1].right]
        print(f"{number:2d}  you: {mark}, the paper: {decided} · 你：{MARKS[mark]}，论文：{MARKS[decided]}")
        print(f"    [{STRUCTURE[claim.place].source}] {claim.why}\n    {claim.why_in_chinese}")
    hits, left = sum(agrees(CLAIMS[n - 1], mark) for n, mark in marked.items()), len(CLAIMS) - len(marked)
    print(f"\n{hits} of {len(marked)} marks agree with the paper; {left} claims have no mark yet")
    print(f"{len(marked)} 个判断里有 {hits} 个与论文一致；还有 {left} 句没有判断")
