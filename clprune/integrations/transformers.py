"""A mixin for the transformers Trainer that records the critical period from the training's own forward passes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from clprune.errors import DataError, MissingExtraError, UsageError
from clprune.integrations._head import HeadTap
from clprune.recorder import Recorder

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint
except ImportError as error:
    raise MissingExtraError("transformers", "the transformers Trainer mixin") from error


RECORDING = "clprune_recording.safetensors"  # beside the weights in each checkpoint


def save_recording(recorder: Recorder, checkpoint: Path) -> None:
    """Write the finished epochs of the recording into a checkpoint's folder."""
    arrays = {f"epoch.{at:05d}.{name}": values for at, epoch in enumerate(recorder.epochs) for name, values in epoch.items()}
    if recorder.epochs:
        arrays |= {f"rest.{name}": values for name, values in recorder.state_after_last_epoch()[1].items()}
    save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, checkpoint / RECORDING)


def restore_recording(recorder: Recorder, checkpoint: Path) -> None:
    """Go on from the recording in a checkpoint's folder; a RuntimeWarning where it was saved within an epoch, whose earlier part is not recorded.

    Raises UsageError where there is none, and DataError where it cannot be read or is of other data.
    """
    if not (checkpoint / RECORDING).exists():
        raise UsageError(
            f"{checkpoint} holds no recording ({RECORDING}), so what its epochs showed is not known and the critical period would be looked for as if "
            "training began here. Train from the start, or go on without CriticalPeriodMixin."
        )
    try:
        arrays = load_file(checkpoint / RECORDING)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot read {checkpoint / RECORDING}: {error}. Go on from an earlier checkpoint.") from error
    epochs: dict[str, dict[str, Any]] = {}
    for name, values in arrays.items():
        kind, _, key = name.partition(".")
        if kind == "epoch":
            number, _, signal = key.partition(".")
            epochs.setdefault(number, {})[signal] = values
    if any(len(values) != recorder.n_samples for epoch in epochs.values() for values in epoch.values()):
        raise DataError(
            f"{checkpoint / RECORDING} is of other data than the {recorder.n_samples} samples of this recorder. Go on with the data set that it was made for."
        )
    if epochs:
        recorder.restore(
            [epochs[number] for number in sorted(epochs)], {name[5:]: values for name, values in arrays.items() if name.startswith("rest.")}
        )
    done = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")).epoch or 0.0
    if done > len(epochs) + 1e-3:  # a part of an epoch is a sum of steps
        warnings.warn(
            f"the recording in {checkpoint} holds {len(epochs)} whole epochs, and the training goes on at epoch {done:.2f}: what was seen in between is not recorded. "
            "Save checkpoints with save_strategy='epoch'.",
            RuntimeWarning,
            stacklevel=3,
        )


class _EndOfEpoch(TrainerCallback):  # type: ignore[misc]
    def __init__(self, recorder: Recorder, stop: bool) -> None:
        self.recorder, self.stop = recorder, stop
        self._rate: float | None = None  # of the last training step: when an epoch ends, the scheduler has set that of the next one already

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        optimizer = kwargs.get("optimizer")
        self._rate = optimizer.param_groups[0]["lr"] if optimizer is not None else None

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.recorder.end_epoch(learning_rate=self._rate) and self.stop:
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        save_recording(self.recorder, Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.recorder.restart_epoch()  # a training before this one may have been interrupted


class CriticalPeriodMixin:
    """Put it before Trainer; training examples need a column `index` with their row. `stop` ends the training with the critical period.

        class RecordingTrainer(CriticalPeriodMixin, Trainer): ...
        recorder = clprune.Recorder(train_set, n_classes=10)
        RecordingTrainer(model=model, args=args, train_dataset=train_set, recorder=recorder).train()

    Logits and features are what the model's head gives and takes (the module named `head`, or the last linear layer that gives the recorder's `n_classes` numbers), once for each micro-batch, so gradient accumulation, label smoothing and mixed
    precision change nothing. The recording is part of each checkpoint, and `train(resume_from_checkpoint=...)` goes on with it (saved within an epoch, a checkpoint
    holds the finished epochs only). Raises UsageError for examples without `index`, for several processes, for a checkpoint without a recording, and where `model_init` makes
    another model for a recorder that holds epochs already.
    """

    _signature_columns: list[str]
    _tap: HeadTap | None = None

    def __init__(self, *args: Any, recorder: Recorder, stop: bool = True, head: str | None = None, **kwargs: Any) -> None:
        self.recorder, self._head = recorder, head  # before `model_init` is called
        super().__init__(*args, **kwargs)
        if self.args.world_size > 1 or self.args.n_gpu > 1:  # type: ignore[attr-defined]
            raise UsageError("the recording needs one process on one device that sees every sample; set CUDA_VISIBLE_DEVICES to one GPU.")
        if self._tap is None:
            self._tap = HeadTap(self.model, recorder.n_classes, head)  # type: ignore[attr-defined]
        self.add_callback(_EndOfEpoch(recorder, stop))  # type: ignore[attr-defined]

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own, after the recording of the checkpoint was restored."""
        last = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint  # type: ignore[attr-defined]
        if last:
            restore_recording(self.recorder, Path(last))
        elif self.recorder.epochs and self.model_init is not None:  # type: ignore[attr-defined]
            raise UsageError(
                f"the recorder holds {len(self.recorder.epochs)} epochs of another model, and model_init makes a new one for each training. Give each training a recorder of its own."
            )
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)  # type: ignore[misc]
        finally:
            self.recorder.finish()

    def call_model_init(self, trial: Any = None) -> Any:
        """The Trainer's own; the model that it makes anew for a training is looked at in the place of the one before."""
        if self._tap is not None:
            self._tap.close()
        model = super().call_model_init(trial)  # type: ignore[misc]
        self._tap = HeadTap(model, self.recorder.n_classes, self._head)
        return model

    def _set_signature_columns_if_needed(self) -> None:
        """The model does not take `index`, but it must not be removed."""
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        if "index" not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, "index"]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own loss; what its forward pass gave is recorded on the way."""
        index, labels = inputs.pop("index", None), inputs.get("labels")
        result = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        if model.training:
            if index is None or labels is None:
                lacking = "index" if index is None else "labels"
                raise UsageError(
                    f"the training examples have no '{lacking}'. Give each its row: train_set.add_column('index', range(len(train_set)))."
                )
            assert self._tap is not None
            logits, features = self._tap.take()
            self.recorder.observe(index, logits, labels, features)
        return result

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own; without labels it calls the model itself, which does not take `index`."""
        inputs.pop("index", None)
        return super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
