"""Does a subset that the small CNN chose serve another model? ResNet-18 trained on it, against as many random samples. For a GPU.

    python examples/benchmarks/transfer.py fashion=FASHION.npz cifar10=CIFAR10.npz --work WORK --prepare    # what needs no GPU: scores and what is kept
    python examples/benchmarks/transfer.py fashion=FASHION.npz cifar10=CIFAR10.npz --work WORK --part 0/2 &
    python examples/benchmarks/transfer.py fashion=FASHION.npz cifar10=CIFAR10.npz --work WORK --part 1/2
    python examples/benchmarks/transfer.py --table

15,000 class-balanced training images, scored by the small CNN (seed s), `blend` and random (class-balanced) at 0.5 and 0.3; ResNet-18 (training seed 100 + s) with as many steps of 128 as 20 epochs of all
15,000, one cosine, last epoch, full test set. `all` is ResNet-18 on all 15,000.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from common import Results, bench_scale, kept_rows, machine, on_device, trained_on
from filelock import FileLock

from clprune.evaluation import t_975

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "keep", "strategy", "seed"))
RANDOM, DEFAULT, MODEL, STEPS = "random(class_balanced=True)", "blend", "resnet18", 20 * 118
KEEPS = (0.5, 0.3)


def table() -> str:
    """Accuracy of everything and of random, and the paired difference to it with its 95 % interval."""
    by_cell: dict[tuple[str, float], dict[str, dict[int, float]]] = {}
    for row in RESULTS.rows():
        by_cell.setdefault((row["data"], row["keep"]), {}).setdefault(row["strategy"], {})[row["seed"]] = 100 * row["accuracy"]
    lines = ["| data | keep | everything | random | `blend` to random, points (95 %) | seeds |", "|---" * 6 + "|"]
    for (data, keep), found in sorted(by_cell.items(), key=lambda cell: (cell[0][0], -cell[0][1])):
        both = sorted(set(found.get(RANDOM, {})) & set(found.get(DEFAULT, {})))
        if both:
            base, gain = np.array([found[RANDOM][seed] for seed in both]), np.array([found[DEFAULT][seed] - found[RANDOM][seed] for seed in both])
            half = f" ± {t_975(len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)):.2f}" if len(gain) > 1 else ""
            whole = by_cell.get((data, 1.0), {}).get("all", {}).values()
            lines.append(
                f"| {data} | {keep:g} | {f'{np.mean(list(whole)):.2f}' if whole else ''} | {base.mean():.2f} | {gain.mean():+.2f}{half} | {len(both)} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="NAME=FILE.npz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", default="0/1", help="0/2 and 1/2 for two processes")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clprune-transfer")
    parser.add_argument("--prepare", action="store_true", help="score with the small proxy and select, train nothing")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        print(table())
    part, parts = map(int, given.part.split("/"))
    for name, file in (item.split("=", 1) for item in given.data):
        place, held = given.work / name, bench_scale(file, with_ids=True)
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / "data.lock"):
            if not (scored := place / "data.npz").exists():
                np.savez(scored, x_train=held["x_train"], y_train=held["y_train"], ids=held["ids"])
        images, tests = on_device(held)
        plan = [(keep, strategy, seed) for seed in range(given.seeds) for keep in KEEPS for strategy in (RANDOM, DEFAULT)]
        plan += [(1.0, "all", seed) for seed in range(given.seeds)]
        for keep, strategy, seed in plan[part::parts]:
            key = {"data": name, "keep": keep, "strategy": strategy, "seed": seed}
            rows = np.arange(len(images)) if strategy == "all" else kept_rows(str(scored), place, keep, strategy, seed)
            if given.prepare or RESULTS.has(**key):
                continue
            found = trained_on(rows, images, tests, n_classes=10, seed=100 + seed, n_steps=STEPS, model=MODEL)
            RESULTS.add(key | {name: found[name] for name in ("accuracy", "worst_class", "steps", "train_seconds")} | {"machine": machine()})
