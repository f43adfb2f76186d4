"""TensorBoard event files of the curves: one scalar an indicator, against samples seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from clprune.errors import MissingExtraError
from clprune.recorder import Recorder

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise MissingExtraError("tensorboard", "writing TensorBoard event files") from error


class CurveWriter:
    """Writes what the curves have gained since the last call. Missing values are left out.

    A step is a number of samples seen, so that runs of other batch sizes line up. A run that is resumed writes all its points again:
    TensorBoard then leaves out those of the files before.

        with CurveWriter(Path("events")) as writer:
            ...; recorder.end_epoch(); writer.follow(recorder)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None  # made at the first point: a run that is refused leaves no folder
        self._n_written = 0

    def __enter__(self) -> CurveWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()

    def follow(self, recorder: Recorder) -> None:
        """Write a recorder's new points: call it after `end_epoch()`."""
        self.write(recorder.curves, recorder.curve_epochs, recorder.n_samples)

    def write(self, curves: Mapping[str, Sequence[float] | np.ndarray], curve_epochs: Sequence[float] | np.ndarray, n_samples: int) -> None:
        """Write the new points of curves (T,) at `curve_epochs` (T,) epochs done over `n_samples` samples."""
        if self._n_written == len(curve_epochs):
            return
        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder), purge_step=0)
        for at in range(self._n_written, len(curve_epochs)):
            for name, values in curves.items():
                if values[at] == values[at]:
                    self._writer.add_scalar(f"clprune/{name}", float(values[at]), round(float(curve_epochs[at]) * n_samples))
        self._n_written = len(curve_epochs)
        self._writer.flush()
