"""Where the critical period of real runs ends: over seeds, batch sizes and learning rates, and where there is none.

    python examples/benchmarks/real_periods.py fashion=FASHION.npz cifar10=CIFAR10.npz --part 0/2 &
    python examples/benchmarks/real_periods.py fashion=FASHION.npz cifar10=CIFAR10.npz --part 1/2
    python examples/benchmarks/real_periods.py --table

15,000 class-balanced training images of each file, the small CNN, runs that stop by themselves (at 20 epochs at the latest). Five seeds, batches of 128, 256 and
512 at a base rate of 0.05 per 128 samples, and 0.02 with batches of 128; ResNet-18 on 5,000 images with two seeds. Beside them three runs in which there is nothing to find: learning rate zero,
random labels, and a model that has converged (trained before for 30 epochs with a decaying rate, then on with 0.002). One process a core.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import Results, arguments, bench_scale

from clprune.proxies import build_proxy
from clprune.recorder import Recorder
from clprune.training import Recipe, new_state, seed_everything, to_device, train

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "proxy", "kind", "rate", "batch", "seed"))
MAX_EPOCHS = 20


def settings(seeds: list[int], names: list[str]) -> list[dict[str, object]]:
    """All runs, the most telling first."""
    usual = [
        {"data": name, "proxy": "small_cnn", "kind": "usual", "rate": rate, "batch": batch, "seed": seed}
        for rate in (0.05, 0.02)
        for seed in seeds
        for batch in ((128, 256, 512) if rate == 0.05 else (128,))
        for name in names
    ]
    nothing = [
        {"data": name, "proxy": "small_cnn", "kind": kind, "rate": 0.05, "batch": 128, "seed": seed}
        for kind in ("rate zero", "random labels", "converged")
        for seed in seeds[:1]
        for name in names
    ]
    deep = [{"data": name, "proxy": "resnet18", "kind": "usual", "rate": 0.05, "batch": 128, "seed": seed} for name in names for seed in seeds[:2]]
    return usual + nothing + deep


def run(setting: dict[str, object], path: str) -> dict[str, object]:
    """One run; when it ended, and what the rule knew then."""
    deep, kind, seed = setting["proxy"] == "resnet18", setting["kind"], int(setting["seed"])  # type: ignore[call-overload]
    held = bench_scale(path, 5_000 if deep else 15_000)
    labels = held["y_train"] if kind != "random labels" else np.random.default_rng((seed, 9)).permutation(held["y_train"])
    data, device = to_device(held["x_train"], labels, torch.device("cpu")), torch.device("cpu")
    batch = int(setting["batch"])  # type: ignore[call-overload]
    rate = 0.0 if kind == "rate zero" else float(setting["rate"]) * batch / 128  # type: ignore[arg-type]
    recipe = Recipe(batch_size=batch, learning_rate=rate)
    seed_everything(seed)
    model = build_proxy(str(setting["proxy"]), 10, data.input_shape)
    if kind == "converged":
        train(new_state(model, device, Recipe(schedule="cosine")), data, Recipe(schedule="cosine"), n_epochs=30, seed=seed + 1000)
        recipe = Recipe(learning_rate=0.002, warmup_samples=0)
    state = new_state(model, device, recipe)
    recorder = Recorder(range(len(labels)), n_classes=10, model=state.model)
    trained = train(state, data, recipe, n_epochs=MAX_EPOCHS, seed=seed, observe=recorder.observe, end_epoch=lambda _: recorder.end_epoch())
    period = recorder.critical_period()
    return setting | {
        "settled": period.settled,
        "end_epoch": period.end_epoch if period.settled else None,
        "end_samples": period.end_epoch * len(labels) if period.settled else None,
        "hindsight_end": period.hindsight_end,
        "interval": period.interval,
        "confidence": period.confidence,
        "training_accuracy": recorder.curves["training_accuracy"][-1],
        "waiting_for": recorder.live.waiting_for,
        "seconds": trained.seconds,
    }


def table() -> str:
    """Ends over seeds by setting, with the coefficient of variation and the change against batch 128."""
    rows = RESULTS.rows()
    lines = ["| data | proxy | rate per 128 | batch | ends after, epochs | samples seen, mean | variation over seeds | against batch 128 |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    cells = sorted({(r["data"], r["proxy"], -r["rate"], r["batch"]) for r in rows if r["kind"] == "usual"}, key=lambda c: (c[1] != "small_cnn", *c))
    for data, proxy, minus_rate, batch in cells:
        at = {"data": data, "proxy": proxy, "rate": -minus_rate, "kind": "usual"}
        mine, base = ([r for r in rows if all(r[k] == v for k, v in (at | {"batch": b}).items())] for b in (batch, 128))
        ends, reference = (np.array([r["end_samples"] for r in part if r["settled"]], dtype=float) for part in (mine, base))
        shown = ", ".join(str(r["end_epoch"]) if r["settled"] else "not established" for r in mine)
        if not len(ends):
            lines.append(f"| {data} | {proxy} | {-minus_rate} | {batch} | {shown} | | | |")
            continue
        spread = f"{100 * ends.std(ddof=1) / ends.mean():.0f} %" if len(ends) > 1 else ""
        change = "" if batch == 128 or not len(reference) else f"{100 * (ends.mean() / reference.mean() - 1):+.0f} %"
        lines.append(f"| {data} | {proxy} | {-minus_rate} | {batch} | {shown} | {ends.mean():,.0f} | {spread} | {change} |")
    for kind in ("rate zero", "random labels", "converged"):
        if mine := [r for r in rows if r["kind"] == kind]:
            said = sum(not r["settled"] for r in mine)
            lines.append(f"| all | small_cnn, {kind} | | 128 | not established in {said} of {len(mine)} runs | | | |")
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=5)
    for setting in settings(seeds, list(files))[part::parts]:
        if not RESULTS.has(**setting):
            RESULTS.add(run(setting, files[str(setting["data"])]))
