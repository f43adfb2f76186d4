"""The detector on curves whose answer is known."""

import os
import select
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clprune.approach import CELLS_AT_ONCE, _blocks, _Grid, _log_bayes, _RunningSums, live_evidence, segments_of
from clprune.critical_period import LiveRule, Vote, curves_so_far, find_critical_period, live_firing, read_curves
from clprune.errors import DataError
from clprune.pipeline import detect


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
    ("text", "said"),
    [
        ("a,b\n1,2\n", "epoch"),
        ("epoch,x\n1,2\n2,oops\n", "line 3, column 'x'"),
        ("epoch,x\n2,1\n\n1,1\n", "line 4: `epoch` is 1 after 2; .*increase.* started again"),
        ("", "header"),
    ],
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


@pytest.mark.parametrize("last", [1e3, 1e7, -1e10, 1e100])
def test_no_value_is_so_large_that_it_changes_what_was_said_before(last: float) -> None:
    t, y = np.arange(1.0, 61.0), curve("exp", 60, 0.02, 0)
    before, fired = live_evidence(t, y), live_firing(t, {"x": y})
    y = np.append(y[:-1], last)
    after = live_evidence(t, y)
    np.testing.assert_allclose(after.bends[:-1], before.bends[:-1], atol=1e-12)
    np.testing.assert_allclose(after.over[:-1], before.over[:-1], atol=1e-12)
    assert live_firing(t, {"x": y}) == fired is not None


def test_a_curve_that_begins_on_a_level_is_read_from_where_it_leaves_it() -> None:
    t, y = np.arange(1.0, 61.0), curve("exp", 60, 0.02, 0)
    for level, tiny in ((0.0, 0.0), (1.0, 1e-16), (0.0, 1e-300)):
        x = np.concatenate([level + tiny * (np.arange(12) % 2), level + y[:48] - y[0]])
        found = live_evidence(t, x)
        assert np.isfinite(found.bends).all() and np.isfinite(found.over).all() and (found.bends[:12] < 0.5).all()
        assert live_firing(t, {"x": x}) is not None


def test_the_evidence_is_that_of_plain_least_squares() -> None:
    """The closed form over the grid against fitting each shape by least squares, with a level for each stretch of learning rate."""
    t, y, stretch = np.arange(1.0, 31.0), curve("exp", 30, 0.05, 5), (np.arange(30) >= 12).astype(int)
    shapes = np.stack([np.exp(-np.maximum(t - s, 0) / tau) for s in (0, 4) for tau in (2.0, 9.0)])
    scaled, running = (y - y.mean()) / y.std(), _RunningSums(len(shapes))
    found = np.concatenate(
        [running.log_bayes(shapes[:, part], scaled[part], stretch[part]) for part in (slice(0, 9), slice(9, 14), slice(14, 30))], axis=1
    )
    for last in (7, 20, 29):
        seen = slice(last + 1)
        levels = np.stack([stretch[seen] == k for k in np.unique(stretch[seen])], axis=1).astype(float)
        residual = [
            ((y[seen] - design @ np.linalg.lstsq(design, y[seen], rcond=None)[0]) ** 2).sum()
            for design in [levels, *(np.c_[levels, e[seen]] for e in shapes)]
        ]
        m, g = last + 1 - levels.shape[1], 100.0 * (last + 1)
        expected = [0.5 * (m - 1) * np.log(1 + g) - 0.5 * m * np.log(1 + g * r / residual[0]) for r in residual[1:]]
        np.testing.assert_allclose(found[:, last], expected, rtol=1e-6)
        np.testing.assert_allclose(_log_bayes(shapes[:, seen], scaled[seen], stretch[seen]), expected, rtol=1e-6)


def test_a_long_log_is_read_in_little_memory_and_says_the_same_at_every_point() -> None:
    n = 1500
    t, stretch = np.arange(1.0, n + 1), np.searchsorted([500, 900], np.arange(n))
    y = np.exp(-t / 200) + 0.02 * np.random.default_rng(0).normal(size=n) + 0.5 * stretch
    tracemalloc.start()
    found = live_evidence(t, y, stretch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 8 * CELLS_AT_ONCE
    for last in (8, 250, 499, 500, 899, 900, 1499):
        alone = live_evidence(t[: last + 1], y[: last + 1], stretch[: last + 1], last_only=True)
        assert (found.bends[last], found.over[last]) == pytest.approx((alone.bends[-1], alone.over[-1]), abs=1e-8)


@pytest.mark.parametrize("ramp", [False, True])
def test_hindsight_of_a_long_log_is_taken_start_by_start_and_is_the_same(ramp: bool) -> None:
    n = 9000
    t, y, stretch = np.arange(1.0, n + 1), curve("exp", n, 0.05, 0), np.zeros(n, dtype=np.int64)
    grid = _Grid((0.0, 100.0), (1.0, 50.0), ramp)
    assert 32 * CELLS_AT_ONCE < len(grid.starts) * len(grid.scales) * n  # more than is held together
    found = grid.log_posterior(t, y, stretch)
    differences = []
    for at in (0, 7, 24):
        alone = _log_bayes(grid._shapes(grid.starts[[at]], t), y, stretch)
        differences.append(np.ptp(found[at] - alone - np.log(np.gradient(grid.scales))))
    assert max(differences) < 1e-6


@pytest.mark.parametrize(("n", "n_shapes"), [(8, 100), (9, CELLS_AT_ONCE), (1000, 999), (4001, 5000)])
def test_blocks_cover_all_points_in_order_and_none_is_of_one(n: int, n_shapes: int) -> None:
    blocks = _blocks(n, n_shapes)
    assert [at for block in blocks for at in range(n)[block]] == list(range(n))
    assert min(block.stop - block.start for block in blocks) >= 2


def test_an_end_needs_learning_and_a_settled_ranking() -> None:
    t, done = np.arange(60.0), curve("exp", 60, 0.02, 1)
    flat = np.random.default_rng(3).normal(0, 0.02, 60)
    without = {"noise_scale": done, "ranking_stability": done + 0.01 * flat, "retention": flat, "memorization_rate": flat[::-1]}
    assert live_firing(t, without) is None  # the gradient settles also where nothing is memorized
    assert live_firing(t, without | {"retention": done}) is not None
    assert live_firing(t, without | {"retention": done, "kept_overlap": np.full(60, 0.9)}) is None


def approaching(t: np.ndarray, pace: float, seed: int) -> np.ndarray:
    return 1 - np.exp(-t / pace) + 0.005 * np.random.default_rng(seed).normal(size=len(t))


def asked_after_each_epoch(times: np.ndarray, curves: dict[str, np.ndarray]) -> int | None:
    """The live rule itself, told after every whole epoch what there is by then."""
    rule = LiveRule()
    for epoch in range(1, int(times[-1]) + 1):
        seen = times <= epoch
        rule.update({name: values[seen] for name, values in curves.items()}, times[seen])
    return rule.fired_epoch


@pytest.mark.parametrize("points", [1, 3, 4, 7])
@pytest.mark.parametrize("pace", [0.3, 0.45, 1.5, 4.0])
def test_logged_curves_fire_where_the_rule_in_the_training_does(points: int, pace: float) -> None:
    t = np.arange(1, 16 * points + 1) / points
    curves = {
        name: approaching(t, pace * (1 + k / 10), k) for k, name in enumerate(("retention", "memorization_rate", "ranking_stability", "noise_scale"))
    }
    overlap = np.full(len(t), np.nan)
    overlap[2 * points - 1 :: points] = np.linspace(0.9, 0.98, 15)  # once an epoch, from the second on
    assert live_firing(t, curves) == asked_after_each_epoch(t, curves | {"kept_overlap": np.ones(len(t))}) is not None
    curves["kept_overlap"] = overlap
    assert live_firing(t, curves) == asked_after_each_epoch(t, curves) >= 10


def test_an_epoch_whose_end_no_row_marks_is_over_when_the_next_one_begins() -> None:
    t = np.arange(1, 60) * 0.3
    x = approaching(t, 1.0, 0)
    fired = live_firing(t, {"x": x})
    assert fired is not None and np.ceil(fired + 0.3) > np.ceil(fired)
    for n in range(8, 60):  # read row by row: what was read so far says the same, or nothing yet
        assert live_firing(t[:n], {"x": x[:n]}) == (fired if np.ceil(t[n - 1]) > np.ceil(fired) or t[n - 1] == np.ceil(fired) else None)


def test_confidence_is_the_same_number_live_and_in_hindsight() -> None:
    t, flat = np.arange(1, 41) / 4, [0.5 + 0.01 * np.random.default_rng(seed).normal(size=40) for seed in (1, 2)]
    others = {"ranking_stability": approaching(t, 0.45, 3), "noise_scale": approaching(t, 0.5, 4)}
    for learning, low, high in ((flat, 0, 0.1), ([approaching(t, 0.4, 5), flat[1]], 0.9, 1)):
        curves = others | dict(zip(("retention", "memorization_rate"), learning, strict=True))
        found = [
            find_critical_period(curves, t, n_epochs=10, live=live, fired_epoch=fired) for live, fired in ((False, None), (True, None), (True, 5))
        ]
        assert len({period.confidence for period in found}) == 1
        assert low <= found[0].confidence <= high and found[0].settled == (high == 1)
    assert find_critical_period(others, t, n_epochs=10).confidence == 1  # where neither is recorded the others decide alone


def test_curves_count_by_their_probability_of_an_approach() -> None:
    """As README says: of four voters 0.8 times two must be there in sum, none of them need be sure."""
    for bends, over in (((0.55, 0.35, 0.35, 0.35), True), ((0.8, 0.8, 0.0, 0.0), True), ((1.0, 0.5, 0.0, 0.0), False)):
        enough = np.array([sum(bends) / 2])
        vote = Vote({str(k): np.array([bend]) for k, bend in enumerate(bends)}, np.array([0.95]), enough, np.array([0.53]))
        assert vote.over.tolist() == [over]


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


@pytest.mark.parametrize("header", ["epoch,memo,lr", "epoch, memo, lr", " Epoch ,memo,LR", "EPOCH,memo,Learning Rate", "epoch,memo,learning_rate "])
def test_names_of_columns_are_read_with_any_spaces_and_the_rate_in_any_spelling(tmp_path: Path, header: str) -> None:
    rng, t = np.random.default_rng(1), np.arange(1, 41)
    memo, rate = 0.9 - 0.01 * t + rng.normal(0, 0.01, 40), 0.1 * np.exp(-t / 4)  # the rate approaches a level, the indicator does not
    (tmp_path / "curves.csv").write_text(f"{header}\n" + "".join(f"{e}, {m}, {r}\n" for e, m, r in zip(t, memo, rate, strict=True)))
    times, curves = read_curves(tmp_path / "curves.csv")
    assert times.tolist() == t.tolist() and list(curves) == ["memo", "learning_rate"]
    assert curves["memo"].tolist() == memo.tolist() and not find_critical_period(curves, times, n_epochs=40).settled


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("epoch,x,x", "'x' and 'x'"),
        ("epoch,x, x", "'x' and 'x'"),
        ("epoch,Epoch,x", "'epoch' and 'Epoch'"),
        ("epoch,x,lr,Learning Rate", "'lr' and 'Learning Rate'"),
        ("step,x,y", "a header with `epoch`"),
        ("epoch,lr", "at least one indicator"),
    ],
)
def test_a_header_that_is_not_clear_is_refused(tmp_path: Path, header: str, said: str) -> None:
    (tmp_path / "curves.csv").write_text(f"{header}\n" + "1,2,3,4\n")
    with pytest.raises(DataError, match=said):
        read_curves(tmp_path / "curves.csv")


def logged(n: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Quarters of epochs; retention is there from the second epoch on and approaches its level, memorization is noise."""
    t, noise = np.arange(1, n + 1) / 4, 0.05 * np.random.default_rng(100 + seed).normal(size=n)
    curves = {"retention": approaching(t, 0.6, seed), "memorization_rate": noise}
    for values in curves.values():
        values[:4] = np.nan
    return t, curves


def as_csv(t: np.ndarray, curves: dict[str, np.ndarray]) -> list[str]:
    cells = [[str(e), *("" if np.isnan(c[at]) else repr(float(c[at])) for c in curves.values())] for at, e in enumerate(t)]
    return [f"{line}\n" for line in [",".join(["epoch", *curves]), *map(",".join, cells)]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("late", [False, True])
def test_a_whole_log_says_what_its_rows_say_one_after_the_other(tmp_path: Path, seed: int, late: bool) -> None:
    t, curves = logged(60, seed)
    if late:  # voters that are not there before the rule has fired
        curves |= {name: np.where(t > 10, approaching(t, 30.0, seed), np.nan) for name in ("ranking_stability", "noise_scale")}
    told = [live_firing(t[:n], {name: values[:n] for name, values in curves.items()}) for n in range(8, 61)]
    first = next(at for at in told if at is not None)
    assert told[-1] == first == asked_after_each_epoch(t, curves | {"kept_overlap": np.ones(60)})
    (tmp_path / "curves.csv").write_text("".join(as_csv(t, curves)))
    assert detect(tmp_path / "curves.csv", live=True) == {"fired_epoch": first}


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_log_that_comes_in_pieces_is_read_as_a_whole_one_is(tmp_path: Path, ending: str) -> None:
    t, curves = logged(40, 0)
    text = ("\ufeff" + "".join(as_csv(t, curves)).replace("\n", ending)).encode()
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        with open(tmp_path / "pipe", "wb", buffering=0) as pipe:
            for at in range(0, len(text), 61):  # through the mark at its start, through lines and numbers
                pipe.write(text[at : at + 61])
                time.sleep(0.001)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        seen = list(curves_so_far(tmp_path / "pipe"))
        writing.result()
    assert len(seen) > 1
    for times, found in seen:
        np.testing.assert_array_equal(times, t[: len(times)])
        for name, values in curves.items():
            np.testing.assert_array_equal(found[name], values[: len(times)], err_msg=name)
    assert len(seen[-1][0]) == 40


def test_a_pipe_is_answered_as_soon_as_the_rule_fires(tmp_path: Path) -> None:
    t, curves = logged(60, 0)
    lines, fired = as_csv(t, curves), live_firing(t, curves)
    assert fired is not None and fired < t[-8]
    with subprocess.Popen(
        [sys.executable, "-m", "clprune", "detect", "-", "--live"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for line in lines[: 1 + int(np.flatnonzero(t == fired)[0]) + 1]:
            process.stdin.write(line)
            process.stdin.flush()
        answered, _, _ = select.select([process.stdout], [], [], 120)  # the pipe stays open
        assert answered and process.stdout.readline() == f"{fired:g}\n" and process.wait(60) == 0
    text = "".join(lines)
    whole = subprocess.run([sys.executable, "-m", "clprune", "detect", "-", "--live"], input=text, capture_output=True, text=True, check=True)
    assert whole.stdout == f"{fired:g}\n"
