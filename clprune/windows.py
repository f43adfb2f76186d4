"""The windows of an epoch: consecutive batches that together give one point of every curve, cut by the share of what was observed.

How much an epoch observes is known when it is over. Until then a window is a fixed part of as many observations as there are samples; afterwards it is
dated by its share of what was observed, and the windows of an epoch that showed samples repeatedly are pooled to about as many as a plain one has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Int
from torch import Tensor

WHOLE_ENOUGH = 0.5  # of a full window: a last one of fewer samples is no point of its own, since its accuracy would be that of a few, 0 or 1 of one


@dataclass
class Window:
    """Batches of one epoch that came one after the other."""

    number: int  # of whole parts that were observed before it; a batch larger than a part leaves numbers out
    n_observed: int = 0
    records: list[Tensor] = field(default_factory=list)  # (S, n_records) of some batches each
    rotation: tuple[Tensor, Tensor] | None = None  # cosines of the weights at its start and its end
    rows: Int[np.ndarray, "n"] = field(
        default_factory=lambda: np.empty(0, dtype=np.int64)
    )  # samples that it saw first; known, as what follows, when the epoch is over
    start: float = 0.0  # share of the epoch
    end: float = 1.0

    def join(self, later: Window) -> None:
        """Make the next window a part of this one."""
        self.n_observed, self.end = self.n_observed + later.n_observed, later.end
        self.records, self.rows = self.records + later.records, np.sort(np.concatenate([self.rows, later.rows]))
        if self.rotation is not None and later.rotation is not None:
            self.rotation = (self.rotation[0], later.rotation[1])


def points_of(windows: list[Window], window_of: Int[np.ndarray, "N"], per_epoch: int) -> list[Window]:
    """The windows of an epoch of N samples that are a point each, with their rows and dates; `window_of` is the number of the one that saw a sample first, -1 for none.

    Part of the one before become a window that saw no new sample, a last one that is too short, and, where more was observed than there are samples, one
    whose new samples lie, by their middle, in the same one of `per_epoch` equal parts of all that were seen.
    """
    n_samples, n_observed, n_seen = len(window_of), sum(window.n_observed for window in windows), int((window_of >= 0).sum())
    for window in windows:
        window.rows = np.flatnonzero(window_of == window.number)
    for window, later in pairwise(windows):
        window.end = later.start = later.number / per_epoch * (n_samples / n_observed)
    points: list[Window] = []
    n_before, part_before = 0, -1
    for window in windows:
        n_new = len(window.rows)
        part = (2 * n_before + n_new) * per_epoch // (2 * n_seen) if n_new else part_before
        if not n_new or (part == part_before and n_observed > n_samples):
            points[-1].join(window)
        else:
            points.append(window)
        n_before, part_before = n_before + n_new, part
    if len(points) > 1 and points[-1].n_observed < WHOLE_ENOUGH * n_samples / per_epoch:
        short = points.pop()
        points[-1].join(short)
    return points
