"""Above which suspicion a label counts as suspect: found from the suspicions themselves."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

RIGHT_FROM = 0.5  # odds own : other at or above which nearly every label is right, and right ones lie as densely as below


def suspect_above(suspicion: Float[np.ndarray, "N"]) -> float:
    """The suspicion above which labels are, by estimate, more often wrong than right; 1.0 where there are no such.

    Read as odds, r = (1 - suspicion) / suspicion = support for the label : support for the other class, right labels that look wrong lie evenly on [0, 1]: there is nothing
    special about support near zero for what is merely hard. Wrong labels pile up at zero. So r is what a p-value is in multiple testing: the density among r > RIGHT_FROM is that of right labels
    everywhere (Storey, 2002, doi:10.1111/1467-9868.00346), and a label is suspect where the density is twice as high, that is where the local false discovery rate is below one half. Where wrong
    labels are like hard ones (made by people, not by chance), they lie among r > RIGHT_FROM too, so that too few are suspected rather than too many.

    >>> grid = (np.arange(100) + 0.5) / 100
    >>> suspect_above(1 / (1 + grid))
    1.0
    >>> sure = np.zeros(100)
    >>> round(suspect_above(np.concatenate([1 / (1 + grid), 1 / (1 + grid / 50), sure])), 3)
    0.978
    """
    doubted = np.sort(suspicion[suspicion > 0.5])[::-1]
    if not len(doubted):
        return 1.0
    odds = (1 - doubted) / doubted
    density = ((odds > RIGHT_FROM).sum() + 1) / (1 - RIGHT_FROM)
    excess = np.arange(1, len(odds) + 1) - 2 * density * odds  # greatest where the density falls below twice that of right labels
    last = int(excess.argmax())
    if excess[last] <= 0:
        return 1.0
    return believed(suspicion, float((doubted[last] + (doubted[last + 1] if last + 1 < len(doubted) else 0.5)) / 2))


def limit_of(suspicion: Float[np.ndarray, "N"], given: float | None) -> float:
    """The suspicion above which a label counts as suspect: the one given, else the one found."""
    return suspect_above(suspicion) if given is None else given


def believed(suspicion: Float[np.ndarray, "N"], limit: float) -> float:
    """The limit, or 1.0 where more than half of all labels are above it: a model that doubts most of them has not learned what it judges."""
    return limit if (suspicion > limit).sum() <= len(suspicion) / 2 else 1.0


def for_rare(labels: Int[np.ndarray, "N"], rivals: Int[np.ndarray, "N"], sizes: Int[np.ndarray, "C"]) -> Float[np.ndarray, "N"]:
    """How many times support for a label counts against a rival class, given the sizes of the classes: 1 where the rival is not larger.

    A model that knows nothing yet of a rare class gives it the support that its size alone gives, which says nothing against its labels: by that its support would count as many times as the rival is larger.
    But where labels went wrong regardless of class, a larger share of a rare class is wrong. The root lies between the two: with nothing whole classes were suspected, with the whole ratio no wrong label of a class of a tenth was
    (chosen on other images than those of examples/benchmarks/suspects.py; figures in the README).

    >>> for_rare(np.array([0, 1]), np.array([1, 0]), np.array([90, 10]))
    array([1., 3.])
    """
    return np.sqrt(np.maximum(1.0, sizes[rivals] / np.maximum(sizes[labels], 1)))


def regardless_of_size(suspicion: Float[np.ndarray, "N"], labels: Int[np.ndarray, "N"], suggested: Int[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Suspicion without `for_rare` where another class is suggested; where none is, the label has most support by any count.

    >>> regardless_of_size(np.array([0.1, 0.1, 0.1, 0.1, 0.5]), np.array([0, 0, 0, 0, 1]), np.zeros(5, dtype=int)).round(3)
    array([0.1  , 0.1  , 0.1  , 0.1  , 0.667])
    """
    suggested = np.maximum(suggested, 0)
    times = for_rare(labels, suggested, np.bincount(labels, minlength=int(suggested.max(initial=0)) + 1))
    return suspicion * times / (1 - suspicion + suspicion * times)
