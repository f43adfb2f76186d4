"""Short trainings on some of the training samples, judged on others of them: what `--keep auto` and `--strategy auto` decide by. No test split is touched.

A share of the samples is set aside, class by class, to judge on. Repeats go where the sample goes that they repeat, so that nothing is judged that was trained on; of a
group one sample judges, and no sample whose label is suspected to be wrong: against wrong labels a loss looks smaller than it is. Every arm is trained for as many steps as all of the rest has
in so many epochs (equal steps). A finished training is kept beside the run, where that may be written to, and is not done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from clprune import families
from clprune.arithmetic import name_of_numbers
from clprune.budget import USUAL_NOISE, Trial, epochs_of_trial, safe_budget
from clprune.datatypes import Budget, Neighborhood, ScoreTable, rows_of
from clprune.energy import EnergyMeter
from clprune.errors import FingerprintError, GuardError, UsageError
from clprune.inputs import data_key, inputs_of, open_recorded, trainable
from clprune.labels import labels_digest
from clprune.probe import RIDGE, lifted, ridge_accuracy
from clprune.proxies import build_proxy, code_of
from clprune.run import Run
from clprune.selection import budget_for, can_choose, default_strategy, floor_of, part_of, require_share, select
from clprune.storage import SCHEMA_VERSION, may_write, read_json, to_json, write_json
from clprune.suspects import limit_of, suspect_above
from clprune.training import Recipe, new_state, pick_device, pixel_statistics, predict, seed_everything, to_device, train
from clprune.wording import points

JUDGES = 5_000  # as many samples judge, but no less than a tenth of all and no more than a fifth
CANDIDATES = (
    "blend",
    "random(class_balanced=True)",
    "blend(scored_share=0.0)",
    "blend(suspect_above=1.0)",
    "hardest(score='dual')",
    "hardest(score='el2n')",
    "beta_sampling",
    "stratified",
    "moderate",
    "easiest",
)
FINALISTS = 3  # besides the default and random
PROBED, SPLITS = 20_000, 3  # samples that the probe looks at, and how often it divides them


@dataclass
class Trials:
    """Trainings on `pool`, judged on `judges` (rows, in the order of ids), with the cost so far."""

    images: UInt8[np.ndarray, "N H W C"] | Int[np.ndarray, "N L"]
    table: ScoreTable
    neighborhood: Neighborhood
    vectors: Float[np.ndarray, "N D"] | None
    n_classes: int
    proxy: str
    epochs: int | None = None  # asked for; by default `epochs_of_trial`
    device: str = "auto"
    seed: int = 0
    folder: Path | None = None  # where finished trainings are kept
    data_key: str = ""
    on_progress: Callable[[dict[str, Any]], None] | None = None
    seconds: float = 0.0
    seconds_before: float = 0.0  # of these, by earlier calls
    energy_kwh: float | None = 0.0
    done: int = 0
    n_epochs: int = field(init=False)  # of the pool, in each trial
    pool: Int[np.ndarray, "P"] = field(init=False)
    judges: Int[np.ndarray, "M"] = field(init=False)
    _told: dict[str, dict[str, Any]] = field(init=False, default_factory=dict)  # finished trainings of this call, by their keys

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"--trial-epochs is {self.epochs}; at least 1 is needed.")
        self.pool, self.judges = held_out(self.table, self.neighborhood, self.seed)
        self.n_epochs = self.epochs or epochs_of_trial(len(self.pool), Recipe.batch_size)
        target = pick_device(self.device)
        statistics = pixel_statistics(self.images, np.argsort(self.table.sample_ids, kind="stable")) if self.images.ndim == 4 else None
        self._data = to_device(self.images, self.table.labels, target, statistics=statistics)
        self._recipe = Recipe(schedule="cosine")
        self._part = _part_of(self.table, self.neighborhood, self.vectors, self.pool)
        facts = {
            "data": self.data_key,
            "image_shape": list(self.images.shape),
            "labels": labels_digest(self.table.labels),
            "proxy": self.proxy,
            "proxy_code": code_of(self.proxy),
            "epochs": self.n_epochs,
            "device": str(target),
            "number_format": name_of_numbers(target),
            "seed": self.seed,
            "recipe": self._recipe.__dict__,
        }
        self._key = facts | {"threads": torch.get_num_threads(), "torch": torch.__version__, "judges": _digest(self.judges)}

    def useless_share(self, strategy: str) -> float:
        """Share of the pool that `strategy` gives up first: near-duplicates and suspected wrong labels, where it looks at them."""
        member, options, _ = families.choose("strategies", strategy)
        needs, hood = families.facts(member)["needs"], self._part[1]
        given_up = np.zeros(len(self.pool), dtype=bool)
        if "duplicate_of" in needs:
            given_up |= hood.duplicate_of >= 0
        if "suspicion" in needs:
            given_up |= hood.suspicion > limit_of(hood.suspicion, options.get("suspect_above"))
        return float(given_up.mean())

    def train(self, strategy: str, keep_fraction: float, number: int) -> Trial:
        """Train on what `strategy` keeps of the pool; trials of one `number` share their seed, others do not."""
        if keep_fraction >= 1:
            rows = self.pool
        else:
            table, hood, vectors = self._part
            n_keep = max(1, round(keep_fraction * len(self.pool)))
            budget = Budget(keep_fraction, n_keep, "trial")
            chosen = select(
                table,
                budget,
                strategy=strategy,
                seed=self.seed + number,
                neighborhood=hood,
                vectors=vectors,
                n_classes=self.n_classes,
                min_per_class=0,
            )  # a trial may lose a class: that shows in its accuracy
            rows = self.pool[np.sort(chosen.kept_indices)]
        key = hashlib.sha256(to_json(self._key | {"rows": _digest(rows), "number": number}).encode()).hexdigest()[:20]
        path = None if self.folder is None else self.folder / f"{key}.json"
        again = key in self._told  # two strategies kept the same samples
        if again:
            kept = self._told[key]
        elif path is not None and path.exists():
            kept = read_json(path, what="finished trial", of=path.stem)
            self.seconds_before += kept["seconds"]
        else:
            kept = self._trained(rows, number) | {"schema_version": SCHEMA_VERSION, "kind": "finished trial"}
            if path is not None and may_write(path.parent):  # a run of somebody else's can be decided on, too
                write_json(path, kept | {"of": path.stem})
        if not again:
            self._told[key] = kept
            self.done += 1
            self.seconds += kept["seconds"]
            self.energy_kwh = None if self.energy_kwh is None or kept["energy_kwh"] is None else self.energy_kwh + kept["energy_kwh"]
        right = np.ones(len(self.judges), dtype=bool)
        right[kept["wrong"]] = False
        if self.on_progress:
            message = f"{'everything' if keep_fraction >= 1 else f'{keep_fraction:.2f} by {strategy}'}: {right.mean():.4f}"
            self.on_progress({"stage": "trials", "done": self.done, "total": self.done, "message": message})
        return Trial(keep_fraction, right)

    def _trained(self, rows: Int[np.ndarray, "K"], number: int) -> dict[str, Any]:
        begun, seed = time.perf_counter(), self.seed + 1000 + number
        seed_everything(seed)
        state = new_state(build_proxy(self.proxy, self.n_classes, self._data.input_shape), self._data.device, self._recipe)
        n_steps = self.n_epochs * math.ceil(len(self.pool) / self._recipe.batch_size)
        with EnergyMeter() as meter:
            train(state, self._data, self._recipe, n_epochs=1, n_steps=n_steps, seed=seed, rows=rows)
        wrong = predict(state.model, self._data, rows=self.judges)[0].argmax(axis=1) != self.table.labels[self.judges]
        return {
            "wrong": np.flatnonzero(wrong).tolist(),
            "seconds": time.perf_counter() - begun,
            "energy_kwh": meter.kwh,
            "energy_method": meter.method,
        }

    def probe(self, strategy: str, keep_fraction: float) -> Float[np.ndarray, "2 S"]:
        """Accuracy of the linear and the kernel probe (rows) on what `strategy` keeps of the pool, over SPLITS divisions of it (columns). Raises what the strategy raises."""
        table, hood, vectors = self._part
        assert vectors is not None
        rows = np.sort(np.random.default_rng((self.seed, 12)).permutation(len(table.sample_ids))[:PROBED])
        (table, hood), features = part_of(table, hood, rows), lifted(vectors[rows])
        accuracy = np.empty((len(features), SPLITS))
        for split in range(SPLITS):
            learning, judging = held_out(table, hood, self.seed + split)
            inner, near, of = _part_of(table, hood, vectors[rows], learning)
            budget = Budget(keep_fraction, max(1, round(keep_fraction * len(learning))), "probe")
            chosen = select(
                inner, budget, strategy=strategy, seed=self.seed + split, neighborhood=near, vectors=of, n_classes=self.n_classes, min_per_class=0
            )
            kept = learning[chosen.kept_indices]
            for row, (name, values) in enumerate(features.items()):
                accuracy[row, split] = ridge_accuracy(values, table.labels, kept, judging, n_classes=self.n_classes, ridge=RIDGE[name])
        return accuracy

    def cost(self) -> dict[str, Any]:
        """How much was trained; `epochs` are epochs of all samples."""
        return {
            "trainings": self.done,
            "epochs": self.done * self.n_epochs * len(self.pool) / len(self.table.sample_ids),
            "epochs_each": self.n_epochs,
        }


def contest(trials: Trials, candidates: Sequence[str], keep_fraction: float, *, n_trials: int) -> tuple[str, dict[str, Any]]:
    """The strategy that keeps best at this share, and the evidence. The first candidate is the default, which stands where none is better; random ones are recognised by name.

    Successive halving (Jamieson & Talwalkar, 2016, arXiv:1502.07943). Where the run holds features the first round is a probe on them, which costs seconds: the default, random and the best FINALISTS
    of the others go on. These are trained once, the better half again, and so on, as long as `n_trials` lasts. Means are shrunk towards each other by empirical Bayes, as far as the noise of a training
    explains their spread, so that the luckiest of many equals does not win. Raises UsageError for fewer trials than strategies that are trained.
    """
    probed = probe_of(trials, candidates, keep_fraction)
    safe = [candidate for at, candidate in enumerate(candidates) if at == 0 or candidate.startswith("random")]
    others = sorted((c for c in probed or candidates if c not in safe), key=lambda c: (-probed[c] if probed else 0.0, candidates.index(c)))
    finalists = [c for c in candidates if c in safe or c in others[:FINALISTS]]
    if n_trials < len(finalists):
        raise UsageError(
            f"--trials is {n_trials}, fewer than the {len(finalists)} strategies that --strategy auto trains with; give at least as many."
        )
    results: dict[str, list[float]] = {candidate: [] for candidate in finalists}
    alive, number, first = list(finalists), 0, []
    while alive and sum(map(len, results.values())) + len(alive) <= n_trials:
        for candidate in alive:
            trial = trials.train(candidate, keep_fraction, number)
            results[candidate].append(trial.accuracy)
            first += [trial.right] * (number == 0)
        ranked = sorted(alive, key=lambda candidate: (-float(np.mean(results[candidate])), finalists.index(candidate)))
        alive, number = ranked[: max(2, len(ranked) // 2)], number + 1
    means, sds = shrunk([np.array(values) for values in results.values()], judging=_judging(np.stack(first)))
    winner = int(means.argmax())  # of equals the first
    best = finalists[winner]
    evidence: dict[str, Any] = {
        "keep_fraction": keep_fraction,
        "probed": probed,
        "accuracies": results,
        "posterior": {candidate: [float(m), float(s)] for candidate, m, s in zip(finalists, means, sds, strict=True)},
        "winner": best,
    }
    said = f"{best} keeps best at {keep_fraction:.0%}"
    if rivals := [at for at, candidate in enumerate(finalists) if candidate.startswith("random") and at != winner]:
        by, spread = means[winner] - means[rivals[0]], math.hypot(sds[winner], sds[rivals[0]])
        evidence["better_than_random_by"] = float(by)
        said = f"{said}, by {points(by)} points over random"
        if number > 1:
            surely = 0.5 * (1 + math.erf(by / (spread * math.sqrt(2)))) if spread > 0 else 0.5
            evidence["probability"] = surely
            said = f"{said} with a probability of {surely:.0%}"
        else:
            said = f"{said}; no training was repeated, so how surely is not known: give more --trials"
    looked = f"{len(candidates)} strategies probed, " if probed else ""
    return best, evidence | {"sentence": f"{said} ({looked}{sum(map(len, results.values()))} short trainings)"}


def candidates_of(trials: Trials) -> list[str]:
    """The default of such a run, and those of the CANDIDATES that it holds the scores and properties for."""
    default = default_strategy(trials.table, of_texts=trials.images.ndim != 4)
    return [default, *(c for c in CANDIDATES if c != default and can_choose(c, trials.table, trials.vectors is not None))]


def probe_of(trials: Trials, candidates: Sequence[str], keep_fraction: float) -> dict[str, float]:
    """Mean accuracy of both probes for each candidate; empty without features, and where too few samples are left to judge on."""
    found: dict[str, float] = {}
    with contextlib.suppress(GuardError):
        for candidate in candidates if trials.vectors is not None else ():
            found[candidate] = float(trials.probe(candidate, keep_fraction).mean())
    return found


def _judging(right: Bool[np.ndarray, "K M"]) -> float:
    """Variance of an accuracy that comes from having these M judges and no others, as far as it parts two of K trainings: half of how often two are not right on the same one, over M."""
    n = len(right)
    p = right.mean(axis=0)
    return float((2 * p * (1 - p)).mean() * n / max(1, n - 1) / 2 / right.shape[1])


def shrunk(results: Sequence[Float[np.ndarray, "R"]], *, judging: float = 0.0) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K"]]:
    """Posterior means and standard deviations of K true accuracies, each measured a few times, in one normal population (empirical Bayes).

    The noise of a measurement is pooled over all, with four degrees of freedom at 0.4 points beforehand, so that a single round tells something. `judging` is the variance that repeating does not
    lessen, since the judges stay the same.
    """
    counts = np.array([len(values) for values in results])
    means = np.array([values.mean() for values in results])
    within = sum(float(np.square(values - values.mean()).sum()) for values in results)
    noise = (within + 4 * USUAL_NOISE**2) / (counts.sum() - len(counts) + 4)
    error = noise / counts + judging
    centre = float(np.average(means, weights=counts))
    between = max(0.0, float(np.square(means - centre).sum()) / max(1, len(means) - 1) - float(error.mean()))
    trust = between / (between + error)
    return centre + trust * (means - centre), np.sqrt(trust * error)


def decide(
    trials: Trials, *, keep: str, strategy: str, n_samples: int, tolerance: float, confidence: float, n_trials: int, least: int = 1
) -> tuple[Budget | None, str, dict[str, Any]]:
    """Answer `auto` for the strategy and for the share: the budget (None where it was given), the strategy, and the evidence for the manifest.

    Where both are asked for, strategies are compared at the share of a half first. No share of fewer than `least` samples is tried.
    """
    evidence: dict[str, Any] = {}
    if strategy == "auto":
        share = max(0.5, least / n_samples) if keep == "auto" else budget_for(keep, n_samples).keep_fraction
        strategy, evidence["strategy"] = contest(trials, candidates_of(trials), share, n_trials=n_trials)
    budget = None
    if keep == "auto":
        asked: dict[float, int] = {}

        def train_with(share: float) -> Trial:
            asked[share] = asked.get(share, -1) + 1
            return trials.train(strategy, share, asked[share])

        budget = safe_budget(
            train_with,
            n_samples,
            useless_share=trials.useless_share(strategy),
            tolerance=tolerance,
            confidence=confidence,
            n_trials=n_trials,
            n_epochs=trials.n_epochs,
            least=least,
            guessing=float(np.bincount(trials.table.labels[trials.judges]).max() / len(trials.judges)),
        )
    return budget, strategy, evidence | {"cost": trials.cost()}


def held_out(table: ScoreTable, hood: Neighborhood, seed: int) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "M"]]:
    """Rows to train on and rows to judge on, each in the order of ids. Raises GuardError where fewer than 50 samples in all could judge.

    Every class gives the same share of its groups of repeats (at least one of each); groups of the pool stay whole, of those that judge only the sample that stands for the group is used,
    unless its label is suspect.
    """
    order, duplicate_of = np.argsort(table.sample_ids, kind="stable"), hood.duplicate_of
    leads = order[duplicate_of[order] < 0]
    rng = np.random.default_rng((seed, 11))
    share = min(0.2, max(0.1, JUDGES / len(order)))
    judging = np.zeros(len(order), dtype=bool)
    for c in np.unique(table.labels):
        mine = leads[table.labels[leads] == c]
        if len(mine) > 1:
            judging[rng.permutation(mine)[: max(1, round(share * len(mine)))]] = True
    away = judging | (judging[duplicate_of] & (duplicate_of >= 0))
    judging &= hood.suspicion <= suspect_above(hood.suspicion)
    if judging.sum() < 50:
        raise GuardError(
            f"only {int(judging.sum())} of {len(order)} samples could be held out to judge on: too few to tell anything. Give --keep and --strategy yourself."
        )
    return order[~away[order]], order[judging[order]]


def _part_of(
    table: ScoreTable, hood: Neighborhood, vectors: Float[np.ndarray, "N D"] | None, rows: Int[np.ndarray, "P"]
) -> tuple[ScoreTable, Neighborhood, Float[np.ndarray, "P D"] | None]:
    """The same tables for `rows` only, which hold every repeat together with the sample it repeats."""
    place = np.full(len(table.sample_ids), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    pointers = hood.duplicate_of[rows]
    pointers = np.where(pointers >= 0, place[np.maximum(pointers, 0)], -1)
    values = {name: column[rows] for name, column in table.values.items()}
    part = Neighborhood(pointers, hood.duplicate_distance[rows], hood.suspicion[rows], hood.suggested_label[rows], hood.facts)
    return ScoreTable(table.sample_ids[rows], table.labels[rows], values, table.high_means), part, None if vectors is None else vectors[rows]


def _digest(rows: Int[np.ndarray, "K"]) -> str:
    return hashlib.sha256(np.asarray(rows, dtype="<i8").tobytes()).hexdigest()


def decided_for(
    scored: Run,
    keep: str,
    strategy: str,
    seed: int,
    on_progress: Callable[[dict[str, Any]], None] | None,
    *,
    min_per_class: int = 1,
    tolerance: float = 0.005,
    confidence: float = 0.9,
    trials: int = 12,
    trial_epochs: int | None = None,
    device: str = "auto",
    data: str | None = None,
) -> tuple[Budget | None, str, dict[str, Any], dict[str, float | None]]:
    """What `auto` stands for and what finding that took, by short trainings on the run's own data; these are kept in the run folder. Raises GuardError at once where a share that was given cannot hold `min_per_class` of every class."""
    document, labels = scored.document, scored.table.labels
    require_share(keep, labels, min_per_class)
    source = open_recorded(document, data)
    if source.fingerprint != document["fingerprint"]:
        raise FingerprintError(f"{source.locator} is not the data that {scored.folder} scored. Give those with --data, or score these.")
    if source.logged is not None:
        raise UsageError("--keep auto and --strategy auto train on the data, but this run has logged numbers only. Give a share and a strategy.")
    images, _ = inputs_of(source, document["asked"]["image_size"])
    key, here = data_key(source, images), rows_of(scored.table.sample_ids, source.sample_ids)
    if (here != np.arange(len(here))).any():
        images = images[here]  # the rows lie in another order than when they were scored
    lab = Trials(
        images, scored.table, scored.neighborhood, scored.vectors, n_classes=document["n_classes"], proxy=trainable(document["proxy"], source), epochs=trial_epochs, device=device,
        seed=seed, folder=scored.folder / "trials", data_key=key, on_progress=on_progress,
    )  # fmt: skip
    decided = decide(
        lab, keep=keep, strategy=strategy, n_samples=len(source), tolerance=tolerance, confidence=confidence, n_trials=trials, least=int(floor_of(labels, min_per_class).sum())
    )  # fmt: skip
    return *decided, {"seconds": lab.seconds, "seconds_before": lab.seconds_before, "energy_kwh": lab.energy_kwh}
