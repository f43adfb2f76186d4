"""A Lightning callback that records the critical period from the training's own forward passes, and can stop the training when it has ended."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from clprune.errors import MissingExtraError, UsageError
from clprune.integrations._head import HeadTap
from clprune.recorder import Recorder

try:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback
except ImportError as error:
    raise MissingExtraError("lightning", "the Lightning callback") from error


def index_and_labels(batch: Any) -> tuple[Tensor, Tensor]:
    """Rows and labels of a batch: (input, label, row) as `recorder.indexed` gives it, or a mapping with `index` and `label` or `labels`."""
    if isinstance(batch, Mapping) and "index" in batch and ({"label", "labels"} & set(batch)):
        return batch["index"], batch["labels"] if "labels" in batch else batch["label"]
    if isinstance(batch, list | tuple) and len(batch) == 3:
        return batch[2], batch[1]
    raise UsageError(
        "a training batch carries no rows: wrap the data set as recorder.indexed(train_set), whose batches are (input, label, row), "
        "or pass parts=lambda batch: (rows, labels) to CriticalPeriodCallback."
    )


class CriticalPeriodCallback(Callback):
    """Feeds `recorder` while the trainer fits. Logits and features are what the model's head gives and takes: the module named `head`, or the last linear layer
    that gives the recorder's `n_classes` numbers (any, where that was not told).

    With `stop` the training ends with the epoch in which the critical period does; without, `recorder.in_critical_period` tells. `parts` takes rows and labels out of a
    batch. The recording is part of Lightning's checkpoints (those that are saved at the end of a training epoch hold that epoch too; a RuntimeWarning where one was saved earlier).
    Not for mixed inputs (mixup, cutmix), whose logits belong to no one sample. Raises UsageError for several processes, and where a training goes on from a checkpoint without a recording.

        recorder = clprune.Recorder(train_set, n_classes=10)
        trainer = Trainer(callbacks=[CriticalPeriodCallback(recorder)])
        trainer.fit(module, DataLoader(recorder.indexed(train_set), batch_size=128, shuffle=True))
    """

    def __init__(
        self, recorder: Recorder, *, stop: bool = True, parts: Callable[[Any], tuple[Tensor, Tensor]] = index_and_labels, head: str | None = None
    ) -> None:
        self.recorder, self.stop, self.parts, self.head = recorder, stop, parts, head
        self._tap: HeadTap | None = None
        self._restored = False
        self._rate: float | None = None  # of the last training step: when an epoch ends, the scheduler has set that of the next one already

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            raise UsageError(f"the recording needs one process that sees every sample; this trainer runs {trainer.world_size}.")
        self._tap = HeadTap(pl_module, self.recorder.n_classes, self.head)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.recorder.restart_epoch()  # a training before this one may have been interrupted
        n_done, n_held, progress = trainer.current_epoch, len(self.recorder.epochs), trainer.fit_loop.epoch_loop.batch_progress
        if n_done and not n_held and not self._restored:
            raise UsageError(
                f"the training goes on after {n_done} epochs of which there is no recording, so what they showed is not known and the critical period would be looked for as if "
                "training began here. Train from the start, or go on without CriticalPeriodCallback."
            )
        within = progress.current.ready > 0 and not progress.is_last_batch
        if n_held < n_done or within:
            warnings.warn(
                f"the recording holds {n_held} whole epochs, and the training goes on after {n_done}{' and a part of one' if within else ''}: what was seen in between is not recorded. "
                "Save checkpoints at the end of training epochs.",
                RuntimeWarning,
                stacklevel=2,
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._rate = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert self._tap is not None
        logits, features = self._tap.take()
        index, labels = self.parts(batch)
        self.recorder.observe(index, logits, labels, features)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.recorder.end_epoch(learning_rate=self._rate) and self.stop:
            trainer.should_stop = True

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._tap is not None:
            self._tap.close()
            self._tap = None
            self.recorder.finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")  # Lightning does not call it then

    def state_dict(self) -> dict[str, Any]:
        """The finished epochs of the recording, as tensors."""
        rest = self.recorder.state_after_last_epoch()[1] if self.recorder.epochs else {}
        epochs = [{name: torch.from_numpy(values) for name, values in epoch.items()} for epoch in self.recorder.epochs]
        return {"epochs": epochs, "rest": {name: torch.from_numpy(values) for name, values in rest.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = bool(state_dict)
        if state_dict.get("epochs"):
            epochs = [{name: values.numpy() for name, values in epoch.items()} for epoch in state_dict["epochs"]]
            self.recorder.restore(epochs, {name: values.numpy() for name, values in state_dict["rest"].items()})
