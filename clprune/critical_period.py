"""Where the critical learning period starts and ends, from the curves of a run.

While the period lasts, each deciding indicator (retention of what was learned, memorization, stability of the ranking, noise scale of the gradient)
approaches a level; `approach.py` gives the probability that a curve does so at all (else it abstains), and that the approach is done. Curves
that abstain have no say. The **live rule** asks after every epoch and knows nothing of what comes; the **hindsight** estimate, with
its interval, looks at all points at once and is reported beside it. Nothing depends on how long the run was planned to be.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from clprune import families
from clprune.approach import MIN_POINTS, Evidence, carried, hindsight, live_evidence, quantiles, segments_of
from clprune.datatypes import CriticalPeriod
from clprune.errors import DataError
from clprune.wording import counted

# Of the curves that are asked for, counted by their probability of an approach, so many must be there; in words, a curve bends from here on.
ESTABLISHED = 0.8
SURE = 0.7  # pooled probability that the approaches are done, from which on the period counts as over
SETTLED_OVERLAP = 0.95  # `kept_overlap` from which on another epoch would hardly change the choice
MIN_EPOCHS = 3  # before so many the live rule does not fire
STANDARD_INPUT = Path("-")
READ_AT_ONCE = 1 << 20  # bytes; a pipe gives what it holds
LEARNING = ("retention", "memorization_rate")  # one of these must be done, more likely than not: without memorization no period can end


def deciding_indicators() -> list[str]:
    """Names of the indicators whose curves vote on the end."""
    return [name for name, member in families.members("indicators").items() if families.facts(member)["decides"]]


def voters(curves: Mapping[str, Float[np.ndarray, "T"]]) -> dict[str, Float[np.ndarray, "T"]]:
    """The curves that decide: those of the deciding indicators that were recorded, or all where there is none of them."""
    deciding = deciding_indicators()
    known = {name: curves[name] for name in deciding if name in curves}
    recorded = {name: values for name, values in known.items() if np.isfinite(values).any()}
    return recorded or known or {name: values for name, values in curves.items() if name != "learning_rate"}


@dataclass(frozen=True)
class Vote:
    """What the deciding curves say together at each of T moments."""

    bends: Mapping[str, Float[np.ndarray, "T"]]  # probability that the curve approaches a level
    passed: Float[np.ndarray, "T"]  # probability that the approaches are done, each curve weighed by its `bends`
    enough: Float[np.ndarray, "T"]  # the sum of `bends`, of the number that is asked for: half of the curves, at least one
    learned: Float[np.ndarray, "T"]  # probability that retention or memorization approached a level and is done; 1 where neither was recorded

    @property
    def over(self) -> Float[np.ndarray, "T"]:
        """Where enough curves approach a level, learning among them, and they are done.

        Curves count by their probabilities, so that many half-sure ones can stand for a sure one: their sum must reach ESTABLISHED of half the curves' number.
        """
        return (self.enough >= ESTABLISHED) & (self.learned >= 0.5) & (self.passed >= SURE)


def take_vote(curves: Mapping[str, Float[np.ndarray, "T"]], times: Float[np.ndarray, "T"], *, last_only: bool = False) -> Vote:
    """Ask every deciding curve at every point (or at the last one only), from the points up to it. A curve `learning_rate` masks its own changes."""
    segments = segments_of(curves.get("learning_rate"), len(times))
    deciding = voters(curves)
    evidence = {name: live_evidence(times, values, segments, last_only=last_only) for name, values in deciding.items()}
    if last_only:
        evidence = {name: Evidence(e.bends[-1:], e.over[-1:]) for name, e in evidence.items()}
    bends = np.stack([e.bends for e in evidence.values()])
    over = np.stack([e.over for e in evidence.values()])
    total = bends.sum(0)
    there = _there(deciding)[:, -1:] if last_only else _there(deciding)
    learning = [e.bends * e.over for name, e in evidence.items() if name in LEARNING]
    return Vote(
        {name: e.bends for name, e in evidence.items()},
        (bends * over).sum(0) / np.maximum(total, 1e-12),
        total / np.maximum(1.0, there.sum(0) / 2),
        np.where(there[[name in LEARNING for name in deciding]].any(0), np.max(learning, axis=0, initial=0.0), 1.0),
    )


def _there(deciding: Mapping[str, Float[np.ndarray, "T"]]) -> Bool[np.ndarray, "V T"]:
    """From which point on each curve is one of the voters: the first of its numbers, for until then nobody knows of it; where none is a deciding indicator all are at once."""
    finite = np.stack([np.isfinite(values) for values in deciding.values()])
    return np.maximum.accumulate(finite, axis=1) if set(deciding) & set(deciding_indicators()) else np.ones_like(finite)


class LiveRule:
    """Decides while training: fires at the first epoch in which the vote says "over" and the ranking of samples has settled."""

    def __init__(self, *, min_epochs: int = MIN_EPOCHS) -> None:
        self.min_epochs = min_epochs
        self.fired_epoch: int | None = None  # epochs done when it fired
        self.waiting_for = "the first epochs"  # one sentence for people
        self._epochs_done = 0

    @property
    def fired(self) -> bool:
        return self.fired_epoch is not None

    def update(self, curves: Mapping[str, np.ndarray], times: np.ndarray) -> bool:
        """Look at the curves after an epoch; the last `kept_overlap` says whether the ranking has settled. True once the period is over."""
        self._epochs_done += 1
        if self.fired:
            return True
        vote = take_vote(curves, times, last_only=True)
        overlaps = curves.get("kept_overlap", np.array([]))
        overlap = overlaps[np.isfinite(overlaps)][-1] if np.isfinite(overlaps).any() else 0.0
        if self._epochs_done < self.min_epochs:
            self.waiting_for = f"epoch {self.min_epochs}"
        elif not vote.over[0]:
            self.waiting_for = _what_is_missing(vote)
        elif overlap < SETTLED_OVERLAP:
            self.waiting_for = (
                f"the ranking of samples: {overlap:.0%} of the harder half are the same as an epoch ago, {SETTLED_OVERLAP:.0%} are asked for"
            )
        else:
            self.fired_epoch, self.waiting_for = self._epochs_done, "nothing: the critical period is over"
        return self.fired


def _what_is_missing(vote: Vote) -> str:
    bent = [name for name, values in vote.bends.items() if values[0] >= ESTABLISHED]
    if vote.learned[0] < 0.5:
        return "retention or memorization to come close to a level"
    if vote.enough[0] < ESTABLISHED:
        return f"more indicators to bend towards a level ({', '.join(bent) or 'none'} of {', '.join(vote.bends)} so far)"
    return f"{', '.join(bent)} to come close to their level: done with probability {vote.passed[0]:.2f}, {SURE} is asked for"


def find_critical_period(
    curves: Mapping[str, Float[np.ndarray, "T"]], times: Float[np.ndarray, "T"], *, n_epochs: int, fired_epoch: int | None = None, live: bool = False
) -> CriticalPeriod:
    """The critical period from all points of the curves; `times` count epochs done since the start of training.

    With `live` a live rule was asked: the end is `fired_epoch`, and None means that the end is not established. Else the end is the hindsight
    estimate, rounded up, where enough curves bend and are done by the last point. Where it is not established `settled` is False and `end_epoch` is `n_epochs`.

    The hindsight estimate is the median of the moments at which an approach that is done was done, over the deciding curves that bend (over all
    where none does), each weighed by how surely it does. The interval spans the central 95 % of each of these curves, and the live rule's end: where
    they disagree it is wide.
    """
    segments = segments_of(curves.get("learning_rate"), len(times))
    deciding = voters(curves)
    looks = {name: look for name, values in deciding.items() if (look := hindsight(times, values, segments)) is not None}
    bent = {name: look for name, look in looks.items() if look.bends >= SURE}
    asked = list((bent or looks).values())
    total = sum(look.bends for look in asked)
    probability = float(sum(look.probability for look in asked) / total) if total else 0.0
    learned = any(name in bent for name in LEARNING) or not any(name in deciding for name in LEARNING)
    enough = min(1.0, len(bent) / max(1.0, len(deciding) / 2)) if learned else 0.0
    hindsight_end, interval = None, None
    if total:
        moments = np.concatenate([look.ends for look in asked])
        weights = np.concatenate([look.weights * look.bends for look in asked])
        order = np.argsort(moments, kind="stable")
        hindsight_end = _median_if_done(moments[order], weights[order], times[-1])
        ranges = [quantiles(look.ends, look.weights, (0.025, 0.975)) for look in asked] + ([(fired_epoch, fired_epoch)] if fired_epoch else [])
        interval = (float(min(low for low, _ in ranges)), float(max(high for _, high in ranges)))
    settled = fired_epoch is not None if live else enough == 1 and probability >= SURE
    end = n_epochs
    if settled:
        end = fired_epoch if fired_epoch is not None else int(np.clip(np.ceil(hindsight_end or n_epochs), 1, n_epochs))
    ends = {name: _median_if_done(bent[name].ends, bent[name].weights, times[-1]) if name in bent else None for name in deciding}
    from_the_first = [look.start for name, look in bent.items() if times[np.isfinite(deciding[name])][0] <= 1]
    start = int(min(from_the_first, default=0))
    return CriticalPeriod(
        start if start < end else 0,
        end,
        settled,
        _confidence({name: look.probability for name, look in looks.items()}, deciding),
        interval,
        hindsight_end,
        phase_border(curves, times),
        ends,
        _in_words(settled, ends, n_epochs, probability),
    )


def _confidence(done: Mapping[str, float], deciding: Collection[str]) -> float:
    """How much of what an end asks for is there, in [0, 1], from the probability of each curve that it approaches a level and is done.

    The sum over the curves, of the half of their number that is asked for; where retention or memorization is among them, not more than the
    surer of these two: no period ends without learning.
    """
    share = min(1.0, sum(done.values()) / max(1.0, len(deciding) / 2))
    learning = [done.get(name, 0.0) for name in LEARNING if name in deciding]
    return min(share, max(learning)) if learning else share


def _median_if_done(moments: Float[np.ndarray, "M"], weights: Float[np.ndarray, "M"], now: float) -> float | None:
    """Median of the sorted moments that lie before `now`; None where none does."""
    done = moments <= now
    return quantiles(moments[done], weights[done], (0.5,))[0] if weights[done].sum() > 0 else None


def _in_words(settled: bool, ends: Mapping[str, float | None], n_epochs: int, probability: float) -> str:
    bent = {name: end for name, end in ends.items() if end is not None}
    agreed = f"{len(bent)} of {len(ends)} deciding indicators"
    moments = ", ".join(f"{name} {end:.1f}" for name, end in bent.items()) or "none in hindsight"
    if settled:
        return f"{agreed} have come close to their level (at epoch: {moments})"
    if not bent:
        return f"not established: no deciding indicator ({', '.join(ends)}) bends clearly towards a level within {counted(n_epochs, 'epoch')}"
    return (
        f"not established within {counted(n_epochs, 'epoch')}: {agreed} bend (at epoch: {moments}), probability that they are done {probability:.2f}"
    )


def phase_border(curves: Mapping[str, np.ndarray], times: np.ndarray) -> float | None:
    """Where the last layer's Fisher trace, smoothed over five points, is largest: memorization phase before, forgetting phase after.

    None where it is largest at either end: then the border was not seen.
    """
    trace = curves.get("fisher_trace")
    if trace is None or np.isfinite(trace).sum() < 5:
        return None
    known = np.isfinite(trace)
    smooth = np.convolve(trace[known], np.ones(5) / 5, mode="valid")
    at = int(smooth.argmax())
    return float(times[known][2 + at]) if 0 < at < len(smooth) - 1 else None


def read_curves(path: Path) -> tuple[Float[np.ndarray, "T"], dict[str, Float[np.ndarray, "T"]]]:
    """Logged curves from a CSV (`-` is the standard input) with a column `epoch` and one column an indicator; empty cells are NaN.

    A column `learning_rate` (or `lr`) masks its own changes; it and `epoch` may be written in any case, the rate's name with spaces. Cosines between batch
    gradients (`avg_` or `mean_cosine_similarity`, or `_distance`) become the noise scale, whose shape does not depend on the batch size; their other
    statistics (min, max, median) say the same with more noise and are left out.
    Raises DataError that names the row and column of what is not a number, an epoch that does not increase, or columns of the same name.
    """
    *_, whole = curves_so_far(path)
    return whole


def curves_so_far(path: Path) -> Iterator[tuple[Float[np.ndarray, "T"], dict[str, Float[np.ndarray, "T"]]]]:
    """What `read_curves` returns, of all rows that were read by then: each time that more of them have come through a pipe; of a file mostly once."""
    header: list[str] | None = None
    rows: list[list[float]] = []
    number, numbers = 0, list[int]()  # of the line at hand, and of those that hold the rows
    for lines in _arriving_lines(path):
        n_before = len(rows)
        for cells in csv.reader(lines):
            number += 1
            if cells and header is None:
                header = _names_of_columns(path, cells)
            elif cells and header is not None:
                rows.append(_numbers(path, number, header, cells))
                numbers.append(number)
        if header is None or len(rows) == n_before:
            continue
        columns = {name: values for name, values in zip(header, np.array(rows).T, strict=True) if name}
        times = columns.pop("epoch")
        if len(wrong := np.flatnonzero(~(np.diff(times, prepend=-np.inf) > 0) | ~np.isfinite(times))):
            at = int(wrong[0])
            raise DataError(
                f"{path}, line {numbers[at]}: `epoch` is {times[at]:g}{f' after {times[at - 1]:g}' if at else ''}; it must hold numbers that increase from row to row. "
                "Where a training was started again, take out the rows of what was done twice."
            )
        yield times, _with_noise_scale(columns, times)
    if not rows:
        raise DataError(f"{path} needs a header with `epoch` and at least one indicator, and rows below it.")


def _arriving_lines(path: Path) -> Iterator[list[str]]:
    """Whole lines, as many together as there are without waiting. Raises DataError for what cannot be read."""
    decoder, held = codecs.getincrementaldecoder("utf-8-sig")(), ""  # Excel puts a mark of its own in front
    try:
        with open(0 if path == STANDARD_INPUT else path, "rb", buffering=0, closefd=path != STANDARD_INPUT) as file:
            while chunk := file.read(READ_AT_ONCE):
                lines = (held + decoder.decode(chunk)).splitlines(keepends=True)
                held = "" if not lines or lines[-1].endswith("\n") else lines.pop()  # the rest of this line is still to come
                yield lines
        yield [held + decoder.decode(b"", final=True)]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read curves from {path}: {error}.") from error


def _names_of_columns(path: Path, cells: list[str]) -> list[str]:
    """Names as the rest of the program knows them; "" for a column without one. Raises DataError where two are the same, or one is lacking."""
    written = [cell.strip() for cell in cells]
    plain = [name.lower().replace(" ", "").replace("_", "") for name in written]
    names = [
        {"epoch": "epoch", "lr": "learning_rate", "learningrate": "learning_rate"}.get(key, name) for key, name in zip(plain, written, strict=True)
    ]
    for at, name in enumerate(names):
        if name and (first := names.index(name)) < at:
            raise DataError(f"{path} has two columns for one thing, '{written[first]}' and '{written[at]}'. Rename one, or take it out.")
    if "epoch" not in names or not set(names) - {"", "epoch", "learning_rate"}:
        raise DataError(f"{path} needs a header with `epoch` and at least one indicator, and rows below it; its columns are: {', '.join(written)}.")
    return names


def _numbers(path: Path, number: int, header: list[str], cells: list[str]) -> list[float]:
    """A row as numbers, as many as there are columns; NaN where a cell is empty, lacks, or has no name above it. Raises DataError for what is no number."""
    numbers = [float("nan")] * len(header)
    for at, (name, cell) in enumerate(zip(header, cells, strict=False)):
        try:
            numbers[at] = float(cell) if name and cell.strip() else float("nan")
        except ValueError:
            raise DataError(f"{path}, line {number}, column '{name}': {cell!r} is not a number.") from None
    return numbers


def _with_noise_scale(curves: dict[str, Float[np.ndarray, "T"]], times: Float[np.ndarray, "T"]) -> dict[str, Float[np.ndarray, "T"]]:
    """Cosines of batch gradients replaced by log10(1 / cosine - 1), the noise scale in batches (`indicators/noise_scale.py`).

    The cosine at epoch 0, before any training, tells of the initial weights and is left out.
    """
    cosines = {name: values for name, values in curves.items() if name.endswith(("cosine_similarity", "cosine_distance"))}
    mean = next((name for start in ("avg_", "mean_", "") for end in ("similarity", "distance") if (name := f"{start}cosine_{end}") in cosines), None)
    if mean is None:
        return curves
    cosine = cosines[mean] if mean.endswith("similarity") else 1 - cosines[mean]
    usable = (cosine > 0) & (cosine < 1) & (times > 0)
    noise_scale = np.full(len(times), np.nan)
    noise_scale[usable] = np.log10(1 / cosine[usable] - 1)
    return {name: values for name, values in curves.items() if name not in cosines} | {"noise_scale": noise_scale}


def live_firing(times: Float[np.ndarray, "T"], curves: Mapping[str, Float[np.ndarray, "T"]], *, min_epochs: int = MIN_EPOCHS) -> float | None:
    """The moment at which the live rule fires on logged curves, read row by row; None where it never does.

    It is asked when it is in a training: after each row, or where there are several an epoch, after the last one of each epoch from `min_epochs` on. A curve
    `kept_overlap`, where there is one, must say that the ranking has settled.
    """
    over = take_vote(curves, times).over & _asked(times, min_epochs)
    if "kept_overlap" in curves:
        over = over & (carried(curves["kept_overlap"]) >= SETTLED_OVERLAP)
    fired = np.flatnonzero(over)
    return float(times[fired[0]]) if len(fired) else None


def _asked(times: Float[np.ndarray, "T"], min_epochs: int) -> Bool[np.ndarray, "T"]:
    """After which rows the live rule is asked. An epoch is over with a row at its end, or when a row of the next one is there."""
    if len(times) < 2 or np.median(np.diff(times[:MIN_POINTS])) > 1 - 1e-9:
        return np.ones(len(times), dtype=bool)
    epoch = np.ceil(times - 1e-9)  # moments are sums of parts of an epoch: whole ones may be off by rounding
    last_of_epoch = np.append(np.diff(epoch) > 0, times[-1] > epoch[-1] - 1e-9)
    return last_of_epoch & (epoch >= min_epochs)
