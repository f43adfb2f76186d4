"""How often the class that a round guesses for what is not labelled is the right one: the network's guess, the kernel machine's, and that of both, which is the one that is exported.

    python examples/benchmarks/guesses.py fashion=FASHION.npz cifar10=CIFAR10.npz
    python examples/benchmarks/guesses.py --table

15,000 class-balanced training images of which 150, 1,000 or 4,000 random ones have a label; `clprune score`, as it comes. The shares are of the others. A stopped run goes on with the next.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, arguments, bench_scale

from clprune import pipeline, pool

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "labels", "seed"))
COUNTS = (150, 1_000, 4_000)
NAMES = ("network", "kernel", "both")


class Shown(pool.PoolWatcher):
    """A watcher that can be asked when it is done."""

    last: Shown

    def __call__(self, *told: Any, **more: Any) -> None:
        super().__call__(*told, **more)
        Shown.last = self


def measure(path: str, count: int, seed: int) -> dict[str, Any]:
    held = bench_scale(path, with_ids=True)
    labels = held["y_train"]
    known = np.random.default_rng((seed, 45)).permutation(len(labels))[:count]
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/pool.npz", x_train=held["x_train"], y_train=np.where(np.isin(np.arange(len(labels)), known), labels, -1), ids=held["ids"])
        seconds = pipeline.score(f"{folder}/pool.npz", f"{folder}/run", seed=seed)["seconds"]
    watcher, truth = Shown.last, np.delete(labels, known)
    kernel = watcher._by_kernel(int(labels.max()) + 1)
    guesses = (watcher.signals["predicted"][-1], np.argmax(kernel, axis=1), watcher.guess)
    return {name: float((guess == truth).mean()) for name, guess in zip(NAMES, guesses, strict=True)} | {"score_seconds": seconds}


def table() -> str:
    """Means over seeds and standard deviations."""
    rows = RESULTS.rows()
    lines = ["| data | labels | " + " | ".join(f"{name}, % right" for name in NAMES) + " | seeds |", "|---" * (3 + len(NAMES)) + "|"]
    for data, labels in sorted({(row["data"], row["labels"]) for row in rows}):
        mine = [row for row in rows if (row["data"], row["labels"]) == (data, labels)]
        found = [100 * np.array([row[name] for row in mine]) for name in NAMES]
        cells = [f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "") for values in found]
        lines.append(f"| {data} | {labels:,} | {' | '.join(cells)} | {len(mine)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=3)
    pool.PoolWatcher = Shown  # type: ignore[misc]
    for name, count, seed in [(name, count, seed) for seed in seeds for count in COUNTS for name in files][part::parts]:
        if not RESULTS.has(data=name, labels=count, seed=seed):
            RESULTS.add({"data": name, "labels": count, "seed": seed} | measure(files[name], count, seed))
