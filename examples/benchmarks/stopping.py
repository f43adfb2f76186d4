"""Does the detected end mean something for the scores? Accuracy of what is kept, over the epoch at which scoring stopped.

    python examples/benchmarks/stopping.py cifar10=CIFAR10.npz --part 0/2 &
    python examples/benchmarks/stopping.py cifar10=CIFAR10.npz --part 1/2
    python examples/benchmarks/stopping.py --table

15,000 class-balanced training images, one recorded run of 30 epochs a seed, cut at the end that it detected while it ran, and not at all; the default strategy keeps a half and a fifth by the
scores of the epochs before the cut; the small CNN is then trained on the kept samples for as many steps as 10 epochs of all have (training seed 100 + s); full test set, last epoch.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from common import Results, arguments, bench_scale, on_device, trained_on

from clprune.neighborhood import find_neighborhood
from clprune.proxies import build_proxy
from clprune.recorder import Recorder
from clprune.score_table import score_table
from clprune.selection import DEFAULT_STRATEGY, budget_for, select
from clprune.training import Recipe, new_state, predict, seed_everything, train

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "keep", "seed", "stop"))
LATER, KEEPS, EPOCHS = (30,), (0.5, 0.2), 10


def one_seed(name: str, path: str, seed: int) -> None:
    held = bench_scale(path)
    labels, (data, test) = held["y_train"], on_device(held)
    seed_everything(seed)
    state = new_state(build_proxy("small_cnn", 10, data.input_shape), data.device, Recipe())
    recorder, features = Recorder(range(len(labels)), n_classes=10, model=state.model), {}

    def end_epoch(now: object) -> bool:
        recorder.end_epoch()
        done, fired = len(recorder.epochs), recorder.live.fired_epoch
        if done in LATER or done == fired:
            features[done] = predict(state.model, data)[1]
        return False

    train(state, data, Recipe(), n_epochs=max(LATER), seed=seed, observe=recorder.observe, end_epoch=end_epoch)
    detected, period, trajectory = recorder.live.fired_epoch, recorder.critical_period(), recorder.trajectory()
    assert detected is not None, f"{name}, seed {seed}: no end within {max(LATER)} epochs"
    for stop in (detected, *LATER):
        table, _ = score_table(trajectory, replace(period, start_epoch=0, end_epoch=stop))
        p_label, predicted = (trajectory.signal(s)[:stop] for s in ("p_label", "predicted"))
        hood = find_neighborhood(trajectory.sample_ids, labels, p_label, predicted, vectors=features[stop], images=None)
        for keep in KEEPS:
            at = "end" if stop == detected else stop
            if RESULTS.has(data=name, keep=keep, seed=seed, stop=at):
                continue
            kept = select(table, budget_for(keep, len(labels)), strategy=DEFAULT_STRATEGY, seed=seed, neighborhood=hood).kept_indices
            result = trained_on(kept, data, test, n_classes=10, seed=100 + seed, n_steps=EPOCHS * -(-len(labels) // 128))
            RESULTS.add({"data": name, "keep": keep, "seed": seed, "stop": at, "detected": detected, "accuracy": result["accuracy"]})


def table() -> str:
    """Mean accuracy over seeds where scoring stopped at the detected end, and paired differences to that where it went on, with their standard errors."""
    rows = RESULTS.rows()
    later = sorted(LATER)
    lines = [
        "| data | keep | detected end | at the end, % | "
        + " | ".join(f"after {stop} epochs, points ± standard error" for stop in later)
        + " | seeds |",
        "|---|---|---|---|" + "---|" * (len(later) + 1),
    ]
    for data, keep in sorted({(r["data"], r["keep"]) for r in rows}, key=lambda c: (c[0], -c[1])):
        mine = {(r["seed"], r["stop"]): 100 * r["accuracy"] for r in rows if (r["data"], r["keep"]) == (data, keep)}
        ends = {r["seed"]: r["detected"] for r in rows if (r["data"], r["keep"], r["stop"]) == (data, keep, "end")}
        at_end, cells = np.array([mine[seed, "end"] for seed in ends]), []
        for stop in later:
            gap = np.array([mine[seed, stop] - mine[seed, "end"] for seed in ends if (seed, stop) in mine])
            error = f" ± {gap.std(ddof=1) / np.sqrt(len(gap)):.2f}" if len(gap) > 1 else ""
            cells.append(f"{gap.mean():+.2f}{error}" if len(gap) else "")
        spread = f" ± {at_end.std(ddof=1):.2f}" if len(ends) > 1 else ""
        lines.append(f"| {data} | {keep} | {', '.join(map(str, ends.values()))} | {at_end.mean():.2f}{spread} | {' | '.join(cells)} | {len(ends)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=3)
    for name, seed in [(name, seed) for seed in seeds for name in files][part::parts]:
        if not all(RESULTS.has(data=name, keep=keep, seed=seed, stop=stop) for keep in KEEPS for stop in ("end", *LATER)):
            one_seed(name, files[name], seed)
