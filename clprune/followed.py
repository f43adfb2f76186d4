"""What a recorder follows from epoch to epoch beside its signals: the features of a fixed part of the samples, and the directions of the weights."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clprune.errors import UsageError
from clprune.signals import nearest_by_cosine

PROBE_SAMPLES = 2048  # samples whose features are kept from epoch to epoch
PROBE_QUERIES = 512  # of these, whose nearest neighbours among the probe are compared
PROBE_NEIGHBORS = 10


class Probe:
    """Features of a fixed part of the samples, as they are seen in the training steps: no forward pass of their own."""

    def __init__(self, order: Int[np.ndarray, "N"]) -> None:
        self.rows = order[np.random.default_rng(0).permutation(len(order))[:PROBE_SAMPLES]]
        self.before: np.ndarray | None = None  # (M, D) of the last epoch, NaN where a sample was not seen
        self._place = np.full(len(order) + 1, len(self.rows), dtype=np.int64)
        self._place[self.rows] = np.arange(len(self.rows))
        self._neighbors: np.ndarray | None = None  # (Q, k) of the last epoch
        self._slot: Tensor | None = None
        self._now: Tensor | None = None

    def restart(self) -> None:
        """Forget the features of an epoch that did not end."""
        self._now = None

    def restore(self, before: Float[np.ndarray, "M D"] | None) -> None:
        """Go on from the features `before` of an interrupted run."""
        self.before, self._now, self._neighbors = before, None, None

    def take(self, index: Int[Tensor, "B"], features: Float[Tensor, "B D"]) -> None:
        """Keep the features of the probe's samples; an `index` past the last sample is of none."""
        if self._slot is None:
            self._slot = torch.from_numpy(self._place).to(features.device)
        if self._now is None:  # the last row is where all others go
            self._now = torch.full((len(self.rows) + 1, features.shape[1]), float("nan"), device=features.device, dtype=torch.float32)
        self._now.index_copy_(0, self._slot.index_select(0, index), features.float())

    def end_epoch(self) -> dict[str, np.ndarray]:
        """The probe before and after, of samples seen in both epochs, and the nearest neighbours of its first part then and now."""
        if self._now is None:
            return {}
        before, self.before, self._now = self.before, self._now[:-1].cpu().numpy(), None
        neighbors_before, self._neighbors = self._neighbors, None
        if len(self.rows) > PROBE_NEIGHBORS + 1:
            self._neighbors = _neighbors_of(self.before)
        if before is None:
            return {}
        both = np.isfinite(before).all(axis=1) & np.isfinite(self.before).all(axis=1)
        if both.sum() < 3:
            return {}
        records = {"probe_before": before[both], "probe_after": self.before[both]}
        if self._neighbors is not None and (asked := both[: len(self._neighbors)]).any():
            earlier = _neighbors_of(before) if neighbors_before is None else neighbors_before  # None: the run was resumed
            records |= {"probe_neighbors_before": earlier[asked], "probe_neighbors_after": self._neighbors[asked]}
        return records


def _neighbors_of(probe: Float[np.ndarray, "M D"]) -> Int[np.ndarray, "Q k"]:
    """Nearest others of the probe's first samples; one that was not seen counts as far from all."""
    return nearest_by_cosine(np.nan_to_num(probe, nan=0.0), min(PROBE_QUERIES, len(probe)), PROBE_NEIGHBORS)


def rotation_of(model: nn.Module | None) -> Rotation | None:
    """What watches a model's weight matrices; None without a model, or for one that has none (only scales and offsets, say).

    Raises UsageError where layers have no weights yet.
    """
    parameters = [] if model is None else list(model.parameters())
    if any(isinstance(p, nn.UninitializedParameter) for p in parameters):
        raise UsageError("the model has layers that take their shape from the first batch. Let it see one, then make the recorder.")
    weights = [p for p in parameters if p.ndim > 1]
    return Rotation(weights) if weights else None


class Rotation:
    """Cosine of each weight matrix with its initial value."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self.weights = weights
        self.initial = [p.detach().to(torch.float32, copy=True) for p in self.weights]
        self.last = torch.ones(len(self.weights), device=self.initial[0].device)

    @torch.no_grad()
    def now(self) -> Float[Tensor, "L"]:
        self.initial = [w0.to(w.device) for w, w0 in zip(self.weights, self.initial, strict=True)]  # the model may have moved since
        pairs = zip(self.weights, self.initial, strict=True)
        self.last = torch.stack([torch.cosine_similarity(w.flatten().float(), w0.flatten(), dim=0) for w, w0 in pairs])
        return self.last
