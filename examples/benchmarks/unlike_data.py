"""The default against random on data unlike those that it was made with: two classes, two mixed ones, one rare one, two and four that are alike, few images, garbage, blur, unequal classes, two sources in one set, copies of everything.

    python examples/benchmarks/unlike_data.py fashion=FASHION.npz cifar10=CIFAR10.npz --part 0/2 &
    python examples/benchmarks/unlike_data.py fashion=FASHION.npz cifar10=CIFAR10.npz --part 1/2
    python examples/benchmarks/unlike_data.py --table

Sets of 1,000 to 6,000 training images made from the two files, and 5,000 of their test images (6,000 of `two sources`; of classes alike all of theirs, 2,000 and 4,000); nothing of clprune was chosen on them. Score seed s, training seed 100 + s, small CNN, 500 steps of 128 for both
sides, accuracy of the last epoch, keep 0.5 and 0.2, of few classes 0.7, too. Half a minute to a minute a training on one core.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Results, arguments, on_device

from clprune import pipeline
from clprune.evaluation import t_975
from clprune.manifest import read_manifest
from clprune.proxies import build_proxy
from clprune.sources import open_source
from clprune.training import Recipe, new_state, predict, seed_everything, train

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "keep", "strategy", "seed"))
RANDOM, DEFAULT, STEPS = "random(class_balanced=True)", "blend", 500
N, N_TEST = 5_000, 5_000
ANIMALS, ALIKE = (2, 3, 4, 5, 6, 7), {"two alike": (3, 5), "four alike": (3, 4, 5, 7)}  # of CIFAR-10's classes
RARE, FEW_CLASSES = 3, ("two classes", "two mixed classes", "one rare class", *ALIKE)
SETS = {
    "two classes": "CIFAR-10, animal or vehicle",
    "two mixed classes": "CIFAR-10, classes of even or odd number",
    "one rare class": "CIFAR-10, a tenth cats, against all else",
    "two alike": "CIFAR-10, cats and dogs",
    "four alike": "CIFAR-10, cats, deer, dogs and horses",
    "few images": "1,000 of Fashion-MNIST",
    "garbage": "CIFAR-10, a tenth replaced by noise of random labels",
    "blurred": "Fashion-MNIST, three tenths brought to a sixth of their size and back",
    "unequal classes": "Fashion-MNIST, classes of 1,500 down to 75",
    "two sources": "3,000 of CIFAR-10 in gray and 3,000 of Fashion-MNIST, 20 classes",
    "four copies": "1,500 of CIFAR-10, each four times: moved, noisy",
}


def made(name: str, files: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images (N, H, W, C) and labels, test images and labels of a set."""
    rng = np.random.default_rng(5)
    held = {key: np.load(path) for key, path in files.items()}
    if name in ALIKE:
        (x, y), test = ((held["cifar10"][f"x_{part}"], held["cifar10"][f"y_{part}"].astype(np.int64)) for part in ("train", "test"))
        rows = [np.flatnonzero(np.isin(labels, ALIKE[name])) for labels in (y, test[1])]
        rows[0] = rng.permutation(rows[0])[:N]
        return x[rows[0]], np.searchsorted(ALIKE[name], y[rows[0]]), test[0][rows[1]], np.searchsorted(ALIKE[name], test[1][rows[1]])
    order = np.random.default_rng(3).permutation(50_000)[:N]
    cifar, fashion = ((held[key]["x_train"][order], held[key]["y_train"][order].astype(np.int64)) for key in ("cifar10", "fashion"))
    cifar_test, fashion_test = ((held[key]["x_test"][:N_TEST], held[key]["y_test"][:N_TEST].astype(np.int64)) for key in ("cifar10", "fashion"))
    if name == "one rare class":
        x, y = held["cifar10"]["x_train"], held["cifar10"]["y_train"] == RARE
        rows = rng.permutation(np.concatenate([rng.permutation(np.flatnonzero(y == rare))[: N // 10 * (1 if rare else 9)] for rare in (True, False)]))
        return x[rows], y[rows].astype(np.int64), cifar_test[0], (cifar_test[1] == RARE).astype(np.int64)
    (x, y), test = (cifar, cifar_test) if name in ("two classes", "two mixed classes", "garbage", "four copies") else (fashion, fashion_test)
    if name == "two classes":
        return x, np.isin(y, ANIMALS).astype(np.int64), test[0], np.isin(test[1], ANIMALS).astype(np.int64)
    if name == "two mixed classes":
        y, test = y % 2, (test[0], test[1] % 2)
    elif name == "few images":
        x, y = x[:1000], y[:1000]
    elif name == "garbage":
        bad = rng.random(N) < 0.1
        x, y = np.where(bad[:, None, None, None], rng.integers(0, 256, x.shape, dtype=np.uint8), x), np.where(bad, rng.integers(0, 10, N), y)
    elif name == "blurred":
        bad = rng.random(N) < 0.3
        small = F.interpolate(torch.from_numpy(x[bad, None].astype(np.float32)), size=(4, 4), mode="area")
        x = x.copy()
        x[bad] = F.interpolate(small, size=x.shape[1:], mode="bilinear")[:, 0].round().numpy().astype(np.uint8)
    elif name == "unequal classes":
        share = np.array([1, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05])
        rows = np.flatnonzero(rng.random(60_000) < 0.25 * share[held["fashion"]["y_train"]])
        x, y = held["fashion"]["x_train"][rows], held["fashion"]["y_train"][rows].astype(np.int64)
    elif name == "two sources":
        gray = [images[:3000, 2:30, 2:30].mean(axis=3).astype(np.uint8) for images in (cifar[0], cifar_test[0])]
        x, y = np.concatenate([gray[0], x[:3000]]), np.concatenate([cifar[1][:3000], y[:3000] + 10])
        test = np.concatenate([gray[1], fashion_test[0][:3000]]), np.concatenate([cifar_test[1][:3000], fashion_test[1][:3000] + 10])
    elif name == "four copies":
        moved = [np.roll(x[:1500], tuple(rng.integers(-1, 2, 2)), (1, 2)).astype(int) + rng.integers(-6, 7, x[:1500].shape) for _ in range(4)]
        x, y = np.clip(np.concatenate(moved), 0, 255).astype(np.uint8), np.tile(y[:1500], 4)
    return (x if x.ndim == 4 else x[..., None]), y, (test[0] if test[0].ndim == 4 else test[0][..., None]), test[1]


def keeps_of(name: str) -> tuple[float, ...]:
    return (0.7, 0.5, 0.2) if name in FEW_CLASSES else (0.5, 0.2)


def measure(name: str, seed: int, files: dict[str, str]) -> None:
    """Score once, then select, train and test what is missing."""
    x, y, x_test, y_test = made(name, files)
    data, test = on_device({"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test})
    with tempfile.TemporaryDirectory() as folder:
        file, run = f"{folder}/set.npz", Path(folder) / "run"
        np.savez(file, x_train=x, y_train=y)
        scored = pipeline.score(file, run, seed=seed)
        for keep in keeps_of(name):
            for strategy in (RANDOM, DEFAULT):
                job: dict[str, Any] = {"data": name, "keep": keep, "strategy": strategy, "seed": seed}
                if RESULTS.has(**job):
                    continue
                chosen = pipeline.select(run, Path(folder) / "m", keep=str(round(keep * len(y))), strategy=strategy, seed=seed, force=True)
                rows = np.sort(read_manifest(chosen.folder).indices(open_source(file)))
                seed_everything(100 + seed)
                recipe = Recipe(schedule="cosine")
                state = new_state(build_proxy("small_cnn", int(y.max()) + 1, data.input_shape), data.device, recipe)
                train(state, data, recipe, n_epochs=1, n_steps=STEPS, seed=100 + seed, rows=rows)
                right = predict(state.model, test)[0].argmax(axis=1) == y_test
                worst = min(float(right[y_test == c].mean()) for c in np.unique(y_test))
                facts = {"n": len(y), "n_kept": len(rows), "score_epochs": scored["epochs_run"], "n_duplicates": scored["duplicates"]["n"]}
                RESULTS.add(job | facts | {"accuracy": float(right.mean()), "worst_class": worst})


def table() -> str:
    """Random's accuracy, and the default's paired difference to it with the half width of its 95 % interval; the same of the worst class."""
    rows = RESULTS.rows()
    lines = [
        "| set | of | keep | random, % | default to random, points (95 %) | worst class, % | default to random | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, keep in [(one, share) for one in SETS for share in keeps_of(one)]:
        both = [{r["seed"]: r for r in rows if (r["data"], r["keep"], r["strategy"]) == (name, keep, strategy)} for strategy in (RANDOM, DEFAULT)]
        seeds = sorted(set(both[0]) & set(both[1]))
        if not seeds:
            continue
        shown = []
        for what in ("accuracy", "worst_class"):
            base, mine = (100 * np.array([one[seed][what] for seed in seeds]) for one in both)
            gain = mine - base
            half = f" ± {t_975(len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)):.2f}" if len(gain) > 1 else ""
            shown += [f"{base.mean():.1f}", f"{gain.mean():+.2f}{half}"]
        lines.append(f"| {name} | {SETS[name]} | {keep} | " + " | ".join(shown) + f" | {len(seeds)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=3)
    for name, seed in [(name, seed) for seed in seeds for name in SETS][part::parts]:
        if not all(RESULTS.has(data=name, keep=keep, strategy=strategy, seed=seed) for keep in keeps_of(name) for strategy in (RANDOM, DEFAULT)):
            measure(name, int(seed), files)
