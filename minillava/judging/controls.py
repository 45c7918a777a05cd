"""The controls of a benchmark: the same model's answers without the right picture, judged as its own are (section 5.1).

Notable: what a score is worth shows beside them - a model that scores as well when it looks at a blank picture, at another
question's or at none has not looked. `minillava answer --look` makes such answers.

    minillava judge bench --bench data_samples/bench/coco --answers own.jsonl --controls blank.jsonl --out reviewed
"""

from pathlib import Path

from minillava.files import Excluded, FileError, read_jsonl, write_jsonl
from minillava.judging.bench import Item
from minillava.judging.judges import Case, Judge, match_answers, review_rows
from minillava.judging.reviews import read_reviews, relative_scores


def read_controls(items: list[Item], paths: list[Path]) -> tuple[dict[str, list[Case]], list[Excluded]]:
    """The cases of each file, by its name, and what does not join. Raises FileError for two files of one name."""
    out, excluded = {}, []
    for path in paths:
        if path.stem in out:
            raise FileError(f"--controls: two files are called {path.stem}; rename one")
        out[path.stem], bad = match_answers(items, read_jsonl(path), path)
        excluded += [Excluded(f"{path.stem}, {e.name}", e.why) for e in bad]
    return out, excluded


def judge_controls(judge: Judge, controls: dict[str, list[Case]], out: Path) -> tuple[dict[str, dict], list[Excluded]]:
    """The scores of each control, its reviews written to `out`, and what was not judged."""
    found, excluded = {}, []
    for name, cases in controls.items():
        (judged,) = judge.review(cases)
        path = out / f"reviews-of-{name}.jsonl"
        write_jsonl(review_rows(judged), path)
        bad = judged.excluded
        if judged.texts:
            reviews = read_reviews(path)
            found[name], bad = relative_scores(reviews.used), [*bad, *reviews.excluded]
        excluded += [Excluded(f"{name}, {e.name}", e.why) for e in bad]
    return found, excluded
