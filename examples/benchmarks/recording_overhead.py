"""What recording costs, and how far the training loop is from a bare one.

    python examples/benchmarks/recording_overhead.py            # about 12 minutes on two cores
    python examples/benchmarks/recording_overhead.py --short    # about 2 minutes, small_cnn only

On random 32x32 RGB images, batch 128. For each model, in one process, blocks of steps alternate between three loops in an order that turns: a bare loop
written by hand (batch by one index_select, flip and crop in the same gather, forward, backward, step), `training.train`, and `training.train` with a
recorder. Reported are medians over rounds of the ratio within a round, and the images per second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import torch.nn.functional as F

from clprune.proxies import build_proxy
from clprune.recorder import Recorder
from clprune.training import DeviceData, Recipe, TrainingState, new_state, to_device, train

RESULTS = Path(__file__).with_suffix(".json")
N, CLASSES = 12_800, 10


def bare(state: TrainingState, data: DeviceData, recipe: Recipe, n_steps: int) -> float:
    """Seconds of a loop with nothing but the training step, on the same data and augmentation."""
    model, optimizer, rng = state.model, state.optimizer, np.random.default_rng(0)
    model.train()
    started = time.perf_counter()
    for _ in range(n_steps):
        rows = torch.from_numpy(rng.integers(0, N, recipe.batch_size))
        shifts = torch.from_numpy(rng.integers(-4, 5, (recipe.batch_size, 2)))
        flips = torch.from_numpy(rng.random(recipe.batch_size) < 0.5)
        images = data.batch(rows, shifts=shifts, flips=flips, dtype=torch.bfloat16)
        labels = data.labels.index_select(0, rows)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def measure(proxy: str, n_steps: int, rounds: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    data = to_device(rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8), rng.integers(0, CLASSES, N), torch.device("cpu"))
    recipe, rows = Recipe(warmup_samples=0, learning_rate=1e-3), np.arange(n_steps * 128)
    states = {name: new_state(build_proxy(proxy, CLASSES, data.input_shape), torch.device("cpu"), recipe) for name in ("bare", "trained", "recorded")}

    def trained(name: str, recorder: Recorder | None) -> float:
        state = states[name]
        state.epochs_done, state.steps_done = 0, 0
        started = time.perf_counter()
        if recorder is None:
            train(state, data, recipe, n_epochs=1, seed=0, rows=rows)
        else:
            train(
                state, data, recipe, n_epochs=1, seed=0, rows=rows, observe=recorder.observe, end_epoch=lambda _: bool(recorder.end_epoch()) and False
            )
        return time.perf_counter() - started

    recorder = Recorder(range(len(rows)), n_classes=CLASSES, model=states["recorded"].model)
    loops = {
        "bare": lambda: bare(states["bare"], data, recipe, n_steps),
        "trained": lambda: trained("trained", None),
        "recorded": lambda: trained("recorded", recorder),
    }
    for loop in loops.values():
        loop()
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    names = list(loops)
    for round_number in range(rounds):
        for name in names[round_number % 3 :] + names[: round_number % 3]:
            seconds[name].append(loops[name]())
    recorded = [a / b for a, b in zip(seconds["recorded"], seconds["trained"], strict=True)]
    loop_ratio = [a / b for a, b in zip(seconds["bare"], seconds["trained"], strict=True)]
    images = n_steps * 128
    return {
        "proxy": proxy,
        "recorded_over_training": statistics.median(recorded),
        "quartiles": statistics.quantiles(recorded, n=4),
        "speed_of_train_over_bare": statistics.median(loop_ratio),
        "speed_quartiles": statistics.quantiles(loop_ratio, n=4),
        "images_per_second": {name: images / statistics.median(values) for name, values in seconds.items()},
        "steps": n_steps,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="small_cnn in few rounds; nothing is stored")
    parser.add_argument("--proxies", default="small_cnn,resnet18")
    given = parser.parse_args()
    sizes = {"small_cnn": (100, 21), "resnet18": (24, 7)}  # steps a round (an epoch of the recorder), rounds
    results = {row["proxy"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    for proxy in ["small_cnn"] if given.short else given.proxies.split(","):
        n_steps, rounds = sizes[proxy]
        result = measure(proxy, n_steps, 7 if given.short else rounds)
        rates, ratio = result["images_per_second"], result["recorded_over_training"]
        print(
            f"{proxy}: recorded / training step {ratio:.3f} {result['quartiles']}, train() / bare loop {result['speed_of_train_over_bare']:.3f}, {rates}"
        )
        if not given.short:
            results[proxy] = result
            RESULTS.write_text(json.dumps([results[name] for name in sizes if name in results], indent=1) + "\n")
