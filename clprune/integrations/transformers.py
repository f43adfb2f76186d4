"""A mixin for the transformers Trainer that records the critical period from the training's own forward passes."""

from __future__ import annotations

from typing import Any

from clprune.errors import MissingExtraError, UsageError
from clprune.integrations._head import HeadTap
from clprune.recorder import Recorder

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise MissingExtraError("transformers", "the transformers Trainer mixin") from error


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

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.recorder.finish()


class CriticalPeriodMixin:
    """Put it before Trainer; training examples need a column `index` with their row. `stop` ends the training with the critical period.

        class RecordingTrainer(CriticalPeriodMixin, Trainer): ...
        recorder = clprune.Recorder(train_set, n_classes=10)
        RecordingTrainer(model=model, args=args, train_dataset=train_set, recorder=recorder).train()

    Logits and features are what the model's last linear layer gives and takes, once for each micro-batch, so gradient accumulation, label smoothing and mixed
    precision change nothing. Raises UsageError for examples without `index` and for several processes.
    """

    _signature_columns: list[str]

    def __init__(self, *args: Any, recorder: Recorder, stop: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.world_size > 1 or self.args.n_gpu > 1:  # type: ignore[attr-defined]
            raise UsageError("the recording needs one process on one device that sees every sample; set CUDA_VISIBLE_DEVICES to one GPU.")
        self.recorder = recorder
        self._tap = HeadTap(self.model)  # type: ignore[attr-defined]
        self.add_callback(_EndOfEpoch(recorder, stop))  # type: ignore[attr-defined]

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
            logits, features = self._tap.take()
            self.recorder.observe(index, logits, labels, features)
        return result

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own; without labels it calls the model itself, which does not take `index`."""
        inputs.pop("index", None)
        return super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
