"""Does the small model truly look, as pictures: the gates while the parts were trained, and ten answered pictures.

Notable: the ten scenes are drawn by a seed from the benchmark's, not chosen, and every answer carries the verdict that
the exact match or the judge gives it, good or bad.

    python -m minillava.experiments.gates_figures data_samples/weights data_samples/results
"""

import json
import random
import sys
from pathlib import Path

from matplotlib.figure import Figure

from minillava.chat import Chat
from minillava.datagen.messages import context
from minillava.figures.charts import lines
from minillava.figures.panels import Line, beside, ticked
from minillava.figures.style import DOTTED, canvas
from minillava.scenes.captions import boxes, captions
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw
from minillava.scenes.questions import is_reasoning, questions, right
from minillava.standins.gates import WANTED
from minillava.standins.judge import marks

SEED = 0
DESCRIBE = "Describe this picture in detail."


def panel(axis, rows: list[dict], curves: dict[str, list[float]], title: str, wanted: float) -> None:
    steps = [row["step"] for row in rows]
    lines(steps, curves, "step", "% right", title, axis=axis)
    axis.axhline(wanted, **DOTTED)
    axis.text(0, wanted - 1, f" gate {wanted}", fontsize=8, va="top")
    axis.set(xlim=(0, steps[-1] * 1.02), ylim=(0, 103))


def gate_curves(weights: Path) -> Figure:
    """Per cent right by training step, dev split: the vision tower's probe, the language model on text, the whole on pictures and without, and on what is odd."""
    figure, ((vision_tower, language_model), (llava, odd)) = canvas(11, 8, 2, 2)
    rows = {part: [json.loads(line) for line in (weights / part / "gates.jsonl").read_text().splitlines()]
            for part in ("vision_tower", "language_model", "llava")}  # fmt: skip
    curves = {name: [r["layer -2"][name] for r in rows["vision_tower"]] for name in WANTED["vision_tower"]}
    panel(
        vision_tower,
        rows["vision_tower"],
        curves,
        "The vision tower: read off an object's patches",
        WANTED["vision_tower"]["kind"],
    )
    curves = {
        how: [r[how]["all"] for r in rows["language_model"]] for how in rows["language_model"][0] if how != "step"
    }
    panel(
        language_model,
        rows["language_model"],
        curves,
        "The language model: asked about a scene in words",
        WANTED["language_model"]["all"],
    )
    kinds = ("existence", "colour", "side", "place")
    curves = {kind: [r["picture"][kind] for r in rows["llava"]] for kind in kinds}
    curves |= {f"all, {how}": [r[how]["all"] for r in rows["llava"]] for how in ("picture", "shuffled")}
    panel(llava, rows["llava"], curves, "The whole: asked about a picture", WANTED["llava"]["colour"])
    curves = {"named": [r["picture"]["odd: named"] for r in rows["llava"]],
              "rightly nothing": [r["picture"]["odd: none"] for r in rows["llava"]],
              "named, shuffled": [r["shuffled"]["odd: named"] for r in rows["llava"]]}  # fmt: skip
    panel(odd, rows["llava"], curves, "The whole: asked what is odd", WANTED["llava"]["odd: named"])
    return figure


def asked(scene, rng: random.Random) -> list:
    """A question of three kinds drawn by the seed, and what is odd; then a description (None)."""
    pool = [q for q in questions(scene) if not is_reasoning(q) and q.kind not in ("odd", "doing")]
    kinds = rng.sample(sorted({q.kind for q in pool}), 3)
    odd = [q for q in questions(scene) if q.text == "What is odd in this picture?"]
    return [*(rng.choice([q for q in pool if q.kind == kind]) for kind in kinds), *odd, None]


def ten_pictures(weights: Path, seed: int = SEED) -> tuple[Figure, list[dict]]:
    """Ten scenes of the benchmark by a seed, each with five questions, answers and verdicts; and the same as rows."""
    rng, chat, rows, drawn = random.Random(f"ten pictures {seed}"), Chat(weights), [], []
    for index in rng.sample(range(700), 10):
        scene, cells = compose("bench", index), []
        chat.look(draw(scene, chat.model.config.vision.image_size))
        told = context(captions(scene), boxes(scene))
        for question in asked(scene, rng):
            text = DESCRIBE if question is None else question.text
            chat.turns = []  # every question by itself, as the benchmark asks it
            said = chat.ask(text)
            verdict = marks(told, text, said)
            good = verdict.accuracy == 10 if question is None else right(question, said)
            rows.append({"scene": scene.id, "question": text, "answer": said, "right": good, "why": verdict.why})
            cells.append([Line(text, bold=True), ticked(said, good)])
        drawn.append((draw(scene, 256), {"": cells}))
    title = f"{sum(row['right'] for row in rows)} of {len(rows)} answers about ten pictures drawn by a seed are right"
    return beside(drawn, title, text=6.4), rows


def main() -> None:
    weights, out = Path(sys.argv[1]), Path(sys.argv[2])
    gate_curves(weights).savefig(out / "gates.png")
    figure, rows = ten_pictures(weights / "llava")
    figure.savefig(out / "ten-pictures.png", dpi=80)
    (out / "ten-pictures.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
