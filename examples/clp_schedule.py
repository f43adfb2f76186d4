"""The paper's recipe: three augmented views of each sample an epoch until the critical period has ended, then one; with the controls it lacks.

python examples/clp_schedule.py            # all arms once, on 6,000 embedded images
python examples/clp_schedule.py 20 12000   # as many epochs, samples

# 9 minutes on two CPU cores that had other work (seconds below are from that run, one seed):
# three views throughout: 87.85 %, 0% fewer samples, 267 s, switched at epoch None
# one view throughout: 86.35 %, 67% fewer samples, 39 s, switched at epoch None
# switch at the detected end: 87.30 %, 44% fewer samples, 72 s, switched at epoch 4
# switch at a random epoch: 87.55 %, 39% fewer samples, 74 s, switched at epoch 5
# one view, equal compute: 87.80 %, 44% fewer samples, 68 s, switched at epoch None
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import torch

import clprune
from clprune.energy import EnergyMeter
from clprune.proxies import build_proxy
from clprune.training import DeviceData, Recipe, new_state, predict, seed_everything, to_device, train

ARMS = ("three views throughout", "one view throughout", "switch at the detected end", "switch at a random epoch", "one view, equal compute")
LIGHT = Recipe(schedule="cosine")
FULL = replace(LIGHT, copies=3)


def train_arm(
    arm: str, data: DeviceData, test: DeviceData, *, seed: int, n_epochs: int, detected_end: int | None = None
) -> dict[str, float | int | str]:
    """Train one arm and measure it. The control with equal compute takes as many samples as switching at `detected_end` does."""
    seed_everything(seed)
    device = data.device
    state = new_state(build_proxy("small_cnn", 10, data.input_shape), device, FULL)
    recorder = clprune.Recorder(range(len(data)), n_classes=10, model=state.model)
    random_epoch = int(np.random.default_rng((seed, 41)).integers(1, n_epochs))
    observe, end_epoch, later, first, epochs = None, None, None, LIGHT, n_epochs
    if arm == "three views throughout":
        first = FULL
    elif arm == "switch at the detected end":  # live, in this very training
        first, later, observe, end_epoch = FULL, LIGHT, recorder.observe, lambda _: recorder.end_epoch()
    elif arm == "switch at a random epoch":
        first, later, end_epoch = FULL, LIGHT, lambda now: now.epochs_done == random_epoch
    elif arm == "one view, equal compute":
        assert detected_end is not None
        epochs = n_epochs + 2 * detected_end
    with EnergyMeter() as meter:
        run = train(state, data, first, n_epochs=epochs, seed=seed, observe=observe, end_epoch=end_epoch, later=later)
    right = predict(state.model, test)[0].argmax(axis=1) == test.labels.cpu().numpy()
    switched = recorder.live.fired_epoch if "detected" in arm else random_epoch if "random" in arm else None
    return {
        "arm": arm,
        "seed": seed,
        "accuracy": float(right.mean()),
        "switch_epoch": n_epochs if switched is None and "switch" in arm else switched,  # never: three views to the end
        "samples_seen": run.samples_seen,
        "seconds": run.seconds,
        "energy_kwh": meter.kwh,
    }  # type: ignore[return-value]


def main(n_epochs: int = 12, n_samples: int = 6_000) -> list[dict[str, float | int | str]]:
    """Every arm once on the embedded images; prints accuracy, samples and seconds against three views throughout."""
    source = clprune.open_source("fashion-mnist-sample")
    test_source = source.load_test()
    pixels = np.stack([np.asarray(source.read_input(row)) for row in range(n_samples)])[..., None]
    test_pixels = np.stack([np.asarray(test_source.read_input(row)) for row in range(len(test_source))])[..., None]
    data = to_device(pixels, source.labels[:n_samples], torch.device("cpu"))
    test = to_device(test_pixels, test_source.labels, torch.device("cpu"), statistics=(data.mean.numpy(), data.std.numpy()))
    found: list[dict[str, float | int | str]] = []
    for arm in ARMS:
        end = next((int(row["switch_epoch"]) for row in found if row["arm"] == "switch at the detected end"), None)
        found.append(train_arm(arm, data, test, seed=0, n_epochs=n_epochs, detected_end=end))
        row, base = found[-1], found[0]
        saved = 1 - row["samples_seen"] / base["samples_seen"]  # type: ignore[operator]
        print(
            f"{arm}: {100 * float(row['accuracy']):.2f} %, {saved:.0%} fewer samples, {float(row['seconds']):.0f} s, switched at epoch {row['switch_epoch']}"
        )
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
