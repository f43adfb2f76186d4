"""Statistics of 100 million samples over 10 epochs, and a selection among them, on one machine with little memory.

    python examples/benchmarks/hundred_million.py --samples 100000000 --folder /tmp/hundred   # about 8.4 GB of disk; writes hundred_million.json here
    python examples/benchmarks/hundred_million.py --samples 1000000 --check                   # a minute; nothing is stored

Logits of ten classes are drawn, not trained: sample i gets a difficulty of its own from a hash of (seed, i), and its logits move towards the label at a pace that depends
on it. They go through the same `observe_batches` as in a training; error_l2 and p_label of every epoch are written part by part in an order of parts that changes from
epoch to epoch; EL2N and DUAL are computed block by block; the hardest 5 % by EL2N are left out, and of the rest the half of all samples with the largest DUAL is kept,
with thresholds from histograms. The visits of each sample are counted. `--check` does the same in memory and compares every id.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

from clprune.scores.dual import dual
from clprune.scores.el2n import el2n
from clprune.signal_files import SignalFile, score_in_blocks
from clprune.signals import SIGNALS, observe_batches
from clprune.thresholds import middle_of

RESULTS = Path(__file__).with_suffix(".json")
CLASSES, PART, LEFT_OUT, KEPT = 10, 250_000, 0.05, 0.5
RECORDED = ("error_l2", "p_label")


def drawn_logits(start: int, n: int, epoch: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, C) and labels (n,) of samples `start` to `start + n` in an epoch; the same whenever they are drawn."""
    own = torch.Generator().manual_seed(seed * 1_000_003 + start)
    labels = torch.randint(0, CLASSES, (n,), generator=own)
    pace = torch.rand(n, generator=own) ** 2 * 1.2 - 0.1
    noise = torch.randn(n, CLASSES, generator=torch.Generator().manual_seed((seed * 1_000_003 + start) * 64 + epoch + 1))
    noise[torch.arange(n), labels] += pace * (epoch + 1)
    return noise, labels


def peak_gb() -> float:
    """Largest resident memory so far, in GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in KiB


def record(files: dict[str, SignalFile], n: int, n_epochs: int, seed: int) -> None:
    """Write the signals of all epochs; raises AssertionError unless each sample was visited exactly once in each of them."""
    columns = [SIGNALS.index(name) for name in RECORDED]
    visits = np.zeros(n, dtype=np.uint8)
    for epoch in range(n_epochs):
        for start in np.random.default_rng((seed, epoch)).permutation(np.arange(0, n, PART)).tolist():
            logits, labels = drawn_logits(start, min(PART, n - start), epoch, seed)
            samples = observe_batches(logits, labels, None, [len(labels)]).samples
            for name, column in zip(RECORDED, columns, strict=True):
                files[name].write(epoch, start, samples[column].numpy())
            visits[start : start + len(labels)] += 1
        assert (visits == epoch + 1).all(), f"epoch {epoch}: not every sample was visited once"


def select(values: dict[str, np.ndarray], n: int) -> np.ndarray:
    """Rows to keep, sorted: not the hardest, and of the others those of the largest DUAL."""
    blocks = [(start, min(start + PART, n)) for start in range(0, n, PART)]
    n_easy = n - int(LEFT_OUT * n)
    easy = np.concatenate(list(middle_of(lambda: (values["el2n"][a:b] for a, b in blocks), 0, n_easy)))
    n_keep = int(KEPT * n)

    def dual_of_easy():  # type: ignore[no-untyped-def]
        return (values["dual"][a:b][easy[a:b]] for a, b in blocks)

    rows, kept = np.flatnonzero(easy), np.concatenate(list(middle_of(dual_of_easy, n_easy - n_keep, n_keep)))
    return rows[kept]


def in_memory(n: int, n_epochs: int, seed: int) -> np.ndarray:
    """The same selection from whole arrays and stable sorts."""
    signals = {name: np.empty((n_epochs, n), dtype=np.float32) for name in RECORDED}
    for epoch in range(n_epochs):
        for start in range(0, n, PART):
            logits, labels = drawn_logits(start, min(PART, n - start), epoch, seed)
            samples = observe_batches(logits, labels, None, [len(labels)]).samples
            for name in RECORDED:
                signals[name][epoch, start : start + len(labels)] = samples[SIGNALS.index(name)].numpy()
    hardness, worth = el2n(signals["error_l2"]).astype(np.float32), dual(signals["p_label"]).astype(np.float32)
    easy = np.sort(np.argsort(hardness, kind="stable")[: n - int(LEFT_OUT * n)])
    return np.sort(easy[np.argsort(worth[easy], kind="stable")[len(easy) - int(KEPT * n) :]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="Where the signals go: 8 bytes a sample and epoch; a temporary folder by default.")
    parser.add_argument("--check", action="store_true", help="Compare with the selection in memory; nothing is stored.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    n, folder = given.samples, given.folder or Path(tempfile.mkdtemp(prefix="clprune-hundred-"))
    before_gb = peak_gb()
    try:
        at = [time.perf_counter()]
        files = {name: SignalFile(folder / f"{name}.npy", given.epochs, n) for name in RECORDED}
        record(files, n, given.epochs, given.seed)
        at.append(time.perf_counter())
        values = {"el2n": score_in_blocks(el2n, files, ("error_l2",)), "dual": score_in_blocks(dual, files, ("p_label",))}
        at.append(time.perf_counter())
        kept = select(values, n)
        at.append(time.perf_counter())
        np.save(folder / "kept.npy", kept)
        result = {
            "samples": n,
            "epochs": given.epochs,
            "kept": len(kept),
            "record_seconds": at[1] - at[0],
            "score_seconds": at[2] - at[1],
            "select_seconds": at[3] - at[2],
            "peak_gb": peak_gb(),
            "peak_gb_before": before_gb,
            "disk_gb": sum(path.stat().st_size for path in folder.glob("*.npy")) / 1e9,
            "threads": 1,
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
        }
        print(json.dumps(result, indent=1))
        if given.check:
            assert np.array_equal(kept, in_memory(n, given.epochs, given.seed)), "the selection in memory is another one"
            print("the selection in memory is the same, id by id")
        else:
            rows = [row for row in json.loads(RESULTS.read_text()) if row["samples"] != n] if RESULTS.exists() else []
            RESULTS.write_text(json.dumps(sorted([*rows, result], key=lambda row: row["samples"]), indent=1) + "\n")
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
