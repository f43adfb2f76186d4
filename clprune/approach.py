"""How far a curve has come on its way to a level: the posterior of the moment at which the approach is done.

Three explanations of a curve y(t) compete: a level, a straight line, and an approach to a level that starts at some moment s,

    bend   y = a + b exp(-max(t - s, 0) / tau)                 done at s + tau ln 10, where 90 % of the way is behind
    ramp   y = a + b min(max(t - s, 0) / width, 1)             done at s + width (in hindsight only)

with white noise of unknown size. a and the noise are integrated out under flat priors, b under a wide g-prior (Liang et al., 2008): the marginal
likelihood of a shape depends on the share R^2 of the variance that it explains alone,

    log BF (against a level) = (m - 1)/2 log(1 + g) - m/2 log(1 + g (1 - R^2)),      m = points - levels,  g = G_PRIOR x points

and everything else is sums over a grid of (s, tau). Where the learning rate changes, the curve gets a new level (a "segment"): a jump there says
nothing. An approach that starts before the first point is reckoned from the clock's zero, the start of training. `live_evidence` looks at every beginning of a curve as a live rule would, without any knowledge of what comes after; `hindsight` looks once
at the whole. Time is in the curve's own unit; nothing depends on how long the curve was planned to be.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

DONE = 0.9  # share of an exponential approach that counts as its end
MIN_POINTS = 8  # size, pace and noise of a bend cannot be told apart from fewer
G_PRIOR = 100.0  # the bend may be ten times the noise; a unit-information prior (1) cannot tell R^2 = 0.99 from 0.995 on ten points
LATE = 10  # a record whose first point is later than so many spacings is taken to start where it starts, else at the clock's zero
LIVE_ODDS = 0.1  # prior odds of an approach against a level (or a line) for a rule that asks again after every point; even when asked once
LONGEST = 8.0  # time constants up to this many times the time passed, uniformly: beyond that a bend is a line to the eye
CELLS_AT_ONCE = 1 << 18  # shapes x points of which numbers are held together: 2 MiB an array, so that they stay in the processor's cache
STEP = 1.15  # ratio of neighbouring time constants on the live grid; later starts lie as far apart, relative to the time passed


@dataclass(frozen=True)
class Evidence:
    """What the beginnings of a curve say, one entry a point (0 before MIN_POINTS)."""

    bends: Float[np.ndarray, "T"]  # probability that the curve approaches a level, rather than lying on one or being straight
    over: Float[np.ndarray, "T"]  # probability that the approach is done by then, given that it is one


@dataclass(frozen=True)
class Hindsight:
    """What a whole curve says of its approach. Times are on the curve's own clock."""

    bends: float  # probability that the curve approaches a level
    over: float  # probability that the approach is done by the last point, given that it is one
    ends: Float[np.ndarray, "M"]  # moments of the end, sorted
    weights: Float[np.ndarray, "M"]  # their posterior, given an approach; sums to 1
    start: float  # posterior median of the moment at which the approach starts

    @property
    def probability(self) -> float:
        """That there is an approach and that it is done."""
        return self.bends * self.over


def segments_of(learning_rate: Float[np.ndarray, "T"] | None, n: int) -> Int[np.ndarray, "T"]:
    """Number of the stretch of about equal learning rate that each point lies in; a change by more than half of the smaller from one point to the next opens a new one.

    A point whose rate was not told (NaN) has that of the point before; those before the first that is known have its rate.

    >>> segments_of(np.array([0.1, np.nan, 0.01, 0.0099]), 4)
    array([0, 0, 1, 1])
    """
    if learning_rate is None or not (known := ~np.isnan(learning_rate)).any():
        return np.zeros(n, dtype=np.int64)
    rate = np.maximum(carried(learning_rate, before=float(learning_rate[known][0])), 1e-30)  # a rate may be 0, whose logarithm is not a number
    jumps = np.abs(np.diff(np.log(rate))) > np.log(1.5)
    return np.concatenate([[0], np.cumsum(jumps)])


def live_evidence(
    times: Float[np.ndarray, "T"], values: Float[np.ndarray, "T"], segments: Int[np.ndarray, "T"] | None = None, *, last_only: bool = False
) -> Evidence:
    """Evidence at every point from the points up to it (with `last_only` at the last one alone, in a fraction of the time).

    Points that are not finite are left out; they carry the evidence of the point before. The grid of starts and time constants is laid from the
    first point on in fixed steps, so that what comes later changes nothing.
    """
    known = np.isfinite(values)
    n_all, at = len(values), np.flatnonzero(known)
    if len(at) < MIN_POINTS or np.ptp(values[at]) == 0:
        return Evidence(np.zeros(n_all), np.zeros(n_all))
    t, spacing, _ = _on_clock(times[at])
    y = _to_scale(values[at])
    stretch = np.zeros(len(at), dtype=np.int64) if segments is None else segments[at]
    starts = _laid_out(t, spacing)
    taus = spacing / 2 * STEP ** np.arange(int(np.log(LONGEST * t[-1] / (spacing / 2)) / np.log(STEP)) + 1)
    n_shapes = len(starts) * len(taus)

    def shapes(part: slice) -> Float[np.ndarray, "M B"]:
        """All bends, and the line, at some of the points."""
        return np.concatenate([np.exp(-np.maximum(t[part] - starts[:, None, None], 0) / taus[:, None]).reshape(n_shapes, -1), t[None, part]])

    sums, before, looks = _RunningSums(n_shapes + 1), np.append(t[0], t[:-1]), _blocks(len(t), n_shapes)
    if last_only:
        looked = iter([(slice(len(t) - 1, len(t)), _log_bayes(shapes(slice(None)), y, stretch)[:, None])])
    else:
        looked = ((part, sums.log_bayes(shapes(part), y[part], stretch[part])) for part in looks)
    bends, over = np.zeros((2, len(t)))
    for part, log_bayes in looked:
        bends[part], over[part] = _weighed(log_bayes, t[part], before[part], starts, taus, spacing)
    bends[: MIN_POINTS - 1] = over[: MIN_POINTS - 1] = 0.0
    filled = np.full((2, n_all), np.nan)
    filled[:, at] = bends, over
    return Evidence(carried(filled[0]), carried(filled[1]))


def hindsight(times: Float[np.ndarray, "T"], values: Float[np.ndarray, "T"], segments: Int[np.ndarray, "T"] | None = None) -> Hindsight | None:
    """What the whole curve says, bends and ramps together; None with fewer than MIN_POINTS finite points or without variation.

    The grid is laid three times, each time only where the one before found the posterior, so that it is fine wherever the answer lies.
    """
    at = np.flatnonzero(np.isfinite(values))
    if len(at) < MIN_POINTS or np.ptp(values[at]) == 0:
        return None
    t, spacing, zero = _on_clock(times[at])
    y = (values[at] - values[at].mean()) / values[at].std()
    stretch = np.zeros(len(at), dtype=np.int64) if segments is None else segments[at]
    span = float(t[-1])
    grids = [_Grid((0.0, float(t[-3])), (spacing / 2, width), ramp) for ramp, width in ((False, LONGEST * span), (True, span))]
    for _ in range(3):
        found = [grid.log_posterior(t, y, stretch) for grid in grids]
        laid, grids = grids, [grid.around(log_weight) for grid, log_weight in zip(grids, found, strict=True)]
    log_line = float(_log_bayes(t[None], y, stretch)[0])
    top = max(log_line, 0.0, *(log_weight.max() for log_weight in found))
    weights = np.concatenate([np.exp(log_weight - top).ravel() for log_weight in found])
    ends = np.concatenate([grid.ends.ravel() for grid in laid])
    starts = np.concatenate([np.repeat(grid.starts, len(grid.scales)) for grid in laid])
    total = float(weights.sum())
    weights = weights / total
    order, by_start = np.argsort(ends, kind="stable"), np.argsort(starts, kind="stable")
    bends = float(total / (total + np.exp(log_line - top) + np.exp(-top)))
    (start,) = quantiles(starts[by_start], weights[by_start], (0.5,))
    return Hindsight(bends, float(weights[ends <= span].sum()), ends[order] + zero, weights[order], start + zero)


def quantiles(ends: Float[np.ndarray, "M"], weights: Float[np.ndarray, "M"], at: tuple[float, ...]) -> tuple[float, ...]:
    """Quantiles of sorted moments with weights."""
    cumulative = np.cumsum(weights) / weights.sum()
    return tuple(float(ends[min(int(np.searchsorted(cumulative, q)), len(ends) - 1)]) for q in at)


def carried(values: Float[np.ndarray, "T"], *, before: float = 0.0) -> Float[np.ndarray, "T"]:
    """Each NaN replaced by the last number before it; by `before` where there is none."""
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
    return np.where(last >= 0, values[np.maximum(last, 0)], before)


# ---- inside


class _Grid:
    """One family of shapes on a grid of starts and scales (time constants of bends, widths of ramps)."""

    def __init__(self, start_range: tuple[float, float], scale_range: tuple[float, float], ramp: bool) -> None:
        self.ramp = ramp
        low, high = start_range
        self.starts = np.linspace(low, high, 25)
        self.scales = np.linspace(*scale_range, 48) if ramp else np.geomspace(*scale_range, 48)
        self.ends = self.starts[:, None] + (self.scales if ramp else self.scales * -np.log(1 - DONE))

    def log_posterior(self, t: Float[np.ndarray, "T"], y: Float[np.ndarray, "T"], stretch: Int[np.ndarray, "T"]) -> Float[np.ndarray, "S W"]:
        """Log of prior x Bayes factor against a level. Half of the prior starts at the first point, the rest later, uniformly."""
        n_at_once = max(1, 32 * CELLS_AT_ONCE // (len(self.scales) * len(t)))  # starts whose shapes are held together: all of them up to 7,000 points
        parts = [self.starts[first : first + n_at_once] for first in range(0, len(self.starts), n_at_once)]
        log_bf = np.concatenate([_log_bayes(self._shapes(starts, t), y, stretch) for starts in parts]).reshape(self.ends.shape)
        span, widest = t[-1], t[-1] if self.ramp else LONGEST * t[-1]
        prior_start = np.gradient(self.starts) / span / 2
        if self.starts[0] == 0:
            prior_start[0] += 0.5
        prior = 0.5 * prior_start[:, None] * np.gradient(self.scales) / widest  # half the prior for each family
        return np.where((self.ends <= span) | (not self.ramp), log_bf + np.log(prior), -np.inf)  # a ramp that goes on is a line

    def _shapes(self, starts: Float[np.ndarray, "s"], t: Float[np.ndarray, "T"]) -> Float[np.ndarray, "M T"]:
        since = np.maximum(t - starts[:, None, None], 0)
        return (np.minimum(since / self.scales[:, None], 1) if self.ramp else np.exp(-since / self.scales[:, None])).reshape(-1, len(t))

    def around(self, log_weight: Float[np.ndarray, "S W"]) -> _Grid:
        """As fine a grid over the part that holds all but a ten-thousandth of the posterior in each direction, with two cells to spare."""
        weight = np.exp(log_weight - log_weight.max())
        ranges = []
        for grid, share in ((self.starts, weight.sum(1)), (self.scales, weight.sum(0))):
            inside = np.searchsorted(np.cumsum(share) / share.sum(), (5e-5, 1 - 5e-5))
            ranges.append((float(grid[max(inside[0] - 2, 0)]), float(grid[min(inside[1] + 2, len(grid) - 1)])))
        return _Grid(ranges[0], ranges[1], self.ramp)


def _blocks(n: int, n_shapes: int) -> list[slice]:
    """Looks that are taken together, so that memory does not grow with the square of the points; two at least: sums over the shapes of one alone round otherwise."""
    edges = np.linspace(0, n, max(1, min(n // 2, -(-n * n_shapes // CELLS_AT_ONCE))) + 1).astype(int)
    return [slice(first, after) for first, after in itertools.pairwise(edges.tolist())]


def _weighed(
    log_bayes: Float[np.ndarray, "M L"],
    now: Float[np.ndarray, "L"],
    before: Float[np.ndarray, "L"],
    starts: Float[np.ndarray, "S"],
    taus: Float[np.ndarray, "W"],
    spacing: float,
) -> tuple[Float[np.ndarray, "L"], Float[np.ndarray, "L"]]:
    """Probability of an approach, and that it is done, at each look, from the Bayes factors of all bends and, in the last row, of a line.

    `now` is the moment of each look, `before` that of the point before it.
    """
    log_bend, log_line = log_bayes[:-1], log_bayes[-1]
    ends = (starts[:, None] + taus * -np.log(1 - DONE))[:, :, None]
    prior_tau = np.where(taus[:, None] <= LONGEST * np.maximum(now, spacing), taus[:, None], 0.0)  # cells are as wide as their place
    prior_start = np.where(starts[:, None] <= before, np.maximum(spacing, (STEP - 1) * starts)[:, None], 0.0)
    prior_start[0] = 0.0
    prior_start = np.where(prior_start.sum(0) > 0, 0.5 * prior_start / np.maximum(prior_start.sum(0), 1e-12), 0.0)
    prior_start[0] = 1 - prior_start.sum(0)  # at zero, or later with the same probability
    prior = prior_start[:, None] * (prior_tau / prior_tau.sum(0))[None]
    top = np.maximum(np.maximum(log_bend.max(0), log_line), 0)
    weight = np.exp(log_bend - top).reshape(len(starts), len(taus), -1) * prior
    total = weight.sum((0, 1))
    bends = LIVE_ODDS * total / (LIVE_ODDS * total + np.exp(log_line - top) + np.exp(-top))
    return bends, np.where(total > 0, (weight * (ends <= now)).sum((0, 1)) / np.maximum(total, 1e-300), 0.0)


def _log_bayes(shapes: Float[np.ndarray, "M T"], y: Float[np.ndarray, "T"], stretch: Int[np.ndarray, "T"]) -> Float[np.ndarray, "M"]:
    """Log Bayes factor of each shape against levels, from all points, with a level for each stretch."""
    of_shape, crossed, of_curve = np.zeros(len(shapes)), np.zeros(len(shapes)), 0.0  # centred sums: shape^2, shape x y, y^2
    edges = _edges(stretch)
    for first, after in itertools.pairwise(edges):
        e, v, n = shapes[:, first:after], y[first:after], after - first
        total = e.sum(1)
        of_shape += np.einsum("mt,mt->m", e, e) - total**2 / n
        crossed += e @ v - total * v.sum() / n
        of_curve += v @ v - v.sum() ** 2 / n
    return _from_sums(of_shape, crossed, np.array(of_curve), np.array(len(y)), np.array(len(edges) - 1))


class _RunningSums:
    """The same at every point from the points up to it, block of points by block."""

    def __init__(self, n_shapes: int) -> None:
        self._finished = [np.zeros(n_shapes), np.zeros(n_shapes), np.zeros(())]  # centred sums of the stretches that are over
        self._stretch: int | None = None  # the one that goes on
        self._n_seen = self._n_levels = self._n_open = 0  # points so far; stretches so far; points of the open one
        self._open = [np.zeros(n_shapes), np.zeros(n_shapes), np.zeros(n_shapes), np.zeros(()), np.zeros(())]  # its plain sums

    def log_bayes(self, shapes: Float[np.ndarray, "M B"], y: Float[np.ndarray, "B"], stretch: Int[np.ndarray, "B"]) -> Float[np.ndarray, "M B"]:
        """Log Bayes factors at each point of the block that follows those before."""
        found = np.empty_like(shapes)
        for first, after in itertools.pairwise(_edges(stretch)):
            if stretch[first] != self._stretch:
                self._stretch, self._n_open, self._n_levels = int(stretch[first]), 0, self._n_levels + 1
                self._base, self._open = self._finished, [np.zeros_like(kept) for kept in self._open]
            e, v = shapes[:, first:after], y[first:after]
            sums = [_going_on(kept, values) for kept, values in zip(self._open, (e, e * e, e * v, v, v * v), strict=True)]
            self._open = [values[..., -1].copy() for values in sums]
            n = self._n_open + np.arange(1, after - first + 1)
            self._n_open += after - first
            parts = [sums[1] - sums[0] ** 2 / n, sums[2] - sums[0] * sums[3] / n, sums[4] - sums[3] ** 2 / n]
            parts = [base[..., None] + part for base, part in zip(self._base, parts, strict=True)]
            self._finished = [part[..., -1].copy() for part in parts]
            seen = self._n_seen + np.arange(1, after - first + 1)
            self._n_seen += after - first
            found[:, first:after] = _from_sums(parts[0], parts[1], parts[2], seen, np.full(after - first, self._n_levels))
        return found


def _going_on(before: Float[np.ndarray, "..."], values: Float[np.ndarray, "... B"]) -> Float[np.ndarray, "... B"]:
    """Running sums that go on from the sum `before`."""
    return np.cumsum(np.concatenate([before[..., None], values], axis=-1), axis=-1)[..., 1:]


def _edges(stretch: Int[np.ndarray, "B"]) -> list[int]:
    """Where each stretch begins, and the end."""
    return [*np.flatnonzero(np.diff(stretch, prepend=stretch[0] - 1) != 0).tolist(), len(stretch)]


def _from_sums(
    of_shape: Float[np.ndarray, "M ..."],
    crossed: Float[np.ndarray, "M ..."],
    of_curve: Float[np.ndarray, "..."],
    n_points: Int[np.ndarray, "..."],
    n_levels: Int[np.ndarray, "..."],
) -> Float[np.ndarray, "M ..."]:
    """Log Bayes factors from sums that are centred in each stretch."""
    scale = np.maximum(of_curve, 1e-12)
    flat: Bool[np.ndarray, "M ..."] = of_shape < 1e-9
    explained = np.where(flat, 0.0, np.clip(crossed**2 / (np.maximum(of_shape, 1e-12) * scale), 0, 1 - 1e-9))
    m = np.maximum(n_points - n_levels, 1)
    g = G_PRIOR * n_points
    return 0.5 * (m - 1) * np.log1p(g) - 0.5 * m * np.log1p(g * (1 - explained))


def _on_clock(times: Float[np.ndarray, "T"]) -> tuple[Float[np.ndarray, "T"], float, float]:
    """Times since the clock's zero, the usual spacing of the first points, and that zero: 0, or the first point of a record that starts late."""
    spacing = float(np.median(np.diff(times[:MIN_POINTS])))
    zero = 0.0 if 0 <= times[0] <= LATE * spacing else float(times[0])
    return times - zero, spacing, zero


def _to_scale(values: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    """The values that vary, in units of the first MIN_POINTS (or of as many more as it takes to vary): a later one, however large, rounds no earlier one away."""
    n = max(MIN_POINTS, int(np.argmax(values != values[0])) + 1)
    first = values[:n]
    return (values - first.mean()) / max(float(first.std()), 1e-100)  # whose square is a number


def _laid_out(t: Float[np.ndarray, "T"], spacing: float) -> Float[np.ndarray, "S"]:
    """Moments at which an approach may start: zero, then every spacing from the first point on, then every tenth of the time passed; the last two points are too late."""
    moments = [0.0, max(float(t[0]), spacing / 2)]
    while moments[-1] < t[-2]:
        moments.append(moments[-1] + max(spacing, (STEP - 1) * moments[-1]))
    return np.array([m for m in moments if m <= t[-2]])
