"""Rare classes and many classes: does any vanish, and what happens to the worst?

    python examples/benchmarks/imbalance.py fashion=FASHION.npz cifar10=CIFAR10.npz
    python examples/benchmarks/imbalance.py --table

"1:100": ten classes of 3,000 to 30 training images, sizes in geometric progression, 7,443 in all. "100 classes": an image is two of Fashion-MNIST side by side and its class is the pair of
theirs, 60 training images and 100 test images a class. Scored by the small CNN, the default against class-balanced random (which keeps each class's share), trained at equal steps (20 epochs
of everything), score seed s, training seed 100 + s. The worst class of a hundred, of 100 test images each, is a noisy figure: the mean of the worst tenth of the classes stands beside it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, arguments, on_device, trained_on

from clprune import pipeline
from clprune.evaluation import t_975
from clprune.manifest import read_manifest
from clprune.sources import open_source

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "kind", "keep", "strategy", "seed"))
RARE, MANY = "1:100", "100 classes"
KEEPS, EPOCHS = (0.5, 0.2), 20
RANDOM, DEFAULT = "random(class_balanced=True)", "blend"


def rare_classes(held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The c-th class has 3,000 / 100^(c / 9) training images; the test set is whole."""
    rng, labels = np.random.default_rng(7), held["y_train"]
    sizes = np.round(3_000 * 100 ** (-np.arange(10) / 9)).astype(int)
    rows = np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:size] for c, size in enumerate(sizes)]))
    return held | {"x_train": held["x_train"][rows], "y_train": labels[rows]}


def pairs_of_classes(held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Two images side by side, labelled by both: 60 training and 100 test images for each of 100 classes, no image twice on the same side."""
    made = {}
    for split, each in (("train", 60), ("test", 100)):
        images, labels, rng = held[f"x_{split}"], held[f"y_{split}"], np.random.default_rng(8)
        sides = []
        for _ in range(2):
            of = [rng.permutation(np.flatnonzero(labels == c))[: 10 * each].reshape(10, each) for c in range(10)]
            sides.append(np.array(of))
        left, right = sides[0].reshape(-1), sides[1].transpose(1, 0, 2).reshape(-1)  # class a with its partner b, and partner b of class a
        made |= {f"x_{split}": np.concatenate([images[left], images[right]], axis=2), f"y_{split}": np.repeat(np.arange(100), each)}
    return made


def measure(path: str, kind: str, seed: int, wanted: list[tuple[float, str]]) -> list[dict[str, Any]]:
    """Score once, select and train for the wanted shares and strategies."""
    file = np.load(path)
    held = {name: file[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    held = {
        name: values[..., None] if name.startswith("x") and values.ndim == 3 else values.astype(np.uint8 if name[0] == "x" else np.int64)
        for name, values in held.items()
    }
    held = (rare_classes if kind == RARE else pairs_of_classes)(held)
    train_data, test_data = on_device(held)
    sizes, rows = np.bincount(held["y_train"]), []
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/data.npz", x_train=held["x_train"], y_train=held["y_train"])
        scored = pipeline.score(f"{folder}/data.npz", Path(folder) / "run", seed=seed)
        for keep, strategy in wanted:
            pipeline.select(Path(folder) / "run", Path(folder) / "m", keep=str(keep), strategy=strategy, seed=seed, force=True)
            kept = np.sort(read_manifest(Path(folder) / "m").indices(open_source(f"{folder}/data.npz")))
            result = trained_on(kept, train_data, test_data, n_classes=len(sizes), seed=100 + seed, n_steps=EPOCHS * -(-sizes.sum() // 128))
            by_class = np.sort(result.pop("per_class"))
            facts = {
                "least_kept": int(np.bincount(held["y_train"][kept], minlength=len(sizes)).min()),
                "worst_tenth": float(by_class[: len(sizes) // 10].mean()),
            }
            rows.append({"keep": keep, "strategy": strategy, "score_epochs": scored["epochs_run"], "n_kept": len(kept)} | facts | result)
    return rows


def table() -> str:
    """Mean over seeds and paired difference of the default to random, with half the width of its 95 % interval."""
    rows = RESULTS.rows()
    lines = [
        "| data | keep | strategy | smallest class kept | accuracy by class, mean, % | worst class, % | worst tenth, % | to random: mean / worst class / worst tenth, points | seeds |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for data, kind, keep, strategy in sorted(
        {(r["data"], r["kind"], -r["keep"], r["strategy"]) for r in rows}, key=lambda cell: (cell[1], cell[0], cell[2], cell[3] == DEFAULT)
    ):
        cell = [r for r in rows if (r["data"], r["kind"], -r["keep"], r["strategy"]) == (data, kind, keep, strategy)]
        base = {r["seed"]: r for r in rows if (r["data"], r["kind"], -r["keep"], r["strategy"]) == (data, kind, keep, RANDOM)}
        texts = []
        for what in ("accuracy", "worst_class", "worst_tenth") if strategy != RANDOM else ():
            gain = 100 * np.array([r[what] - base[r["seed"]][what] for r in cell])
            texts.append(f"{gain.mean():+.1f}" + (f" ± {t_975(len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)):.1f}" if len(gain) > 1 else ""))
        mean = {what: 100 * np.mean([r[what] for r in cell]) for what in ("accuracy", "worst_class", "worst_tenth")}
        least = min(r["least_kept"] for r in cell)
        lines.append(
            f"| {data}, {kind} | {-keep:g} | `{strategy}` | {least} | {mean['accuracy']:.1f} | {mean['worst_class']:.1f} | {mean['worst_tenth']:.1f} | {' / '.join(texts)} | {len(cell)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=3)
    jobs = [(name, kind, seed) for seed in seeds for kind in (RARE, MANY) for name in files if kind == RARE or name == "fashion"]
    for name, kind, seed in jobs[part::parts]:
        key = {"data": name, "kind": kind, "seed": seed}
        wanted = [(keep, strategy) for keep in KEEPS for strategy in (RANDOM, DEFAULT) if not RESULTS.has(**key, keep=keep, strategy=strategy)]
        for row in measure(files[name], kind, seed, wanted) if wanted else ():
            RESULTS.add(key | row)
