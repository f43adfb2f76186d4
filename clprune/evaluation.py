"""Train on the kept samples, on random ones and on all, with one recipe, and compare the accuracy on the test split.

Every arm has the same recipe, seeds and order policy. `equal-steps` gives each arm as many steps as training on all data for `epochs` has;
`equal-epochs` gives each arm that many epochs of its own samples. Accuracy is that of the last epoch; a random arm is drawn anew for each seed
with the class sizes of the kept samples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8

from clprune.datatypes import Evaluation
from clprune.energy import EnergyMeter
from clprune.errors import UsageError
from clprune.proxies import build_proxy
from clprune.storage import SCHEMA_VERSION, write_json
from clprune.training import Recipe, new_state, pick_device, pixel_statistics, predict, seed_everything, to_device, train

EPOCHS = 30
T_975 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}  # Student's t, by degrees of freedom


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
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> Evaluation:
    """Train `seeds` times, with seeds from `first_seed` on, on rows `kept` and on each arm of `against` ("random", "full"). `order` are the rows sorted by id.

    Raises UsageError for unknown arms or budgets.
    """
    arms = ["pruned", *(against if against is not None else ["random", "full"])]
    if unknown := sorted(set(arms) - {"pruned", "random", "full"}):
        raise UsageError(f"--against knows random and full, not {', '.join(unknown)}.")
    if budget not in ("equal-epochs", "equal-steps"):
        raise UsageError(f"--budget is {budget}; give equal-epochs or equal-steps.")
    if seeds < 1:
        raise UsageError(f"--seeds is {seeds}; at least 1 is needed.")
    n_epochs, target = epochs or EPOCHS, pick_device(device)
    statistics = pixel_statistics(images) if images.ndim == 4 else None
    data, test = to_device(images, labels, target, statistics=statistics), to_device(test_images, test_labels, target, statistics=statistics)
    recipe = Recipe(schedule="cosine")
    full_steps = n_epochs * math.ceil(len(labels) / recipe.batch_size)
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    started = time.perf_counter()
    for seed in range(first_seed, first_seed + seeds):
        for arm in arms:
            rows = np.sort(kept) if arm == "pruned" else order if arm == "full" else random_like(labels, kept, order, seed)
            seed_everything(seed)
            state = new_state(build_proxy(proxy, n_classes, data.input_shape), target, recipe)
            with EnergyMeter() as meter:
                run = train(state, data, recipe, n_epochs=n_epochs, n_steps=full_steps if budget == "equal-steps" else None, seed=seed, rows=rows)
            right = predict(state.model, test)[0].argmax(axis=1) == test_labels
            per_class = [float(right[test_labels == c].mean()) if (test_labels == c).any() else None for c in range(n_classes)]
            results[arm].append(
                {
                    "seed": seed,
                    "accuracy": float(right.mean()),
                    "per_class": per_class,
                    "worst_class": min(value for value in per_class if value is not None),
                    "n_samples": len(rows),
                    "steps": run.steps,
                    "samples_seen": run.samples_seen,
                    "seconds": run.seconds,
                    "energy_kwh": meter.kwh,
                    "energy_method": meter.method,
                }
            )
            if on_progress:
                done = sum(len(values) for values in results.values())
                on_progress({"stage": "evaluate", "done": done, "total": seeds * len(arms), "message": f"{arm}, seed {seed}: {right.mean():.4f}"})
    summary = {arm: _summary(values) for arm, values in results.items()}
    facts = {
        "proxy": proxy,
        "epochs": n_epochs,
        "budget": budget,
        "seeds": seeds,
        "device": str(target),
        "recipe": recipe.__dict__,
        "threads": torch.get_num_threads(),
    }
    facts |= {"seconds": time.perf_counter() - started}
    return Evaluation(summary, _comparison(summary), facts)


def random_like(labels: Int[np.ndarray, "N"], kept: Int[np.ndarray, "K"], order: Int[np.ndarray, "N"], seed: int) -> Int[np.ndarray, "K"]:
    """Rows drawn at random with as many of each class as `kept` has."""
    rng = np.random.default_rng((seed, 7))
    sizes = np.bincount(labels[kept], minlength=int(labels.max()) + 1)
    return np.sort(np.concatenate([rng.permutation(order[labels[order] == c])[:size] for c, size in enumerate(sizes)]))


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    accuracy = np.array([run["accuracy"] for run in runs])
    return {
        "accuracy_mean": float(accuracy.mean()),
        "accuracy_sd": float(accuracy.std(ddof=1)) if len(accuracy) > 1 else None,
        "worst_class_mean": float(np.mean([run["worst_class"] for run in runs])),
        "seconds_mean": float(np.mean([run["seconds"] for run in runs])),
        "runs": runs,
    }


def _comparison(summary: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Paired differences of the pruned arm to the others, with a 95 % interval, and the verdict against random."""
    result: dict[str, Any] = {}
    mine = np.array([run["accuracy"] for run in summary["pruned"]["runs"]])
    for arm in summary:
        if arm == "pruned":
            continue
        difference = mine - np.array([run["accuracy"] for run in summary[arm]["runs"]])
        n, mean = len(difference), float(difference.mean())
        half = float(T_975.get(n - 1, 1.96) * difference.std(ddof=1) / math.sqrt(n)) if n > 1 else None
        result[f"to_{arm}"] = {"difference": mean, "interval": None if half is None else [mean - half, mean + half], "n": n}
    if "to_random" in result:
        low = (result["to_random"]["interval"] or [result["to_random"]["difference"]])[0]
        result["not_better_than_random"] = bool(low <= 0)
        spread = (
            "" if result["to_random"]["interval"] is None else f" (95 % interval {100 * low:+.2f} to {100 * result['to_random']['interval'][1]:+.2f})"
        )
        verb = "is not better than" if low <= 0 else "beats"
        result["sentence"] = (
            f"The selection {verb} a random one of the same class sizes: {100 * result['to_random']['difference']:+.2f} points{spread}, {len(mine)} seeds."
        )
    return result


def write_evaluation(folder: Path, evaluation: Evaluation) -> dict[str, Any]:
    """Write evaluation.json beside the manifest; returns its document."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "evaluation",
        "arms": dict(evaluation.arms),
        "comparison": dict(evaluation.comparison),
        "facts": dict(evaluation.facts),
    }
    write_json(folder / "evaluation.json", document)
    return document
