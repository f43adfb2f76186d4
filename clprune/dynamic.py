"""Training arms that may see all data and still cost no more: what a fixed subset has to be compared with at equal cost.

Each takes the rows of all samples and the size of the subset, and gives what `training.train` asks for: the rows of an epoch, perhaps with loss weights.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from clprune.training import Draw, Observe

ARMS = ("shortened", "rs2", "infobatch")


def dynamic_arm(name: str, order: Int[np.ndarray, "N"], n_keep: int, seed: int) -> tuple[Draw | Int[np.ndarray, "N"], Observe | None]:
    """What arm `name` trains on, and what it must be told after each forward pass (None: nothing). `order` are the rows of all samples.

    shortened   all data, with the schedule shortened to the same number of steps
    rs2         RS2 without replacement (Okanovic et al., 2023, arXiv:2305.18424): `n_keep` samples an epoch, other ones each time, all of them before any comes again
    infobatch   InfoBatch (Qin et al., 2024, arXiv:2303.04947): each epoch leaves out half of the samples whose last loss was below the mean, and doubles the
                weight of the other half; for the last eighth of the training all data, unweighted. `n_keep` has no influence on what an epoch sees
    """
    if name == "rs2":
        return _rs2(order, n_keep, seed), None
    if name == "infobatch":
        arm = InfoBatch(order, seed)
        return arm.draw, arm.observe
    return order, None


def _rs2(order: Int[np.ndarray, "N"], n_keep: int, seed: int) -> Draw:
    def draw(epoch: int, done: float) -> tuple[np.ndarray, None]:
        at, left, parts = epoch * n_keep, n_keep, []
        while left:
            lap, place = divmod(at, len(order))
            part = np.random.default_rng((seed, lap, 3)).permutation(order)[place : place + left]
            parts.append(part)
            at, left = at + len(part), left - len(part)
        return np.concatenate(parts), None

    return draw


class InfoBatch:
    """The last loss of each sample, and the rows and loss weights of an epoch that follow from them.

    Where the last part, on all data, begins within an epoch, that epoch ends there: how far it goes is told by how far the one before went.
    """

    def __init__(self, order: Int[np.ndarray, "N"], seed: int, *, left_out: float = 0.5, annealed: float = 0.125) -> None:
        self.order, self.seed, self.left_out, self.annealed = order, seed, left_out, annealed
        self.losses: Tensor | None = None
        self._before: tuple[float, int] | None = None  # how much of the training was done before the last epoch, and how many rows that had

    def observe(self, rows: Tensor, logits: Tensor, labels: Tensor, features: Tensor | None) -> None:
        """Keep the losses of a batch, on its device."""
        if self.losses is None:
            self.losses = torch.ones(int(self.order.max()) + 1, device=logits.device)
        self.losses[rows] = F.cross_entropy(logits.detach().float(), labels, reduction="none")

    def draw(self, epoch: int, done: float) -> tuple[np.ndarray, np.ndarray | None]:
        """Rows of the epoch and loss weights (N,) by row."""
        rows, weights = self._drawn(epoch, done)
        if weights is not None and self._before is not None and done > self._before[0]:
            a_row = (done - self._before[0]) / self._before[1]
            left = round((1 - self.annealed - done) / a_row)
            if left < len(rows):
                rows = np.random.default_rng((self.seed, epoch, 5)).permutation(rows)[:left]
        if not len(rows):
            rows, weights = self.order, None
        self._before = done, len(rows)
        return rows, weights

    def _drawn(self, epoch: int, done: float) -> tuple[np.ndarray, np.ndarray | None]:
        if self.losses is None or done >= 1 - self.annealed:
            return self.order, None
        losses = self.losses.cpu().numpy()[self.order]
        low = losses < losses.mean()
        away = low & (np.random.default_rng((self.seed, epoch, 4)).random(len(low)) < self.left_out)
        weights = np.ones(int(self.order.max()) + 1)
        weights[self.order[low]] = 1 / (1 - self.left_out)
        return self.order[~away], weights
