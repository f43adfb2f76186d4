"""What first labels are worth to a learner that is made for few: kernel ridge regression on features without labels, on what clprune asks for and on random samples.

    python examples/benchmarks/few_labels.py fashion=FASHION.npz cifar10=CIFAR10.npz --seeds 10
    python examples/benchmarks/few_labels.py --table

15,000 class-balanced training images without any label. `clprune score` makes features of them, `clprune select --label-budget` asks for 1 % and for 10 % of them. Features of the test images are those that the patterns
of the pool give; kernel ridge regression on the labelled ones (constants found by leaving one out) judges the full test set. Random: the mean of ten draws. No network is trained. A stopped run goes on with the next seed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Results, arguments, bench_scale

from clprune import pipeline
from clprune.evaluation import interval_of
from clprune.kernel_ridge import class_probabilities
from clprune.patches import features_by, find_patterns
from clprune.run import read_run

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "labels", "seed"))
SHARES, DRAWS = (0.01, 0.1), 10
STRATEGIES = ("cluster_medoids", "typical_clusters")


def measure(path: str, seed: int) -> list[dict[str, Any]]:
    """Accuracy of each choice, one row a number of labels."""
    held, rows = bench_scale(path, with_ids=True), []
    n, labels, cpu = len(held["ids"]), held["y_train"], torch.device("cpu")
    patterns = find_patterns(held["x_train"], np.arange(n), seed=seed, device=cpu)
    test = features_by(patterns, held["x_test"], np.arange(len(held["x_test"])), cpu)["features"]
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/pool.npz", x_train=held["x_train"], y_train=np.full(n, -1), ids=held["ids"])
        pipeline.score(f"{folder}/pool.npz", f"{folder}/run", seed=seed)
        vectors = read_run(Path(folder) / "run").vectors
        assert vectors is not None

        def accuracy(asked: np.ndarray) -> float:
            asked = np.sort(asked)
            found = class_probabilities(vectors[asked], labels[asked], test, n_classes=int(labels.max()) + 1)
            return float((found.argmax(axis=1) == held["y_test"]).mean())

        for count in (round(share * n) for share in SHARES):
            row: dict[str, Any] = {"labels": count}
            row["random"] = float(np.mean([accuracy(np.random.default_rng((seed, draw, 44)).permutation(n)[:count]) for draw in range(DRAWS)]))
            for strategy in STRATEGIES:
                made = pipeline.select(f"{folder}/run", f"{folder}/m", label_budget=count, strategy=strategy, seed=seed, force=True).samples
                row[strategy] = accuracy(made.filter(made["kept"])["index"].to_numpy())
            rows.append(row)
    return rows


def table() -> str:
    """Means over seeds, and the difference to random with its 95 % interval."""
    rows = RESULTS.rows()
    lines = ["| data | labels | random | " + " | ".join(f"`{name}` | to random, points (95 %)" for name in STRATEGIES) + " | seeds |"]
    lines.append("|---" * (4 + 2 * len(STRATEGIES)) + "|")
    for data, labels in sorted({(row["data"], row["labels"]) for row in rows}):
        mine = [row for row in rows if (row["data"], row["labels"]) == (data, labels)]
        cells = []
        for name in STRATEGIES:
            gain = 100 * np.array([row[name] - row["random"] for row in mine])
            interval = interval_of(gain)
            half = f" ± {(interval[1] - interval[0]) / 2:.2f}" if interval else ""
            cells.append(f"{100 * np.mean([row[name] for row in mine]):.2f} | {gain.mean():+.2f}{half}")
        lines.append(f"| {data} | {labels:,} | {100 * np.mean([row['random'] for row in mine]):.2f} | {' | '.join(cells)} | {len(mine)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=10)
    for name, seed in [(name, seed) for seed in seeds for name in files][part::parts]:
        if not RESULTS.has(data=name, seed=seed):
            for row in measure(files[name], seed):
                RESULTS.add({"data": name, "seed": seed} | row)
