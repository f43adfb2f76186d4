"""Break everything, many times, and count what was lost: kills, crashes, power cuts, corruption, full disks, races, hostile images, names, labels and numbers.

    python tests/torture.py            # the full counts; prints one line a row and writes them to tests/torture.json
    python tests/torture.py --share 0.02 --only kills_of_select

A row is a function (count, rng, folder) -> how many were tried, and a list of failures; `make test` runs each with a small count (tests/test_torture.py). A row that was run at its full
count, or with a `--note` on the load and the share, replaces its line in the JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from torture_crashes import crash_points, kills_of_export, kills_of_score, kills_of_select, power_loss, resumes
from torture_inputs import corrupted, full_disk, hostile_images, hostile_names, races
from torture_machine import steps_at_random
from torture_outcomes import exactly_once, labels_and_numbers, old_data

Row = Callable[[int, np.random.Generator, Path], tuple[int, list[str]]]
RESULTS = Path(__file__).with_suffix(".json")
ALL = 100_000  # of what is enumerated
ROWS: dict[str, tuple[Row, int, int]] = {  # the row, its full count, and the count in `make test`
    "kills_of_score": (kills_of_score, 500, 2),
    "kills_of_select": (kills_of_select, 700, 6),
    "kills_of_export": (kills_of_export, 500, 6),
    "crash_points": (crash_points, ALL, 8),
    "power_loss": (power_loss, ALL, 60),
    "corrupted": (corrupted, 1_000, 60),
    "full_disk": (full_disk, 100, 4),
    "races": (races, 300, 4),
    "resumes": (resumes, 100, 2),
    "exactly_once": (exactly_once, 5_000, 500),
    "hostile_images": (hostile_images, 500, 60),
    "hostile_names": (hostile_names, 2_000, 120),
    "labels_and_numbers": (labels_and_numbers, ALL, ALL),
    "steps_at_random": (steps_at_random, 10_000, 40),
    "old_data": (old_data, ALL, ALL),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts")
    parser.add_argument("--only", choices=list(ROWS), action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--note", default="", help="goes into the JSON beside the seconds")
    given = parser.parse_args()
    failed = 0
    memory = Path("/dev/shm")  # where syncing costs nothing: what a power cut takes is modelled, not waited for
    for name in given.only or ROWS:
        row, full, _ = ROWS[name]
        count, at, cpu = max(1, round(given.share * full)), time.perf_counter(), sum(os.times()[:4])
        with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
            os.environ["CLPRUNE_CACHE"] = f"{folder}/cache"
            tried, failures = row(count, np.random.default_rng(given.seed), Path(folder))
        took, cpu = time.perf_counter() - at, sum(os.times()[:4]) - cpu
        result = {
            "row": name,
            "tried": tried,
            "failed": len(failures),
            "seconds": round(took, 1),
            "cpu_seconds": round(cpu, 1),
            "failures": failures[:20],
        }
        print(f"{name:20} tried {tried:5}  failed {len(failures):3}  {took:7.1f} s  (CPU {cpu:.1f} s)", *failures[:5], sep="\n    ", flush=True)
        failed += len(failures)
        if given.share == 1 or given.note:
            _keep(result | ({"note": given.note} if given.note else {}))
    return int(failed > 0)


def _keep(result: dict[str, object]) -> None:
    """Put one row's result in its place in the JSON."""
    rows = {row["row"]: row for row in json.loads(RESULTS.read_text())["rows"]} if RESULTS.exists() else {}
    rows[result["row"]] = result
    document = {"machine": platform.machine(), "cores": os.cpu_count(), "rows": [rows[name] for name in ROWS if name in rows]}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
