"""`minillava paper`: the whole paper in miniature, or one of its tables.

minillava paper --scale smoke
"""

import sys
from pathlib import Path

from minillava import scales

UNSEEN = 100_001  # a scene like the benchmark's that no benchmark uses
QUESTIONS = ("Describe this picture in detail.", "What is odd in this picture?")


def arguments(parser) -> None:
    """Declare what the verb is given."""
    parser.add_argument("--scale", default="tiny", help=f"one of: {', '.join(scales.SCALES)} (default: tiny)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds; 3 show the spread")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/paper"),
        help="where everything goes; a stopped run goes on here (Tables 7 and 8: in its folder `science`)",
    )
    parser.add_argument(
        "--table",
        type=int,
        choices=(3, 4, 5, 6, 7, 8, 10),
        help="rebuild this table of the paper, over at least 3 seeds",
    )


def run(options) -> int | None:
    """The whole paper in miniature, and at its end a picture that the new model has not seen; or one of its tables."""
    from minillava.chat import Chat, blocks
    from minillava.experiments import miniature
    from minillava.experiments.report import show, write_report
    from minillava.experiments.report_figures import report_figures
    from minillava.experiments.run import RunError
    from minillava.figures.answers import answered
    from minillava.figures.training import health
    from minillava.scenes.compose import compose
    from minillava.scenes.draw import draw
    from minillava.scenes.questions import questions

    scale = scales.get(options.scale)
    if options.seeds < 1:
        raise RunError(f"--seeds {options.seeds}: at least 1 is needed")
    if options.table:
        from minillava.experiments.tables import paper_table

        return paper_table(options.table, options.scale, options.seeds, options.out)
    print(f"Visual Instruction Tuning in miniature, scale {scale.name}, in {options.out}")
    run = miniature.run_paper(options.out, scale, options.seeds)
    report = write_report(run)
    report_figures(report, run.folder)
    print(show(report, run.folder))
    for line in health(run.folder, scale.name):
        print(line)
    unseen = compose("bench", UNSEEN)
    picture = run.folder / "unseen.png"
    draw(unseen, 256).save(picture)
    chat = Chat(run.folder / "seed-0" / miniature.slug(miniature.FULL) / "model")
    chat.look(picture)
    asked = [*QUESTIONS, *(q.text for q in questions(unseen) if q.kind in ("colour", "side"))][:4]
    pairs = [(text, chat.ask(text)) for text in asked]
    answered(draw(unseen, 256), pairs).savefig(run.folder / "figures" / "unseen.png")
    print(f"\nA picture it has not seen ({picture}), and what the model you just trained says of it:\n")
    if sys.stdout.isatty():
        print(blocks(draw(unseen, 96)))
    for question, answer in pairs:
        print(f"  Human: {question}\n  Assistant: {answer}")
    print(f"\nTalk with the one that trained longer: minillava chat {picture}")
