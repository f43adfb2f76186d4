"""Train on the kept samples, on random ones and on all, with one recipe, and compare the accuracy on the test split.

Every arm has the same recipe, seeds and order policy. `equal-steps` gives each arm as many steps as training on all data for `epochs` has;
`equal-epochs` gives each arm that many epochs of its own samples; the arms of `dynamic.py`, which see all data, get as many steps as the kept samples then
have. Accuracy is that of the last epoch; a random arm is drawn anew for each seed with the class sizes of the kept samples. Beside it: accuracy by class and by
group, expected calibration error, accuracy under five corruptions.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from clprune import distributed
from clprune.arithmetic import name_of_numbers
from clprune.budget import TRIAL_STEPS, epochs_of_trial
from clprune.corruptions import SEVERITY, corrupted
from clprune.datatypes import EVALUATION_EPOCHS, Evaluation
from clprune.dynamic import ARMS as DYNAMIC
from clprune.dynamic import dynamic_arm
from clprune.embeddings import require_logits
from clprune.energy import EnergyMeter, step_so_far
from clprune.errors import UsageError
from clprune.evaluation_record import write_result
from clprune.manifest import Manifest
from clprune.proxies import build_proxy, code_of
from clprune.storage import SCHEMA_VERSION, read_json, to_json, write_json
from clprune.training import (
    DeviceData,
    Draw,
    Observe,
    Recipe,
    TokenData,
    new_state,
    pick_device,
    pixel_statistics,
    predict,
    seed_everything,
    to_device,
    train,
)
from clprune.wording import counted, points, unsigned_zero

RANDOM_SHARES = (0.75, 1.0, 1.5, 2.0, 3.0)  # of the labels asked for: the counts at which random labelling is tried
Job = tuple[int, str]  # a training: its seed and its arm
CALIBRATION_BINS = 15  # equal widths of confidence, as in Guo et al. (2017, arXiv:1706.04599)


def evaluate(
    images: UInt8[np.ndarray, "N H W C"] | Int[np.ndarray, "N L"],
    labels: Int[np.ndarray, "N"],
    test_images: UInt8[np.ndarray, "M H W C"] | Int[np.ndarray, "M L"],
    test_labels: Int[np.ndarray, "M"],
    kept: Int[np.ndarray, "K"],
    *,
    n_classes: int,
    order: Int[np.ndarray, "N"],
    proxy: str = "small_cnn",
    seeds: int = 3,
    first_seed: int = 0,
    against: list[str] | None = None,
    epochs: int | None = None,
    budget: str = "equal-steps",
    device: str = "auto",
    test_groups: Sequence[str] | None = None,
    checkpoint: Path | None = None,
    data_key: str = "",
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> Evaluation:
    """Train `seeds` times, with seeds from `first_seed` on, on rows `kept` and on each arm of `against` ("random", "full", "shortened", "rs2", "infobatch"). `order` are the rows that have a label, sorted by id.

    With `checkpoint` (a folder) every finished training is committed to it, and one that is there already is not done again where the data
    (`data_key`), the kept rows, the model, the recipe, the budget and the device are the same. `test_groups` names the group of each test sample. Processes that have
    joined share the trainings out, one each at a time; the results do not depend on their number.
    Raises UsageError for unknown arms or budgets, and for a proxy that cannot take such inputs.
    """
    others = list(dict.fromkeys(["random", "full"] if against is None else against))  # what is named twice is trained once
    if unknown := sorted(set(others) - {"random", "full", *DYNAMIC}):
        raise UsageError(f"--against knows random, full, {', '.join(DYNAMIC)}, not {', '.join(unknown)}.")
    if budget not in ("equal-epochs", "equal-steps"):
        raise UsageError(f"--budget is {budget}; give equal-epochs or equal-steps.")
    if seeds < 1:
        raise UsageError(f"--seeds is {seeds}; at least 1 is needed.")
    n_epochs, target = epochs or EVALUATION_EPOCHS, pick_device(device)
    data = to_device(images, labels, target, statistics=pixel_statistics(images, order) if images.ndim == 4 else None)
    recipe = Recipe(schedule="cosine")
    full_steps = n_epochs * math.ceil(len(order) / recipe.batch_size)
    groups = None if test_groups is None else np.unique(np.array([str(group) for group in test_groups]), return_inverse=True)
    facts: dict[str, Any] = {"proxy": proxy, "epochs": n_epochs, "budget": budget, "device": str(target), "recipe": recipe.__dict__}
    names = None if groups is None else groups[0].tolist()
    facts |= {"threads": torch.get_num_threads(), "number_format": name_of_numbers(target), "groups": names, "corruptions": SEVERITY}
    grouped, arms = None if groups is None else hashlib.sha256(groups[1].astype("<i8").tobytes()).hexdigest(), ["pruned", *others]
    place = _place_for(checkpoint, facts | {"data": data_key, "kept": _digest_of_rows(kept), "proxy_code": code_of(proxy), "grouped": grouped})
    jobs = [(seed, arm) for seed in range(first_seed, first_seed + seeds) for arm in arms]

    def run_of(seed: int, arm: str) -> dict[str, Any]:
        rows: np.ndarray | Draw = _in_order(kept, order) if arm == "pruned" else random_like(labels, kept, order, seed) if arm == "random" else order
        n_steps, observe = full_steps if budget == "equal-steps" else None, None
        if arm in DYNAMIC:
            rows, observe = dynamic_arm(arm, order, len(kept), seed)
            n_steps = n_steps or n_epochs * math.ceil(len(kept) / recipe.batch_size)
        return _one_training(data, rows, observe, test_images, test_labels, groups, recipe, seed, proxy, n_classes, n_epochs, n_steps)

    finished, there_already = _carried_out(jobs, place, run_of, on_progress)
    results = {arm: [finished[seed, arm] for seed in range(first_seed, first_seed + seeds)] for arm in arms}
    summary = {arm: _summary(values) for arm, values in results.items()}
    facts |= {"seeds": seeds, "test_per_class": np.bincount(test_labels, minlength=n_classes).tolist()}
    for name, some in (("trainings", jobs), ("trainings_before", there_already)):
        kwh = [finished[job][part] for job in some for part in ("energy_kwh", "test_energy_kwh")]
        facts |= {f"{name}_seconds": sum(finished[job]["total_seconds"] for job in some), f"{name}_kwh": None if None in kwh else sum(kwh)}
    facts |= {"seconds": facts["trainings_seconds"], "energy_kwh": facts["trainings_kwh"], "processes": distributed.world_size()}
    comparison = _comparison(summary, len(test_labels), everything=len(kept) == len(order))
    if "to_random" in comparison:
        n_rows = len(order) if budget == "equal-steps" else len(kept)
        comparison["sentence"] += _if_short(finished[first_seed, "pruned"]["steps"], n_rows, recipe.batch_size)
    return Evaluation(summary, comparison, facts)


def _if_short(n_steps: int, n_rows: int, batch_size: int) -> str:
    """A caution where trainings are shorter than trials would be; `n_rows` are those of an epoch."""
    enough, said = epochs_of_trial(n_rows, batch_size), f" So short a training ({counted(n_steps, 'step')}) may not show what a longer one would"
    return "" if n_steps >= TRIAL_STEPS else f"{said}: --epochs {enough} gives {enough * math.ceil(n_rows / batch_size):,}."


def _carried_out(
    jobs: list[Job], place: Path | None, run_of: Callable[[int, str], dict[str, Any]], on_progress: Callable[[dict[str, Any]], None] | None
) -> tuple[dict[Job, dict[str, Any]], list[Job]]:
    """What every training of `jobs` gave, and which of them were in the folder `place` already. Processes that have joined do one each at a time; each finished one is committed to `place`."""
    finished: dict[Job, dict[str, Any]] = {}

    def place_of(seed: int, arm: str) -> Path:
        assert place is not None
        return place / f"{arm}-{seed}.json"

    def note(job: Job, run: dict[str, Any], message: str) -> None:
        finished[job] = run
        if on_progress:
            on_progress({"stage": "evaluate", "done": len(finished), "total": len(jobs), "message": f"{job[1]}, seed {job[0]}: {message}"})

    def held(seed: int, arm: str) -> dict[str, Any]:
        path = place_of(seed, arm)
        return dict(read_json(path, what="finished training", of=_name_of(path))["run"])

    there_already = distributed.on_first(lambda: [job for job in jobs if place is not None and place_of(*job).exists()])
    before = distributed.on_first(lambda: [held(*job) for job in there_already])
    for job, run in zip(there_already, before, strict=True):
        note(job, run, "taken from the interrupted evaluation")
    to_do, n_processes = [job for job in jobs if job not in there_already], distributed.world_size()
    for start in range(0, len(to_do), n_processes):  # a round: one training in each process
        round_jobs = to_do[start : start + n_processes]
        mine = round_jobs[distributed.rank()] if distributed.rank() < len(round_jobs) else None
        runs = distributed.gather_values(None if mine is None else run_of(*mine))
        for job, found in zip(round_jobs, runs, strict=False):
            assert found is not None
            if n_processes > 1:  # each meter sees the machine with all that runs on it
                found |= {"energy_kwh": None, "test_energy_kwh": None, "energy_method": f"not measured: {n_processes} trainings ran side by side"}
            if place is not None and distributed.is_first():
                path = place_of(*job)
                write_json(path, {"schema_version": SCHEMA_VERSION, "kind": "finished training", "of": _name_of(path), "run": found})
            note(job, found, f"{found['accuracy']:.4f}")
    return finished, there_already


def _name_of(path: Path) -> str:
    """What a finished training is of, so that swapped files are noticed: its folder and its own name."""
    return f"{path.parent.name}/{path.stem}"


def _place_for(checkpoint: Path | None, key: Mapping[str, Any]) -> Path | None:
    """Where finished trainings of one kind are kept: in `checkpoint`, by a digest of all that decides their outcome."""
    return None if checkpoint is None else checkpoint / hashlib.sha256(to_json({**key, "torch": torch.__version__}).encode()).hexdigest()[:16]


def _digest_of_rows(rows: Int[np.ndarray, "K"]) -> str:
    return hashlib.sha256(np.sort(rows).astype("<i8").tobytes()).hexdigest()


def evaluate_pool(
    images: UInt8[np.ndarray, "N H W C"] | Int[np.ndarray, "N L"],
    labels: Int[np.ndarray, "N"],
    test_images: UInt8[np.ndarray, "M H W C"] | Int[np.ndarray, "M L"],
    test_labels: Int[np.ndarray, "M"],
    labelled: Int[np.ndarray, "L"],
    asked: Int[np.ndarray, "A"],
    *,
    n_classes: int,
    order: Int[np.ndarray, "N"],
    choosing_seconds: float,
    proxy: str = "small_cnn",
    seeds: int = 3,
    epochs: int | None = None,
    device: str = "auto",
    label_price: float | None = None,
    checkpoint: Path | None = None,
    data_key: str = "",
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """How many labels asking for `asked` saves: accuracy with them, with as many random ones, and with 0.75, 1.5, 2 and 3 times as many, on top of the `labelled` rows.

    `labels` are all known here. Every training has as many steps, those of `epochs` of the largest arm (30, or as many as 1,500 steps are); a random arm is drawn anew for each seed, and larger ones hold the smaller. The saving is read off the axis of labels:
    what random labelling needs for the same accuracy (interpolated, never falling), less what was asked for; seed by seed, and of the means. `checkpoint`, `data_key` and processes that have
    joined as in `evaluate`.
    """
    target, recipe = pick_device(device), Recipe(schedule="cosine")
    data = to_device(images, labels, target, statistics=pixel_statistics(images, order) if images.ndim == 4 else None)
    rest = order[~np.isin(order, labelled)]
    counts = sorted({min(round(len(asked) * share), len(rest)) for share in RANDOM_SHARES})
    largest = len(labelled) + counts[-1]
    n_epochs = epochs or epochs_of_trial(largest, recipe.batch_size)  # few labels need many: what 30 steps learn tells nothing
    n_steps = n_epochs * math.ceil(largest / recipe.batch_size)
    key = {
        "proxy": proxy,
        "proxy_code": code_of(proxy),
        "steps": n_steps,
        "device": str(target),
        "number_format": name_of_numbers(target),
        "recipe": recipe.__dict__,
        "threads": torch.get_num_threads(),
        "data": data_key,
        "counts": counts,
    }
    place = _place_for(checkpoint, key | {"labelled": _digest_of_rows(labelled), "asked": _digest_of_rows(asked)})

    def run_of(seed: int, arm: str) -> dict[str, Any]:
        extra = asked if arm == "asked" else np.random.default_rng((seed, 11)).permutation(rest)[: int(arm.partition("-")[2])]
        rows = _in_order(np.concatenate([labelled, extra]), order)
        return _one_training(data, rows, None, test_images, test_labels, None, recipe, seed, proxy, n_classes, n_epochs, n_steps)

    arms = ["asked", *(f"random-{count}" for count in counts)]
    finished, _ = _carried_out([(seed, arm) for seed in range(seeds) for arm in arms], place, run_of, on_progress)
    asked_accuracy = np.array([finished[seed, "asked"]["accuracy"] for seed in range(seeds)])
    random_accuracy = np.array([[finished[seed, arm]["accuracy"] for arm in arms[1:]] for seed in range(seeds)])
    seconds = np.array([finished[seed, "asked"]["seconds"] for seed in range(seeds)])
    gain = asked_accuracy - random_accuracy[:, counts.index(len(asked))]
    interval = interval_of(gain, len(test_labels))
    saved, bound = labels_saved(counts, random_accuracy.mean(axis=0), float(asked_accuracy.mean()), len(asked))
    by_seed = [labels_saved(counts, random_accuracy[seed], float(asked_accuracy[seed]), len(asked))[0] for seed in range(seeds)]
    not_better, verb = _verdict(float(gain.mean()), interval)
    money = "" if label_price is None else f", {unsigned_zero(saved * label_price, ',.2f')} USD"
    sentence = (
        f"Asking for these {len(asked):,} labels {verb} asking for as many random ones: {points(gain.mean())} points{_points(interval)}, {_of_seeds(seeds)}. "
        f"Random labelling needs {'more than ' if bound == 'at least' else f'{bound} ' if bound else ''}{len(asked) + saved:,} for the same accuracy: {f'{bound} ' if bound else ''}{counted(saved, 'label')} saved{money}. "
        f"Choosing took {choosing_seconds:,.0f} s, one training on the choice {seconds.mean():,.0f} s.{_if_short(n_steps, largest, recipe.batch_size)}"
    )
    return {
        "n_labelled": len(labelled),
        "n_asked": len(asked),
        "asked_accuracy": asked_accuracy.tolist(),
        "random_counts": counts,
        "random_accuracy": random_accuracy.tolist(),
        "gain": float(gain.mean()),
        "gain_interval": interval,
        "labels_saved": saved,
        "labels_saved_at_least": bound == "at least",
        "labels_saved_at_most": bound == "at most",
        "labels_saved_by_seed": by_seed,
        "choosing_seconds": choosing_seconds,
        "training_seconds": float(seconds.mean()),
        "proxy": proxy,
        "epochs": n_epochs,
        "steps": n_steps,
        "seeds": seeds,
        "not_better_than_random": not_better,
        "sentence": sentence,
    }


def labels_saved(counts: Sequence[int], random_accuracy: Float[np.ndarray, "R"], accuracy: float, n_asked: int) -> tuple[int, str]:
    """How many more random labels than `n_asked` reach `accuracy`, negative where fewer do; "at least" that many where even the largest count does not, "at most" where the smallest does more.

    `random_accuracy` over the rising `counts` is made never falling (a running maximum) and joined by straight lines.

    >>> labels_saved([100, 200, 300], np.array([0.5, 0.6, 0.7]), 0.65, 100)
    (150, '')
    >>> labels_saved([100, 200, 300], np.array([0.5, 0.6, 0.7]), 0.8, 100)
    (200, 'at least')
    """
    curve = np.maximum.accumulate(random_accuracy)
    if accuracy > curve[-1]:
        return int(counts[-1]) - n_asked, "at least"
    at = int(np.searchsorted(curve, accuracy, side="left"))
    if at == 0:
        return int(counts[0]) - n_asked, "at most" if accuracy < curve[0] else ""
    share = (accuracy - curve[at - 1]) / (curve[at] - curve[at - 1])
    return round(counts[at - 1] + share * (counts[at] - counts[at - 1])) - n_asked, ""


def _one_training(
    data: DeviceData | TokenData,
    rows: Int[np.ndarray, "K"] | Draw,
    observe: Observe | None,
    test_images: UInt8[np.ndarray, "M H W C"],
    test_labels: Int[np.ndarray, "M"],
    groups: tuple[np.ndarray, np.ndarray] | None,
    recipe: Recipe,
    seed: int,
    proxy: str,
    n_classes: int,
    n_epochs: int,
    n_steps: int | None,
) -> dict[str, Any]:
    """Train a fresh model on `rows` (`observe` sees every forward pass) and measure it on the test split, as it is and corrupted."""
    begun = time.perf_counter()
    seed_everything(seed)
    state = new_state(build_proxy(proxy, n_classes, data.input_shape), data.device, recipe)
    require_logits(state.model, data, np.arange(min(2, len(data))), n_classes, proxy)
    with EnergyMeter() as meter:
        run = train(state, data, recipe, n_epochs=n_epochs, n_steps=n_steps, seed=seed, rows=rows, observe=observe)
    statistics = (data.mean.cpu().numpy(), data.std.cpu().numpy()) if isinstance(data, DeviceData) else None

    def logits_of(inputs: np.ndarray) -> Float[np.ndarray, "M C"]:
        return predict(state.model, to_device(inputs, test_labels, data.device, statistics=statistics))[0]

    with EnergyMeter() as test_meter:
        logits = logits_of(test_images)
        pictures = corrupted(test_images) if isinstance(data, DeviceData) else ()  # texts have no pixels to corrupt
        of_corruptions = {name: float((logits_of(images).argmax(axis=1) == test_labels).mean()) for name, images in pictures}
    right = logits.argmax(axis=1) == test_labels
    per_class = [float(right[test_labels == c].mean()) if (test_labels == c).any() else None for c in range(n_classes)]
    per_group = None if groups is None else {str(name): float(right[groups[1] == g].mean()) for g, name in enumerate(groups[0])}
    return {
        "seed": seed,
        "accuracy": float(right.mean()),
        "per_class": per_class,
        "worst_class": min(value for value in per_class if value is not None),
        "per_group": per_group,
        "worst_group": None if per_group is None else min(per_group.values()),
        "calibration_error": calibration_error(logits, test_labels),
        "corruptions": of_corruptions,
        "n_samples": len(data) if callable(rows) else len(rows),
        "steps": run.steps,
        "samples_seen": run.samples_seen,
        "seconds": run.seconds,
        "test_seconds": test_meter.seconds,
        "total_seconds": time.perf_counter() - begun,  # with the building of the model and the start of the meters
        "energy_kwh": meter.kwh,
        "test_energy_kwh": test_meter.kwh,
        "energy_method": meter.method,
    }


def calibration_error(logits: Float[np.ndarray, "M C"], labels: Int[np.ndarray, "M"], n_bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error in [0, 1]: mean distance of confidence and accuracy over equal-width bins of confidence, by their share of samples.

    >>> calibration_error(np.array([[9.0, -99.0], [9.0, -99.0]]), np.array([0, 1]))
    0.5
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(shifted).sum(axis=1)
    right = logits.argmax(axis=1) == labels
    bins = np.minimum((confidence * n_bins).astype(np.int64), n_bins - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=n_bins)  # size of a bin times its signed gap
    return float(np.abs(gaps).sum() / len(labels))


def arms_of(against: str) -> list[str]:
    """The names of arms in a list with commas. Raises UsageError where there is none: one accuracy alone says nothing of a selection."""
    if not (names := [name.strip() for name in against.split(",") if name.strip()]):
        raise UsageError(f"--against is {against!r}; name what to compare with, of random, full, {', '.join(DYNAMIC)}, with commas.")
    return names


def random_like(labels: Int[np.ndarray, "N"], kept: Int[np.ndarray, "K"], order: Int[np.ndarray, "N"], seed: int) -> Int[np.ndarray, "K"]:
    """Rows drawn at random with as many of each class as `kept` has, in the order of `order`."""
    rng = np.random.default_rng((seed, 7))
    sizes = np.bincount(labels[kept], minlength=int(labels.max()) + 1)
    in_class = order[np.argsort(labels[order], kind="stable")]
    members = np.split(in_class, np.cumsum(np.bincount(labels[order], minlength=len(sizes)))[:-1])
    return _in_order(np.concatenate([rng.permutation(mine)[:size] for mine, size in zip(members, sizes, strict=True)]), order)


def _in_order(rows: Int[np.ndarray, "K"], order: Int[np.ndarray, "N"]) -> Int[np.ndarray, "K"]:
    """Rows in the order of their ids: a training is the same however the rows of the data lie."""
    return order[np.isin(order, rows)]


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    accuracy = np.array([run["accuracy"] for run in runs])
    return {
        "accuracy_mean": float(accuracy.mean()),
        "accuracy_sd": float(accuracy.std(ddof=1)) if len(accuracy) > 1 else None,
        "worst_class_mean": float(np.mean([run["worst_class"] for run in runs])),
        "worst_group_mean": None if runs[0]["worst_group"] is None else float(np.mean([run["worst_group"] for run in runs])),
        "calibration_error_mean": float(np.mean([run["calibration_error"] for run in runs])),
        "corruptions": _mean_by_name([run["corruptions"] for run in runs]),
        "seconds_mean": float(np.mean([run["seconds"] for run in runs])),
        "runs": runs,
    }


def _mean_by_name(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over trainings of each corruption, and over all of them."""
    means = {name: float(np.mean([value[name] for value in values])) for name in sorted(values[0])}  # in one order, also when read back
    return means | {"mean": float(np.mean(list(means.values())))} if means else {}


def t_975(degrees: int) -> float:
    """The 97.5 % quantile of Student's t: exact for 1 and 2 degrees of freedom, else by Hill's expansion in 1/degrees (within 0.005 from 3 on).

    >>> [round(t_975(d), 2) for d in (1, 2, 5, 30)]
    [12.71, 4.3, 2.57, 2.04]
    """
    if degrees == 1:
        return math.tan(math.pi * 0.475)
    if degrees == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z, n = 1.959963984540054, float(degrees)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / n ** (power + 1) for power, term in enumerate(terms))


def interval_of(differences: Float[np.ndarray, "S"], n_test: float = math.inf) -> list[float] | None:
    """The 95 % interval of the mean of paired differences of accuracies on `n_test` samples, by Student's t; None of a single one.

    Accuracies come in steps of 1 / n_test: a few differences that happen to be equal show no smaller spread than that of rounding, 1 / (n_test sqrt(6)).
    """
    n, mean = len(differences), float(differences.mean())
    if n < 2:
        return None
    half = t_975(n - 1) * max(float(differences.std(ddof=1)), 1 / (n_test * math.sqrt(6))) / math.sqrt(n)
    return [mean - half, mean + half]


def _points(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" (95 % interval {points(interval[0])} to {points(interval[1])})"


def _of_seeds(n: int) -> str:
    return f"{n} seeds" if n > 1 else "one seed, which alone decides nothing"


def _verdict(difference: float, interval: Sequence[float] | None) -> tuple[bool | None, str]:
    """Whether a choice is not shown to be better than random ones (None: a single seed was better, which shows nothing), and the verb for it."""
    if interval is None:
        return (True, "is not better than") if difference <= 0 else (None, "came out above")
    if interval[0] > 0:
        return False, "beats"
    return True, "is worse than" if interval[1] < 0 else "is not clearly better than"


def _comparison(summary: dict[str, dict[str, Any]], n_test: int, *, everything: bool = False) -> dict[str, Any]:
    """Paired differences of the pruned arm to the others, with a 95 % interval, and the verdict against random: none where `everything` is kept, since a random choice is the same then."""
    result: dict[str, Any] = {}
    mine = np.array([run["accuracy"] for run in summary["pruned"]["runs"]])
    for arm in summary:
        if arm == "pruned":
            continue
        difference = mine - np.array([run["accuracy"] for run in summary[arm]["runs"]])
        result[f"to_{arm}"] = {"difference": float(difference.mean()), "interval": interval_of(difference, n_test), "n": len(difference)}
    if "to_random" in result and everything:
        del result["to_random"]
        result["sentence"] = "Everything is kept, and a random choice of as many samples is everything, too: there is nothing to tell apart."
    elif "to_random" in result:
        told = result["to_random"]
        result["not_better_than_random"], verb = _verdict(told["difference"], told["interval"])
        result["sentence"] = (
            f"The selection {verb} a random one of the same class sizes: {points(told['difference'])} points{_points(told['interval'])}, {_of_seeds(len(mine))}."
        )
    return result


def with_all_costs(evaluation: Evaluation) -> Evaluation:
    """With the seconds and kWh of the whole step that is going on, the start of its process and the reading of the data included, and those of trainings that an interrupted one had finished.

    They are elapsed seconds, also where several processes shared the trainings out; then energy stays unmeasured.
    """
    facts, step = dict(evaluation.facts), step_so_far()
    if step is None:
        return evaluation
    kwh = None if facts["processes"] > 1 or None in (step.kwh, facts["trainings_before_kwh"]) else step.kwh + facts["trainings_before_kwh"]
    method = step.method if kwh is not None else "not measured"
    facts |= {"seconds": step.seconds + facts["trainings_before_seconds"], "energy_kwh": kwh, "energy_method": method}
    return replace(evaluation, facts=facts)


def write_evaluation(manifest: Manifest, evaluation: Evaluation, *, test: str | None = None) -> dict[str, Any]:
    """Write evaluation.json beside the manifest; returns its document. `test` names the data that accuracy was measured on, where they are not the test part of the manifest's. Raises as `write_result` does."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "evaluation",
        "test": test,
        "arms": dict(evaluation.arms),
        "comparison": dict(evaluation.comparison),
        "facts": dict(evaluation.facts),
    }
    return write_result(manifest, "evaluation.json", document)
