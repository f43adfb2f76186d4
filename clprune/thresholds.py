"""Thresholds of values that are not in memory at once: histograms that add up, whatever machine or part of the data they come from.

A float32 is read as a whole number that sorts as it does; its upper 16 bits are the bin. 65,536 counters (512 KiB) hold any number of values, those of several parts
are added, and a second pass over the values in one bin makes a quantile exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from clprune.errors import DataError, UsageError

N_BINS = 1 << 16
RELATIVE_WIDTH = 2.0**-7  # of a bin, of its lower end: 7 bits of the mantissa are in the number of the bin

Chunks = Callable[[], Iterable[Float[np.ndarray, "n"]]]  # gives all values again, part by part


def sort_keys(values: Float[np.ndarray, "n"]) -> UInt32[np.ndarray, "n"]:
    """Whole numbers in the order of the values (as float32); -0.0 and 0.0 are one. Raises DataError for NaN.

    >>> sort_keys(np.array([-1.0, 0.0, 1.0])).tolist()
    [1082130431, 2147483648, 3212836864]
    """
    plain = np.asarray(values, dtype=np.float32) + np.float32(0)  # turns -0.0 into 0.0
    if np.isnan(plain).any():
        raise DataError(
            f"{int(np.isnan(plain).sum())} of {len(plain)} values are not numbers, so they have no place in an order. Leave them out first."
        )
    bits = plain.view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def values_of(keys: UInt32[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """The values of `sort_keys`."""
    keys = np.asarray(keys, dtype=np.uint32)
    return np.where(keys >> 31, keys ^ np.uint32(1 << 31), ~keys).astype(np.uint32).view(np.float32)


@dataclass
class Histogram:
    """How many values lie in each bin; `a + b` is the histogram of both parts."""

    counts: Int[np.ndarray, "65536"] = field(default_factory=lambda: np.zeros(N_BINS, dtype=np.int64))

    def add(self, values: Float[np.ndarray, "n"]) -> None:
        self.counts += np.bincount(sort_keys(values) >> 16, minlength=N_BINS)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.counts + other.counts)

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def bin_of(self, rank: int) -> tuple[int, int]:
        """The bin that holds the value with `rank` smaller or equal ones before it, and how many values lie in bins below."""
        if not 0 <= rank < self.n:
            raise UsageError(f"rank {rank} was asked for, but there are {self.n} values. Ranks go from 0 to {self.n - 1}.")
        cumulated = np.cumsum(self.counts)
        at = int(np.searchsorted(cumulated, rank, side="right"))
        return at, int(cumulated[at] - self.counts[at])

    def bounds(self, rank: int) -> tuple[float, float]:
        """Smallest and largest value that the one of this rank can be: 2^-7 of it apart, or less."""
        at, _ = self.bin_of(rank)
        low, high = values_of(np.array([at << 16, (at << 16) | 0xFFFF], dtype=np.uint32))
        return float(low), float(high)


def histogram_of(chunks: Iterable[Float[np.ndarray, "n"]]) -> Histogram:
    held = Histogram()
    for values in chunks:
        held.add(values)
    return held


def value_at(chunks: Chunks, rank: int, histogram: Histogram | None = None) -> float:
    """The exact value of a rank (0: the smallest), as float32, in two passes, or one where the histogram is known. Memory: 512 KiB and one part.

    >>> value_at(lambda: [np.array([3.0, 1.0]), np.array([2.0])], 1)
    2.0
    """
    histogram = histogram or histogram_of(chunks())
    at, below = histogram.bin_of(rank)
    inside = np.zeros(N_BINS, dtype=np.int64)
    for values in chunks():
        keys = sort_keys(values)
        inside += np.bincount(keys[keys >> 16 == at] & 0xFFFF, minlength=N_BINS)
    if inside.sum() != histogram.counts[at]:
        raise DataError(
            f"the second pass saw {int(inside.sum())} values where the first saw {int(histogram.counts[at])}. Give the same values twice."
        )
    low = int(np.searchsorted(np.cumsum(inside), rank - below, side="right"))
    return float(values_of(np.array([at << 16 | low], dtype=np.uint32))[0])


def middle_of(chunks: Chunks, n_low: int, n_keep: int) -> Iterable[Bool[np.ndarray, "n"]]:
    """Which values are the `n_keep` that come after the `n_low` smallest, part by part; of equal values the earlier ones are smaller.

    Exactly `n_keep` are True. Three passes over the values.
    """
    histogram = histogram_of(chunks())
    if n_low < 0 or n_keep < 1 or n_low + n_keep > histogram.n:
        raise UsageError(f"{n_keep} values after the {n_low} smallest were asked for, but there are {histogram.n}.")
    edges = [value_at(chunks, rank, histogram) for rank in (n_low, n_low + n_keep - 1)]
    low, high = (np.float32(edge) for edge in edges)
    n_below = [sum(int((np.asarray(values, dtype=np.float32) < edge).sum()) for values in chunks()) for edge in (low, high)]
    skip, take = n_low - n_below[0], n_low + n_keep - n_below[1]  # of the values equal to an edge: so many are too small, so many are small enough
    at_low = at_high = 0
    for values in chunks():
        plain = np.asarray(values, dtype=np.float32)
        equal_low, equal_high = plain == low, plain == high
        numbers_low, numbers_high = at_low + np.cumsum(equal_low), at_high + np.cumsum(equal_high)
        yield ((plain > low) | (equal_low & (numbers_low > skip))) & ((plain < high) | (equal_high & (numbers_high <= take)))
        at_low, at_high = at_low + int(equal_low.sum()), at_high + int(equal_high.sum())
