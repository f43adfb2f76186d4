"""Is the share that `--keep auto` finds safe, and is its interval right? Realised loss against what was predicted, case by case.

    python examples/benchmarks/keep_auto.py fashion=FASHION.npz cifar10=CIFAR10.npz --seeds 6 --part 0/2 &
    python examples/benchmarks/keep_auto.py fashion=FASHION.npz cifar10=CIFAR10.npz --seeds 6 --part 1/2
    python examples/benchmarks/keep_auto.py --table

A case: 6,000 class-balanced training images (drawn anew for each seed), as they are, with 20 % wrong labels, or 3,600 of them with 2,400 exact copies. Scored, then `--keep auto` at a
tolerance of 0.5 points and a confidence of 0.9, with its usual 12 trainings (1,500 steps, 40 epochs of the pool). Realised: three trainings each, of other seeds and 50 epochs, on all 6,000 and on what
is kept, at equal steps, on the full test set. A case is within the tolerance where the mean realised loss is at most 0.5 points. So many epochs, because everything gains from more steps for longer
than a part does: what 15 epochs tell of the loss is too little.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from common import Results, arguments, on_device, trained_on, with_noise

from clprune import pipeline
from clprune.manifest import read_manifest
from clprune.sources import open_source

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "kind", "seed"))
KINDS, N, TRUTHS, N_STEPS, TOLERANCE = ("clean", "20 % wrong labels", "40 % copies"), 6_000, 3, 2_350, 0.005


def case(path: str, kind: str, seed: int) -> dict[str, np.ndarray]:
    """Training images and labels of a case in random order, with ids; the whole test set."""
    file, rng = np.load(path), np.random.default_rng((seed, 31))
    labels = file["y_train"].astype(np.int64)
    n = N * 6 // 10 if kind == "40 % copies" else N
    rows = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[: n // 10] for c in range(10)])
    rows = rng.permutation(np.concatenate([rows, rng.choice(rows, N - n)]))
    held = {"x_train": file["x_train"][rows], "y_train": labels[rows], "x_test": file["x_test"], "y_test": file["y_test"].astype(np.int64)}
    held = {name: values[..., None] if name.startswith("x") and values.ndim == 3 else values for name, values in held.items()}
    return with_noise(held, 0.2 if kind == "20 % wrong labels" else 0.0) | {"ids": np.array([f"{at:05d}" for at in range(N)])}


def one(path: str, kind: str, seed: int) -> dict[str, object]:
    held = case(path, kind, seed)
    train_data, test_data = on_device(held)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/case.npz"
        np.savez(file, **{name: held[name] for name in ("x_train", "y_train", "ids")})
        pipeline.score(file, Path(folder) / "run", seed=seed)
        document = pipeline.select(Path(folder) / "run", Path(folder) / "m", keep="auto", seed=seed, tolerance=TOLERANCE).document
        kept = np.sort(read_manifest(Path(folder) / "m").indices(open_source(file)))
    losses = []
    for truth in range(TRUTHS if len(kept) < N else 0):
        whole, part = (
            trained_on(rows, train_data, test_data, n_classes=10, seed=500 + truth, n_steps=N_STEPS)["accuracy"] for rows in (np.arange(N), kept)
        )
        losses.append(whole - part)
    found = document["budget"]
    facts = {
        "keep_fraction": document["keep_fraction"],
        "predicted": found["predicted_loss"],
        "interval": list(found["interval"]),
        "useless": found["useless_share"],
    }
    return facts | {
        "realised": losses or [0.0],
        "trials": [[trial["keep_fraction"], trial["accuracy"]] for trial in found["trials"]],
        "seconds": document["timings"]["trial_seconds"],
    }


def table() -> str:
    """By kind of data: how much is dropped, how often the loss stays within the tolerance, how often the interval holds it."""
    rows = RESULTS.rows()
    lines = [
        "| data | cases | dropped, mean (least to most) | predicted loss, points | realised loss, points (worst) | within 0.5 points | interval holds it |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    groups = [*sorted({(r["data"], r["kind"]) for r in rows}), ("all", "")]
    for data, kind in groups:
        mine = [r for r in rows if data == "all" or (r["data"], r["kind"]) == (data, kind)]
        if not mine:
            continue
        realised = np.array([np.mean(r["realised"]) for r in mine])
        dropped = 1 - np.array([r["keep_fraction"] for r in mine])
        error = np.array([np.std(r["realised"], ddof=1) / np.sqrt(len(r["realised"])) if len(r["realised"]) > 1 else 0.0 for r in mine])
        held = [r["interval"][0] - 1.96 * e <= loss <= r["interval"][1] + 1.96 * e for r, loss, e in zip(mine, realised, error, strict=True)]
        lines.append(
            f"| {data}{', ' + kind if kind else ''} | {len(mine)} | {dropped.mean():.0%} ({dropped.min():.0%} to {dropped.max():.0%}) | {100 * np.mean([r['predicted'] for r in mine]):+.2f} | "
            f"{100 * realised.mean():+.2f} ({100 * realised.max():+.2f}) | {int((realised <= TOLERANCE).sum())} of {len(mine)} | {sum(held)} of {len(mine)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=6)
    jobs = [(name, kind, seed) for seed in seeds for kind in KINDS for name in files]
    for name, kind, seed in jobs[part::parts]:
        if not RESULTS.has(data=name, kind=kind, seed=seed):
            RESULTS.add({"data": name, "kind": kind, "seed": seed} | one(files[name], kind, seed))
