"""`clprune report` on a synthetic run of a million samples: seconds, peak memory, bytes of the page.

    python examples/benchmarks/report_scale.py            # about 3 minutes on two cores, 1 GB of disk in a temporary folder
    python examples/benchmarks/report_scale.py 50000      # another number of samples; nothing is stored

Scores are invented; the images (8x8, gray) are in an .npz, so that the galleries have pictures. Timed is the whole command as a process of its own,
the reading and the check of every digest included.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from clprune import families, pipeline
from clprune.datatypes import CriticalPeriod, Neighborhood, ScoreTable, Source, Trajectory
from clprune.run import write_run
from clprune.sources import open_source

RESULTS = Path(__file__).with_suffix(".json")
CLASSES = 100


def invented_run(folder: Path, source: Source, locator: str) -> None:
    """A run folder as `score` writes it, with scores that were drawn instead of found."""
    rng, n = np.random.default_rng(0), len(source)
    names = families.names("scores")
    values = {name: rng.beta(2, 3, n) * (0.5 if name == "variability" else 1.0) for name in names}
    directions = {name: families.facts(families.find("scores", name))["high_means"] for name in names}
    repeats = rng.choice(n // 2, n // 50, replace=False)
    duplicate_of = np.full(n, -1)
    duplicate_of[repeats] = n // 2 + repeats
    hood = Neighborhood(duplicate_of, np.where(duplicate_of >= 0, rng.random(n), np.nan), rng.random(n) ** 3, rng.integers(0, CLASSES, n))
    epochs = np.arange(0.25, 10.01, 0.25)
    ends: dict[str, float | None] = {"memorization_rate": 4.0, "noise_scale": None, "ranking_stability": 5.0, "retention": 6.0}
    curves = {name: np.exp(-epochs / 3) + rng.normal(0, 0.01, len(epochs)) for name in (*ends, "training_accuracy")}
    trajectory = Trajectory(source.sample_ids, source.labels, {"loss": np.zeros((1, n), dtype=np.float32)}, curves, epochs, {})
    period = CriticalPeriod(0, 10, True, 0.9, (4.0, 6.0), 5.0, 1.0, ends, "drawn, not found")
    document = {"source": locator, "proxy": "small_cnn", "seed": 0, "epochs_run": 10, "share_of_full_training": 0.05, "share_is_of_epochs": 200}
    document |= {"asked": {"proxy": "small_cnn", "seed": 0, "max_epochs": 30, "exact": False, "image_size": None}, "seconds": 600.0, "timings": {}}
    document |= {"energy_kwh": None, "energy_method": "not measured", "device": "cpu", "threads": 1, "recipe": {}, "image_rule": {}, "versions": {}}
    document |= {"suspects": {"n": int((hood.suspicion > 0.8).sum()), "above": 0.8}}
    write_run(folder, source, trajectory, period, ScoreTable(source.sample_ids, source.labels, values, directions), hood, None, document)


def measured(n: int) -> dict[str, object]:
    """Make a run of `n` samples and half of it as a selection; report on it in a process of its own."""
    with tempfile.TemporaryDirectory() as work:
        root, rng = Path(work), np.random.default_rng(0)
        np.savez(root / "x.npz", x_train=rng.integers(0, 256, (n, 8, 8), dtype=np.uint8), y_train=np.arange(n) % CLASSES)
        locator = str(root / "x.npz")
        invented_run(root / "run", open_source(locator), locator)
        pipeline.select(root / "run", root / "m", keep="0.5")
        command = [sys.executable, "-m", "clprune", "report", str(root / "m"), "--out", str(root / "report.html")]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        pictures = (root / "report.html").read_text().count("<img ")
        return {
            "n_samples": n,
            "seconds": round(seconds, 1),
            "peak_bytes": peak,
            "page_bytes": (root / "report.html").stat().st_size,
            "pictures": pictures,
            "load_average": round(os.getloadavg()[0], 1),
            "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        }


if __name__ == "__main__":
    n_samples = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    result = measured(n_samples)
    print(json.dumps(result, indent=2))
    if n_samples == 1_000_000:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
