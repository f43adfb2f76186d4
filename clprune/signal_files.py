"""Signals of more samples than memory holds: one file a signal, written part by part, scored block by block.

The file is the `trajectory/SIGNAL.npy` of a run folder, (E, N) float32, so everything that reads runs reads it. What is in memory is a block, whatever N is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from clprune.errors import IntegrityError, UsageError

BLOCK_SAMPLES = 1_000_000


class SignalFile:
    """(E, N) float32 on disk. A part that is written twice holds the second, so work that is done again does no harm; what was not written is NaN."""

    def __init__(self, path: Path, n_epochs: int, n_samples: int, *, new: bool = True) -> None:
        self.path, self.n_epochs, self.n_samples = path, n_epochs, n_samples
        if new:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (n_epochs, n_samples)})
                self._offset = file.tell()
                blank = np.full(min(n_samples, BLOCK_SAMPLES), np.nan, dtype="<f4")
                for _ in range(n_epochs):
                    for start in range(0, n_samples, BLOCK_SAMPLES):
                        file.write(blank[: n_samples - start].data)
        else:
            with open(path, "rb") as file:
                np.lib.format.read_magic(file)
                shape, _, _ = np.lib.format.read_array_header_1_0(file)
                self._offset = file.tell()
            if shape != (n_epochs, n_samples):
                raise IntegrityError(f"{path} holds {shape}, not {(n_epochs, n_samples)}. It belongs to another run; record again.")

    def write(self, epoch: int, start: int, values: Float[np.ndarray, "n"]) -> None:
        """Put the values of consecutive samples from `start` on into an epoch. Raises UsageError outside the file."""
        if not (0 <= epoch < self.n_epochs and 0 <= start <= start + len(values) <= self.n_samples):
            raise UsageError(
                f"samples {start} to {start + len(values)} of epoch {epoch} are outside {self.path} ({self.n_epochs} epochs, {self.n_samples} samples)."
            )
        with open(self.path, "r+b") as file:
            file.seek(self._offset + 4 * (epoch * self.n_samples + start))
            file.write(np.ascontiguousarray(values, dtype="<f4").data)

    def read(self, start: int, stop: int) -> Float[np.ndarray, "E n"]:
        """All epochs of consecutive samples."""
        block = np.empty((self.n_epochs, stop - start), dtype=np.float32)
        for epoch in range(self.n_epochs):  # read, not mapped: mapped pages count as memory of the process
            block[epoch] = np.fromfile(self.path, dtype="<f4", count=stop - start, offset=self._offset + 4 * (epoch * self.n_samples + start))
        return block

    def blocks(self, size: int = BLOCK_SAMPLES) -> Iterator[tuple[int, int]]:
        """(start, stop) of the blocks of samples."""
        for start in range(0, self.n_samples, size):
            yield start, min(start + size, self.n_samples)


def score_in_blocks(
    score: Callable[..., Float[np.ndarray, "n"]], files: Mapping[str, SignalFile], needs: tuple[str, ...], *, size: int = BLOCK_SAMPLES
) -> Float[np.ndarray, "N"]:
    """A score (N,) float32 of signals on disk. Every score is of one sample at a time, so it is the same as of all at once.

    Raises IntegrityError where a value was never written: a sample would be scored on less than all epochs.
    """
    first = files[needs[0]]
    values = np.empty(first.n_samples, dtype=np.float32)
    for start, stop in first.blocks(size):
        blocks = [files[need].read(start, stop) for need in needs]
        for need, block in zip(needs, blocks, strict=True):
            if np.isnan(block).any():
                epoch, at = np.argwhere(np.isnan(block))[0]
                raise IntegrityError(f"signal '{need}' of sample {start + at} in epoch {epoch} was never written. Record that part again.")
        values[start:stop] = score(*blocks)
    return values
