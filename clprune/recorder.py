"""The one way statistics are taken: `observe` after each forward pass, `end_epoch` after each epoch, in any training loop.

Everything is computed from the logits (and the input of the last linear layer, where it is at hand) of the training's own forward pass.
It stays on the device and is copied to the host once an epoch. An epoch is cut into windows by the share of samples observed; each
window gives one point of every curve; a short rest at the epoch's end (one sample after the last whole batch) belongs to the window before it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.dtypes import StringDType
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from clprune import families
from clprune.critical_period import MIN_EPOCHS, LiveRule, find_critical_period, phase_border
from clprune.datatypes import CriticalPeriod, Source, Trajectory
from clprune.errors import DataError, StorageError, UsageError
from clprune.followed import Probe, rotation_of
from clprune.live import write_live
from clprune.observation import Kind, Observation, observation
from clprune.signals import BATCH_RECORDS, LOSS_SIGNALS, names_of_signals, observe_batches, observe_losses
from clprune.windows import Window, points_of

WINDOWS_PER_EPOCH = 4
RECORDS_OF_LOSSES = {"margin_before", "margin_after", "doubt_before", "doubt_after"}  # what indicators are given where only losses are observed
RECORDS_OF_LOSSES |= {"weight_cosines_before", "weight_cosines", "epochs_between"}
BATCHES_AT_ONCE = 8  # batches whose statistics are computed together: eight times fewer small operations


class _Indexed:
    """A map-style dataset whose items carry their row as the last element, or under "index" where they are mappings."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...] | dict[Any, Any]:
        item = self.dataset[index]
        if isinstance(item, Mapping):
            if "index" in item:
                raise UsageError(
                    'recorder.indexed() adds "index" to items that are mappings; these have one already. Rename theirs, or add the row under another name yourself and pass it to observe().'
                )
            return {**item, "index": index}
        return (*item, index) if isinstance(item, tuple | list) else (item, index)


class SwitchedTransform:
    """`during` inside the critical period, `after` from its end on; DataLoader workers, persistent ones too, see the change."""

    def __init__(self, during: Callable[[Any], Any], after: Callable[[Any], Any], over: Tensor) -> None:
        self.during, self.after, self._over = during, after, over

    def __call__(self, value: Any) -> Any:
        return self.after(value) if bool(self._over) else self.during(value)


class Recorder:
    """Records a training run and says when its critical learning period has ended.

    `source` is a `Source`, or anything with a length (then ids are row numbers). `model` is optional: with it, layer rotation is
    recorded too (where it has weight matrices). `windows_per_epoch` is 1 where all of an epoch was observed at one moment. `in_critical_period` is True until the live rule
    has fired; `settled` until then False. With `live_folder`, `clprune watch live_folder` follows the run. Where processes train together each sees its share
    only: gather index, logits and labels of all (torch.distributed.all_gather) and let each, or one, observe that.

        recorder = Recorder(train_set)
        for x, y, index in DataLoader(recorder.indexed(train_set), ...):
            ...; recorder.observe(index, logits, y)
        if recorder.end_epoch(): ...
    """

    def __init__(
        self,
        source: Any,
        *,
        n_classes: int | None = None,
        model: nn.Module | None = None,
        min_epochs: int = MIN_EPOCHS,
        live_folder: Path | None = None,
        windows_per_epoch: int = WINDOWS_PER_EPOCH,
    ) -> None:
        if isinstance(source, str) or not hasattr(source, "__len__"):
            raise UsageError(
                f"Recorder() takes a Source or a map-style data set with a length; a {type(source).__name__} has no rows. Give what `observe` is told the rows of."
            )
        self.n_samples = len(source)
        if windows_per_epoch < 1:
            raise UsageError(f"windows_per_epoch is {windows_per_epoch}; it must be at least 1.")
        if self.n_samples == 0:
            raise DataError("there is nothing to record: the data set is empty.")
        if isinstance(source, Source):
            self.sample_ids, self.labels, self._labels_are_learned = source.sample_ids, source.labels, False
            n_classes = source.n_classes
        else:
            width = len(str(self.n_samples - 1))
            self.sample_ids = np.array([f"{row:0{width}d}" for row in range(self.n_samples)], dtype=StringDType())
            self.labels, self._labels_are_learned = np.full(self.n_samples, -1, dtype=np.int64), True  # from what is observed
        self.n_classes = n_classes
        self.n_windows = windows_per_epoch
        self._kind = Kind()  # of what is observed; nothing is known yet
        self.live = LiveRule(min_epochs=min_epochs)
        self._over: Tensor | None = None  # in memory that DataLoader workers share, where a transform was switched
        self.epochs: list[dict[str, np.ndarray]] = []  # finished epochs: signal -> (N,)
        self._doubt = np.zeros(self.n_samples)  # sum over epochs of 1 - p_label; unseen counts as sure
        self.curves: dict[str, list[float]] = {}
        self.curve_epochs: list[float] = []
        self._current: Tensor | None = None
        self._watched = rotation_of(model)
        self._by_id = np.argsort(self.sample_ids, kind="stable")  # so that the order of rows has no influence, on ties either
        self._probe = Probe(self._by_id)
        self._indicators = families.members("indicators")
        self._published: tuple[Path, dict[str, Any]] | None = None
        self.restart_epoch()
        if live_folder is not None:
            self.publish(live_folder)

    # ---- in the loop

    def indexed(self, dataset: Any) -> _Indexed:
        """The dataset for a DataLoader, with each item's row as its last element: (input, label, row); a mapping has it under "index". Must have the length given at the start, and rows: an IterableDataset has none."""
        if isinstance(dataset, IterableDataset):
            raise UsageError(
                f"recorder.indexed() takes map-style data sets; a {type(dataset).__name__} is read in sequence. Let it give each sample's row itself, and pass that to observe()."
            )
        if len(dataset) != self.n_samples:
            raise UsageError(f"this dataset has {len(dataset)} samples, the recorder was made for {self.n_samples}.")
        return _Indexed(dataset)

    def observe(
        self,
        index: Int[Tensor, "B"],
        logits: Float[Tensor, "B C"] | None = None,
        labels: Int[Tensor, "B"] | None = None,
        features: Float[Tensor, "B D"] | None = None,
        *,
        losses: Float[Tensor, "B"] | None = None,
    ) -> None:
        """Take the statistics of one batch from its forward pass. A sample seen twice in an epoch counts the first time. What is given is copied.

        Labels are class numbers of the unmixed inputs: with mixup or soft labels pass the sample's own label and logits of the clean input.
        A task without class logits (detection, regression, language modelling) passes `losses`, one number a sample, not a mean over
        the batch nor divided for gradient accumulation. Arrays and lists are taken too. Raises UsageError for shapes and types that do not fit, and for
        features of another width than before, or in some batches only.
        """
        given = observation(index, logits, labels, features, losses, n_samples=self.n_samples)
        if given.kind != self._kind:
            self._kind = self._kind.joined(given.kind)
        if not len(given.rows):  # of a batch from which the loop left out all
            return
        number = self._n_observed * self.n_windows // self.n_samples
        if number > self._windows[-1].number or len(self._waiting) == BATCHES_AT_ONCE:
            self._flush()
        if number > self._windows[-1].number:
            self._close_window()
            self._windows.append(Window(number))
        self._waiting.append(given)
        self._n_observed += len(given.rows)
        self._windows[-1].n_observed += len(given.rows)

    def observe_network(self, fisher_trace: float) -> None:
        """Add an estimate of the whole network's Fisher trace (`signals.network_fisher`) to the current epoch."""
        self._network_fisher.append(float(fisher_trace))

    def end_epoch(self, *, learning_rate: float | None = None) -> bool:
        """Close the epoch: copy its statistics to the host, extend the curves, ask the live rule. True once the critical period has ended.

        Tell the learning rate that the epoch was trained at where it is not constant: what a change by more than half of the smaller rate does to the curves is
        then masked. An epoch of which it is not told had that of the epoch before; the first ones had the first rate that is told.
        """
        if self._n_observed == 0:
            raise UsageError(
                "end_epoch() was called in an epoch in which nothing was observed. Call observe(index, logits, labels) after each forward pass."
            )
        self._flush()
        self._close_window()
        assert self._current is not None
        host = self._current[:, : self.n_samples].cpu().numpy()
        now = {name: row.copy() for name, row in zip(self._names, host, strict=True)}
        self._require_finite_losses(now)
        seen_labels = self._label_of[: self.n_samples].cpu().numpy()
        self.labels = np.where(seen_labels >= 0, seen_labels, self.labels)
        before = self.epochs[-1] if self.epochs else None
        points = points_of(self._windows, self._window_of[: self.n_samples].cpu().numpy().astype(np.int64), self.n_windows)
        for window in points:
            records = self._window_records(window, now, before)
            if window is points[-1]:
                records |= self._epoch_records(now)
            self.curve_epochs.append(len(self.epochs) + window.end)
            if learning_rate is not None or "learning_rate" in self.curves:
                untold = [float("nan")] * (len(self.curve_epochs) - 1)
                self.curves.setdefault("learning_rate", untold).append(float("nan") if learning_rate is None else learning_rate)
            for name, member in self._indicators.items():
                needs = families.facts(member)["needs"]
                value = float(member(*(records[need] for need in needs))) if all(need in records for need in needs) else float("nan")
                self.curves.setdefault(name, []).append(value)
        self.epochs.append(now)
        self.restart_epoch()
        ended = self.live.update(self._curve_arrays(), np.asarray(self.curve_epochs))
        self._write_live("ended" if ended else "running")
        self._tell_transforms()
        return ended

    def restart_epoch(self) -> None:
        """Forget what was observed since the last `end_epoch()`: for an epoch that was interrupted and begins again."""
        self._n_observed = 0
        self._windows = [Window(0)]  # the last one is open
        self._waiting: list[Observation] = []
        self._kind = self._kind._replace(n_classes=None)  # more classes may come in the course of a training
        self._network_fisher: list[float] = []
        self._probe.restart()
        if self._current is not None:
            self._current.fill_(float("nan"))
            self._window_of.fill_(-1.0)

    @property
    def in_critical_period(self) -> bool:
        """True until the live rule has said that the critical period is over."""
        return not self.live.fired

    def switched(self, during: Callable[[Any], Any], after: Callable[[Any], Any]) -> SwitchedTransform:
        """A transform for a data set of yours: strong augmentation `during` the critical period, light `after` it, say.

        train_set.transform = recorder.switched(strong, light)
        """
        if self._over is None:
            self._over = torch.zeros(1, dtype=torch.bool).share_memory_()
        self._tell_transforms()
        return SwitchedTransform(during, after, self._over)

    def _tell_transforms(self) -> None:
        if self._over is not None:
            self._over.fill_(self.live.fired)

    # ---- for whoever watches

    def publish(self, live_folder: Path, **facts: Any) -> None:
        """Write `live_folder/live.json` now and after every epoch, for `clprune watch live_folder`. `facts`: title, max_epochs."""
        self._published = (Path(live_folder), {"title": Path(live_folder).name, "max_epochs": None, "n_samples": self.n_samples} | facts)
        self._write_live("running" if self.in_critical_period else "ended")

    def finish(self) -> None:
        """Say in the live file that the training is finished; without it, `clprune watch` can only see that its process has gone."""
        self._write_live("stopped")

    def _write_live(self, state: str) -> None:
        """A disk that is full must not end somebody's training: then it is a warning."""
        if self._published is None:
            return
        folder, facts = self._published
        border = phase_border(self._curve_arrays(), np.asarray(self.curve_epochs))
        facts = facts | {"state": state, "epochs_done": len(self.epochs), "in_critical_period": self.in_critical_period, "border_epoch": border}
        facts |= {
            "fired_epoch": self.live.fired_epoch,
            "waiting_for": self.live.waiting_for,
            "curves": self.curves,
            "curve_epochs": self.curve_epochs,
        }
        try:
            write_live(folder, facts)
        except StorageError as error:
            warnings.warn(f"the live file was not written: {error}", RuntimeWarning, stacklevel=2)

    # ---- afterwards

    def critical_period(self) -> CriticalPeriod:
        """Where the critical period lies, from all that was recorded so far."""
        times = np.asarray(self.curve_epochs)
        return find_critical_period(self._curve_arrays(), times, n_epochs=len(self.epochs), fired_epoch=self.live.fired_epoch, live=True)

    def trajectory(self, **facts: Any) -> Trajectory:
        """Everything recorded so far; `facts` are added to the run's facts."""
        self._require_an_epoch()
        signals = {name: np.stack([epoch[name] for epoch in self.epochs]) for name in self.epochs[0]}
        return Trajectory(self.sample_ids, self.labels, signals, self._curve_arrays(), np.asarray(self.curve_epochs), facts)

    def state_after_last_epoch(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """What `restore` needs: the last epoch's signals, and the rest (which replaces the rest of the epoch before). Raises UsageError before the first epoch's end."""
        self._require_an_epoch()
        rest = {f"curve.{name}": np.asarray(values) for name, values in self.curves.items()} | {"curve_epochs": np.asarray(self.curve_epochs)}
        if self._watched is not None:
            rest |= {f"initial.{i:04d}": weight.cpu().numpy() for i, weight in enumerate(self._watched.initial)}
            rest["rotation"] = self._watched.last.cpu().numpy()
        if self._probe.before is not None:
            rest["probe"] = self._probe.before
        if self._labels_are_learned:
            rest["labels"] = self.labels
        return self.epochs[-1], rest

    def restore(self, epochs: list[dict[str, np.ndarray]], rest: Mapping[str, np.ndarray]) -> None:
        """Go on from the signals of all finished epochs and the last `rest` of an interrupted run. What this recorder saw before is forgotten.

        Raises DataError for epochs of another number of samples, UsageError for a recorder with a `model` where the run was recorded without one, or with one of other weights.
        """
        if wrong := {len(values) for epoch in epochs for values in epoch.values()} - {self.n_samples}:
            raise DataError(
                f"the recording to go on from is of {wrong.pop()} samples, this recorder of {self.n_samples}. Go on with the data set that it was made for."
            )
        if self._watched is not None:
            shapes = [rest[name].shape for name in sorted(rest) if name.startswith("initial.")]
            if shapes != [tuple(weight.shape) for weight in self._watched.initial]:
                raise UsageError(
                    f"the recording to go on from was made {'with a model of other weights' if shapes else 'without a model'}. "
                    f"Make the recorder {'with that model' if shapes else 'without `model`'}."
                )
        self.live = LiveRule(min_epochs=self.live.min_epochs)
        self.restart_epoch()
        if self._labels_are_learned and "labels" in rest:  # not in what an earlier version kept
            self.labels = rest["labels"].copy()
        self.curves = {name[6:]: values.tolist() for name, values in rest.items() if name.startswith("curve.")}
        self.curve_epochs = rest["curve_epochs"].tolist()
        if self._watched is not None:
            self._watched.initial = [torch.from_numpy(rest[f"initial.{i:04d}"].copy()).to(w.device) for i, w in enumerate(self._watched.initial)]
            self._watched.last = torch.from_numpy(rest["rotation"].copy()).to(self._watched.last.device)
        self._probe.restore(rest.get("probe"))
        if epochs:
            self._kind = Kind("p_label" not in epochs[-1], None, 0 if self._probe.before is None else self._probe.before.shape[1])
        curves, times = self._curve_arrays(), np.asarray(self.curve_epochs)
        self.epochs = epochs
        self._doubt = sum((_doubt(epoch) for epoch in epochs), start=np.zeros(self.n_samples))
        for done in range(1, len(epochs) + 1):  # the rule sees again what it saw, epoch by epoch
            until = times <= done + 1e-9
            self.live.update({name: values[until] for name, values in curves.items()}, times[until])
        self._tell_transforms()

    # ---- inside

    def _require_an_epoch(self) -> None:
        if not self.epochs:
            raise UsageError("nothing was recorded yet: call end_epoch() after the first epoch.")

    def _flush(self) -> None:
        """Take the statistics of the batches that wait, in float32 whatever mode the loop is in; all of them belong to the open window."""
        if self._waiting:
            device = self._waiting[0].values.device
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
                self._take(device)

    def _take(self, device: torch.device) -> None:
        index, values, labels, features = (None if parts[0] is None else torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        sizes = [len(batch[0]) for batch in self._waiting]
        self._waiting = []
        assert index is not None and values is not None
        n = self.n_samples
        record = observe_losses(values, sizes) if labels is None else observe_batches(values, labels.to(device), features, sizes)
        if self._current is None:  # the last column is where repeated observations go
            self._names = LOSS_SIGNALS if labels is None else names_of_signals(features is not None)
            if labels is None:
                self._indicators = {k: v for k, v in self._indicators.items() if set(families.facts(v)["needs"]) <= RECORDS_OF_LOSSES}
            self._current = torch.full((len(self._names), n + 1), float("nan"), device=device, dtype=torch.float32)
            self._window_of = torch.full((n + 1,), -1.0, device=device, dtype=torch.float32)
            self._label_of = torch.full((n + 1,), -1, dtype=torch.int64, device=device)
        index = index.to(device, non_blocking=True)
        ordered, order = index.sort(stable=True)
        repeated = torch.zeros_like(index, dtype=torch.bool)
        repeated[order[1:]] = ordered[1:] == ordered[:-1]
        at = torch.where(repeated | (self._window_of.index_select(0, index) >= 0), n, index)
        self._current.index_copy_(1, at, record.samples)
        self._window_of.index_copy_(0, at, torch.full_like(at, self._windows[-1].number, dtype=torch.float32))
        if labels is not None:
            self._label_of.index_copy_(0, at, labels.to(device, torch.int64))
        if features is not None:
            self._probe.take(at, features)
        self._windows[-1].records.append(record.batches)

    def _require_finite_losses(self, now: dict[str, np.ndarray]) -> None:
        """Raise DataError that names samples whose loss is NaN or infinite: they would pass for not seen."""
        seen = self._window_of[: self.n_samples].cpu().numpy() >= 0
        if len(wrong := np.flatnonzero(seen & ~np.isfinite(now["loss"]))):
            raise DataError(
                f"{len(wrong)} losses of epoch {len(self.epochs)} are not finite ({', '.join(self.sample_ids[wrong[:5]].tolist())} ...). "
                "Lower the learning rate, or look for broken inputs."
            )

    def _close_window(self) -> None:
        """Look at the weights when a window is over."""
        if self._watched is not None:
            self._windows[-1].rotation = (self._watched.last, self._watched.now())

    def _window_records(self, window: Window, now: dict[str, np.ndarray], before: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
        rows, batches = window.rows, torch.cat(window.records).cpu().numpy().astype(np.float64)
        with_gradients = np.isfinite(batches).all(axis=1)  # not those of a model without features, or of fewer samples than chunks
        records: dict[str, np.ndarray] = dict(zip(BATCH_RECORDS, batches[with_gradients].T, strict=True)) if with_gradients.any() else {}
        if window.rotation is not None:
            records["weight_cosines_before"], records["weight_cosines"] = (cosines.cpu().numpy() for cosines in window.rotation)
            records["epochs_between"] = np.array([window.end - window.start])
        if self._kind.losses_only:  # a loss ranks the samples as a margin does, the other way round
            if before is not None:
                rows = rows[np.isfinite(before["loss"][rows])]
                records |= {"margin_before": -before["loss"][rows], "margin_after": -now["loss"][rows]}
            return records
        records["correct_now"] = now["correct"][rows]
        if before is not None:
            known = np.isfinite(before["p_label"][rows])
            rows = rows[known]
            records |= {"correct_before": before["correct"][rows], "correct_after": now["correct"][rows]}
            records |= {"margin_before": before["margin"][rows], "margin_after": now["margin"][rows]}
        return records

    def _curve_arrays(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(values) for name, values in self.curves.items()}

    def _epoch_records(self, now: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Records that an epoch as a whole gives: the ranking before and after it, the probe, the network's Fisher trace."""
        records: dict[str, np.ndarray] = {}
        before, n_before = self._doubt, len(self.epochs)
        self._doubt = before + _doubt(now)
        if n_before:
            records |= {"doubt_before": before[self._by_id] / n_before, "doubt_after": self._doubt[self._by_id] / (n_before + 1)}
        if self._network_fisher:
            records["network_fisher"] = np.array(self._network_fisher)
        return records | self._probe.end_epoch()


def _doubt(epoch: Mapping[str, np.ndarray]) -> Float[np.ndarray, "N"]:
    """1 - p_label, or the loss where only that is known; a sample that was not seen counts as the surest."""
    if "p_label" in epoch:
        return np.nan_to_num(1 - epoch["p_label"].astype(np.float64), nan=0.0)
    return np.nan_to_num(epoch["loss"].astype(np.float64), nan=float(np.nanmin(epoch["loss"])))
