"""The detector on curves whose answer is known."""

from pathlib import Path

import numpy as np
import pytest

from clprune.approach import _log_bayes, live_evidence, segments_of
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


def test_curves_as_excel_writes_them_are_read(tmp_path: Path) -> None:
    read = []
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "curves.csv").write_text("epoch,x\n1,0.5\n2,0.25\n", encoding=encoding)
        times, curves = read_curves(tmp_path / "curves.csv")
        read.append((times.tolist(), {name: values.tolist() for name, values in curves.items()}))
    assert read[0] == read[1] == ([1, 2], {"x": [0.5, 0.25]})


def test_a_jump_at_a_change_of_the_learning_rate_is_masked() -> None:
    t, rate = np.arange(80.0), np.where(np.arange(80) < 40, 0.1, 0.01)
    for seed in range(8):
        y = curve("line", 80, 0.03, seed) + 2.0 * (t >= 40)
        assert live_firing(t, {"x": y, "learning_rate": rate}) is None
        assert live_firing(t, {"x": y}) is not None  # unmasked the jump looks like an approach that is done


@pytest.mark.parametrize("every", [2, 5, 10])
def test_a_gap_in_the_logged_rate_is_no_change_of_it(every: int) -> None:
    n = np.arange(80)
    rate = np.where(n < 40, 0.1, 0.01)
    for logged in (np.where(n % every == 0, rate, np.nan), np.where(n % every == 1, np.nan, rate)):
        np.testing.assert_array_equal(segments_of(logged, 80), segments_of(rate, 80))
    assert segments_of(np.full(80, np.nan), 80).tolist() == [0] * 80
    t, x = np.arange(1.0, 61.0), curve("exp", 60, 0.02, 0)
    gaps = {"x": x, "learning_rate": np.where(np.arange(60) % every == every - 1, 0.1, np.nan)}
    assert live_firing(t, gaps) == live_firing(t, {"x": x}) is not None
    assert find_critical_period(gaps, t, n_epochs=60) == find_critical_period({"x": x}, t, n_epochs=60)


def test_what_comes_later_changes_nothing() -> None:
    t, y = np.arange(60.0) / 4, curve("exp", 60, 0.05, 2)
    y[7] = np.nan
    whole = live_evidence(t, y)
    for n in (9, 20, 33, 60):
        part, alone = live_evidence(t[:n], y[:n]), live_evidence(t[:n], y[:n], last_only=True)
        np.testing.assert_allclose(part.bends, whole.bends[:n], atol=1e-9)
        np.testing.assert_allclose(part.over, whole.over[:n], atol=1e-9)
        assert (alone.bends[-1], alone.over[-1]) == pytest.approx((whole.bends[n - 1], whole.over[n - 1]), abs=1e-9)


def test_the_evidence_is_that_of_plain_least_squares() -> None:
    """The closed form over the grid against fitting each shape by least squares, with a level for each stretch of learning rate."""
    t, y, stretch = np.arange(1.0, 31.0), curve("exp", 30, 0.05, 5), (np.arange(30) >= 12).astype(int)
    shapes = np.stack([np.exp(-np.maximum(t - s, 0) / tau) for s in (0, 4) for tau in (2.0, 9.0)])
    found = _log_bayes(shapes, (y - y.mean()) / y.std(), stretch, np.array([7, 20, 29]))
    for column, last in enumerate((7, 20, 29)):
        seen = slice(last + 1)
        levels = np.stack([stretch[seen] == k for k in np.unique(stretch[seen])], axis=1).astype(float)
        residual = [
            ((y[seen] - design @ np.linalg.lstsq(design, y[seen], rcond=None)[0]) ** 2).sum()
            for design in [levels, *(np.c_[levels, e[seen]] for e in shapes)]
        ]
        m, g = last + 1 - levels.shape[1], 100.0 * (last + 1)
        expected = [0.5 * (m - 1) * np.log(1 + g) - 0.5 * m * np.log(1 + g * r / residual[0]) for r in residual[1:]]
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-6)


def test_an_end_needs_learning_and_a_settled_ranking() -> None:
    t, done = np.arange(60.0), curve("exp", 60, 0.02, 1)
    flat = np.random.default_rng(3).normal(0, 0.02, 60)
    without = {"noise_scale": done, "ranking_stability": done + 0.01 * flat, "retention": flat, "memorization_rate": flat[::-1]}
    assert live_firing(t, without) is None  # the gradient settles also where nothing is memorized
    assert live_firing(t, without | {"retention": done}) is not None
    assert live_firing(t, without | {"retention": done, "kept_overlap": np.full(60, 0.9)}) is None


@pytest.mark.parametrize("batch", [64, 512])
def test_cosines_of_batch_gradients_are_read_as_one_noise_scale(tmp_path: Path, batch: int) -> None:
    noise_scale = 100 * (1 - 0.9 * np.exp(-np.arange(80) / 9))
    cosine = 1 / (1 + noise_scale / batch)
    path = tmp_path / "curves.csv"
    path.write_text("epoch,avg_cosine_similarity,max_cosine_similarity\n" + "".join(f"{e},{c},{c * 0 + 0.5}\n" for e, c in enumerate(cosine)))
    _times, curves = read_curves(path)
    assert list(curves) == ["noise_scale"] and np.isnan(curves["noise_scale"][0])
    np.testing.assert_allclose(curves["noise_scale"][1:] + np.log10(batch), np.log10(noise_scale[1:]), atol=1e-9)


def test_the_border_between_the_phases_is_the_peak_of_the_fisher_trace_and_not_seen_at_an_edge() -> None:
    t, flat = np.arange(40.0), np.zeros(40)
    found = [
        find_critical_period({"retention": flat, "fisher_trace": trace}, t, n_epochs=40).border_epoch for trace in (-((t - 15) ** 2), np.exp(-t), t)
    ]
    assert found == [15.0, None, None]
