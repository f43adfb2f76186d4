"""A deficit that is taken away in time heals, later it does not: final damage over the epoch of its removal, and the detected period beside it.

    python examples/benchmarks/deficit.py cifar10=CIFAR10.npz --part 0/2 &
    python examples/benchmarks/deficit.py cifar10=CIFAR10.npz --part 1/2
    python examples/benchmarks/deficit.py --table

After Achille et al. (2019, arXiv:1711.08856): the small CNN sees blurred images (averaged over 4 x 4 pixels) for e epochs, then sharp ones for 8 more, at a constant rate but
for a cosine over the last 8. 15,000 class-balanced training images, full sharp test set, last epoch; the damage is the accuracy lost against e = 0. The period is
detected in a run on sharp images with the same seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import Results, arguments, bench_scale

from clprune.proxies import build_proxy
from clprune.recorder import Recorder
from clprune.training import Recipe, new_state, predict, seed_everything, to_device, train

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "seed", "removed_at"))
REMOVALS, HEALING = (0, 1, 2, 3, 4, 5, 6, 8, 11, 15), 8


def blurred(images: np.ndarray, factor: int = 4) -> np.ndarray:
    """Images (N, H, W, C) averaged over factor x factor pixels, at their old size."""
    n, height, width, channels = images.shape
    small = images.reshape(n, height // factor, factor, width // factor, factor, channels).mean(axis=(2, 4), dtype=np.float32)
    return small.repeat(factor, axis=1).repeat(factor, axis=2).round().astype(np.uint8)


def one(held: dict[str, np.ndarray], seed: int, removed_at: int) -> dict[str, object]:
    """Train with the deficit, heal, test; without a deficit the period is detected too."""
    device = torch.device("cpu")
    sharp = to_device(held["x_train"], held["y_train"], device)
    statistics = (sharp.mean.numpy(), sharp.std.numpy())
    dim = to_device(blurred(held["x_train"]), held["y_train"], device, statistics=statistics)
    test = to_device(held["x_test"], held["y_test"], device, statistics=statistics)
    seed_everything(seed)
    state = new_state(build_proxy("small_cnn", 10, sharp.input_shape), device, Recipe())
    train(state, dim, Recipe(), n_epochs=removed_at, seed=seed)
    state.epochs_done = 0  # the cosine runs over the healing epochs
    recorder = Recorder(range(len(sharp)), n_classes=10, model=state.model)
    observe, end_epoch = (recorder.observe, lambda _: recorder.end_epoch() and False) if removed_at == 0 else (None, None)
    train(state, sharp, Recipe(schedule="cosine"), n_epochs=HEALING, seed=seed + 500, observe=observe, end_epoch=end_epoch)
    right = predict(state.model, test)[0].argmax(axis=1) == held["y_test"]
    return {"seed": seed, "removed_at": removed_at, "accuracy": float(right.mean()), "detected": recorder.live.fired_epoch}


def table() -> str:
    """Damage by epoch of removal: mean and standard deviation over seeds."""
    rows = RESULTS.rows()
    lines = ["| data | " + " | ".join(f"e = {e}" for e in REMOVALS) + " | detected end |", "|---|" + "---|" * (len(REMOVALS) + 1)]
    for data in sorted({r["data"] for r in rows}):
        mine = {(r["seed"], r["removed_at"]): 100 * r["accuracy"] for r in rows if r["data"] == data}
        seeds = [s for s in sorted({seed for seed, _ in mine}) if all((s, e) in mine for e in REMOVALS)]
        if not seeds:
            continue
        damage = np.array([[mine[s, 0] - mine[s, e] for e in REMOVALS] for s in seeds])
        ends = [str(r["detected"]) for r in rows if r["data"] == data and r["removed_at"] == 0 and r["seed"] in seeds]
        spread = damage.std(0, ddof=min(1, len(seeds) - 1))
        lines.append(
            f"| {data} | " + " | ".join(f"{m:.2f} ± {s:.2f}" for m, s in zip(damage.mean(0), spread, strict=True)) + f" | {', '.join(ends)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=3)
    jobs = [(name, seed, e) for seed in seeds for name in files for e in REMOVALS]
    for name, seed, removed_at in jobs[part::parts]:
        if not RESULTS.has(data=name, seed=seed, removed_at=removed_at):
            RESULTS.add({"data": name} | one(bench_scale(files[name]), seed, removed_at))
