"""What to label first where nothing is labelled: a representative part or typical samples, against random ones.

    python examples/benchmarks/no_labels.py fashion=FASHION.npz cifar10=CIFAR10.npz
    python examples/benchmarks/no_labels.py --table

15,000 class-balanced training images without any label. `clprune score` makes features of them, `clprune select --label-budget` asks for 1 % and for 10 % of them, the way of a user; the small CNN is trained on what was asked for, and on as many random images, with as many steps as 10 epochs of all 15,000, and tested on the full test set. Run seed s, training seed 100 + s. One line a
budget and seed; a stopped run goes on with the next.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, arguments, bench_scale, on_cpu, trained_on

from clprune import pipeline
from clprune.evaluation import t_975

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "strategy", "labels", "seed"))
BUDGETS, STEPS = (150, 1_500), 10 * 118
STRATEGIES = ("random_in_clusters", "typical_clusters")


def measure(path: str, seed: int, wanted: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """Accuracy on what clprune asks for and on random samples, for each strategy and number of labels."""
    held, rows, accuracy_of_random = bench_scale(path, with_ids=True), [], {}
    data, test = on_cpu(held)
    n = len(held["ids"])
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/pool.npz", x_train=held["x_train"], y_train=np.full(n, -1), ids=held["ids"])
        began = time.perf_counter()
        pipeline.score(f"{folder}/pool.npz", f"{folder}/run", seed=seed)
        score_seconds = time.perf_counter() - began
        for strategy, count in wanted:
            began = time.perf_counter()
            made = pipeline.select(f"{folder}/run", f"{folder}/m{count}", label_budget=count, strategy=strategy, seed=seed, force=True).samples
            asked, select_seconds = made.filter(made["kept"])["index"].to_numpy(), time.perf_counter() - began
            found = trained_on(asked, data, test, n_classes=10, seed=100 + seed, n_steps=STEPS)
            if count not in accuracy_of_random:
                random = np.random.default_rng((seed, 43)).permutation(n)[:count]
                accuracy_of_random[count] = trained_on(random, data, test, n_classes=10, seed=100 + seed, n_steps=STEPS)["accuracy"]
            row = {"strategy": strategy, "labels": count, "accuracy": found["accuracy"], "accuracy_of_random": accuracy_of_random[count]}
            row |= {"classes": np.bincount(held["y_train"][asked], minlength=10).tolist(), "train_seconds": found["train_seconds"]}
            rows.append(row | {"score_seconds": score_seconds, "select_seconds": select_seconds})
    return rows


def table() -> str:
    """Mean over seeds, and the paired difference with its 95 % interval."""
    rows = RESULTS.rows()
    lines = [
        "| data | strategy | labels | random | asked for | difference, points (95 %) | smallest class | score and select, s | one training, s | seeds |",
        "|---" * 10 + "|",
    ]
    for data, strategy, labels in sorted({(row["data"], row["strategy"], row["labels"]) for row in rows}):
        mine = [row for row in rows if (row["data"], row["strategy"], row["labels"]) == (data, strategy, labels)]
        ours, theirs = (100 * np.array([row[name] for row in mine]) for name in ("accuracy", "accuracy_of_random"))
        gain = ours - theirs
        half = t_975(len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else None
        shown = f"{gain.mean():+.2f}" + ("" if half is None else f" ({gain.mean() - half:+.2f} to {gain.mean() + half:+.2f})")
        seconds = [np.mean([sum(row[name] for name in names) for row in mine]) for names in (("score_seconds", "select_seconds"), ("train_seconds",))]
        lines.append(
            f"| {data} | `{strategy}` | {labels:,} | {theirs.mean():.2f} | {ours.mean():.2f} | {shown} | {min(min(row['classes']) for row in mine)} | {seconds[0]:.0f} | {seconds[1]:.0f} | {len(mine)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=3)
    for name, seed in [(name, seed) for seed in seeds for name in files][part::parts]:
        if wanted := [(rule, n) for rule in STRATEGIES for n in BUDGETS if not RESULTS.has(data=name, strategy=rule, labels=n, seed=seed)]:
            for row in measure(files[name], seed, wanted):
                RESULTS.add({"data": name, "seed": seed} | row)
