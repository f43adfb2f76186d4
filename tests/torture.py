"""Break everything, many times, and count what was lost: kills, crashes, power cuts, corruption, full disks, races, hostile images, names, labels and numbers.

    python tests/torture.py            # the full counts, as many rows side by side as there are cores; prints one line a row and writes them to tests/torture.json
    python tests/torture.py --share 0.02 --only kills_of_select

A row is a function (count, rng, folder) -> how many were tried, and a list of failures; `make test` runs each with a small count (tests/test_torture.py). A row that was run at its full
count, or with a `--note` on the load and the share, replaces its line in the JSON.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="rows run side by side, each in a process of its own")
    given = parser.parse_args()
    names = given.only or list(ROWS)
    if len(names) == 1:
        return _run(names[0], given.share, given.seed, given.note)
    at = time.perf_counter()
    # the longest first, so that no lane is left alone with one of them at the end
    ordered = sorted(names, key=_seconds_before(), reverse=True)
    options = ["--share", str(given.share), "--seed", str(given.seed), "--note", given.note]
    with ThreadPoolExecutor(given.lanes) as lanes:
        codes = list(lanes.map(lambda name: subprocess.run([sys.executable, __file__, "--only", name, *options]).returncode, ordered))
    took = time.perf_counter() - at
    red = [name for name, code in zip(ordered, codes, strict=True) if code]
    print(f"{len(names)} rows in {took / 60:.1f} min, {given.lanes} side by side, {len(red)} with failures", *red)
    if given.share == 1 and len(names) == len(ROWS):
        _keep({}, whole={"minutes": round(took / 60, 1), "lanes": given.lanes, "failed_rows": red})
    return int(bool(red))


def _run(name: str, share: float, seed: int, note: str) -> int:
    """Run one row, print its line, and keep it where it was run in full: -> 1 where something failed."""
    memory = Path("/dev/shm")  # where syncing costs nothing: what a power cut takes is modelled, not waited for
    row, full, _ = ROWS[name]
    count, at, cpu = max(1, round(share * full)), time.perf_counter(), sum(os.times()[:4])
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        os.environ["CLPRUNE_CACHE"] = f"{folder}/cache"
        tried, failures = row(count, np.random.default_rng(seed), Path(folder))
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
    if share == 1 or note:
        _keep(result | ({"note": note} if note else {}))
    return int(bool(failures))


def _seconds_before() -> Callable[[str], float]:
    """How long each row took when it was last kept; a row that has no result yet counts as long."""
    rows = {row["row"]: row["seconds"] for row in json.loads(RESULTS.read_text())["rows"]} if RESULTS.exists() else {}
    return lambda name: float(rows.get(name, float("inf")))


def _keep(result: dict[str, object], whole: dict[str, object] | None = None) -> None:
    """Put one row's result in its place in the JSON, or what the whole took beside them."""
    with Path(__file__).open() as lock:  # rows end side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
        rows = {row["row"]: row for row in before["rows"]} | ({result["row"]: result} if result else {})
        whole = whole or before.get("whole")
        document = {"machine": platform.machine(), "cores": os.cpu_count()} | ({"whole": whole} if whole else {})
        RESULTS.write_text(json.dumps(document | {"rows": [rows[name] for name in ROWS if name in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
