"""SST-2 through `score`, `select` and `evaluate` at half of the sentences, against random ones at equal steps: the default for texts, and `blend`, which chooses most of them by difficulty.

    python examples/benchmarks/text.py FOLDER        # holds train.txt and test.txt of SST-2, one sentence a line after its label
    python examples/benchmarks/text.py --table

Each of five seeds (ten for the default) scores and selects anew; each selection is trained five times, against five random halves with its class sizes. The difference of a seed is the mean of its five pairs.
Scoring seeds are 100 to 109, training seeds 0 to 4. Judged on the 1,821 test sentences, last epoch. About a minute and a half a seed on one core.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from common import Results

import clprune
from clprune.errors import GuardError
from clprune.evaluation import t_975
from clprune.storage import read_json

RESULTS = Results(Path(__file__).with_suffix(".json"), ("keep", "asked", "seed"))
KEEP, TRAININGS, FIRST_SCORE_SEED = 0.5, 5, 100
DEFAULT, BLEND = "the default", "blend"
SEEDS = {DEFAULT: 10, BLEND: 5}  # the difference of the one is small, of the other large


def written(folder: Path, out: Path, held_out: str = "test") -> Path:
    """The sentences of train.txt and of the held-out file as one table that clprune reads."""
    path = out / "sst2.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label", "split"])
        for split, name in (("train", "train"), ("test", held_out)):
            for row, line in enumerate((folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()):
                writer.writerow([f"{name}-{row:05d}", line[2:], ("negative", "positive")[int(line[0])], split])
    return path


def measure(data: Path, out: Path, seed: int, asked: str) -> dict[str, float | int | list[float]]:
    """Score (once a seed), select and evaluate."""
    run = clprune.score(str(data), out / f"run-{seed}", seed=FIRST_SCORE_SEED + seed)
    manifest = clprune.select(out / f"run-{seed}", out / f"m-{seed}-{asked}", keep=str(KEEP), seed=seed, strategy=None if asked == DEFAULT else asked)
    try:
        clprune.evaluate(manifest.folder, seeds=TRAININGS, against="random,full")
    except GuardError as warning:
        print(warning)
    arms = read_json(manifest.folder / "evaluation.json", what="evaluation")["arms"]
    accuracy = {arm: [100 * training["accuracy"] for training in arms[arm]["runs"]] for arm in arms}
    facts = {"keep": KEEP, "seed": seed, "asked": asked, "strategy": manifest.document["strategy"], "epochs_scored": run["epochs_run"]}
    return facts | accuracy | {"reasons": manifest.document["reasons"], "suspects": run["suspects"]["n"]}


def table() -> str:
    """Accuracy of each arm and the paired difference, mean over the seeds with its 95 % interval."""
    lines = [
        "| data | keep | kept by | accuracy, % | random, % | full, % | to random, points (95 %) | epochs scored | seeds x trainings |",
        "|" + "---|" * 9,
    ]
    for asked in sorted({row["asked"] for row in RESULTS.rows()}, reverse=True):
        rows = [row for row in RESULTS.rows() if row["asked"] == asked]
        gap = np.array([np.mean(row["pruned"]) - np.mean(row["random"]) for row in rows])
        half = t_975(len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.nan
        told = [
            f"{(every := np.concatenate([row[arm] for row in rows])).mean():.2f} ± {every.std(ddof=1):.2f}" for arm in ("pruned", "random", "full")
        ]
        epochs = ", ".join(str(row["epochs_scored"]) for row in rows)
        lines.append(
            f"| SST-2 | {KEEP} | {asked} | {' | '.join(told)} | {gap.mean():+.2f} ({gap.mean() - half:+.2f} to {gap.mean() + half:+.2f}) | {epochs} | {len(rows)} x {TRAININGS} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.folder is not None:
        with tempfile.TemporaryDirectory() as place:
            data = written(given.folder, Path(place))
            for asked, n_seeds in SEEDS.items():
                for seed in range(n_seeds):
                    if not RESULTS.has(keep=KEEP, seed=seed, asked=asked):
                        RESULTS.add(measure(data, Path(place), seed, asked))
    print(table())
