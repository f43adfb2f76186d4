"""What the benchmarks share: bench-scale data, results that survive being stopped, two processes side by side."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from filelock import FileLock

from clprune import pipeline
from clprune.evaluation import t_975
from clprune.proxies import build_proxy
from clprune.storage import read_npy, write_npy
from clprune.training import DeviceData, Recipe, TokenData, new_state, pick_device, predict, seed_everything, to_device, train

torch.set_num_threads(1)  # one process a core; also where torch was imported before the variables above were set
N_TRAIN = 15_000


def bench_scale(path: str, n_train: int = N_TRAIN, *, with_ids: bool = False) -> dict[str, np.ndarray]:
    """A fixed class-balanced part of the training images (N, H, W, C) of `path` with their labels, and the whole test set; `ids` are rows of the file."""
    held = np.load(path)
    labels, rng = held["y_train"].astype(np.int64), np.random.default_rng(15)
    classes = np.unique(labels)
    rows = np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[: n_train // len(classes)] for c in classes]))
    data = {"x_train": held["x_train"][rows], "y_train": labels[rows], "x_test": held["x_test"], "y_test": held["y_test"].astype(np.int64)}
    if with_ids:
        data["ids"] = np.array([f"{row:06d}" for row in rows])
    return {name: values[..., None] if name.startswith("x") and values.ndim == 3 else values for name, values in data.items()}


def with_noise(held: dict[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    """The data of `bench_scale` with a `share` of the training labels replaced by another class at random, the same ones each time; `y_clean` are those before."""
    rng, clean = np.random.default_rng(20), held["y_train"]
    n_classes, wrong = len(np.unique(clean)), rng.random(len(clean)) < share
    return held | {"y_train": np.where(wrong, (clean + rng.integers(1, n_classes, len(clean))) % n_classes, clean), "y_clean": clean}


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive has the higher score than a negative, ties counted half."""
    negatives = np.sort(score[~positive])
    below = np.searchsorted(negatives, score[positive], "left") + np.searchsorted(negatives, score[positive], "right")
    return float(below.mean() / 2 / len(negatives))


def trained_on(
    rows: np.ndarray,
    data: DeviceData | TokenData,
    test: DeviceData | TokenData,
    *,
    n_classes: int,
    seed: int,
    n_steps: int,
    model: str = "small_cnn",
) -> dict[str, Any]:
    """Train `model` on `rows` for so many steps of 128 with one cosine; accuracy (last epoch), by class, that of the worst class, and seconds."""
    seed_everything(seed)
    recipe = Recipe(schedule="cosine")
    state = new_state(build_proxy(model, n_classes, data.input_shape), data.device, recipe)
    run = train(state, data, recipe, n_epochs=1, n_steps=n_steps, seed=seed, rows=np.sort(rows))
    labels = test.labels.cpu().numpy()
    right = predict(state.model, test)[0].argmax(axis=1) == labels
    per_class = [float(right[labels == c].mean()) for c in np.unique(labels)]
    return {"accuracy": float(right.mean()), "worst_class": min(per_class), "per_class": per_class, "steps": run.steps, "train_seconds": run.seconds}


def on_device(held: dict[str, np.ndarray]) -> tuple[DeviceData, DeviceData]:
    """Training and test data of `bench_scale` where the models train: the GPU, if there is one."""
    device = pick_device("auto")
    data = to_device(held["x_train"], held["y_train"], device)
    return data, to_device(held["x_test"], held["y_test"], device, statistics=(data.mean.cpu().numpy(), data.std.cpu().numpy()))


def machine() -> str:
    """Where `on_device` trains, for the rows of a table that tells seconds."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def kept_rows(data: str, work: Path, keep: float, strategy: str, seed: int, *, device: str = "auto") -> np.ndarray:
    """Rows of the file `data` that `strategy` keeps, after `clprune score` with the usual proxy; the run and the answer are kept in `work`."""
    file, run = work / f"kept-{strategy.partition('(')[0]}-{keep}-{seed}.npy", work / f"run-{seed}"
    with FileLock(work / f"run-{seed}.lock"):
        if not file.exists():
            if not (run / "run.json").exists():
                pipeline.score(data, run, seed=seed, device=device)
            kept = pipeline.select(run, work / f"m-{seed}", keep=str(keep), strategy=strategy, seed=seed, force=True).samples
            write_npy(file, np.sort(kept.filter(kept["kept"])["index"].to_numpy()))
    return read_npy(file)


class Results:
    """Rows in a JSON file, each with a key; several processes may add to it, and a stopped run goes on where it was."""

    def __init__(self, path: Path, key: Iterable[str]) -> None:
        self.path, self.key = path, tuple(key)

    def rows(self) -> list[dict[str, Any]]:
        return json.loads(self.path.read_text()) if self.path.exists() else []

    def has(self, **key: Any) -> bool:
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.rows())

    def add(self, row: dict[str, Any]) -> None:
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            rows = sorted([*self.rows(), row], key=lambda r: json.dumps([r.get(name) for name in self.key]))
            (new := self.path.with_suffix(".new")).write_text(json.dumps(rows, indent=0) + "\n")
            new.replace(self.path)  # at once: a process may be stopped here
        print(time.strftime("%H:%M:%S"), {name: value for name, value in row.items() if not isinstance(value, list | dict)}, flush=True)


def paired_table(results: Results, order: Iterable[str], base: str) -> str:
    """A line a strategy, by data and share: accuracy, mean and standard deviation over seeds, and the paired difference to `base` with its 95 % interval (none: a single seed)."""
    by_cell: dict[tuple[str, float], dict[str, dict[int, float]]] = {}
    for row in results.rows():
        by_cell.setdefault((row["data"], row["keep"]), {}).setdefault(row["strategy"], {})[row["seed"]] = 100 * row["accuracy"]
    lines = ["| data | keep | strategy | accuracy, % | to random, points (95 %) | seeds |", "|---" * 6 + "|"]
    for (data, keep), found in sorted(by_cell.items(), key=lambda cell: (cell[0][0], -cell[0][1])):
        for strategy in sorted(found, key=[*order, *found].index):
            accuracy = np.array(list(found[strategy].values()))
            gain = np.array(
                [value - found[base][seed] for seed, value in found[strategy].items() if strategy != base and seed in found.get(base, {})]
            )
            half = f" ± {t_975(len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)):.2f}" if len(gain) > 1 else ""
            spread = f" ± {accuracy.std(ddof=1):.2f}" if len(accuracy) > 1 else ""
            shown = f"{gain.mean():+.2f}{half}" if len(gain) else ""
            lines.append(f"| {data} | {keep:g} | `{strategy}` | {accuracy.mean():.2f}{spread} | {shown} | {len(accuracy)} |")
    return "\n".join(lines)


def arguments(doc: str | None, table: Callable[[], str], *, seeds: int) -> tuple[dict[str, str], list[int], int, int]:
    """Data files by name, seeds, and which part of how many this process does; prints the table and ends where that was asked for."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="NAME=FILE.npz")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--part", default="0/1", help="0/2 and 1/2 for two processes, one a core")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        print(table())
        raise SystemExit
    part, parts = map(int, given.part.split("/"))
    return dict(item.partition("=")[::2] for item in given.data), list(range(given.seeds)), part, parts
