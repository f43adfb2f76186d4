"""The frozen values that flow along the path, with their shapes, and the glossary.

Axes: E epochs, N samples, C classes, D embedding width, K kept, T curve points, H W height and width.

Glossary
    sample, sample_id   one labelled input and its stable name; `index` is its row in the source as it is now
    canonical order     samples sorted by `sample_id`; ties between samples go to the smaller id
    signal (E, N)       a number per epoch and sample, taken from the training forward pass
    indicator, curve    a number per moment of training, (T,) points at `curve_epochs`
    critical period     the epochs in [start_epoch, end_epoch), 0-based, `end_epoch` exclusive
    score (N,)          one number a sample; `high_means` "hard" or "easy"; difficulty: higher = harder
    selection           which samples are kept; `keep_fraction` in (0, 1]
    fingerprint         identity of a data set; digest: hash of a file
    suspicion           in [0, 1]: how likely the given label is wrong
    suspect             a sample whose suspicion is above the limit that `suspects.suspect_above` finds
    pool                the samples without a label; a look: one forward pass over them while the proxy learns from the others
    round               of labelling: scored, asked for (`label_budget`), answered; a guess is the class that a sample without a label seems to be of
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from clprune.errors import MissingSignalError, UsageError

EVALUATION_EPOCHS = (
    30  # that `evaluate` trains for, and `--keep auto` with, unless told otherwise: longer ones still gain, and lose more by a smaller part
)
FULL_TRAINING_EPOCHS = 200  # what the field trains its models for (DUAL, CCS, TDDS): the yardstick for "share of a full training"
HighMeans = Literal["hard", "easy"]
UNLABELLED = -1
LARGEST_SEED = 2**63 - 1  # torch takes twice as much, and a few are added to it


def digest_of_ids(sample_ids: np.ndarray) -> str:
    """sha256 of the ids in the order given; the order is part of it. Ids may hold any character but NUL."""
    return hashlib.sha256("\0".join(sample_ids.tolist()).encode("utf-8", "surrogatepass")).hexdigest()


def require_seed(seed: int) -> int:
    """The seed itself. Raises UsageError where it is no whole number from 0 to LARGEST_SEED."""
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"the seed is {seed!r}. Give a whole number from 0 to {LARGEST_SEED}.")
    return int(seed)


def rows_of(wanted: np.ndarray, sample_ids: np.ndarray) -> Int[np.ndarray, "M"]:
    """The row in `sample_ids` of each wanted id, -1 where it is not there.

    A dictionary, since numpy's searchsorted compares StringDType arrays wrongly that were made apart and hold more than 15 bytes a string.
    """
    place = {sample_id: row for row, sample_id in enumerate(sample_ids.tolist())}
    return np.array([place.get(sample_id, -1) for sample_id in wanted.tolist()], dtype=np.int64)


@dataclass(frozen=True)
class Source:
    """A data set: ids, labels, sizes at once; inputs one at a time, or all in `images` where they are an array.

    `read_input(index)` gives a PIL image, an array (H, W, C) or (H, W), or a text. `paths[index]` is the file behind a
    sample where there is one, `read_bytes(index)` the encoded bytes as (content, suffix with dot) where they exist
    without a file. `load_test()` opens the test split, None where there is none. `skipped` lists (name, reason) of inputs left out.
    `facts["files"]` names files that hold many samples each, where the samples come out of such. `logged` holds what a training elsewhere wrote down instead of inputs: `logits` (E, N, C) or `losses` (E, N), perhaps `embeddings` (N, D).
    """

    locator: str
    sample_ids: np.ndarray  # (N,) str, unique
    labels: Int[np.ndarray, "N"]  # int64, UNLABELLED where there is none
    class_names: tuple[str, ...]
    sample_bytes: Int[np.ndarray, "N"]  # int64, real bytes where known, else the array's bytes
    read_input: Callable[[int], Any]
    kind: Literal["image", "text", "array", "logged"] = "image"
    images: np.ndarray | None = None  # (N, H, W, C) uint8
    shapes: Int[np.ndarray, "N 3"] | None = None  # width, height and channels (1 or 3) of images that are files, where the listing read their heads
    paths: Sequence[Path] | None = None
    read_bytes: Callable[[int], tuple[bytes, str]] | None = None
    load_test: Callable[[], Source] | None = None
    logged: Mapping[str, np.ndarray] | None = None
    content_digest: str = ""  # of the inputs, where it is cheap; part of the fingerprint
    skipped: tuple[tuple[str, str], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    labels_added_to: str = ""  # fingerprint of the data set as it lies there, where labels were added to it

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.read_input(index), int(self.labels[index])

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def canonical_order(self) -> Int[np.ndarray, "N"]:
        """Row indices sorted by sample id."""
        return np.argsort(self.sample_ids, kind="stable")

    @property
    def labelled(self) -> Int[np.ndarray, "L"]:
        """Rows that have a label."""
        return np.flatnonzero(self.labels != UNLABELLED)

    def with_labels(self, labels: Int[np.ndarray, "N"], class_names: tuple[str, ...]) -> Source:
        """The same data set with more labels known; it keeps its fingerprint."""
        return replace(self, labels=labels, class_names=class_names, labels_added_to=self.fingerprint)

    def part(self, rows: Int[np.ndarray, "M"]) -> Source:
        """The samples of some rows as a data set of its own."""
        paths, read, read_bytes = self.paths, self.read_input, self.read_bytes
        return replace(
            self,
            sample_ids=self.sample_ids[rows],
            labels=self.labels[rows],
            sample_bytes=self.sample_bytes[rows],
            images=None,
            shapes=None if self.shapes is None else self.shapes[rows],
            paths=None if paths is None else [paths[row] for row in rows],
            read_input=lambda index: read(int(rows[index])),
            read_bytes=None if read_bytes is None else lambda index: read_bytes(int(rows[index])),
            labels_added_to="",
        )

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the data set, whatever the order of its rows: sha256 over the ids, labels and sizes by id. Labels that were added later do not change it."""
        if self.labels_added_to:
            return self.labels_added_to
        order = self.canonical_order
        digest = hashlib.sha256(digest_of_ids(self.sample_ids[order]).encode())
        digest.update(self.labels[order].astype("<i8").tobytes())
        digest.update(self.sample_bytes[order].astype("<i8").tobytes())
        digest.update("\0".join((*self.class_names, self.content_digest)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


@dataclass(frozen=True)
class Trajectory:
    """What was recorded while a model trained: rows of `signals` are epochs, columns samples in the source's order."""

    sample_ids: np.ndarray  # (N,) str
    labels: Int[np.ndarray, "N"]
    signals: Mapping[str, Float[np.ndarray, "E N"]]  # float32, NaN where a sample was not seen
    curves: Mapping[str, Float[np.ndarray, "T"]]
    curve_epochs: Float[np.ndarray, "T"]  # epochs done at each point
    facts: Mapping[str, Any]  # seed, proxy, device, seconds, energy_kwh, ...

    @property
    def n_epochs(self) -> int:
        return len(next(iter(self.signals.values()))) if self.signals else int(self.facts["n_epochs"])

    def signal(self, name: str) -> Float[np.ndarray, "E N"]:
        if name not in self.signals:
            raise MissingSignalError(
                f"signal '{name}' was not recorded (there are: {', '.join(sorted(self.signals))}). Record the run again with it."
            )
        return self.signals[name]


@dataclass(frozen=True)
class CriticalPeriod:
    """Where the critical period lies, 0-based, `end_epoch` exclusive, and how that was decided.

    `settled` is False where the end was not established: then `end_epoch` is merely the last epoch that was run. `hindsight_end` is where all
    points together place the end, if it has passed, and `interval` the range in which the indicators place it, in epochs; `confidence` in [0, 1] is the
    probability, summed over the deciding indicators and divided by half their number, that the indicator approaches a level and is close to it, and not more than that of
    retention or memorization, whichever is surer (where one of them decides); `indicators` holds each indicator's own end in epochs (None: abstains).
    """

    start_epoch: int
    end_epoch: int
    settled: bool
    confidence: float
    interval: tuple[float, float] | None
    hindsight_end: float | None
    border_epoch: float | None  # memorization phase before it, forgetting phase after
    indicators: Mapping[str, float | None]
    reason: str


@dataclass(frozen=True)
class ScoreTable:
    """Scores of the samples, and in which direction each one points."""

    sample_ids: np.ndarray  # (N,) str
    labels: Int[np.ndarray, "N"]
    values: Mapping[str, Float[np.ndarray, "N"]]
    high_means: Mapping[str, HighMeans]

    def difficulty(self, name: str) -> Float[np.ndarray, "N"]:
        """The score turned so that higher means harder: the only place where a sign is flipped."""
        if name not in self.values:
            raise UsageError(f"there is no score '{name}' in this run (there are: {', '.join(sorted(self.values))}).")
        return self.values[name] if self.high_means[name] == "hard" else -self.values[name]


@dataclass(frozen=True)
class Embeddings:
    """Features of the samples in the source's order, from the proxy at the end of the critical period (with samples without a label: from the finished one)."""

    vectors: Float[np.ndarray, "N D"]  # float16 or float32, memory-mapped when large
    layer: str


@dataclass(frozen=True)
class Neighborhood:
    """What nearness in feature space says of each sample."""

    duplicate_of: Int[np.ndarray, "N"]  # index of the sample that this one nearly repeats, -1 where it repeats none
    duplicate_distance: Float[np.ndarray, "N"]  # NaN where it repeats none
    suspicion: Float[np.ndarray, "N"]  # in [0, 1]
    suggested_label: Int[np.ndarray, "N"]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """How many samples to keep, and how that number was found."""

    keep_fraction: float
    n_keep: int
    method: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """The kept samples, best first, their loss weights, and why each of the others was dropped."""

    kept_ids: np.ndarray  # (K,) str, best first
    kept_indices: Int[np.ndarray, "K"]  # rows of the source, in the same order
    weights: Float[np.ndarray, "K"]
    strategy: str
    reasons: Sequence[str]  # (N,) "kept", or why the sample was dropped


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of training on each arm ("pruned", "random", "full"), and what it cost."""

    arms: Mapping[str, Mapping[str, Any]]
    comparison: Mapping[str, Any]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class SavingsLine:
    """One line of the savings table. `value` is None where nothing was measured; `price` is the price or factor that it rests on, in `price_unit`."""

    name: str
    value: float | None
    unit: str
    method: Literal["measured", "computed", "assumed", "not measured"]
    note: str = ""
    price: float | None = None
    price_unit: str | None = None
    price_date: str | None = None
    price_source: str | None = None


@dataclass(frozen=True)
class Savings:
    """What is saved, net of the pruning itself."""

    lines: tuple[SavingsLine, ...]
    facts: Mapping[str, Any]
