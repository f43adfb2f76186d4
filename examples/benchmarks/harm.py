"""Is harm to a class seen, and does the default avoid it? One class five times rarer, another one made easy, pruned by `hardest` and by the default.

    python examples/benchmarks/harm.py FASHION.npz      # about 20 minutes on one thread; goes on where it was
    python examples/benchmarks/harm.py --table

5,520 training images: 600 of each class, 120 of the rare one; a bright mark in the corner of every image of the easy class, also of its test images. Scored once, selected, then three trainings each
(seeds 0 to 2, equal steps: 15 epochs of all samples) on all samples, on as many random ones (uniform, drawn anew for each seed), on the default's and on those of `hardest`. A class is flagged by the
report's own rule. What makes the class easy, and the numbers above, were chosen on another pair of classes (Sandal rare, Dress easy) by how many samples were kept, without looking at an accuracy.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, on_device, trained_on

from clprune import pipeline
from clprune.harm import harm_by_class

RESULTS = Results(Path(__file__).with_suffix(".json"), ("rare", "easy", "keep", "arm", "seed"))
NAMES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CASES = (("Dress", "Bag"), ("Sneaker", "Pullover"))  # rare, easy
PER_CLASS, RARER, SEEDS, EPOCHS, KEEPS = 600, 5, 3, 15, (0.5, 0.3)
STRATEGIES = {"hardest": "hardest", "default": None}


def made(path: str, rare: str, easy: str) -> dict[str, np.ndarray]:
    """The data of a case, in the order of the file."""
    held, rng = np.load(path), np.random.default_rng(41)
    labels = held["y_train"].astype(np.int64)
    sizes = [PER_CLASS // RARER if name == rare else PER_CLASS for name in NAMES]
    rows = np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:size] for c, size in enumerate(sizes)]))
    data = {"x_train": held["x_train"][rows], "y_train": labels[rows], "x_test": held["x_test"].copy(), "y_test": held["y_test"].astype(np.int64)}
    for part in ("train", "test"):
        data[f"x_{part}"][data[f"y_{part}"] == NAMES.index(easy), 1:5, 1:5] = 255
    return {name: values[..., None] if name.startswith("x") else values for name, values in data.items()}


def measure(path: str, rare: str, easy: str) -> None:
    """Score one case, select at every share, train on what is not trained on yet."""
    held, case = made(path, rare, easy), {"rare": rare, "easy": easy}
    data, test = on_device(held)
    n = len(held["y_train"])

    def train_on(rows: np.ndarray, keep: float, arm: str, seed: int) -> None:
        key = case | {"keep": keep, "arm": arm, "seed": seed}
        if not RESULTS.has(**key):
            run = trained_on(rows, data, test, n_classes=10, seed=seed, n_steps=EPOCHS * -(-n // 128))
            RESULTS.add(key | run | {"kept_per_class": np.bincount(held["y_train"][rows], minlength=10).tolist()})

    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/case.npz", **held)
        pipeline.score(f"{folder}/case.npz", f"{folder}/run", seed=0)
        kept = {}
        for keep in KEEPS:
            for arm, strategy in STRATEGIES.items():
                pipeline.select(f"{folder}/run", f"{folder}/m", keep=str(keep), strategy=strategy, force=True)
                kept[keep, arm] = np.load(f"{folder}/m/kept.npy")
    for seed in range(SEEDS):
        train_on(np.arange(n), 1.0, "full", seed)
        for keep in KEEPS:
            train_on(np.random.default_rng((seed, 43)).permutation(n)[: round(keep * n)], keep, "random", seed)
            for arm in STRATEGIES:
                train_on(kept[keep, arm], keep, arm, seed)


def found() -> list[dict[str, Any]]:
    """One row a case, share and strategy: accuracies over the seeds, and which classes the report flags against training on everything."""
    rows, result = RESULTS.rows(), []

    def runs(**key: Any) -> list[dict[str, Any]]:
        return [row for row in rows if all(row[name] == value for name, value in key.items())]

    for rare, easy in CASES:
        full = runs(rare=rare, easy=easy, arm="full")
        for keep in KEEPS:
            chance = runs(rare=rare, easy=easy, keep=keep, arm="random")
            for arm in ("random", *STRATEGIES):
                mine = runs(rare=rare, easy=easy, keep=keep, arm=arm)
                if not full or not (len(mine) == len(chance) == len(full)):
                    continue
                evaluation = {
                    "arms": {"pruned": {"runs": mine}, "full": {"runs": full}, "random": {"runs": chance}},
                    "facts": {"test_per_class": [1000] * 10},
                }
                sizes, left = (np.array(one[0]["kept_per_class"]) for one in (full, mine))
                classes, _ = harm_by_class(NAMES, sizes, left, evaluation)
                worst = np.array([row["worst_class"] for row in mine])
                gap = worst - np.array([row["worst_class"] for row in chance])
                result.append(
                    {
                        "rare": rare,
                        "easy": easy,
                        "keep": keep,
                        "arm": arm,
                        "accuracy": np.array([row["accuracy"] for row in mine]),
                        "worst": worst,
                        "worst_name": NAMES[int(np.mean([row["per_class"] for row in mine], axis=0).argmin())],
                        "gap": gap,
                        "kept": (int(left[NAMES.index(rare)]), int(left[NAMES.index(easy)])),
                        "flags": {one.name: one.flags for one in classes if one.flags},
                        "changes": {one.name: one.change for one in classes},
                    }
                )
    return result


def table() -> str:
    """The rows of harm.json, for the README."""
    lines = [
        "| rare, easy class | kept | by | of them rare, easy | accuracy, % | worst class, % | to random's worst, points | flagged by the report (change in points) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found():
        flags = "; ".join(f"{name}: {', '.join(said)} ({100 * row['changes'][name]:+.1f})" for name, said in row["flags"].items()) or "none"
        gap = "" if row["arm"] == "random" else f"{100 * row['gap'].mean():+.1f} ± {100 * row['gap'].std(ddof=1):.1f}"
        lines.append(
            f"| {row['rare']}, {row['easy']} | {row['keep']:.0%} | {row['arm']} | {row['kept'][0]}, {row['kept'][1]} | {100 * row['accuracy'].mean():.1f} ± {100 * row['accuracy'].std(ddof=1):.1f} | "
            f"{100 * row['worst'].mean():.1f} ± {100 * row['worst'].std(ddof=1):.1f} ({row['worst_name']}) | {gap} | {flags} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] != ["--table"]:
        for one in CASES:
            measure(sys.argv[1], *one)
    print(table())
