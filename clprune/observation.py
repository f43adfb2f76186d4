"""What `Recorder.observe` is given, checked and in the types that it is computed with."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clprune.errors import UsageError

WHOLE_NUMBERS = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64}


class Kind(NamedTuple):
    """What all batches of a recording share; None where that is not known yet."""

    losses_only: bool | None = None
    n_classes: int | None = None
    n_features: int | None = None  # 0 without features

    def joined(self, given: Kind) -> Kind:
        """What is known after one more batch. Raises UsageError where it differs from those before."""
        if self.losses_only not in (None, given.losses_only):
            raise UsageError("observe() was given logits in one batch and losses alone in another. Pass the same to every call of one recording.")
        if self.n_classes not in (None, given.n_classes):
            raise UsageError(
                f"observe() was given logits of {self.n_classes} classes in one batch and of {given.n_classes} in another of the same epoch."
            )
        if self.n_features not in (None, given.n_features):
            one, other = (f"features of width {kind.n_features}" if kind.n_features else "no features" for kind in (self, given))
            raise UsageError(f"observe() was given {one} in one batch and {other} in another. Pass the same to every call of one recording.")
        return given


class Observation(NamedTuple):
    """One batch, in memory of its own: the loop may fill its buffers anew, or change logits in place, before it is looked at."""

    rows: Int[Tensor, "B"]
    values: Float[Tensor, "B ..."]  # logits (B, C), or losses (B,)
    labels: Int[Tensor, "B"] | None
    features: Float[Tensor, "B D"] | None

    @property
    def kind(self) -> Kind:
        n_classes = 0 if self.labels is None else self.values.shape[1]
        return Kind(self.labels is None, n_classes, 0 if self.features is None else self.features.shape[1])


def observation(index: Any, logits: Any, labels: Any, features: Any, losses: Any, *, n_samples: int) -> Observation:
    """A copy of the batch; arrays and lists are taken as tensors are, whole numbers of any width as int64.

    Raises UsageError for what cannot be recorded: shapes that do not fit, rows or labels out of range or of another type.
    """
    index = _whole_numbers("the rows of the samples", index, "which does not hold large ones exactly. Pass each sample's row as an integer.")
    if losses is not None:
        if logits is not None or labels is not None:
            raise UsageError("observe() takes logits and labels, or losses alone: logits give the losses too.")
        values = _tensor("losses", losses)
        if values.ndim != 1 or index.shape != values.shape:
            raise UsageError(
                f"observe() takes index (B,) and losses (B,), one a sample; got {tuple(index.shape)} and {tuple(values.shape)}. "
                "Compute the loss with reduction='none'."
            )
    else:
        if logits is None or labels is None:
            raise UsageError("observe() needs logits and labels, or losses=..., besides the index.")
        values = _tensor("logits", logits)
        labels = _whole_numbers("class numbers", labels, "and soft or mixed labels have no single class. Pass each sample's own label as an integer.")
        if values.ndim != 2 or labels.shape != values.shape[:1] or index.shape != labels.shape:
            raise UsageError(
                f"observe() takes index (B,), logits (B, C), labels (B,); got {tuple(index.shape)}, {tuple(values.shape)}, {tuple(labels.shape)}."
            )
        if values.shape[1] == 1:
            raise UsageError(
                "observe() was given one logit a sample. Where it stands for two classes (a sigmoid), pass both: torch.cat([torch.zeros_like(z), z], dim=1)."
            )
        if labels.device.type == "cpu" and labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < values.shape[1]:
            raise UsageError(
                f"observe() was given labels from {int(labels.min())} to {int(labels.max())}, but logits of {values.shape[1]} classes. Number classes from 0."
            )
    if features is not None:
        features = _tensor("features", features)
        if features.ndim != 2 or len(features) != len(index) or features.shape[1] == 0:
            raise UsageError(
                f"observe() takes features (B, D), what the last linear layer is given, for {len(index)} samples; got {tuple(features.shape)}. "
                "Flatten them, or leave them out."
            )
        features = features.detach().clone()
    if (
        index.device.type == "cpu" and index.numel() and not 0 <= int(index.min()) <= int(index.max()) < n_samples
    ):  # on a GPU to look would be to wait
        raise UsageError(
            f"observe() was told rows from {int(index.min())} to {int(index.max())}, but there are {n_samples} samples. Pass the row of each sample in the data set."
        )
    return Observation(index, values.detach().clone(), labels, features)


def _tensor(name: str, given: Any) -> Tensor:
    """What is given, as a tensor. Raises UsageError for what is none and cannot be made one."""
    if isinstance(given, Tensor):
        return given
    try:
        return torch.tensor(np.ascontiguousarray(given) if isinstance(given, np.ndarray) else given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"observe() takes tensors, arrays or lists of numbers; {name} is a {type(given).__name__}: {error}") from error


def _whole_numbers(name: str, given: Any, why: str) -> Int[Tensor, "..."]:
    """A copy as int64. Raises UsageError for numbers that are no integers."""
    numbers = given if isinstance(given, Tensor) else _tensor(name, given)
    if numbers.dtype not in WHOLE_NUMBERS:
        raise UsageError(f"observe() takes {name} as whole numbers; got {numbers.dtype}, {why}")
    return numbers.clone() if numbers.dtype is torch.int64 else numbers.to(torch.int64)
