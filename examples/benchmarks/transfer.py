"""Does a subset that the small CNN chose serve another model? ResNet-18 trained on it, against as many random samples.

    python examples/benchmarks/transfer.py fashion=FASHION.npz cifar10=CIFAR10.npz --part 0/2 &
    python examples/benchmarks/transfer.py fashion=FASHION.npz cifar10=CIFAR10.npz --part 1/2
    python examples/benchmarks/transfer.py --table

15,000 class-balanced training images, scored by the small CNN (seed s), `blend` and random (class-balanced) at 0.5 and 0.3; ResNet-18 (training seed 100 + s) with as many steps of 128 as 10 epochs of all
15,000, one cosine, last epoch, full test set. On two CPU threads a training takes about 15 minutes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, arguments, bench_scale, on_cpu, trained_on

from clprune import pipeline
from clprune.evaluation import t_975

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "keep", "strategy", "seed"))
RANDOM, DEFAULT, MODEL, STEPS = "random(class_balanced=True)", "blend", "resnet18", 10 * 118
KEEPS = (0.5, 0.3)


def measure(path: str, keep: float, strategy: str, seed: int) -> dict[str, Any]:
    """Score with the small CNN, select, train ResNet-18."""
    held = bench_scale(path, with_ids=True)
    data, test = on_cpu(held)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/data.npz", x_train=held["x_train"], y_train=held["y_train"], ids=held["ids"])
        scored = pipeline.score(f"{folder}/data.npz", f"{folder}/run", seed=seed)
        kept = pipeline.select(f"{folder}/run", f"{folder}/m", keep=str(keep), strategy=strategy, seed=seed).samples
        rows = np.sort(kept.filter(kept["kept"])["index"].to_numpy())
    found = trained_on(rows, data, test, n_classes=10, seed=100 + seed, n_steps=STEPS, model=MODEL)
    return {name: found[name] for name in ("accuracy", "worst_class", "steps", "train_seconds")} | {"score_epochs": scored["epochs_run"]}


def table() -> str:
    """Random's accuracy, and the paired difference to it with its 95 % interval."""
    by_cell: dict[tuple[str, float], dict[str, dict[int, float]]] = {}
    for row in RESULTS.rows():
        by_cell.setdefault((row["data"], row["keep"]), {}).setdefault(row["strategy"], {})[row["seed"]] = 100 * row["accuracy"]
    lines = ["| data | keep | random | `blend` to random, points (95 %) | seeds |", "|---" * 5 + "|"]
    for (data, keep), found in sorted(by_cell.items(), key=lambda cell: (cell[0][0], -cell[0][1])):
        both = sorted(set(found.get(RANDOM, {})) & set(found.get(DEFAULT, {})))
        if both:
            base, gain = np.array([found[RANDOM][seed] for seed in both]), np.array([found[DEFAULT][seed] - found[RANDOM][seed] for seed in both])
            half = f" ± {t_975(len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)):.2f}" if len(gain) > 1 else ""
            lines.append(f"| {data} | {keep:g} | {base.mean():.2f} | {gain.mean():+.2f}{half} | {len(both)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=3)
    jobs = [(name, keep, strategy, seed) for seed in seeds for name in files for keep in KEEPS for strategy in (RANDOM, DEFAULT)]
    for name, keep, strategy, seed in jobs[part::parts]:
        if not RESULTS.has(data=name, keep=keep, strategy=strategy, seed=seed):
            RESULTS.add({"data": name, "keep": keep, "strategy": strategy, "seed": seed} | measure(files[name], keep, strategy, seed))
