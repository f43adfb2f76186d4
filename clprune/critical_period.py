"""Where the critical learning period starts and ends, from the curves of a run.

The idea: each deciding indicator (retention of what was learned, noise scale of the gradient, ...) approaches a level while the period
lasts. Its end is where 90 % of that approach is done. For every curve the posterior of that moment is computed exactly on a grid of time
constants, under y(t) = a + b exp(-t / tau) with white noise of unknown size; the curve abstains unless such a bend explains it clearly better
than a level or a straight line do. The live rule fires when most deciding indicators say that the moment has passed; nothing in it
depends on how long the run was planned.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from clprune import families
from clprune.datatypes import CriticalPeriod
from clprune.errors import DataError

LEVEL = 0.9  # share of the approach that counts as its end
MIN_POINTS = 8  # a bend, its size and the noise cannot be told apart from fewer
LOG_ODDS = 7.0  # natural log of the odds, against a level and against a line, that a bend needs (about 1,000 to 1)
SURE = 0.65  # posterior probability, over all voting indicators, that the end has passed
SETTLED_OVERLAP = 0.95  # share of the harder half, by mean difficulty, that must be the same as an epoch before


@dataclass(frozen=True)
class Approach:
    """What one curve says of its approach to a level. Times are in the curve's own unit, from its first point on."""

    end: float  # posterior median of the time at which LEVEL of the approach is done
    interval: tuple[float, float]  # central 90 % of the posterior
    passed: float  # posterior probability that the end lies before the last point
    log_odds: float  # of a bend against the better of a level and a line


def fit_approach(times: Float[np.ndarray, "T"], values: Float[np.ndarray, "T"]) -> Approach | None:
    """Fit y = a + b exp(-(t - t_0) / tau); None where there are fewer than MIN_POINTS finite points or no variation.

    a and b are integrated out under flat priors, the noise under Jeffreys' prior; tau has a log-uniform prior from the spacing of the
    points to 20 times their span (beyond that the curve is a line to the eye).
    """
    known = np.isfinite(values)
    t, y = times[known], values[known]
    if len(t) < MIN_POINTS or np.ptp(y) == 0:
        return None
    t = t - t[0]
    n, span = len(t), t[-1]
    y = (y - y.mean()) / y.std()
    tau = np.geomspace(max(np.median(np.diff(t)), span / 400) / 2, 20 * span, 240)
    bend = np.exp(-t[None, :] / tau[:, None])
    centred = bend - bend.mean(axis=1, keepdims=True)
    norm = (centred**2).sum(axis=1)
    slope = centred @ y / np.maximum(norm, 1e-12)
    rss = np.maximum(n - slope**2 * norm, 1e-9 * n)
    log_like = -0.5 * (n - 2) * np.log(rss)  # the design is scaled to unit norm, so that no tau is favoured for its shape
    weight = np.exp(log_like - log_like.max())
    weight /= weight.sum()
    line = t - t.mean()
    rss_line = max(n - (line @ y) ** 2 / (line @ line), 1e-9 * n)
    evidence = log_like.max() + np.log(np.exp(log_like - log_like.max()).mean())
    log_odds = evidence - max(-0.5 * (n - 2) * np.log(rss_line), -0.5 * (n - 1) * np.log(n) + 0.5 * np.log(n))
    ends = tau * -np.log(1 - LEVEL)
    cumulative = np.cumsum(weight)
    at = lambda q: float(np.interp(q, cumulative, ends))  # noqa: E731
    return Approach(
        at(0.5) + times[known][0], (at(0.05) + times[known][0], at(0.95) + times[known][0]), float(weight[ends <= span].sum()), float(log_odds)
    )


def deciding_indicators() -> list[str]:
    """Names of the indicators whose curves vote on the end."""
    return [name for name, member in families.members("indicators").items() if families.facts(member)["decides"]]


@dataclass(frozen=True)
class Vote:
    """What the deciding curves say together at one moment."""

    approaches: Mapping[str, Approach | None]
    voting: tuple[str, ...]  # those whose bend is established
    passed: float  # mean posterior, over the voting curves, that the end has passed

    @property
    def over(self) -> bool:
        """At least half of the deciding curves (and at least one) are established, and together they say that the end has passed."""
        return len(self.voting) >= max(1, len(self.approaches) // 2) and self.passed >= SURE


def take_vote(curves: Mapping[str, Float[np.ndarray, "T"]], times: Float[np.ndarray, "T"]) -> Vote:
    """Fit every deciding curve up to now."""
    approaches = {name: fit_approach(times, values) for name, values in curves.items()}
    voting = tuple(name for name, fit in approaches.items() if fit is not None and fit.log_odds >= LOG_ODDS)
    passed = float(np.mean([approaches[name].passed for name in voting])) if voting else 0.0  # type: ignore[union-attr]
    return Vote(approaches, voting, passed)


class LiveRule:
    """Decides while training: fires at the first epoch in which the vote says "over" and the ranking of samples has settled."""

    def __init__(self, *, min_epochs: int = 3) -> None:
        self.min_epochs = min_epochs
        self.fired_epoch: int | None = None  # epochs done when it fired
        self.vote: Vote | None = None
        self.waiting_for = "the first epochs"  # one sentence for people
        self._epochs_done = 0

    @property
    def fired(self) -> bool:
        return self.fired_epoch is not None

    def update(self, curves: Mapping[str, np.ndarray], times: np.ndarray, difficulty_before_and_now: list[np.ndarray]) -> bool:
        """Look at the curves after an epoch, and at the mean difficulty (N,) before and after it. True once the period is over."""
        self._epochs_done += 1
        if self.fired:
            return True
        deciding = deciding_indicators()
        self.vote = take_vote({name: curves[name] for name in deciding if name in curves}, times)
        settled = len(difficulty_before_and_now) == 2 and overlap_of_hard_half(*difficulty_before_and_now) >= SETTLED_OVERLAP
        if self._epochs_done >= self.min_epochs and self.vote.over and settled:
            self.fired_epoch = self._epochs_done
        return self.fired


def overlap_of_hard_half(before: Float[np.ndarray, "N"], now: Float[np.ndarray, "N"]) -> float:
    """Share of the harder half that is the same in both, in [0, 1]; ties to the smaller position."""
    n_half = max(1, len(now) // 2)
    hard_before, hard_now = (np.argsort(-difficulty, kind="stable")[:n_half] for difficulty in (before, now))
    return len(np.intersect1d(hard_before, hard_now)) / n_half


def find_critical_period(
    curves: Mapping[str, Float[np.ndarray, "T"]], times: Float[np.ndarray, "T"], *, n_epochs: int, fired_epoch: int | None = None
) -> CriticalPeriod:
    """The critical period in hindsight, from all points of the curves; `times` count epochs done.

    With `fired_epoch` from a live rule the end is that epoch and the interval is the hindsight estimate's. Without it the end is the median of
    the voting curves' ends, and `settled` is False where the vote does not say that the period is over: then `end_epoch` is `n_epochs`.
    """
    deciding = deciding_indicators()
    voters = {name: curves[name] for name in deciding if name in curves} or dict(curves)
    vote = take_vote(voters, times)
    ends = {name: (fit.end if name in vote.voting and fit is not None else None) for name, fit in vote.approaches.items()}
    settled = fired_epoch is not None or vote.over
    interval = None
    if vote.voting:
        fits = [fit for name, fit in vote.approaches.items() if fit is not None and name in vote.voting]
        interval = (min(fit.interval[0] for fit in fits), max(fit.interval[1] for fit in fits))
    if fired_epoch is not None:
        end = fired_epoch
    elif settled:
        end = int(np.clip(np.ceil(np.median([end for end in ends.values() if end is not None])), 1, n_epochs))
    else:
        end = n_epochs
    agreed = ", ".join(f"{name} {ends[name]:.1f}" for name in vote.voting) or "none"
    if settled:
        reason = f"{len(vote.voting)} of {len(voters)} deciding indicators have done 90 % of their approach (at epoch: {agreed})"
    elif not vote.voting:
        reason = f"not established: no deciding indicator ({', '.join(voters)}) bends clearly within {n_epochs} epochs"
    else:
        reason = f"not established within {n_epochs} epochs: {len(vote.voting)} of {len(voters)} deciding indicators bend (90 % at epoch: {agreed}), probability that the end has passed {vote.passed:.2f}"
    return CriticalPeriod(0, end, settled, vote.passed * len(vote.voting) / max(1, len(voters)), interval, _border(curves, times), ends, reason)


def _border(curves: Mapping[str, np.ndarray], times: np.ndarray) -> float | None:
    """Where the last layer's Fisher trace, smoothed over five points, is largest: memorization phase before, forgetting phase after."""
    trace = curves.get("fisher_trace")
    if trace is None or np.isfinite(trace).sum() < 5:
        return None
    known = np.isfinite(trace)
    smooth = np.convolve(trace[known], np.ones(5) / 5, mode="valid")
    return float(times[known][2 + int(smooth.argmax())])


def read_curves(path: Path) -> tuple[Float[np.ndarray, "T"], dict[str, Float[np.ndarray, "T"]]]:
    """Logged curves from a CSV with a column `epoch` and one column an indicator; empty cells are NaN.

    Raises DataError that names the row and column of what is not a number, or of an epoch that does not increase.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read curves from {path}: {error}.") from error
    if not rows or "epoch" not in rows[0] or len(rows[0]) < 2:
        raise DataError(f"{path} needs a header with `epoch` and at least one indicator, and rows below it.")
    columns: dict[str, list[float]] = {name: [] for name in rows[0] if name}
    for number, row in enumerate(rows, start=2):
        for name in columns:
            try:
                columns[name].append(float(row[name]) if (row[name] or "").strip() else float("nan"))
            except ValueError:
                raise DataError(f"{path}, line {number}, column '{name}': {row[name]!r} is not a number.") from None
    times = np.asarray(columns.pop("epoch"))
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise DataError(f"{path}: the column `epoch` must hold numbers that increase from row to row.")
    return times, {name: np.asarray(values) for name, values in columns.items()}


def live_firing(times: Float[np.ndarray, "T"], curves: Mapping[str, Float[np.ndarray, "T"]]) -> float | None:
    """The epoch at which the live rule fires on logged curves, reading point by point; None where it never does. All columns vote."""
    for n in range(MIN_POINTS, len(times) + 1):
        if take_vote({name: values[:n] for name, values in curves.items()}, times[:n]).over:
            return float(times[n - 1])
    return None
