"""The detector on curves whose answer is known, and on the paper's own curves.

    python examples/benchmarks/detection.py                              # about 20 minutes on one core
    CLPRUNE_TEST_DATA=FOLDER python examples/benchmarks/detection.py     # with the paper's curves in FOLDER/clp_curves
    python examples/benchmarks/detection.py --table

Known answers: flat, straight, step, and exponential curves (time constants 4, 8, 20), with and without jumps at learning-rate changes (masked), white noise of 3 % and 7.5 % of
their range, 40, 100 and 400 points (also four an epoch), 200 replicates: how often the live rule fires, where (over the true 90 % point), and how often the interval
holds that point. The paper's curves: log noise scale from the average cosine of batch gradients, for four batch sizes, horizons and starting offsets; beside
it the rule of the paper's repository (a low outlier of the largest cosine, looked for every tenth epoch).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from clprune.critical_period import find_critical_period, live_firing, read_curves

RESULTS = Path(__file__).with_suffix(".json")
REPLICATES = 200
GRIDS = ((40, 1.0), (100, 1.0), (400, 1.0), (400, 0.25))  # points, epochs between them


def known_answers() -> list[dict[str, object]]:
    rows = []
    for n, spacing in GRIDS:
        t = np.arange(n) * spacing
        shapes = {"flat": (np.zeros(n), None), "straight": (t / t[-1], None), "step at a third": ((np.arange(n) >= n // 3) * 1.0, float(t[n // 3]))}
        shapes |= {f"exponential, {tau}": (1 - np.exp(-t / tau), tau * float(np.log(10))) for tau in (4, 8, 20)}
        drops = np.searchsorted(
            [n // 2, 3 * n // 4], np.arange(n), side="right"
        )  # two drops of the learning rate, each with a jump of half the range
        for name, (curve, truth) in shapes.items():
            for noise in (0.03, 0.075):
                for jumps in (False, True) if n == 100 else (False,):
                    rows.append(_row(name, t, curve, truth, noise, drops if jumps else None, spacing))
                    print(rows[-1], flush=True)
    return rows


def _row(
    name: str, t: np.ndarray, curve: np.ndarray, truth: float | None, noise: float, drops: np.ndarray | None, spacing: float
) -> dict[str, object]:
    rng, scale = np.random.default_rng((len(t), int(noise * 1000), int(10 * spacing))), np.ptp(curve) or 1
    fired, held, hindsight = [], 0, []
    for _ in range(REPLICATES):
        curves = {"x": curve + rng.normal(0, noise * scale, len(t))}
        if drops is not None:
            curves = {"x": curves["x"] + 0.5 * scale * drops, "learning_rate": 0.1 ** drops.astype(float)}
        at = live_firing(t, curves)
        if at is not None:
            fired.append(at)
        if truth is not None:
            period = find_critical_period(curves, t, n_epochs=len(t))
            assert period.interval is not None
            held += period.interval[0] <= truth <= period.interval[1]
            hindsight.append(np.nan if period.hindsight_end is None else period.hindsight_end)
    row: dict[str, object] = {"curve": name, "points": len(t), "spacing": spacing, "noise": noise, "rate_drops": drops is not None}
    row |= {"fired": len(fired) / REPLICATES}
    if truth is not None:
        row |= {
            "truth": truth,
            "last": float(t[-1]),
            "interval_holds_truth": held / REPLICATES,
            "hindsight_over_truth": float(np.nanmedian(hindsight) / truth),
        }
        if fired:
            low, middle, high = np.quantile(fired, [0.25, 0.5, 0.75])
            row |= {"median_over_truth": float(middle / truth), "iqr_over_truth": float((high - low) / truth)}
    return row


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
        path = folder / f"gradient_confusion_resnet44_cifar10_batch{batch}.csv"
        times, curves = read_curves(path)
        largest = np.genfromtxt(path, delimiter=",", names=True)["max_cosine_similarity"]
        for horizon, offset in [(h, 0) for h in (80, 90, 100, 200)] + [(100, o) for o in range(1, 10)]:
            seen = slice(1 + offset, horizon + 1)
            part = {name: values[seen] for name, values in curves.items()}
            part["learning_rate"] = 0.1 ** np.searchsorted([101, 151], times[seen], side="right").astype(float)  # the run's schedule
            period = find_critical_period(part, times[seen], n_epochs=horizon)
            row = {"batch": batch, "horizon": horizon, "offset": offset, "settled": period.settled, "confidence": round(period.confidence, 3)}
            row |= {"end": period.end_epoch if period.settled else None, "hindsight_end": period.hindsight_end, "interval": period.interval}
            row |= {"live": live_firing(times[seen], part), "repository_rule": repository_rule(largest, offset, horizon)}
            rows.append(row)
            print(row, flush=True)
    return rows


def table() -> str:
    """Two tables: curves with a known answer (worst case over points and jumps), and the paper's curves."""
    held = json.loads(RESULTS.read_text())
    lines = ["| curve | noise | points | fired | median / truth | IQR / truth | interval holds truth |", "|---|---|---|---|---|---|---|"]
    for row in held["known_answers"]:
        every = ", two rate drops" if row["rate_drops"] else ""
        every += f", {round(1 / row['spacing'])} an epoch" if row["spacing"] < 1 else ""
        numbers = [f"{row[key]:.2f}" if key in row else "" for key in ("median_over_truth", "iqr_over_truth", "interval_holds_truth")]
        late = ", ends before the point" if row.get("truth", 0) > row.get("last", 0) else ""
        lines.append(f"| {row['curve']}{late} | {row['noise']} | {row['points']}{every} | {row['fired']:.1%} | {' | '.join(numbers)} |")
    if rows := held.get("papers_curves"):
        lines += [
            "",
            "| horizon, first epoch | end in hindsight, batch 64 / 128 / 256 / 512 | probability | live rule | repository's rule |",
            "|---|---|---|---|---|",
        ]
        for horizon, offset in sorted({(r["horizon"], r["offset"]) for r in rows}):
            mine = [r for r in rows if (r["horizon"], r["offset"]) == (horizon, offset)]
            ends = " / ".join(f"{r['hindsight_end']:.0f}{'' if r['settled'] else '?'}" for r in mine)
            odds = " / ".join(f"{r['confidence']:.2f}" for r in mine)
            live, rule = (" / ".join("-" if r[key] is None else f"{r[key]:.0f}" for r in mine) for key in ("live", "repository_rule"))
            lines.append(f"| {horizon}, {1 + offset} | {ends} | {odds} | {live} | {rule} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if "--table" in sys.argv:
        print(table())
        raise SystemExit
    result: dict[str, object] = {"replicates": REPLICATES}
    curves = Path(os.environ.get("CLPRUNE_TEST_DATA", "../shared/data")) / "clp_curves"
    if curves.is_dir():
        result["papers_curves"] = papers_curves(curves)
    RESULTS.write_text(json.dumps(result | {"known_answers": known_answers()}, indent=1) + "\n")
