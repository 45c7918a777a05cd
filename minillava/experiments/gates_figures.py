"""Does the small model truly look, as pictures: the gates while the parts were trained, and ten answered pictures.

Notable: the ten scenes are drawn by a seed from the benchmark's, not chosen, and every answer carries the verdict that
the exact match or the judge gives it, good or bad.

    python -m minillava.experiments.gates_figures data_samples/weights data_samples/results
"""

import json
import random
import sys
import textwrap
from pathlib import Path

from matplotlib.figure import Figure

from minillava.chat import Chat
from minillava.datagen.messages import context
from minillava.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, canvas, headline
from minillava.scenes.captions import boxes, captions
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw
from minillava.scenes.questions import is_correct, is_reasoning, questions
from minillava.standins.gates import THRESHOLDS
from minillava.standins.judge import marks

COLOURS = (BLUE, ORANGE, GREEN, PINK, INK, GREY)
SEED = 0
DESCRIBE = "Describe this picture in detail."


def panel(axis, rows: list[dict], curves: dict[str, list[float]], title: str, wanted: float) -> None:
    steps = [row["step"] for row in rows]
    for (name, values), colour in zip(curves.items(), COLOURS):
        axis.plot(steps, values, "o-", color=colour, label=name, ms=3, lw=1.5)
    axis.axhline(wanted, color=GREY, ls="--", lw=1)
    axis.text(0.01, wanted - 4, f"gate {wanted}", color=GREY, fontsize=8, transform=axis.get_yaxis_transform())
    axis.set_ylim(0, 103)
    axis.set_xlim(0, steps[-1] * 1.02)
    axis.set_xlabel("step")
    axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 0.05), ncols=3)
    headline(axis, title)


def gate_curves(weights: Path) -> Figure:
    """Per cent right by training step, dev split: the vision tower's probe, the language model on text, the whole on pictures and without, and on what is odd."""
    figure, ((vision_tower, language_model), (llava, odd)) = canvas(11, 8, 2, 2)
    rows = {part: [json.loads(line) for line in (weights / part / "gates.jsonl").read_text().splitlines()]
            for part in ("vision_tower", "language_model", "llava")}  # fmt: skip
    curves = {name: [r["layer -2"][name] for r in rows["vision_tower"]] for name in THRESHOLDS["vision_tower"]}
    panel(
        vision_tower,
        rows["vision_tower"],
        curves,
        "The vision tower: read off an object's patches",
        THRESHOLDS["vision_tower"]["kind"],
    )
    curves = {
        how: [r[how]["all"] for r in rows["language_model"]] for how in rows["language_model"][0] if how != "step"
    }
    panel(
        language_model,
        rows["language_model"],
        curves,
        "The language model: asked about a scene in words",
        THRESHOLDS["language_model"]["all"],
    )
    kinds = ("existence", "colour", "side", "place")
    curves = {kind: [r["picture"][kind] for r in rows["llava"]] for kind in kinds}
    curves |= {f"all, {how}": [r[how]["all"] for r in rows["llava"]] for how in ("picture", "shuffled")}
    panel(llava, rows["llava"], curves, "The whole: asked about a picture", THRESHOLDS["llava"]["colour"])
    curves = {"named": [r["picture"]["odd: named"] for r in rows["llava"]],
              "rightly nothing": [r["picture"]["odd: none"] for r in rows["llava"]],
              "named, shuffled": [r["shuffled"]["odd: named"] for r in rows["llava"]]}  # fmt: skip
    panel(odd, rows["llava"], curves, "The whole: asked what is odd", THRESHOLDS["llava"]["odd: named"])
    for axis in (vision_tower, llava):
        axis.set_ylabel("% right")
    return figure


def asked(scene, rng: random.Random) -> list:
    """A question of three kinds drawn by the seed, and what is odd; then a description (None)."""
    pool = [q for q in questions(scene) if not is_reasoning(q) and q.kind not in ("odd", "doing")]
    kinds = rng.sample(sorted({q.kind for q in pool}), 3)
    odd = [q for q in questions(scene) if q.text == "What is odd in this picture?"]
    return [*(rng.choice([q for q in pool if q.kind == kind]) for kind in kinds), *odd, None]


def ten_pictures(weights: Path, seed: int = SEED) -> tuple[Figure, list[dict]]:
    """Ten scenes of the benchmark by a seed, each with five questions, answers and verdicts; and the same as rows."""
    rng, chat, rows = random.Random(f"ten pictures {seed}"), Chat(weights), []
    figure, axes = canvas(15, 21, 4, 5)
    for n, index in enumerate(rng.sample(range(700), 10)):
        scene = compose("bench", index)
        left, right_ = axes[n // 2][2 * (n % 2) : 2 * (n % 2) + 2]
        left.imshow(draw(scene, 256))
        left.set_axis_off()
        right_.set_axis_off()
        chat.look(draw(scene, chat.model.config.vision.image_size))
        y, told = 1.0, context(captions(scene), boxes(scene))
        for question in asked(scene, rng):
            text = DESCRIBE if question is None else question.text
            chat.turns = []  # every question by itself, as the benchmark asks it
            said = chat.ask(text)
            verdict = marks(told, text, said)
            good = verdict.accuracy == 10 if question is None else is_correct(question, said)
            rows.append({"scene": scene.id, "question": text, "answer": said, "right": good, "why": verdict.why})
            for line, colour in ((text, GREY), (f"{'✓' if good else '✗'} {said}", GREEN if good else "#D55E00")):
                wrapped = textwrap.wrap(line, 52)
                right_.text(0, y, "\n".join(wrapped), fontsize=9, color=colour, va="top")
                y -= 0.062 * len(wrapped) + 0.012
    return figure, rows


def main() -> None:
    weights, out = Path(sys.argv[1]), Path(sys.argv[2])
    gate_curves(weights).savefig(out / "gates.png")
    figure, rows = ten_pictures(weights / "llava")
    figure.savefig(out / "ten-pictures.png", dpi=80)
    (out / "ten-pictures.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
