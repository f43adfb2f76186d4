"""Augmentation switched at the end of the critical period, against its controls.

    python examples/benchmarks/clp_schedule.py fashion=FASHION.npz --part 0/2 &
    python examples/benchmarks/clp_schedule.py fashion=FASHION.npz --part 1/2
    python examples/benchmarks/clp_schedule.py --table

The arms of `examples/clp_schedule.py` on 15,000 class-balanced training images, the full test set, the small CNN for 15 epochs with one cosine over
them, last epoch. Seeds are weights, order, augmentation and the random epoch; the end is detected in the training itself. One process a core.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from common import Results, arguments, bench_scale, on_device

sys.path.insert(0, str(Path(__file__).parents[1]))
from clp_schedule import ARMS, train_arm

from clprune.evaluation import t_975

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "arm", "seed"))
EPOCHS = 15


def table() -> str:
    """Each arm against three views throughout, paired by seed, with 95 % intervals."""
    rows = RESULTS.rows()
    lines = ["| data | arm | accuracy, % | to three views, points (95 %) | samples saved | seconds | Wh | switched at epoch | seeds |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for data in sorted({r["data"] for r in rows}):
        base = {r["seed"]: r for r in rows if r["data"] == data and r["arm"] == ARMS[0]}
        for arm in ARMS:
            mine = [r for r in rows if r["data"] == data and r["arm"] == arm and r["seed"] in base]
            if not mine:
                continue
            accuracy = 100 * np.array([r["accuracy"] for r in mine])
            gain = accuracy - 100 * np.array([base[r["seed"]]["accuracy"] for r in mine])
            half = t_975(len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else float("nan")
            interval = f" ({gain.mean() - half:+.2f} to {gain.mean() + half:+.2f})" if len(gain) > 1 else ""
            against = "" if arm == ARMS[0] else f"{gain.mean():+.2f}{interval}"
            saved = 1 - np.mean([r["samples_seen"] / base[r["seed"]]["samples_seen"] for r in mine])
            energy = [r["energy_kwh"] for r in mine if r["energy_kwh"] is not None]
            switched = ", ".join(str(r["switch_epoch"]) for r in mine) if "switch" in arm else ""
            spread = f" ± {accuracy.std(ddof=1):.2f}" if len(mine) > 1 else ""
            lines.append(
                f"| {data} | {arm} | {accuracy.mean():.2f}{spread} | {against} | {saved:.0%} | {np.mean([r['seconds'] for r in mine]):.0f} | "
                f"{1000 * np.mean(energy) if energy else float('nan'):.2f} | {switched} | {len(mine)} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=5)
    for name, seed in [(name, seed) for seed in seeds for name in files][part::parts]:
        data, test = on_device(bench_scale(files[name]))
        for arm in sorted(ARMS, key=lambda arm: ("detected" not in arm, ARMS.index(arm))):
            if RESULTS.has(data=name, arm=arm, seed=seed):
                continue
            ends = [r["switch_epoch"] for r in RESULTS.rows() if (r["data"], r["seed"]) == (name, seed) and "detected" in r["arm"]]
            RESULTS.add({"data": name} | train_arm(arm, data, test, seed=seed, n_epochs=EPOCHS, detected_end=ends[0] if ends else None))
