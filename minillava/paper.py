"""The paper as data: its parts, tables, recipes, counts, equations and claims, each with its source.

Notable: all figures of the paper are here and nowhere else; everything that prints or compares one takes it from here.
"p.7" is a page of the 25-page NeurIPS PDF. For what the paper does not state, the source tells where it was found:
"code" is the authors' repository (at c121f04 unless it names another commit), "issue" is one of its issues, and
"general knowledge" means that there is no source. The repository's later scripts train later models (batch 128 in
stage 2) and are not the paper's recipe.

    python -m minillava.paper                       # everything, as plain text
    TABLES["Table 4"].value("Conversation", "All")  # 73.8
    RECIPES["stage 2"].learning_rate                # 2e-05
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from minillava.text import aligned


class Named(dict):
    """A dict whose KeyError lists the existing names."""

    def __missing__(self, name):
        raise KeyError(f"no {name!r} here; there are: {', '.join(map(repr, self))}")


class Fact(NamedTuple):
    value: object
    meaning: str
    source: str


@dataclass(frozen=True)
class Table:
    """rows: row name -> one value per column, in the order of `columns`; in Table 5 each is (mean, std).

    deltas: row name -> the differences to the first row as the paper *prints* them, where it prints any.
    """

    id: str
    caption: str
    source: str
    columns: tuple[str, ...]
    rows: Named
    deltas: Named = field(default_factory=Named)

    def value(self, row, column):
        return Named(zip(self.columns, self.rows[row]))[column]

    def delta(self, row, column) -> float:
        return Named(zip(self.columns, self.deltas[row]))[column]

    def cells(self, column, *rows) -> dict[str, float]:
        """{"row, column": value} for the named rows; the mean where a value is (mean, std)."""
        values = {f"{row}, {column}": self.value(row, column) for row in rows}
        return {name: value[0] if isinstance(value, tuple) else value for name, value in values.items()}

    def mismatches(self) -> list[tuple]:
        """(row, column, printed, recomputed) where a printed difference is not the difference of the printed scores."""
        first, found = next(iter(self.rows)), []
        for row, column in ((row, column) for row in self.deltas for column in self.columns):
            printed, recomputed = self.delta(row, column), round(self.value(row, column) - self.value(first, column), 2)
            found += [(row, column, printed, recomputed)] if printed != recomputed else []
        return found

    def text(self) -> str:
        digits = 2 if "Avg" in self.columns else 1  # as the paper prints accuracies and scores
        lines = [["", *self.columns]]
        for row, values in self.rows.items():
            cells = [f"{v[0]} ± {v[1]}" if isinstance(v, tuple) else f"{v:.{digits}f}" for v in values]
            lines += [[row] + ([f"{v} ({d:+})" for v, d in zip(cells, self.deltas.get(row, ()))] or cells)]
        return f"{self.source}: {self.caption}\n{aligned(lines)}"


@dataclass(frozen=True)
class Recipe:
    """One training run. from_code: attribute -> its source, for what the paper does not state."""

    id: str
    data: str
    samples: int
    epochs: int
    trainable: tuple[str, ...]
    learning_rate: float
    global_batch: int
    wall_hours: int  # at most
    source: str
    from_code: dict[str, str]
    note: str
    memory: str = "FSDP full shard, gradient checkpointing, no offload"
    gpus: int = 8
    gpu: str = "A100-80GB"
    optimizer: str = "Adam"  # adamw_torch in the code: the same without weight decay
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup_ratio: float = 0.03
    precision: str = "bf16 + tf32"
    max_length: int = 2048

    @property
    def per_gpu_batch(self) -> int:
        return self.global_batch // self.gpus

    @property
    def steps(self) -> int:
        return self.samples * self.epochs // self.global_batch


@dataclass(frozen=True)
class Claim:
    """What the paper concludes. figures: "row, column" of the table in `source` -> value, in the order that the claim
    states, the best first. "..., epochs" is from the text, not from the table."""

    id: str
    statement: str
    source: str
    figures: dict[str, float]


# fmt: off
IDENTITY = Named(
    title=Fact("Visual Instruction Tuning", "title", "p.1"),
    authors=Fact(("Liu", "Li", "Wu", "Lee"), "authors' surnames", "p.1"),
    arxiv=Fact("2304.08485", "arXiv id", "arXiv listing"), venue=Fact("NeurIPS 2023", "venue", "p.1"),
    chat_headline=Fact(85.1, "relative score on LLaVA-Bench (COCO), %", "Abstract, p.1; Table 4, p.7"),
    science_headline=Fact(92.53, "ScienceQA accuracy with GPT-4 as judge, %", "Abstract, p.1; Table 7, p.9"))

# In reading order, name -> Fact(pages, content, source); Figures 2-6 are on pages 16-19.
STRUCTURE = Named({name: Fact(pages, content, f"{name}, p.{pages}") for name, pages, content in (
    ("Abstract", "1", "text-only GPT-4 writes data about pictures; a model tuned on it; two headline scores"),
    ("1 Introduction", "1-2", "language as everyone's interface; brings data, a model, a benchmark, open source"),
    ("2 Related Work", "2", "agents that follow instructions about pictures; instruction-tuned language models"),
    ("3 GPT-assisted Visual Instruction Data Generation", "3-4", "pictures as captions and boxes; three types; 158K"),
    ("Table 1", "3", "one picture's captions and boxes, and the three types of response they led to"),
    ("4 Visual Instruction Tuning", "4", "model, training"), ("4.1 Architecture", "4", "CLIP, a matrix W, Vicuna"),
    ("Figure 1", "4", "the network: picture to Zv to Hv, beside the question's Hq, into the language model"),
    ("4.2 Training", "4-5", "the sequence, the loss, the two stages, the two uses"),
    ("Table 2", "5", "the sequence, and which tokens carry loss"), ("5 Experiments", "5", "hardware and settings"),
    ("5.1 Multimodal Chatbot", "5-8", "chats shown, GPT-4 as judge, two LLaVA-Benches, limitations"),
    ("Table 3", "6", "Extreme Ironing: four models asked about one odd photograph"),
    ("Table 4", "7", "LLaVA-Bench (COCO): which types of training data matter"),
    ("Table 5", "7", "LLaVA-Bench (In-the-Wild): against BLIP-2 and OpenFlamingo, with spread"),
    ("Table 6", "8", "two hard pictures, a ramen meal and a full fridge, with annotation and questions"),
    ("5.2 ScienceQA", "8-9", "the splits, LLaVA alone, GPT-4 alone, two ensembles, design ablations"),
    ("Table 7", "9", "ScienceQA accuracy by subject, context, grade"), ("Table 8", "9", "what each choice is worth"),
    ("6 Conclusion", "9-10", "what was shown; thanks"), ("Appendix A", "14", "broader impact: misuse, bias, energy"),
    ("Appendix B", "14-19", "more chats; abilities that the training data does not explain"),
    ("Table 9", "15", "a world map of chicken nuggets, four models"), ("Figure 2", "16-19", "a sketch to a web site"),
    ("Figure 3", "16-19", "recipes from a fridge, a travel blog"), ("Figure 4", "16-19", "Titanic"),
    ("Figure 5", "16-19", "the Mona Lisa, and a dog as her"), ("Figure 6", "16-19", "Elon Musk, also as a doge meme"),
    ("Table 10", "19", "text-only GPT-4 decides between LLaVA's answer and its own"),
    ("Appendix C", "20", "all hyper-parameters, in one paragraph"), ("Appendix D", "20", "what was released"),
    ("Appendix E", "20-21", "the instruction lists, and how CC3M was filtered"),
    ("Table 11", "20", "11 requests for a brief description"), ("Table 12", "21", "16 for a detailed one"),
    ("Figure 7", "21", "how often noun phrases occur in CC3M, before and after the filter"),
    ("Appendix F", "21-22", "prompts of the data generation"), ("Table 13", "22", "how messages are put together"),
    ("Table 14", "23", "Table 1 in full"), ("Table 15", "24", "an example conversation"), ("Table 16", "25", "another"),
)})

TABLE_4 = Table(
    "Table 4", "LLaVA-Bench (COCO): relative score by training data, % (printed difference to the first row)",
    "Table 4, p.7", ("Conv", "Detail", "Complex", "All"), Named({
        "Full data": (83.1, 75.3, 96.5, 85.1),
        "Detail + Complex": (81.5, 73.3, 90.8, 81.9),
        "Conv + 5% Detail + 10% Complex": (81.0, 68.4, 91.5, 80.5),
        "Conversation": (76.5, 59.8, 84.9, 73.8),
        "No Instruction Tuning": (22.0, 24.0, 18.5, 21.5)}), Named({
        "Detail + Complex": (-1.6, -2.0, -5.7, -3.2),
        "Conv + 5% Detail + 10% Complex": (-2.1, -7.1, -5.0, -4.4),
        "Conversation": (-6.6, -16.2, -12.4, -11.3),
        "No Instruction Tuning": (-61.1, -51.3, -78.0, -63.6)}))
TABLE_5 = Table(
    "Table 5", "LLaVA-Bench (In-the-Wild): relative score, %, of three inference runs (dagger: of three judgings)",
    "Table 5, p.7", ("Conv", "Detail", "Complex", "All"), Named({
        "OpenFlamingo": ((19.3, 0.5), (19.0, 0.5), (19.1, 0.7), (19.1, 0.4)),
        "BLIP-2": ((54.6, 1.4), (29.1, 1.2), (32.9, 0.7), (38.1, 1.0)),
        "LLaVA": ((57.3, 1.9), (52.5, 6.3), (81.7, 1.8), (67.3, 2.0)),
        "LLaVA (dagger)": ((58.8, 0.6), (49.2, 0.8), (81.4, 0.3), (66.7, 0.3))}))
TABLE_7 = Table(
    "Table 7", "ScienceQA test accuracy by subject, context and grade, %",
    "Table 7, p.9", ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "Avg"), Named({
        "Human": (90.23, 84.97, 87.48, 89.60, 87.50, 88.10, 91.59, 82.42, 88.40),
        "GPT-3.5": (74.64, 69.74, 76.00, 74.44, 67.28, 77.42, 76.80, 68.89, 73.97),
        "GPT-3.5 w/ CoT": (75.44, 70.87, 78.09, 74.68, 67.43, 79.93, 78.23, 69.68, 75.17),
        "LLaMA-Adapter": (84.37, 88.30, 84.36, 83.72, 80.32, 86.90, 85.83, 84.05, 85.19),
        "MM-CoT Base": (87.52, 77.17, 85.82, 87.88, 82.90, 86.83, 84.65, 85.37, 84.91),
        "MM-CoT Large": (95.91, 82.00, 90.82, 95.26, 88.80, 92.89, 92.44, 90.31, 91.68),
        "GPT-4 (text only)": (84.06, 73.45, 87.36, 81.87, 70.75, 90.73, 84.69, 79.10, 82.69),
        "LLaVA": (90.36, 95.95, 88.00, 89.49, 88.00, 90.66, 90.93, 90.90, 90.92),
        "LLaVA+GPT-4 (complement)": (90.36, 95.50, 88.55, 89.05, 87.80, 91.08, 92.22, 88.73, 90.97),
        "LLaVA+GPT-4 (judge)": (91.56, 96.74, 91.09, 90.62, 88.99, 93.52, 92.73, 92.16, 92.53)}))
TABLE_8 = Table(
    "Table 8", "ScienceQA design ablations: accuracy, % (printed difference to the first row), two columns in one",
    "Table 8, p.9", ("Avg",), Named({
        "Best variant": (90.92,), "Last layer": (89.96,), "Answer first": (89.77,), "No stage 1": (85.81,),
        "7B": (89.84,)}),
    Named({"Last layer": (-0.96,), "Answer first": (-1.15,), "No stage 1": (-5.11,), "7B": (-1.08,)}))
TABLES = Named({table.id: table for table in (TABLE_4, TABLE_5, TABLE_7, TABLE_8)})

_README = dict.fromkeys(("gpu", "per_gpu_batch", "max_length"), "code at 8959d5c, README")
_SQA = dict.fromkeys(("learning_rate", "global_batch"), "code at v1.0.1, docs/ScienceQA.md")
RECIPES = Named({recipe.id: recipe for recipe in (
    Recipe("stage 1", "CC-595K", 595_375, 1, ("W",), 2e-3, 128, 4, "Sec. 4.2, p.5; App. C, p.20",
           _README | {"samples": "issues #34, #1421: the released pictures; the paper says 595K"},
           "the released command also wraps the patches in two marker tokens; the paper names none", "not stated"),
    Recipe("stage 2", "Instruct-158K", 158_000, 3, ("W", "LLM"), 2e-5, 32, 10, "Sec. 4.2, p.5; App. C, p.20",
           _README, "the chatbot; marker tokens around the patches as in stage 1's command"),
    Recipe("ScienceQA", "ScienceQA train", 12_726, 12, ("W", "LLM"), 2e-5, 32, 4, "Sec. 5.2, p.8; App. C, p.20",
           _README | _SQA, "starts from stage 1's W; no marker tokens"),
)})

DATA = Named(
    instruct=Fact(158_000, "instruction samples, all three types", "Sec. 3, p.4"),
    instruct_types=Fact({"conversation": 58_000, "detail": 23_000, "complex": 77_000},
                        "samples of each type; boxes were not used for conversation", "Sec. 3, p.4; issue #87"),
    unique_images=Fact(80_000, "COCO pictures that they are about, approximately", "Sec. 5.1, p.6"),
    pairs=Fact(595_000, "picture-caption pairs of CC3M for stage 1", "Sec. 4.2, p.5"),
    pairs_released=Fact(595_375, "pictures in the released file", "issues #34, #1421"),
    rare_below=Fact(3, "CC3M filter: noun phrases seen less often than this are skipped", "App. E, p.20-21"),
    common_above=Fact(100, "CC3M filter: captions drawn for a phrase that has more", "App. E, p.20-21"),
    phrases=Fact({"before": 108_182, "after": 31_423}, "unique noun phrases, CC3M filter", "Figure 7, p.21"),
    instructions=Fact({"brief": 11, "detailed": 16}, "requests for a description", "Tables 11, 12, p.20-21"),
    coco_bench=Fact({"pictures": 30, "questions": 90}, "LLaVA-Bench (COCO), one of each type", "Sec. 5.1, p.7"),
    wild_bench=Fact({"pictures": 24, "questions": 60}, "LLaVA-Bench (In-the-Wild)", "Sec. 5.1, p.7"),
    wild_types=Fact({"conv": 17, "detail": 15, "complex": 28}, "questions of each type", "counted in PR #1199"),
    science_splits=Fact({"train": 12_726, "val": 4_241, "test": 4_241}, "ScienceQA questions", "Sec. 5.2, p.8"),
    science_tree=Fact({"subjects": 3, "topics": 26, "categories": 127, "skills": 379}, "ScienceQA", "Sec. 5.2, p.8"),
    checkpoint=Fact(25, "GB of the released checkpoint, compressed", "App. D, p.20"))
ARCHITECTURE = Named(
    image_size=Fact(224, "pixels per side, for CLIP ViT-L/14, frozen in both stages", "code, clip_encoder.py"),
    patch_size=Fact(14, "pixels per side of a patch", "Sec. 4.1, p.4 (the 14 of ViT-L/14)"),
    patch_tokens=Fact((224 // 14) ** 2, "patches per picture, without the class token", "code, clip_encoder.py"),
    feature_layer=Fact(-2, "of hidden_states: before the last layer", "Sec. 5.2, p.8-9; code, scripts"),
    vision=Fact({"width": 1024, "layers": 24}, "the vision tower", "width: issue #433; layers: general knowledge"),
    widths=Fact({"13B": 5120, "7B": 4096}, "width of Vicuna", "issues #433, #775"),
    layers=Fact({"13B": 40, "7B": 32}, "layers of Vicuna", "7B: FastChat issue #1290; 13B: general knowledge"),
    vocabulary=Fact(32_000, "tokens in Vicuna's vocabulary", "general knowledge"),
    projector=Fact({"13B": 1024 * 5120 + 5120, "7B": 1024 * 4096 + 4096}, "parameters of W and the code's bias",
                   "Eq. 1, p.4; code, multimodal_projector/builder.py"))
JUDGE = Named(
    reference=Fact("text-only GPT-4", "answers from the true description, an upper bound", "Sec. 5.1, p.6-7"),
    criteria=Fact(("helpfulness", "relevance", "accuracy", "level of detail"), "rated", "Sec. 5.1, p.6-7"),
    scale=Fact((1, 10), "lowest and highest score of an answer, then the reasons", "Sec. 5.1, p.6-7"),
    score=Fact("100 * mean(candidate) / mean(reference)", "not a mean of ratios", "code, summarize_gpt_review.py"),
    call=Fact({"model": "gpt-4-0314", "temperature": 0.2, "max_tokens": 1024}, "the judge as asked",
              "code, eval_gpt_review_visual.py"),
    order=Fact(("reference", "candidate"), "always: position bias is not controlled", "code, LLaVA_Bench.md"),
    contamination=Fact("LLaVA-Bench (COCO)", "its pictures were seen in training; not in the paper", "issue #399"))

EQUATIONS = Named({
    "Eq. 1": Fact(r"H_v = W \cdot Z_v, \quad Z_v = g(X_v)",
                  "the vision tower's features Zv, carried by W to Hv", "Eq. 1, p.4"),
    "Eq. 2": Fact(r"X_\mathrm{instruct}^t = \begin{cases} \text{randomly } [X_q^1, X_v] \text{ or } [X_v, X_q^1]"
                  r" & t = 1 \\ X_q^t & t > 1 \end{cases}", "picture before or after the first question", "Eq. 2, p.4"),
    "Eq. 3": Fact(r"p(X_a \mid X_v, X_\mathrm{instruct}) = \prod_{i=1}^{L}"
                  r" p_\theta(x_i \mid X_v, X_{\mathrm{instruct}, <i}, X_{a, <i})",
                  "each answer token from the picture and all before it; theta: W, then W and phi", "Eq. 3, p.5")})

CLAIMS = (
    Claim("more_data_types", "all three types of data together beat any part of them", TABLE_4.source,
          TABLE_4.cells("All", "Full data", "Detail + Complex", "Conv + 5% Detail + 10% Complex", "Conversation")),
    Claim("reasoning_helps_chat", "detail and reasoning data also make plain conversation better", TABLE_4.source,
          TABLE_4.cells("Conv", "Full data", "Conv + 5% Detail + 10% Complex", "Conversation")),
    Claim("tuning_is_needed", "with stage 1 alone, without instruction tuning, the model collapses", TABLE_4.source,
          TABLE_4.cells("All", "Full data", "Conversation", "No Instruction Tuning")),
    Claim("little_goes_far", "a little detail and reasoning data lifts the whole well above conversation only",
          TABLE_4.source, TABLE_4.cells("All", "Full data", "Conv + 5% Detail + 10% Complex", "Conversation")),
    Claim("beats_captioners", "in the wild, an instruction-tuned model beats caption-style ones", TABLE_5.source,
          TABLE_5.cells("All", "LLaVA", "BLIP-2", "OpenFlamingo")),
    Claim("judge_ensemble", "GPT-4, asked again where the two differ, beats both", TABLE_7.source,
          TABLE_7.cells("Avg", "LLaVA+GPT-4 (judge)", "LLaVA+GPT-4 (complement)", "LLaVA", "GPT-4 (text only)")),
    Claim("stage_1_matters", "of all design choices, skipping stage 1 costs the most", TABLE_8.source,
          TABLE_8.cells("Avg", "Best variant", "Last layer", "7B", "Answer first", "No stage 1")),
    Claim("reasoning_first", "reasons before the answer reach 89.77 sooner, in the end a little more",
          f"{TABLE_8.source}; Sec. 5.2, p.8-9", TABLE_8.cells("Avg", "Best variant", "Answer first")
          | {"Reasoning first, epochs": 6.0, "Answer first, epochs": 12.0}),
    Claim("layer_before_last", "the features before the vision tower's last layer serve better than the last",
          TABLE_8.source, TABLE_8.cells("Avg", "Best variant", "Last layer")),
    Claim("bigger_is_better", "a 13B language model beats a 7B one", TABLE_8.source,
          TABLE_8.cells("Avg", "Best variant", "7B")),
)
# fmt: on


def main():
    groups = {"Identity": IDENTITY, "Structure": STRUCTURE, "Data": DATA, "Architecture": ARCHITECTURE, "Judge": JUDGE}
    for title, facts in (groups | {"Equations": EQUATIONS}).items():
        print(title, *(f"  {k}: {f.value} - {f.meaning} [{f.source}]" for k, f in facts.items()), "", sep="\n")
    for recipe in RECIPES.values():
        print(f"{recipe.id}: {recipe.steps} steps, {recipe.per_gpu_batch} samples per GPU")
        print(*(f"  {name}: {value}" for name, value in vars(recipe).items() if name != "id"), "", sep="\n")
    print(*(table.text() + "\n" for table in TABLES.values()), sep="\n")
    print("Table 4, where the printed difference is not the difference of the printed scores")
    print(*("  {}, {}: printed {}, recomputed {}".format(*cell) for cell in TABLE_4.mismatches()), sep="\n")
    print("\nClaims", *(f"  {c.id}: {c.statement} [{c.source}]\n    {c.figures}" for c in CLAIMS), sep="\n")


if __name__ == "__main__":
    main()
