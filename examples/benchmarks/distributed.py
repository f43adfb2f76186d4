"""One process against two: do they keep the same samples, and is the time what the cost model says?

    python examples/benchmarks/distributed.py kept --data fashion-mnist-sample --epochs 8    # four runs, one after another
    python examples/benchmarks/distributed.py time                                           # steps of one and two processes, side by side

`kept` scores the data with seed 0 in one process, with seed 0 in two processes, and with seed 1 in one, keeps half of each by the default strategy, and gives the shares of
kept samples that two runs have in common. `time` measures on random images what a step is made of (compute on a whole batch and on a part of it, the gradients' sum,
the messages of normalisation, the batch that is put together in process 0, recording) and compares their sum with measured steps. Each process has one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import torch.nn.functional as F

from clprune import distributed
from clprune.batch_norm import count_real, over_all_processes
from clprune.manifest import read_manifest
from clprune.proxies import build_proxy
from clprune.recorder import Recorder
from clprune.run import read_run
from clprune.training import Recipe, new_state, to_device, train

RESULTS = Path(__file__).with_suffix(".json")
ROUNDS, STEPS, CLASSES = 15, 12, 10


def command(processes: int, *arguments: str) -> None:
    start = (
        ["-m", "clprune"] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "clprune"]
    )
    subprocess.run([sys.executable, *start, *arguments], check=True, stdout=subprocess.DEVNULL)


def kept(data: str, epochs: int, proxy: str) -> dict[str, Any]:
    """Overlaps of kept sets and rank correlations of DUAL between a run of one process, the same of two, and another seed."""
    ids, scores, seconds = {}, {}, {}
    with tempfile.TemporaryDirectory() as place:
        for name, processes, seed in (("one", 1, 0), ("two", 2, 0), ("other seed", 1, 1)):
            run, started = Path(place) / name, time.perf_counter()
            command(processes, "score", data, "--out", str(run), "--max-epochs", str(epochs), "--proxy", proxy, "--seed", str(seed), "--quiet")
            seconds[name] = time.perf_counter() - started
            command(1, "select", str(run), "--keep", "0.5", "--out", f"{run}-kept", "--quiet")
            ids[name], scores[name] = set(read_manifest(f"{run}-kept").kept_ids.tolist()), read_run(run).table.values["dual"]

    def shared(a: str, b: str) -> dict[str, float]:
        ranks = [np.argsort(np.argsort(scores[name])) for name in (a, b)]
        return {"kept_in_common": len(ids[a] & ids[b]) / len(ids[a]), "rank_correlation_of_dual": float(np.corrcoef(*ranks)[0, 1])}

    return {
        "data": data,
        "proxy": proxy,
        "max_epochs": epochs,
        "n_samples": len(scores["one"]),
        "one_and_two_processes": shared("one", "two"),
        "two_seeds_of_one_process": shared("one", "other seed"),
        "seconds_of_whole_commands": seconds,
    }


def median_seconds(act: Any, n: int = ROUNDS) -> float:
    act()
    seconds = []
    for _ in range(n):
        distributed.gather_values(None)
        started = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def time_of_steps(proxy: str, batch_size: int) -> None:
    """In every process: measure the parts and the whole; process 0 prints a line of JSON."""
    distributed.enable()
    with distributed.joined():
        world, rank = distributed.world_size(), distributed.rank()
        rng = np.random.default_rng(0)
        n = STEPS * batch_size
        data = to_device(rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, CLASSES, n), torch.device("cpu"))
        recipe = Recipe(batch_size=batch_size, learning_rate=1e-3, warmup_samples=0)
        model = build_proxy(proxy, CLASSES, data.input_shape)
        n_weights = sum(p.numel() for p in model.parameters())
        layers = [module.num_features for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        plain = new_state(build_proxy(proxy, CLASSES, data.input_shape), torch.device("cpu"), recipe)

        def compute(size: int) -> None:
            """A step alone, on `size` images."""
            rows = torch.arange(size)
            images = data.batch(rows, shifts=None, flips=None, dtype=torch.bfloat16)
            with torch.autocast("cpu", torch.bfloat16):
                logits = plain.model(images)
            loss = F.cross_entropy(logits.float(), data.labels[rows])
            plain.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            plain.optimizer.step()

        parts = {
            "compute_whole": median_seconds(lambda: compute(batch_size)),
            "compute_part": median_seconds(lambda: compute(-(-batch_size // world))),
        }
        if world > 1:
            gradients, mine = torch.zeros(n_weights), -(-batch_size // world)
            logits, features = torch.zeros(mine, CLASSES, dtype=torch.bfloat16), torch.zeros(mine, 128, dtype=torch.bfloat16)
            parts["sum_of_gradients"] = median_seconds(lambda: distributed.sum_over_processes(gradients))
            parts["batch_to_first"] = median_seconds(lambda: distributed.batch_to_first(batch_size, [logits, features]))
            norm, image = over_all_processes(torch.nn.BatchNorm2d(64)), torch.rand(mine, 64, 16, 16, requires_grad=True)
            own = torch.nn.BatchNorm2d(64)
            count_real(norm, mine)
            parts["normalisation"] = len(layers) * (
                median_seconds(lambda: norm(image).sum().backward()) - median_seconds(lambda: own(image).sum().backward())
            )
        recorder = Recorder(range(n), n_classes=CLASSES)
        whole = (torch.zeros(batch_size, CLASSES), torch.zeros(batch_size, dtype=torch.int64), torch.rand(batch_size, 128))

        def record() -> None:
            for step in range(STEPS):
                recorder.observe(torch.arange(step * batch_size, (step + 1) * batch_size), *whole)
            recorder.end_epoch()

        parts["recording"] = median_seconds(record, 3) / STEPS if rank == 0 else median_seconds(lambda: None, 3)
        state = new_state(over_all_processes(model) if world > 1 else model, torch.device("cpu"), recipe)
        watcher = Recorder(range(n), n_classes=CLASSES, model=state.model)

        def epoch() -> None:
            train(
                state, data, recipe, n_epochs=state.epochs_done + 1, seed=0, observe=watcher.observe, together=world > 1,
                end_epoch=lambda _: distributed.on_first(lambda: bool(watcher.end_epoch()) and False),
            )  # fmt: skip

        measured = median_seconds(epoch, 5) / STEPS
        model_seconds = sum(value for name, value in parts.items() if name != "compute_whole")
        if rank == 0:
            print(json.dumps({"processes": world, "proxy": proxy, "batch_size": batch_size, "parts": parts, "model_step_seconds": model_seconds,
                              "measured_step_seconds": measured, "model_over_measured": model_seconds / measured, "load": os.getloadavg()[0]}))  # fmt: skip


def store(key: str, value: Any) -> None:
    held = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(held | {key: value}, indent=1, sort_keys=True) + "\n")
    print(json.dumps({key: value}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kept", "time", "steps"))
    parser.add_argument("--data", default="fashion-mnist-sample")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--proxy", default="small_cnn")
    parser.add_argument("--batch-size", type=int, default=128)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "kept":
        store(f"kept {given.data}", kept(given.data, given.epochs, given.proxy))
    elif given.what == "steps":  # what `time` starts
        time_of_steps(given.proxy, given.batch_size)
    else:
        lines = []
        for processes in (1, 2):
            start = (
                [sys.executable]
                if processes == 1
                else [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            )
            done = subprocess.run(
                [*start, __file__, "steps", "--proxy", given.proxy, "--batch-size", str(given.batch_size)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            lines.append(json.loads(done.stdout.strip().splitlines()[-1]))
        store(f"time {given.proxy} {given.batch_size}", lines)
