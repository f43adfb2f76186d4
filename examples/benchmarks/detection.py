"""The detector on curves whose answer is known, and on the paper's own curves.

    python examples/benchmarks/detection.py                    # about 6 minutes on one core
    CLPRUNE_TEST_DATA=FOLDER python examples/benchmarks/detection.py     # with the paper's curves in FOLDER/clp_curves

Known answers: flat, straight, step, and exponential curves (time constants 4, 8, 20) with white noise of 3 % and 7.5 % of their range and 40, 100 and 400
points, 200 replicates: how often the live rule fires, where (over the true 90 % point), and how often the 90 % interval holds that point. The paper's
curves: log noise scale from the average cosine of batch gradients, B_s = b (1 / cos - 1), for four batch sizes, horizons and starting offsets; beside it
the rule of the paper's repository (a low outlier of the largest cosine, looked for every tenth epoch).
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from clprune.critical_period import fit_approach, live_firing

RESULTS = Path(__file__).with_suffix(".json")
REPLICATES = 200


def known_answers() -> list[dict[str, object]]:
    rows = []
    for n in (40, 100, 400):
        t = np.arange(n, dtype=float)
        shapes = {"flat": (np.zeros(n), None), "straight": (t / (n - 1), None), "step at a third": ((t >= n // 3) * 1.0, n // 3)}
        shapes |= {f"exponential, {tau}": (1 - np.exp(-t / tau), tau * np.log(10)) for tau in (4, 8, 20)}
        shapes |= {"exponential, slower than the curve": (1 - np.exp(-t / n), n * np.log(10))}
        for name, (curve, truth) in shapes.items():
            for noise in (0.03, 0.075):
                rng = np.random.default_rng((n, int(noise * 1000)))
                fired, held = [], 0
                for _ in range(REPLICATES):
                    y = curve + rng.normal(0, noise * (np.ptp(curve) or 1), n)
                    at = live_firing(t, {"x": y})
                    if at is not None:
                        fired.append(at)
                    fit = fit_approach(t, y)
                    held += truth is not None and fit is not None and fit.interval[0] <= truth <= fit.interval[1]
                row: dict[str, object] = {"curve": name, "points": n, "noise": noise, "fired": len(fired) / REPLICATES}
                if truth is not None:
                    row |= {"truth": float(truth), "interval_holds_truth": held / REPLICATES}
                    if fired:
                        low, middle, high = np.quantile(fired, [0.25, 0.5, 0.75])
                        row |= {"median_over_truth": float(middle / truth), "iqr_over_truth": float((high - low) / truth)}
                rows.append(row)
                print(row, flush=True)
    return rows


def repository_rule(largest_cosine: np.ndarray, offset: int, until: int) -> int | None:
    """First epoch e = offset + 10 k whose largest cosine lies below the lower fence of the epochs before e - 1."""
    for epoch in range(offset + 10, until + 1, 10):
        history = largest_cosine[1 : epoch - 1]
        low, high = np.quantile(history, [0.25, 0.75])
        if largest_cosine[epoch] < low - 1.5 * (high - low):
            return epoch
    return None


def papers_curves(folder: Path) -> list[dict[str, object]]:
    rows = []
    for batch in (64, 128, 256, 512):
        with open(folder / f"gradient_confusion_resnet44_cifar10_batch{batch}.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        cosine = np.array([float(line["avg_cosine_similarity"]) for line in lines])
        largest = np.array([float(line["max_cosine_similarity"]) for line in lines])
        epochs = np.arange(len(lines), dtype=float)
        noise_scale = np.log10(batch * (1 / cosine - 1))
        for horizon in (80, 90, 100):
            for offset in (0, 3, 6, 9):
                part = slice(1 + offset, horizon + 1)
                fit = fit_approach(epochs[part], noise_scale[part])
                assert fit is not None
                row = {"batch": batch, "horizon": horizon, "offset": offset, "live": live_firing(epochs[part], {"log10 B_s": noise_scale[part]})}
                row |= {
                    "end_if_it_bends": round(fit.end, 1),
                    "log_odds_of_a_bend": round(fit.log_odds, 2),
                    "repository_rule": repository_rule(largest, offset, horizon),
                }
                rows.append(row)
                print(row, flush=True)
    return rows


if __name__ == "__main__":
    result: dict[str, object] = {"replicates": REPLICATES, "known_answers": known_answers()}
    curves = Path(os.environ.get("CLPRUNE_TEST_DATA", "../shared/data")) / "clp_curves"
    if curves.is_dir():
        result["papers_curves"] = papers_curves(curves)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
