"""Epochs that did not see a sample, and windows of epochs; shared by the scores."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

WINDOW = 10  # epochs, as in the papers of DUAL, Dyn-Unc and TDDS; shorter recordings are one window


def filled_with_mean(signal: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "E N"]:
    """The signal with the sample's mean in the epochs that did not see it."""
    return np.where(np.isnan(signal), np.nanmean(signal, axis=0), signal)


def filled_with_last(signal: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "E N"]:
    """The signal with the last value seen in the epochs that did not see the sample, before the first one with the first."""
    epochs = np.arange(len(signal))[:, None]
    seen = ~np.isnan(signal)
    last = np.maximum.accumulate(np.where(seen, epochs, -1), axis=0)
    return np.take_along_axis(signal, np.where(last < 0, seen.argmax(axis=0), last), axis=0)


def windows(values: Float[np.ndarray, "E N"], width: int = WINDOW) -> Iterator[Float[np.ndarray, "W N"]]:
    """All runs of `width` consecutive rows, earliest first; the whole where there are fewer."""
    width = min(width, len(values))
    return (values[start : start + width] for start in range(len(values) - width + 1))
