"""Thresholds from histograms against sorting everything; signals on disk against signals in memory."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clprune import families
from clprune.errors import DataError, IntegrityError, UsageError
from clprune.signal_files import SignalFile, score_in_blocks
from clprune.thresholds import RELATIVE_WIDTH, Histogram, histogram_of, middle_of, sort_keys, value_at, values_of

numbers = st.lists(st.one_of(st.floats(width=32, allow_nan=False), st.integers(-3, 3).map(float)), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(values=numbers, cut=st.integers(0, 60), data=st.data())
def test_a_rank_is_the_exact_one_and_the_histogram_alone_encloses_it(values: list[float], cut: int, data: st.DataObject) -> None:
    array = np.array(values, dtype=np.float32)
    parts = [array[:cut], array[cut:]]
    rank = data.draw(st.integers(0, len(array) - 1))
    exact = float(np.sort(array)[rank])
    assert value_at(lambda: parts, rank) == exact
    merged = histogram_of(parts[:1]) + histogram_of(parts[1:])
    assert np.array_equal(merged.counts, histogram_of([array]).counts)
    low, high = merged.bounds(rank)
    assert low <= exact <= high or not np.isfinite(high)
    if np.isfinite(exact) and abs(exact) > 1e-30 and np.isfinite(high):
        assert high - low <= RELATIVE_WIDTH * abs(exact) * (1 + RELATIVE_WIDTH)


@settings(max_examples=200, deadline=None)
@given(values=numbers, size=st.integers(1, 20), data=st.data())
def test_the_middle_is_what_a_stable_sort_gives(values: list[float], size: int, data: st.DataObject) -> None:
    array = np.array(values, dtype=np.float32)
    parts = [array[start : start + size] for start in range(0, len(array), size)]
    n_low = data.draw(st.integers(0, len(array) - 1))
    n_keep = data.draw(st.integers(1, len(array) - n_low))
    expected = np.zeros(len(array), dtype=bool)
    expected[np.argsort(array, kind="stable")[n_low : n_low + n_keep]] = True
    assert np.array_equal(np.concatenate(list(middle_of(lambda: parts, n_low, n_keep))), expected)


def test_keys_sort_as_their_values_and_lead_back_to_them() -> None:
    values = np.array([-np.inf, -3.5, -1e-40, -0.0, 0.0, 1e-40, 2.0, np.inf], dtype=np.float32)
    keys = sort_keys(values)
    assert (np.diff(keys.astype(np.int64)) >= 0).all() and np.array_equal(values_of(keys), values)


def test_what_has_no_order_or_no_rank_is_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 values"):
        Histogram().add(np.array([np.nan, 1.0]))
    with pytest.raises(UsageError, match="rank 3"):
        value_at(lambda: [np.arange(3.0)], 3)
    given_once = iter([np.arange(3.0)])
    with pytest.raises(DataError, match="second pass"):
        value_at(lambda: given_once, 1)


def test_scores_of_signals_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    signals = np.random.default_rng(0).random((4, 37)).astype(np.float32)
    file = SignalFile(tmp_path / "trajectory" / "p_label.npy", 4, 37)
    for epoch in range(4):
        for start in (30, 0, 10, 10, 20):  # in any order, one part twice
            file.write(epoch, start, signals[epoch, start : start + 10])
    assert np.array_equal(np.load(file.path), signals)
    again = SignalFile(file.path, 4, 37, new=False)
    for name in ("dual", "variability", "confidence"):
        member = families.find("scores", name)
        np.testing.assert_allclose(score_in_blocks(member, {"p_label": again}, ("p_label",), size=8), member(signals), rtol=1e-6)
    with pytest.raises(UsageError, match="outside"):
        file.write(0, 30, np.zeros(8))
    with pytest.raises(IntegrityError, match=r"holds \(4, 37\)"):
        SignalFile(file.path, 4, 36, new=False)
    hole = SignalFile(tmp_path / "other.npy", 2, 5)
    with pytest.raises(IntegrityError, match="sample 0 in epoch 0 was never written"):
        score_in_blocks(families.find("scores", "confidence"), {"p_label": hole}, ("p_label",))
