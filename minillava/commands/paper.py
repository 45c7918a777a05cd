"""`minillava paper`: the whole paper in miniature, or one of its tables.

minillava paper --scale smoke
"""

import sys
from pathlib import Path

from minillava import scales

UNSEEN = 100_001  # a scene of the benchmark's kind that no benchmark uses
QUESTIONS = ("Describe this picture in detail.", "What is odd in this picture?")


def arguments(parser) -> None:
    add = parser.add_argument
    add("--scale", default="tiny", help=f"one of: {', '.join(scales.PICTURE_BOOK_SCALES)} (default: tiny)")
    add("--seeds", type=int, default=1, help="how many seeds; 3 show the spread")
    add("--out", type=Path, default=Path("runs/paper"), help="where a stopped run resumes (Tables 7, 8: OUT/science)")
    add("--table", type=int, choices=(3, 4, 5, 6, 7, 8, 10), help="rebuild this table, over at least 3 seeds")


def run(options) -> int | None:
    """The whole paper in miniature, then questions about a picture that the new model has not seen; or one table."""
    from minillava.chat import Chat, terminal_picture
    from minillava.experiments import miniature
    from minillava.experiments.report import draw_report, text_of, write_report
    from minillava.experiments.run import RunError
    from minillava.figures.answers import answered
    from minillava.figures.training import health
    from minillava.scenes.compose import compose
    from minillava.scenes.draw import draw
    from minillava.scenes.questions import questions

    scale = scales.picture_book_scale(options.scale)
    if options.seeds < 1:
        raise RunError(f"--seeds {options.seeds}: at least 1 is needed")
    if options.table:
        from minillava.experiments.tables import paper_table

        return paper_table(options.table, options.scale, options.seeds, options.out)
    print(f"Visual Instruction Tuning in miniature, scale {scale.name}, in {options.out}")
    run = miniature.run_paper(options.out, scale, options.seeds)
    report = write_report(run)
    draw_report(report, run.folder)
    print(f"\n{text_of(report)}\n\nThe whole report: {run.folder / 'report.md'}")
    for line in health(run.folder, scale.name):
        print(line)
    unseen, path = compose("bench", UNSEEN), run.folder / "unseen.png"
    picture = draw(unseen, 256)
    picture.save(path)
    chat = Chat(run.home(0, miniature.FULL) / "model")
    chat.look(picture)
    asked = [*QUESTIONS, *(q.text for q in questions(unseen) if q.kind in ("colour", "side"))][:4]
    pairs = [(text, chat.ask(text)) for text in asked]
    answered(picture, pairs).savefig(run.folder / "figures" / "unseen.png")
    print(f"\nA picture that your new model has not seen ({path}), and what it says about it:\n")
    if sys.stdout.isatty():
        print(terminal_picture(draw(unseen, 96)))
    for question, answer in pairs:
        print(f"  Human: {question}\n  Assistant: {answer}")
    print(f"\nTalk with the shipped model, which trained longer: minillava chat {path}")
