"""The controls of a benchmark: the model's answers without the right picture, judged in the same way (section 5.1).

A model that scores as well with a blank picture, with another question's or with none has not used the picture.
`minillava answer --look` makes such answers.

    minillava judge bench --bench data_samples/bench/coco --answers own.jsonl --controls blank.jsonl --out reviewed
"""

from pathlib import Path

from minillava.files import Excluded, FileError, read_jsonl, write_jsonl
from minillava.judging.bench import Item
from minillava.judging.judges import Case, Judge, match_answers, review_rows
from minillava.judging.reviews import read_reviews, relative_scores


def read_controls(items: list[Item], paths: list[Path]) -> tuple[dict[str, list[Case]], list[Excluded]]:
    """The cases of each file, by its name, and what is left out. Raises FileError for two files of one name."""
    controls, excluded = {}, []
    for path in paths:
        if path.stem in controls:
            raise FileError(f"--controls: two files are called {path.stem}; rename one")
        controls[path.stem], left_out = match_answers(items, read_jsonl(path), path)
        excluded += _of_control(path.stem, left_out)
    return controls, excluded


def judge_controls(judge: Judge, controls: dict[str, list[Case]], out: Path) -> tuple[dict[str, dict], list[Excluded]]:
    """The scores of each control, and what was not judged. The reviews are written to `out`."""
    scores, excluded = {}, []
    for name, cases in controls.items():
        (judged,) = judge.review(cases)
        path = out / f"reviews-of-{name}.jsonl"
        write_jsonl(review_rows(judged), path)
        excluded += _of_control(name, judged.excluded)
        if judged.texts:
            reviews = read_reviews(path)
            scores[name] = relative_scores(reviews.used)
            excluded += _of_control(name, reviews.excluded)
    return scores, excluded


def _of_control(name: str, excluded: list[Excluded]) -> list[Excluded]:
    return [Excluded(f"{name}, {e.name}", e.why) for e in excluded]
