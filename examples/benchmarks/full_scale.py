"""All of CIFAR-10 and ResNet-18, as the papers do it: what the small proxy chose against random, DUAL and RS2 at the same total views. For a GPU.

    python examples/benchmarks/full_scale.py cifar10=CIFAR10.npz --work WORK --prepare          # what needs no GPU: scores of the small proxy and what they keep
    python examples/benchmarks/full_scale.py cifar10=CIFAR10.npz --work WORK --minutes 9 &   # two at once: each takes the next training that nobody has begun
    python examples/benchmarks/full_scale.py cifar10=CIFAR10.npz --work WORK --minutes 9     # the same commands again go on, also inside a training
    python examples/benchmarks/full_scale.py --table
    python examples/benchmarks/full_scale.py --short                                            # 120 drawn images on whatever there is; nothing is kept

ResNet-18, 200 epochs of what is kept, SGD 0.1 with momentum 0.9 and one cosine, weight decay 5e-4, flip and crop, batch 128 for everybody; test accuracy after the last epoch. Score seed s, training
seed 100 + s. `blend` spends the scores of `clprune score` with its usual proxy, which stops by itself; `dual` is DUAL with beta sampling at its published cost: 30 epochs of ResNet-18 itself.
`own_blend` is our rule on the epochs of the same 30 up to the detected end of the critical period, with the neighbours under ResNet-18 (near-duplicates are not looked for).
RS2 sees as many samples an epoch, other ones each time. Scored runs and unfinished trainings lie in `--work`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Results, kept_rows, machine, paired_table
from filelock import FileLock, Timeout
from gpu_suite import data_of, drawn_npz

from clprune.datatypes import Neighborhood
from clprune.dynamic import dynamic_arm
from clprune.neighborhood import find_neighborhood
from clprune.proxies import build_proxy
from clprune.recorder import Recorder
from clprune.score_table import score_table
from clprune.selection import budget_for, select
from clprune.storage import read_npy, write_npy
from clprune.training import DeviceData, Recipe, TrainingState, new_state, pick_device, predict, seed_everything, train

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "keep", "strategy", "seed"))
MODEL, EPOCHS, DUAL_EPOCHS = "resnet18", 200, 30
KEEPS, ARMS, RANDOM = (0.1, 0.2, 0.3, 0.5, 0.7), ("random", "blend", "own_blend", "dual", "rs2"), "random(class_balanced=True)"
BY_ITSELF = {"own_blend": "blend", "dual": "beta_sampling"}  # rules that spend epochs of ResNet-18 itself
RECIPE = Recipe(learning_rate=0.1, schedule="cosine")
BEGINNING = Recipe(learning_rate=0.1)  # of such a training: the cosine has hardly begun to fall in its first 30 epochs


def fresh(data: DeviceData, recipe: Recipe, seed: int) -> TrainingState:
    seed_everything(seed)
    return new_state(build_proxy(MODEL, int(data.labels.max()) + 1, data.input_shape), data.device, recipe)


def kept_by(arm: str, keep: float, seed: int, path: str, data: DeviceData, work: Path, dual_epochs: int) -> np.ndarray:
    """Rows that an arm keeps."""
    if arm not in BY_ITSELF:
        return kept_rows(path, work, keep, RANDOM if arm == "random" else arm, seed, device=str(data.device))
    with FileLock(work / f"by-itself-{seed}.lock"):
        file = work / f"{arm}-{seed}-{keep}.npy"
        if not file.exists():
            choose_by_itself(seed, data, work, dual_epochs)
    return read_npy(file)


def choose_by_itself(seed: int, data: DeviceData, work: Path, dual_epochs: int) -> None:
    """Record the first `dual_epochs` of ResNet-18, and write what both of BY_ITSELF keep at every share."""
    labels, state = data.labels.cpu().numpy(), fresh(data, BEGINNING, seed)
    recorder = Recorder(range(len(labels)), n_classes=int(labels.max()) + 1, model=state.model)
    chosen: set[str] = set()

    def choose(arm: str, neighborhood: Neighborhood | None) -> None:
        trajectory, period = recorder.trajectory(), recorder.critical_period()
        table, _ = score_table(trajectory, replace(period, start_epoch=0, end_epoch=trajectory.n_epochs))
        for share in KEEPS:
            budget = budget_for(share, len(labels))
            kept = select(table, budget, strategy=BY_ITSELF[arm], seed=seed, neighborhood=neighborhood).kept_indices
            write_npy(work / f"{arm}-{seed}-{share}.npy", np.sort(kept))
        chosen.add(arm)

    def end_epoch(now: TrainingState) -> bool:
        ended = recorder.end_epoch() or now.epochs_done == dual_epochs
        if ended and "own_blend" not in chosen:
            seen, vectors = recorder.trajectory(), predict(now.model, data)[1]
            signals = seen.signals["p_label"], seen.signals["predicted"]
            choose("own_blend", find_neighborhood(seen.sample_ids, seen.labels, *signals, vectors=vectors, images=None))
            print(f"seed {seed}: own_blend after {now.epochs_done} epochs", flush=True)
        return False

    train(state, data, BEGINNING, n_epochs=dual_epochs, seed=seed, observe=recorder.observe, end_epoch=end_epoch)
    choose("dual", None)


def measure(
    job: dict[str, Any], path: str, data: DeviceData, test: DeviceData, work: Path, until: float, epochs: int = EPOCHS
) -> dict[str, Any] | None:
    """Accuracy of one training; None where the time is over before its end, and what is done lies in `work`."""
    keep, arm, seed, started = job["keep"], job["strategy"], job["seed"], time.perf_counter()
    n_keep = round(keep * len(data))
    if arm == "rs2":
        rows: Any = dynamic_arm(arm, np.arange(len(data)), n_keep, 100 + seed)[0]
    else:
        rows = kept_by(arm, keep, seed, path, data, work, min(DUAL_EPOCHS, epochs))
    n_steps, half, before = epochs * -(-n_keep // RECIPE.batch_size), work / f"{job['data']}-{keep}-{arm}-{seed}.pt", 0.0
    state = fresh(data, RECIPE, 100 + seed)
    if half.exists():
        held = torch.load(half, weights_only=True, map_location=data.device)
        state.model.load_state_dict(held["model"])
        state.optimizer.load_state_dict(held["optimizer"])
        state.epochs_done, state.steps_done, before = held["epochs_done"], held["steps_done"], held["seconds"]
    train(state, data, RECIPE, n_epochs=1, n_steps=n_steps, seed=100 + seed, rows=rows, end_epoch=lambda _: time.time() > until)
    seconds = before + time.perf_counter() - started
    if state.steps_done < n_steps:
        facts = {"epochs_done": state.epochs_done, "steps_done": state.steps_done, "seconds": seconds}
        torch.save({"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()} | facts, half)
        return None
    half.unlink(missing_ok=True)
    labels = test.labels.cpu().numpy()
    right = predict(state.model, test)[0].argmax(axis=1) == labels
    worst = min(float(right[labels == c].mean()) for c in np.unique(labels))
    return {"accuracy": float(right.mean()), "worst_class": worst, "steps": state.steps_done, "seconds": seconds, "machine": machine()}


def table() -> str:
    return paired_table(RESULTS, ARMS, "random")


def short() -> None:
    """Every arm on drawn images, one epoch; one training is interrupted and goes on."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        path = drawn_npz(work / "drawn.npz", 120, 28, 1)
        data, test = data_of(path, pick_device("auto"))
        for arm in ARMS:
            job, until = {"data": "drawn", "keep": 0.5, "strategy": arm, "seed": 0}, 0.0 if arm == "rs2" else time.time() + 3600
            found = measure(job, str(path), data, test, work, until, epochs=2)
            if found is None:
                print("put down after 1 of 2 steps")
                found = measure(job, str(path), data, test, work, time.time() + 3600, epochs=2)
            print(arm, found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="NAME=FILE.npz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=9.0, help="an unfinished training is put down after so many")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clprune-full-scale")
    parser.add_argument("--prepare", action="store_true", help="score with the small proxy and select, train nothing")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    if given.table:
        print(table())
    if given.short:
        short()
    for name, file in (item.split("=", 1) for item in given.data):
        over, place = time.time() + 60 * given.minutes, given.work / name
        place.mkdir(parents=True, exist_ok=True)
        images, tests = data_of(Path(file), pick_device(given.device))
        if given.prepare:
            for seed in range(given.seeds):
                for arm, keep in ((arm, keep) for arm in ("random", "blend") for keep in KEEPS):
                    kept_by(arm, keep, seed, file, images, place, DUAL_EPOCHS)
            continue
        plan = [
            {"data": name, "keep": keep, "strategy": arm, "seed": seed}
            for keep in KEEPS
            for arms in (ARMS[:-1], ARMS[-1:])  # the static ones first: they are what is compared
            for seed in range(given.seeds)
            for arm in arms
        ]
        for wanted in plan:
            try:
                with FileLock(place / ("-".join(map(str, wanted.values())) + ".lock"), timeout=0):
                    if time.time() < over and not RESULTS.has(**wanted):
                        row = measure(wanted, file, images, tests, place, over)
                        if row is not None:
                            RESULTS.add(wanted | row)
            except Timeout:
                continue  # another process trains it
