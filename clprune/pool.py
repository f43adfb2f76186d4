"""Samples without a label: watched while the proxy learns from those that have one, and what their labels would be worth.

No signal here needs a label: the class that the model predicts and its changes between epochs, its confidence, the margin between the two likeliest
classes, nearness to what is labelled and to the others. A watched epoch costs one forward pass over the pool; epochs are watched as far as that stays
within half of what learning from the labelled part costs. The last look is in any case, and at a model that was trained on after the period's end (`training.finishing_steps`):
it says what is uncertain and what is near to what, and together with a kernel machine on features without labels which class is guessed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from safetensors.numpy import load, save

from clprune.datatypes import UNLABELLED, Embeddings, HighMeans, Neighborhood, ScoreTable, Source
from clprune.errors import IntegrityError
from clprune.kernel_ridge import class_probabilities, softmax
from clprune.neighborhood import find_neighborhood
from clprune.neighbors import in_half, nearest, nearest_of, unit_rows
from clprune.storage import write_bytes
from clprune.training import pick_device, predict, to_device

LOOKS = 1.5  # samples looked at for each visit of training, which costs about three forward passes: half of what learning costs
TYPICAL_OF = 20  # neighbours whose mean distance says how typical a sample is (Hacohen et al., 2022, arXiv:2202.02794)
HIGH_MEANS: dict[str, HighMeans] = {
    "uncertainty": "hard",
    "prediction_changes": "hard",
    "top_confidence": "easy",
    "top_variability": "hard",
    "novelty": "hard",
    "typicality": "easy",
}


class PoolWatcher:
    """Looks at the unlabelled rows of `images` after epochs of a proxy run; `signals` (E, U), `guess` and `vectors` (N, D), those of all rows in half precision, are there after the last one.

    Rows are those without a label, in the order of the source. With `folder` every look is committed to it, so that an interrupted run goes on with
    the looks that it had taken. `guess` (U,) is the class for which the model of the last look and a kernel machine, by the user's `embeddings` or by `features()`, speak together, the model's probabilities made
    as sure as the machine's: the greatest product of the two. What is uncertain is the model's alone to say: labels chosen by what both are unsure of served a network no better.
    """

    def __init__(
        self,
        source: Source,
        images: UInt8[np.ndarray, "N H W C"] | Int[np.ndarray, "N L"],
        *,
        device: str = "auto",
        folder: Path | None = None,
        still_open: Bool[np.ndarray, "N"] | None = None,
        parent: Mapping[str, Any] | None = None,
        layer: str | None = None,
        embeddings: Embeddings | None = None,
        features: Callable[[], tuple[Embeddings, Any]] | None = None,
        seed: int = 0,
    ) -> None:
        self.rows, known = np.flatnonzero(source.labels == UNLABELLED), source.labelled
        self._known = known[np.argsort(source.sample_ids[known], kind="stable")]
        self.n_labelled = len(source) - len(self.rows)
        self.facts = {
            "n_labelled": self.n_labelled,
            "n_unlabelled": len(self.rows),
            "round": 1 + (int(parent["round"]) if parent else 0),
            "parent": parent,
        }
        self._class_of_known, self._features, self._seed = source.labels[self._known], features, seed
        self._order = np.argsort(source.sample_ids[self.rows], kind="stable")  # looked at in the order of ids, so that row order has no influence
        self._images, self._labels, self._device, self._folder = images, np.zeros(len(source), dtype=np.int64), pick_device(device), folder
        self._data: Any = None
        self._layer, self._given = layer, None if embeddings is None else embeddings.vectors
        self.still_open = np.zeros(len(source), dtype=bool) if still_open is None else still_open  # asked for in an earlier round, not answered yet
        self._looks: dict[int, dict[str, np.ndarray]] = {}
        self.vectors: Float[np.ndarray, "N D"] | None = None
        self.guess: Int[np.ndarray, "U"] | None = None

    def __call__(self, model: Any, statistics: tuple[np.ndarray, np.ndarray] | None, epochs_done: int, *, last: bool = False) -> None:
        """Look now, if that is affordable after `epochs_done` epochs or this is the `last` moment."""
        if not self._looks:
            self._recall(epochs_done)
        if not last and (len(self._looks) + 1) * len(self.rows) > LOOKS * self.n_labelled * epochs_done:
            return
        if self._data is None:
            self._data = to_device(self._images, self._labels, self._device, statistics=statistics)
        logits, features = predict(model, self._data, rows=self.rows[self._order], layer=self._layer)
        back = np.argsort(self._order)
        p = softmax(logits[back])
        self._looks[epochs_done] = _look(p)
        if last:
            other = self._by_kernel(p.shape[1])
            self.guess = (p if other is None else as_sure_as(other, p) * other).argmax(axis=1)
            self.vectors = self._given if self._given is not None or features is None else self._of_all(model, features[back])
        elif self._folder is not None:
            content = save(self._looks[epochs_done])
            write_bytes(self._folder / f"pool-{epochs_done:04d}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors", content)

    def _by_kernel(self, n_classes: int) -> Float[np.ndarray, "U C"] | None:
        """Probabilities by features that no label has formed, where there are such: of few labels a kernel machine on them makes more than a network does."""
        if (vectors := self._given) is None:
            if self._features is None or self._images.ndim != 4:  # of SST-2's sentences the words in common told less than the model had learned
                return None
            vectors = self._features()[0].vectors
        return class_probabilities(vectors[self._known], self._class_of_known, vectors[self.rows], n_classes=n_classes, seed=self._seed)

    def _of_all(self, model: Any, of_pool: Float[np.ndarray, "U D"]) -> Float[np.ndarray, "N D"]:
        """Features of all rows under the model of the last look, from those of the pool."""
        known = predict(model, self._data, rows=self._known, layer=self._layer)[1]
        assert known is not None
        vectors = np.empty((len(self._labels), of_pool.shape[1]), dtype=np.float16)
        vectors[self.rows], vectors[self._known] = in_half(of_pool), in_half(known)
        return vectors

    def _recall(self, epochs_done: int) -> None:
        """Take back the looks before `epochs_done` that an interrupted run has committed."""
        for path in sorted(self._folder.glob("pool-*.safetensors")) if self._folder is not None else ():
            _, epoch, digest = path.stem.split("-")
            if int(epoch) < epochs_done:
                content = path.read_bytes()
                if hashlib.sha256(content).hexdigest()[:16] != digest:
                    raise IntegrityError(f"{path} of the interrupted run was changed. Pass --force to start anew.")
                self._looks[int(epoch)] = load(content)

    @property
    def epochs(self) -> list[int]:
        """After how many epochs each look was taken."""
        return sorted(self._looks)

    @property
    def signals(self) -> dict[str, Float[np.ndarray, "E U"]]:
        """predicted (class number), p_top, margin: one row a look."""
        return {name: np.stack([self._looks[epoch][name] for epoch in self.epochs]) for name in ("predicted", "p_top", "margin")}


def as_sure_as(honest: Float[np.ndarray, "U C"], p: Float[np.ndarray, "U C"]) -> Float[np.ndarray, "U C"]:
    """`p` sharpened or softened (p^a, its sum 1) until its greatest probabilities are on average those of `honest`.

    A network that knows its few labels by heart is sure of everything; of two that are equally sure each has its say.
    """
    logs, target = np.log(np.maximum(p, 1e-12)), honest.max(axis=1).mean()
    logs -= logs.max(axis=1, keepdims=True)
    blocks = np.array_split(logs, -(-logs.size // 1_000_000))  # a pool of many classes fills the memory by itself
    low, high = 0.0, 8.0
    for _ in range(20):
        middle = (low + high) / 2
        surest = sum((1 / np.exp(middle * block).sum(axis=1)).sum() for block in blocks) / len(logs)
        low, high = (low, middle) if surest > target else (middle, high)
    return softmax(high * logs)


def _look(p: Float[np.ndarray, "U C"]) -> dict[str, Float[np.ndarray, "U"]]:
    second, top = np.partition(p, -2, axis=1)[:, -2:].T
    return {"predicted": p.argmax(axis=1).astype(np.float32), "p_top": top.astype(np.float32), "margin": (top - second).astype(np.float32)}


def pool_scores(signals: Mapping[str, Float[np.ndarray, "E U"]]) -> dict[str, Float[np.ndarray, "U"]]:
    """What a model's predictions say of samples without a label.

    uncertainty           1 - margin between the two likeliest classes at the last look, in [0, 1]
    prediction_changes    share of looks at which another class was predicted than at the one before, in [0, 1]
    top_confidence        mean probability of the likeliest class
    top_variability       its standard deviation over the looks
    """
    predicted, top = signals["predicted"], signals["p_top"].astype(np.float64)
    changes = (predicted[1:] != predicted[:-1]).mean(axis=0) if len(predicted) > 1 else np.zeros(predicted.shape[1])
    scores = {"uncertainty": 1 - signals["margin"][-1].astype(np.float64), "prediction_changes": changes}
    return scores | {"top_confidence": top.mean(axis=0), "top_variability": top.std(axis=0)}


def nearness_scores(vectors: Float[np.ndarray, "U D"], labelled: Float[np.ndarray, "L D"]) -> dict[str, Float[np.ndarray, "U"]]:
    """novelty: distance to the nearest labelled sample, of unit vectors, in [0, 2] (2 where nothing is labelled); typicality: 1 / mean distance to the 20 nearest others."""
    unit, held = unit_rows(vectors), unit_rows(labelled)
    distances, _ = nearest(unit, TYPICAL_OF)
    typicality = 1 / np.maximum(distances.mean(axis=1, dtype=np.float64), 1e-6) if distances.size else np.ones(len(unit))
    return {"novelty": nearest_of(held, unit)[0].astype(np.float64) if len(held) else np.full(len(unit), 2.0), "typicality": typicality}


def with_pool(
    source: Source,
    pool: PoolWatcher,
    labelled: ScoreTable,
    neighborhood: Neighborhood,
    layer: str,
    images: UInt8[np.ndarray, "N H W C"] | None,
    words: Int[np.ndarray, "N 4"] | None = None,
) -> tuple[ScoreTable, Neighborhood, Embeddings | None]:
    """Table, neighbourhood and vectors of all rows of `source`, from those of its labelled part and what the pool saw. Scores that a sample cannot have are NaN.

    The suggested label of a sample without one is the pool's guess. Of samples that repeat each other a labelled one stays, so that nothing
    that is labelled is asked for again.
    """
    n, rows, known = len(source), pool.rows, source.labelled
    values = {name: _spread(value, known, n) for name, value in labelled.values.items()}
    high_means = dict(labelled.high_means)
    suspicion, suggested = np.zeros(n), np.full(n, UNLABELLED)
    suspicion[known], suggested[known] = neighborhood.suspicion, neighborhood.suggested_label
    signals, vectors = pool.signals, pool.vectors
    suggested[rows] = pool.guess
    scores = pool_scores(signals)
    if vectors is not None:
        scores |= nearness_scores(vectors[rows], vectors[known])
    for name, value in scores.items():
        values[name], high_means[name] = _spread(value, rows, n), HIGH_MEANS[name]
    kinds = np.where(source.labels < 0, source.n_classes, source.labels)  # for the duplicates those without a label count as a class of their own
    repeats = find_neighborhood(source.sample_ids, kinds, None, None, vectors=vectors if images is None else None, images=images, words=words)
    duplicate_of, distance = labelled_first(repeats, source)
    of_repeats = source.labels[duplicate_of[duplicate_of >= 0]], source.labels[duplicate_of >= 0]
    facts = dict(neighborhood.facts) | {name: value for name, value in repeats.facts.items() if name != "suspicion"}
    facts |= {"n_duplicates_with_another_label": int(((of_repeats[0] != of_repeats[1]) & (of_repeats[0] >= 0) & (of_repeats[1] >= 0)).sum())}
    hood = Neighborhood(duplicate_of, distance, suspicion, suggested, facts)
    together = None if vectors is None else Embeddings(vectors, layer)
    return ScoreTable(source.sample_ids, source.labels, values, high_means), hood, together


def _spread(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    full = np.full(n, np.nan)
    full[rows] = values
    return full


def labelled_first(repeats: Neighborhood, source: Source) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """`duplicate_of` and the distances after every group whose keeper has no label was given a labelled keeper, if it has one: that of the smallest id."""
    duplicate_of, distance = repeats.duplicate_of.copy(), repeats.duplicate_distance.copy()
    wanting = np.flatnonzero((duplicate_of >= 0) & (source.labels >= 0))
    wanting = wanting[source.labels[duplicate_of[wanting]] < 0]
    repeats_of = np.flatnonzero(duplicate_of >= 0)
    repeats_of = repeats_of[np.argsort(duplicate_of[repeats_of], kind="stable")]
    starts = np.searchsorted(duplicate_of[repeats_of], np.arange(len(duplicate_of) + 1))
    keeper_of = duplicate_of.copy()
    for row in sorted(wanting.tolist(), key=lambda row: str(source.sample_ids[row])):
        old = int(keeper_of[row])
        if duplicate_of[old] >= 0:
            continue  # its group was given a keeper already
        gap = distance[row]
        distance[old] = gap
        duplicate_of[repeats_of[starts[old] : starts[old + 1]]] = row
        duplicate_of[old], duplicate_of[row], distance[row] = row, -1, np.nan
    return duplicate_of, distance


def candidates(
    table: ScoreTable, neighborhood: Neighborhood, still_open: Bool[np.ndarray, "N"], *, ask: bool
) -> tuple[Int[np.ndarray, "M"], list[str]]:
    """Rows of a run with a pool that a selection may take, and what is said of each of the others (N,): what may be asked for, or what has a label and may be kept.

    Not asked for: what has a label, what nearly repeats something labelled, what an earlier round asked for, and what nearly repeats that.
    """
    labelled, repeats = table.labels >= 0, neighborhood.duplicate_of
    reasons = np.where(labelled, "has a label", "has no label").astype(object)
    if not ask:
        return np.flatnonzero(labelled), reasons.tolist()
    repeated = (repeats >= 0) & labelled[np.maximum(repeats, 0)]
    for row in np.flatnonzero(repeated & ~labelled):
        reasons[row] = f"repeats {table.sample_ids[repeats[row]]}"
    group = np.where(repeats >= 0, repeats, np.arange(len(repeats)))
    waiting = np.zeros(len(group), dtype=bool)
    waiting[group[still_open]] = True
    reasons[waiting[group] & ~labelled & ~repeated] = "repeats what was asked for already"
    reasons[still_open] = "asked for already"
    return np.flatnonzero(~labelled & ~repeated & ~waiting[group]), reasons.tolist()
