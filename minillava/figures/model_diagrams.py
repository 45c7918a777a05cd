"""The course's diagrams of what happens inside the model: Fig. 1, the splice, the mask, the shift, ViT, RoPE, a cache.

Notable: shapes are the paper's own, from `paper.ARCHITECTURE`, or those of the config that is given. Colours as in
`figures/model.py`: vision tower blue, W and patches orange, language model green.

    from minillava.figures import model_diagrams
    model_diagrams.splice()              # as the last line of a cell
"""

from math import cos, pi, sin

from minillava import paper
from minillava.data.template import CHAT
from minillava.figures.drawing import Drawing
from minillava.figures.style import BLUE, GREEN, ORANGE, PALE, PINK, SKY, WHITE, YELLOW

PARTS = {"CLIP": BLUE, "W": ORANGE, "LLM": GREEN}


def fig_1(size: str = "13B") -> Drawing:
    """Fig. 1 with every shape at the paper's scale. size: of Vicuna, "13B" or "7B"."""
    facts = {name: paper.ARCHITECTURE[name].value for name in ("image_size", "patch_tokens", "vision", "widths")}
    P, S, Dv, D = facts["patch_tokens"], facts["image_size"], facts["vision"]["width"], facts["widths"][size]
    d = Drawing(f"Figure 1 with shapes, Vicuna-{size}: a patch becomes one more word",
                "From the bottom: picture to vision tower to W, question to embedding, both into the language model.", 760, 330)  # fmt: skip
    d.box(20, 250, 140, 56, f"Picture Xv\n(3, {S}, {S})", WHITE)
    d.arrow(160, 278, 198, 278)
    d.box(200, 250, 150, 56, "Vision tower g\nfrozen: the eye", BLUE)
    d.arrow(275, 250, 275, 216, f"Zv ({P}, {Dv})")
    d.box(200, 160, 150, 54, f"W ({D}, {Dv})\nthe translator", ORANGE)
    d.arrow(275, 160, 275, 114, f"Hv ({P}, {D})")
    d.box(480, 250, 170, 56, "Question Xq\nT tokens", WHITE)
    d.arrow(565, 250, 565, 216)
    d.box(480, 160, 170, 54, "Embedding\none row per token", PALE)
    d.arrow(565, 160, 565, 114, f"Hq (T, {D})")
    d.box(200, 64, 450, 48, f"Language model f: the brain\nreads {P} + T rows of width {D}", GREEN)
    d.arrow(650, 88, 678, 88)
    d.text(685, 92, "Xa", "start", bold=True)
    return d


def splice() -> Drawing:
    """Where the picture enters: the image token's place is taken by the projected patches."""
    P = paper.ARCHITECTURE["patch_tokens"].value
    d = Drawing(f"The splice: one image token goes out, {P} rows come in",
                "A row of five ids above a longer row of embeddings; the image token fans out to the patches.", 760, 220)  # fmt: skip
    d.text(14, 73, "ids", "start", bold=True)
    d.text(14, 183, "rows", "start", bold=True)
    ids = ("Human:", "<image>", "What", "is", "this?")
    xs = (70, 160, 460, 550, 640)
    for x, token in zip(xs, ids):
        picture = token == "<image>"
        d.box(x + 100 * picture, 50, 80, 38, token, ORANGE if picture else PALE)
        if not picture:
            d.arrow(x + 40, 88, x + 40, 158)
            d.box(x, 160, 80, 38, "look-up", PALE)
    for n, name in enumerate(("W z1", "W z2", "...", f"W z{P}")):
        d.arrow(300, 88, 193 + 68 * n, 158)
        d.box(160 + 68 * n, 160, 64, 38, name, ORANGE)
    return d


def table_2(turns: int = 2) -> Drawing:
    """Table 2: the whole conversation is one sequence; green and blue carry loss."""
    d = Drawing("Table 2: the model learns the answers, and where to stop",
                "A line per turn: question and stop are read, answer and stop after it carry loss.", 760, 76 + 52 * (turns + 1))  # fmt: skip
    d.box(20, 46, 190, 38, "system message", PALE)
    d.box(215, 46, 50, 38, CHAT.stop, PALE)
    for n in range(1, turns + 1):
        y, x = 46 + 52 * n, 20
        first = "picture + " if n == 1 else ""
        for wide, words, colour in ((230, f"Human: {first}question {n}", PALE), (50, CHAT.stop, PALE),
                                    (100, "Assistant:", PALE), (200, f"answer {n}", GREEN), (50, CHAT.stop, BLUE)):  # fmt: skip
            d.box(x, y, wide, 38, words, colour)
            x += wide + 5
    d.text(14, d.height - 12, "green and blue carry loss; grey is only read", "start", 12)
    return d


def causal_mask() -> Drawing:
    """Eq. 2's two orders under the causal mask: who may look at whom."""
    d = Drawing("The mask: a row looks at itself and at what is before it, so the order decides",
                "Two grids, picture first and picture last; coloured where a row may look at a column.", 760, 300)  # fmt: skip
    for left, tokens, words in ((120, ("v1", "v2", "v3", "q1", "q2"), "picture first: the question sees it"),
                                (490, ("q1", "q2", "v1", "v2", "v3"), "picture last: the patches see the question")):  # fmt: skip
        d.text(left + 85, 56, words, bold=True)
        for n, row in enumerate(tokens):
            d.text(left - 10, 98 + 34 * n, row, "end")
            d.text(left + 17 + 34 * n, 76, row)
            for m, column in enumerate(tokens):
                mixed = row[0] != column[0]
                d.box(
                    left + 34 * m,
                    82 + 34 * n,
                    30,
                    28,
                    "",
                    WHITE if m > n else PINK if mixed else ORANGE if row[0] == "v" else GREEN,
                )
    d.text(380, 276, "v: patches of the picture, q: words of the question; pink: one kind looks at the other")
    d.text(380, 293, "the answer comes after both, and looks at everything", size=12)
    return d


def shift_by_one() -> Drawing:
    """Eq. 3 as it is computed: position i predicts token i + 1."""
    d = Drawing("Shift by one: each position predicts the next token",
                "A row of inputs, and below a row of targets one place to the left; only answer and stop are scored.", 760, 210)  # fmt: skip
    tokens = ("What?", CHAT.stop, "Assistant:", "A", "cat", ".", CHAT.stop)
    for n, token in enumerate(tokens):
        x = 110 + 90 * n
        d.box(x, 50, 82, 38, token, GREEN if 3 <= n < 6 else BLUE if n == 6 else PALE)
        if n + 1 < len(tokens):
            scored = n >= 2
            d.arrow(x + 41, 88, x + 41, 128, dashed=not scored)
            d.box(x, 130, 82, 38, tokens[n + 1], (BLUE if n == 5 else GREEN) if scored else PALE, dashed=not scored)
    d.text(14, 74, "input", "start", bold=True)
    d.text(14, 154, "target", "start", bold=True)
    d.text(14, 196, "grey targets are IGNORE: they are in the input, and carry no loss", "start", 12)
    return d


def what_trains(*runs: str) -> Drawing:
    """What is frozen and what trains, by run of the paper; all runs where none is named."""
    runs = runs or tuple(paper.RECIPES)
    d = Drawing("What moves: the vision tower never, W always, the language model after stage 1",
                "A row per run, a box per part: coloured where it trains.", 760, 64 + 70 * len(runs))  # fmt: skip
    for n, run in enumerate(runs):
        recipe, y = paper.RECIPES[run], 46 + 70 * n
        d.text(14, y + 22, run, "start", bold=True)
        d.text(14, y + 40, recipe.data, "start", 12)
        for m, (part, colour) in enumerate(PARTS.items()):
            moves = part in recipe.trainable
            d.box(150 + 130 * m, y, 115, 54, f"{part}\n{'trains' if moves else 'frozen'}", colour if moves else PALE,
                  dashed=not moves)  # fmt: skip
            if m:
                d.arrow(135 + 130 * m, y + 27, 150 + 130 * m, y + 27)
        passes = f"{recipe.epochs} epoch{'s' * (recipe.epochs > 1)}, {recipe.steps:,} steps"
        d.text(545, y + 22, passes, "start")
        d.text(545, y + 40, f"rate {recipe.learning_rate:g}, batch {recipe.global_batch}", "start")
    return d


def gradients(run: str) -> Drawing:
    """Where the gradient flows in one run of the paper: through every part above the lowest that trains."""
    trained = paper.RECIPES[run].trainable
    why = "and moves it" if "LLM" in trained else "and leaves it as it is"
    d = Drawing(
        f"The gradient in {run} passes through the language model, {why}",
        "Picture, vision tower, W, language model and loss in a row; the gradient runs back below them.",
        760, 205,
    )  # fmt: skip
    d.box(20, 50, 90, 60, "picture", WHITE)
    for n, (part, colour) in enumerate(PARTS.items()):
        moves, x = part in trained, 150 + 160 * n
        d.arrow(x - 40, 80, x - 2, 80, ("Xv", "Zv", "Hv")[n])
        d.box(x, 50, 120, 60, f"{part}\n{'trains' if moves else 'frozen'}", colour if moves else PALE, not moves)
        if moves:
            d.arrow(x + 60, 152, x + 60, 112)
    d.arrow(590, 80, 648, 80, "Xa")
    d.box(650, 50, 90, 60, "loss", WHITE)
    d.arrow(695, 152, 372, 152)
    d.text(622, 144, "gradient", size=12)
    d.arrow(695, 110, 695, 150)
    d.text(14, 190, "CLIP gets none, so its features can be computed once and kept", "start", 12)
    return d


def vit(config=None) -> Drawing:
    """The vision tower: patches, width, blocks. config: a VisionConfig; without it the paper's CLIP ViT-L/14."""
    facts = {name: paper.ARCHITECTURE[name].value for name in ("image_size", "patch_size", "vision", "feature_layer")}
    S, p, D, L = facts["image_size"], facts["patch_size"], facts["vision"]["width"], facts["vision"]["layers"]
    if config:
        S, p, D, L = config.image_size, config.patch_size, config.hidden_size, config.num_hidden_layers
    P = (S // p) ** 2
    d = Drawing(f"The vision tower: {P} patches, {L} blocks, and the features before the last one",
                "Picture, patches, class token and positions, blocks, features in a row.", 760, 190)  # fmt: skip
    steps = ((130, f"Picture\n(3, {S}, {S})", WHITE), (130, f"Patches\n({P}, {3 * p * p})", ORANGE),
             (140, f"+ class token\n+ positions\n({P + 1}, {D})", SKY), (130, f"{L - 1} blocks\nattention, MLP", BLUE),
             (130, "Last block\nis not used", WHITE))  # fmt: skip
    x = 14
    for n, (wide, words, colour) in enumerate(steps):
        d.box(x, 50, wide, 66, words, colour, dashed=n == 4)
        x += wide
        if n < 4:
            d.arrow(x, 83, x + 18, 83)
        if n == 3:
            d.arrow(x - 65, 116, x - 65, 148)
            d.box(x - 200, 148, 270, 32, f"Zv ({P}, {D}), class token left out", BLUE)
        x += 18
    return d


def clip_loss(n: int = 4) -> Drawing:
    """How CLIP is trained: each picture should be nearest to its own caption."""
    d = Drawing("CLIP's training: the diagonal up, everything else down",
                "A grid of pictures by captions; the diagonal, each picture with its own caption, is coloured.", 680, 80 + 44 * n)  # fmt: skip
    for i in range(n):
        d.box(20, 62 + 44 * i, 90, 36, f"picture {i + 1}", BLUE)
        d.text(176 + 90 * i, 54, f"caption {i + 1}")
        for j in range(n):
            d.box(136 + 90 * j, 62 + 44 * i, 80, 36, "near" if i == j else "far", GREEN if i == j else PALE)
    d.text(510, 100, "each row and each", "start", 12)
    d.text(510, 117, "column is a choice", "start", 12)
    d.text(510, 134, f"among {n}", "start", 12)
    return d


def decoder_block() -> Drawing:
    """One block of a Llama: two branches, each added to the stream."""
    d = Drawing("One block of the language model: look around, then think, each added to the stream",
                "A straight stream with two branches: norm and attention, norm and MLP.", 760, 200)  # fmt: skip
    d.text(14, 94, "(T, D)", "start", bold=True)
    d.arrow(62, 90, 738, 90)
    for x, words, colour in (
        (110, "Attention with RoPE\nrows look back", PINK),
        (430, "MLP (SwiGLU)\neach row alone", GREEN),
    ):
        d.arrow(x, 90, x, 130)
        d.box(x - 40, 130, 80, 40, "RMSNorm", PALE)
        d.arrow(x + 40, 150, x + 58, 150)
        d.box(x + 60, 126, 170, 48, words, colour)
        d.arrow(x + 230, 150, x + 246, 103)
        d.box(x + 234, 78, 24, 24, "+", YELLOW)
    return d


def rope(steps: int = 5) -> Drawing:
    """RoPE: each pair of numbers is turned by position times its own speed; only the difference of two counts."""
    d = Drawing("RoPE: a row is turned by its position; attention reads the difference of two turns",
                "Two rows of dials, a fast and a slow pair of numbers; the hands turn with the position.", 760, 270)  # fmt: skip
    for row, (name, speed) in enumerate((("fast pair", pi / 4), ("slow pair", pi / 16))):
        y = 95 + 90 * row
        d.text(14, y + 5, name, "start", bold=True)
        for n in range(steps):
            x, angle = 160 + 120 * n, speed * n
            d.circle(x, y, 34)
            d.arrow(x, y, x + 32 * cos(angle), y - 32 * sin(angle))
            if not row:
                d.text(x, 54, f"position {n}", size=12)
    d.text(
        14,
        246,
        "positions 1 and 3 differ by the same turn as 2 and 4: attention sees the distance, not the place",
        "start",
    )
    return d


def cache() -> Drawing:
    """What is computed anew for each token: its own row only; keys and values of all before are kept."""
    d = Drawing("The cache: each new token costs one row, because keys and values are kept",
                "Three steps; in each the kept rows are grey and the new one is green.", 760, 214)  # fmt: skip
    for n, words in enumerate(("prefill: picture and question", "first token", "second token")):
        y = 46 + 48 * n
        d.text(14, y + 24, words, "start", bold=True)
        for m in range(6 + n):
            new = m == 5 + n if n else True
            d.box(260 + 56 * m, y, 50, 38, ("v" if m < 4 else "q" if m < 6 else "a"), GREEN if new else PALE)
    d.text(14, 204, "green: computed in this step; grey: keys and values from the cache", "start", 12)
    return d


def chat_turns() -> Drawing:
    """A conversation: each prompt is everything before it; the picture is looked at once."""
    d = Drawing("A second question is asked behind the whole conversation",
                "Two lines: the prompt of turn 1, and that of turn 2, which begins with all of turn 1.", 760, 160)  # fmt: skip
    for n in range(2):
        y, x = 48 + 54 * n, 90
        d.text(14, y + 24, f"turn {n + 1}", "start", bold=True)
        parts = (("system", PALE), ("picture", ORANGE), ("question 1", PALE), ("answer 1", GREEN)) + (
            (("question 2", PALE), ("answer 2", GREEN)) if n else ()
        )
        for words, colour in parts:
            d.box(x, y, 102, 38, words, colour)
            x += 108
    return d
