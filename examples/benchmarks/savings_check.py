"""Are the seconds and the kWh of the savings table those that went by? The real commands, watched from outside by another process with a tracker of its own.

    python examples/benchmarks/savings_check.py FASHION.npz      # about 5 minutes on one thread; other work on the machine is in both

15,000 images, half kept: `clprune score`, `select`, `evaluate --seeds 3 --epochs 3` and `savings`, each a process of its own. The table's costs of pruning and of evaluating are compared with the wall
clock of those commands, and with codecarbon's offline tracker in the parent, which does nothing but wait. The parent's tracker is started before the first command, so that none of its start is in.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import bench_scale

RESULTS = Path(__file__).with_suffix(".json")
SEEDS, EPOCHS = 3, 3
WATCHED = ("score", "select", "evaluate")  # `savings` counts what these took


def measured(path: str) -> dict[str, object]:
    """Wall clock and energy of the commands, and what the table says of both."""
    from codecarbon import OfflineEmissionsTracker

    walls: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as work:
        np.savez(f"{work}/data.npz", **bench_scale(path))
        commands = [
            ["score", f"{work}/data.npz", "--out", f"{work}/run"],
            ["select", f"{work}/run", "--keep", "0.5", "--out", f"{work}/half"],
            ["evaluate", f"{work}/half", "--seeds", str(SEEDS), "--epochs", str(EPOCHS)],
        ]
        tracker = OfflineEmissionsTracker(
            country_iso_code="USA", save_to_file=False, log_level="critical", measure_power_secs=15, allow_multiple_runs=True
        )
        tracker.start()
        for command in commands:
            started = time.perf_counter()
            done = subprocess.run([sys.executable, "-m", "clprune", *command, "--quiet"], capture_output=True, text=True)
            assert done.returncode in (0, 4), done.stderr  # 4: not better than random after so short a training, which does not matter here
            walls[command[0]] = time.perf_counter() - started
        tracker.stop()
        told = subprocess.run([sys.executable, "-m", "clprune", "savings", f"{work}/half", "--json"], capture_output=True, text=True, check=True)
        lines = {line["name"]: line["value"] for line in json.loads(told.stdout)["lines"]}
        timings = json.loads(Path(work, "half", "manifest.json").read_text())["timings"]
        of_run = json.loads(Path(work, "run", "run.json").read_text())["timings"]
        facts = json.loads(Path(work, "half", "evaluation.json").read_text())["facts"]
    seconds = {name: lines[f"cost of {name}: time"] for name in ("pruning", "evaluating")}
    kwh = {name: lines[f"cost of {name}: energy"] for name in ("pruning", "evaluating")}
    outside = float(tracker.final_emissions_data.energy_consumed)
    return {
        "wall_seconds": walls,
        "table_seconds": {"score": timings["score_seconds"], "select": timings["select_seconds"], "evaluate": seconds["evaluating"]},
        "other_seconds_of_score": of_run["other_seconds"],
        "trainings_seconds_of_evaluate": facts["trainings_seconds"],
        "table_over_wall": sum(seconds.values()) / sum(walls[name] for name in WATCHED),
        "table_kwh": kwh,
        "trainings_kwh_of_evaluate": facts["trainings_kwh"],
        "outside_kwh": outside,
        "table_over_outside": sum(kwh.values()) / outside,
        "method": facts["energy_method"],
        "load_average": round(os.getloadavg()[0], 1),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
    }


def table() -> str:
    """The rows of savings_check.json, for the README."""
    told = json.loads(RESULTS.read_text())
    lines = ["| | seconds, wall clock | seconds, table | kWh, tracker outside | kWh, table |", "|---|---|---|---|---|"]
    for name in WATCHED:
        lines.append(f"| `{name}` | {told['wall_seconds'][name]:.1f} | {told['table_seconds'][name]:.1f} | | |")
    wall, seconds = sum(told["wall_seconds"].values()), sum(told["table_seconds"].values())
    lines.append(f"| all | {wall:.1f} | {seconds:.1f} | {told['outside_kwh']:.5f} | {sum(told['table_kwh'].values()):.5f} |")
    lines.append(f"| table over outside | | {told['table_over_wall']:.3f} | | {told['table_over_outside']:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    result = measured(sys.argv[1])
    print(json.dumps(result, indent=2))
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
