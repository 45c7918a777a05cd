"""Reference curves: their band, and where a run leaves it."""

import json
import math
import random
import sys
import types

import pytest

from minillava import curves
from minillava.curves import CurveError, excursions, main, make_curve
from minillava.figures import training as figures_training
from minillava.files import write_jsonl

ABOUT = {"scale": {"name": "test"}, "weights": ["a"]}


def losses(seed, steps=200, start=4.0, end=0.5, noise=0.3):
    """A falling loss; its noise stands for batches of long and of short answers."""
    rng = random.Random(seed)
    fall = [end + (start - end) * math.exp(-6 * t / steps) for t in range(steps)]
    return [value * math.exp(rng.gauss(0, noise)) for value in fall]


@pytest.fixture(scope="module")
def curve():
    return make_curve("test-stage2", [losses(seed) for seed in range(3)], ABOUT)


def save(folder, values):
    rows = ({"step": n, "loss": value} for n, value in enumerate(values))
    write_jsonl(rows, folder / "metrics.jsonl")
    return folder


def test_other_seeds_stay_within_the_band(curve):
    assert all(excursions(losses(seed), curve) == [] for seed in range(3, 23))
    assert excursions(losses(5)[:80], curve) == [] and excursions([], curve) == []


def test_a_loss_that_stays_high_falls_too_far_or_is_not_a_number_is_found_where_it_does(curve):
    (high,) = excursions([3.0] * 200, curve)
    assert high.side == "above" and high.last == 199 and 5 < high.first < 60 and high.factor > 3
    assert f"step {high.first} to 199" in str(high)
    low = excursions([v * (1 if n < 100 else 0.2) for n, v in enumerate(losses(7))], curve)
    assert [out.side for out in low] == ["below"] and 100 <= low[0].first < 130
    (bump,) = excursions([v * (6 if 90 <= n < 130 else 1) for n, v in enumerate(losses(8))], curve)
    assert bump.side == "above" and 90 <= bump.first < 110 and 125 < bump.last < 170
    (lost,) = excursions([*losses(9)[:50], math.nan, 1.0], curve)
    assert (lost.side, lost.first) == ("lost", 50)


def test_the_band_contains_its_runs_and_grows_with_their_spread(curve):
    assert curve.seeds == 3 and curve.at[-1] == 199 and len(curve.at) == curves.MOST_POINTS
    assert all(low < middle < high for low, middle, high in zip(curve.low, curve.middle, curve.high))
    equal = make_curve("x", [losses(1)] * 3, {})
    assert equal.high[0] / equal.middle[0] == pytest.approx(curves.BAND_FACTOR, rel=1e-3)
    wide = make_curve("x", [[v * f for v in losses(1)] for f in (0.7, 1, 1.4)], {})
    assert wide.high[0] / wide.middle[0] > 2


def test_too_few_unequal_or_broken_runs_make_no_curve():
    for runs in ([losses(0)] * 2, [losses(0), losses(1), losses(2)[:-1]], [[1.0] * 5] * 3, [[math.nan] * 20] * 3):
        with pytest.raises(CurveError, match="test"):
            make_curve("test", runs, {})


def test_from_run_folders_to_a_curve_to_a_verdict(tmp_path, capsys):
    runs = [save(tmp_path / "run" / f"seed-{s}" / "full-data", losses(s)) for s in range(3)]
    (tmp_path / "run" / "state.json").write_text(json.dumps({"recipe": ABOUT}))
    folder = ["--folder", str(tmp_path / "curves")]
    assert main(["make", "test-stage2", *map(str, runs), *folder]) == 0
    assert "3 seeds, 200 steps" in capsys.readouterr().out
    written = curves.read_curve("test-stage2", tmp_path / "curves")
    assert written == make_curve("test-stage2", [losses(s) for s in range(3)], ABOUT)
    high = save(tmp_path / "high", [3.0] * 200)
    early = save(tmp_path / "early", [4.0, 3.9])
    assert main(["check", "test-stage2", str(runs[0]), str(early), *folder]) == 0
    out = capsys.readouterr().out
    assert "within the band of test-stage2 at 40 of 40 points" in out and "too early to say: 2 steps" in out
    assert main(["check", "test-stage2", str(high), *folder]) == 1
    assert "not healthy. step" in capsys.readouterr().out
    other = save(tmp_path / "other" / "seed-0" / "full-data", losses(4))
    for arguments, said in (
        (["check", "nothing", str(high)], "there are: test-stage2"),
        (["check", "test-stage2", str(tmp_path)], "not the metrics of a training"),
        (["make", "test-stage2", *map(str, runs[:2]), str(other)], "different recipes or weights"),
    ):
        assert main([*arguments, *folder]) == 2 and said in capsys.readouterr().err


def test_a_run_of_the_paper_says_whether_it_is_healthy(tmp_path, monkeypatch, curve):
    monkeypatch.setattr(figures_training, "read_curve", lambda name: curves.read_curve(name, tmp_path / "curves"))
    curves.write_curve(curve, tmp_path / "curves")
    run = tmp_path / "run"
    (run / "figures").mkdir(parents=True)
    save(run / "seed-0" / "full-data", losses(11)), save(run / "seed-1" / "full-data", [3.0] * 200)
    (run / "state.json").write_text(json.dumps({"recipe": ABOUT}))
    good, bad = figures_training.health(run, "test")
    assert "seed-0: healthy" in good and "seed-1: not healthy" in bad
    assert (run / "figures" / "band-full-data.png").stat().st_size > 5000
    (run / "state.json").write_text(json.dumps({"recipe": ABOUT | {"weights": ["b"]}}))
    assert figures_training.health(run, "test") == [
        "Loss of full-data: not compared; the reference curve is of other weights or another recipe"
    ]
    assert figures_training.health(run, "another") == []


def test_the_figure_marks_where_the_loss_is_outside(curve):
    def marked(run):
        axis = figures_training.band([run], curve).axes[0]
        return axis.get_title(loc="left"), len(axis.patches)

    assert marked(losses(12)) == ("The loss stays within its band", 0)
    assert marked([3.0] * 200) == ("The loss leaves its band", 1)


def test_the_live_plot_is_one_display_that_is_updated(monkeypatch, curve):
    shown = []

    class Handle:
        def update(self, figure):
            shown.append(figure.axes[0].get_title(loc="left"))

    display = types.SimpleNamespace(display=lambda figure, display_id: Handle())
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    live = figures_training.Live(curve, seconds=1e9)
    for step in range(1, 31):
        live(step, 30, 4.0 / step)
    assert shown[-1] == "Step 30 of 30: loss 0.133" and len(shown) <= 2


def test_shipped_curves_can_be_read():
    names = [path.stem for path in curves.CURVE_FOLDER.glob("*.json")]
    assert names
    for name in names:
        shipped = curves.read_curve(name)
        assert shipped.name == name and shipped.seeds >= curves.LEAST_SEEDS and shipped.about["weights"]
