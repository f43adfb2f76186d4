"""The detector on curves whose answer is known."""

from pathlib import Path

import numpy as np
import pytest

from clprune.critical_period import find_critical_period, live_firing, read_curves
from clprune.errors import DataError


def curve(kind: str, n: int, noise: float, seed: int) -> np.ndarray:
    t = np.arange(n, dtype=float)
    y = {"flat": np.zeros(n), "line": t / (n - 1), "exp": 1 - np.exp(-t / 8)}[kind]
    return y + np.random.default_rng(seed).normal(0, noise, n)


@pytest.mark.parametrize("kind", ["flat", "line"])
@pytest.mark.parametrize("n", [40, 120])
def test_flat_and_straight_curves_never_fire(kind: str, n: int) -> None:
    fired = [live_firing(np.arange(n, dtype=float), {"x": curve(kind, n, 0.03, seed)}) for seed in range(15)]
    assert fired == [None] * 15


def test_an_approach_fires_near_its_ninety_percent_point_and_the_interval_holds_it() -> None:
    truth, fired, covered = 8 * np.log(10), [], 0
    for seed in range(15):
        y = curve("exp", 60, 0.03, seed)
        fired.append(live_firing(np.arange(60, dtype=float), {"x": y}))
        period = find_critical_period({"x": y}, np.arange(60, dtype=float), n_epochs=60)
        assert period.interval is not None
        covered += period.interval[0] <= truth <= period.interval[1]
    assert None not in fired
    assert np.median(fired) == pytest.approx(truth, rel=0.15)
    assert covered >= 11


def test_a_curve_that_ends_before_the_point_does_not_fire() -> None:
    assert [live_firing(np.arange(14, dtype=float), {"x": curve("exp", 14, 0.03, seed)}) for seed in range(15)].count(None) >= 14


def test_the_scale_and_direction_of_a_curve_do_not_matter() -> None:
    t, y = np.arange(50, dtype=float), curve("exp", 50, 0.05, 3)
    found = [(live_firing(t, {"x": z}), find_critical_period({"x": z}, t, n_epochs=50)) for z in (y, 1000 - 7 * y)]
    assert found[0][0] == found[1][0]
    assert found[0][1].hindsight_end == pytest.approx(found[1][1].hindsight_end, rel=1e-9)


def test_no_curve_gives_not_established() -> None:
    period = find_critical_period({"retention": np.full(5, np.nan)}, np.arange(5.0), n_epochs=5)
    assert not period.settled and period.end_epoch == 5 and "not established" in period.reason


@pytest.mark.parametrize(
    ("text", "said"), [("a,b\n1,2\n", "epoch"), ("epoch,x\n1,2\n2,oops\n", "line 3, column 'x'"), ("epoch,x\n2,1\n1,1\n", "increase"), ("", "header")]
)
def test_bad_curve_files_are_named_with_row_and_column(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "curves.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_curves(path)
