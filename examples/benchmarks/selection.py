"""Accuracy after training on what each strategy keeps, at equal steps, last epoch.

    python examples/benchmarks/selection.py fashion=FASHION.npz cifar10=CIFAR10.npz --keep 0.5,0.2 --seeds 3 --part 0/2 &
    python examples/benchmarks/selection.py fashion=FASHION.npz cifar10=CIFAR10.npz --keep 0.5,0.2 --seeds 3 --part 1/2
    python examples/benchmarks/selection.py --table

15,000 class-balanced training images of each file, the full test set, small CNN, batch 128, SGD 0.05 with cosine decay, as many steps as 30 epochs of
all 15,000 have. A seed scores, selects and trains anew. Each result is a line in selection.json, so that a stopped run goes on; one process a core.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from common import Results, bench_scale, on_cpu, trained_on

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "keep", "strategy", "seed"))
STRATEGIES = ("random(class_balanced=True)", "blend", "hardest(score='el2n')", "hardest(score='forgetting')", "hardest(score='dual')", "stratified")
EPOCHS = 30


def run(data: dict[str, str], keeps: list[float], seeds: int, part: int, parts: int, strategies: tuple[str, ...]) -> None:
    from clprune import pipeline
    from clprune.manifest import read_manifest
    from clprune.sources import open_source

    known = {(row["data"], row["keep"], row["strategy"], row["seed"]) for row in RESULTS.rows()}
    jobs = [(name, seed) for seed in range(seeds) for name in data]
    for name, seed in jobs[part::parts]:
        with tempfile.TemporaryDirectory() as work:
            held = bench_scale(data[name])
            np.savez(f"{work}/part.npz", **held)
            source, (train_data, test_data) = open_source(f"{work}/part.npz"), on_cpu(held)
            scored = None
            for keep in keeps:
                for strategy in strategies:
                    if (name, keep, strategy, seed) in known:
                        continue
                    if scored is None:
                        scored = pipeline.score(f"{work}/part.npz", Path(work) / "run", seed=seed)
                    folder = Path(work) / f"m-{keep}-{strategy}"
                    pipeline.select(Path(work) / "run", folder, keep=str(keep), strategy=strategy, seed=seed)
                    kept = read_manifest(folder).indices(source)
                    result = trained_on(kept, train_data, test_data, n_classes=source.n_classes, seed=seed, n_steps=EPOCHS * -(-len(source) // 128))
                    row = {
                        "data": name,
                        "keep": keep,
                        "strategy": strategy,
                        "seed": seed,
                        "n_kept": len(kept),
                        "score_seconds": scored["seconds"],
                    } | result
                    RESULTS.add(row | {"score_epochs": scored["epochs_run"], "settled": scored["clp"]["settled"]})


def table() -> str:
    """Mean and standard deviation over seeds, and the paired difference to random, in points."""
    rows = RESULTS.rows()
    lines = ["| data | keep | strategy | accuracy, % | to random, points | worst class, % | seeds |", "|---|---|---|---|---|---|---|"]
    cells = sorted({(r["data"], r["keep"]) for r in rows}, key=lambda c: (c[0], -float(c[1])))
    for data, keep in cells:
        mine = [r for r in rows if (r["data"], r["keep"]) == (data, keep)]
        base = {r["seed"]: float(r["accuracy"]) for r in mine if r["strategy"] == STRATEGIES[0]}
        for strategy in STRATEGIES:
            cell = [r for r in mine if r["strategy"] == strategy]
            if not cell:
                continue
            accuracy = 100 * np.array([float(r["accuracy"]) for r in cell])
            gain = 100 * np.array([float(r["accuracy"]) - base[r["seed"]] for r in cell if r["seed"] in base])
            spread = f" ± {accuracy.std(ddof=1):.2f}" if len(accuracy) > 1 else ""
            shown = (
                "" if strategy == STRATEGIES[0] or not len(gain) else f"{gain.mean():+.2f}" + (f" ± {gain.std(ddof=1):.2f}" if len(gain) > 1 else "")
            )
            worst = 100 * np.mean([float(r["worst_class"]) for r in cell])
            lines.append(f"| {data} | {keep} | `{strategy}` | {accuracy.mean():.2f}{spread} | {shown} | {worst:.1f} | {len(cell)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="NAME=FILE.npz")
    parser.add_argument("--keep", default="0.5,0.2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--strategies", default=";".join(STRATEGIES), help="separated by semicolons")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        print(table())
    else:
        this, of = map(int, given.part.split("/"))
        files = dict(item.partition("=")[::2] for item in given.data)
        run(files, [float(k) for k in given.keep.split(",")], given.seeds, this, of, tuple(given.strategies.split(";")))
