"""Does the detected end mean something for the scores? Accuracy of what is kept, over the epoch at which scoring stopped.

    python examples/benchmarks/stopping.py cifar10=CIFAR10.npz --part 0/2 &
    python examples/benchmarks/stopping.py cifar10=CIFAR10.npz --part 1/2
    python examples/benchmarks/stopping.py --table

15,000 class-balanced training images, one recorded run of 30 epochs a seed, cut at ten epochs; the default strategy keeps a half and a fifth by the scores of
the epochs before the cut; the small CNN is then trained on the kept samples for as many steps as 10 epochs of all have; full test set, last epoch.
"""

from __future__ import annotations

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
STOPS, KEEPS, EPOCHS = (1, 2, 3, 4, 6, 8, 10, 15, 22, 30), (0.5, 0.2), 10


def one_seed(name: str, path: str, seed: int) -> None:
    held = bench_scale(path)
    labels, (data, test) = held["y_train"], on_device(held)
    seed_everything(seed)
    state = new_state(build_proxy("small_cnn", 10, data.input_shape), data.device, Recipe())
    recorder, features, periods = Recorder(range(len(labels)), n_classes=10, model=state.model), {}, {}

    def end_epoch(now: object) -> bool:
        recorder.end_epoch()
        if (done := len(recorder.epochs)) in STOPS:
            features[done], periods[done] = predict(state.model, data)[1], recorder.critical_period()
        return False

    train(state, data, Recipe(), n_epochs=max(STOPS), seed=seed, observe=recorder.observe, end_epoch=end_epoch)
    detected, trajectory = recorder.live.fired_epoch, recorder.trajectory()
    for stop in STOPS:
        if all(RESULTS.has(data=name, keep=keep, seed=seed, stop=stop) for keep in KEEPS):
            continue
        period = type(periods[stop])(**(periods[stop].__dict__ | {"start_epoch": 0, "end_epoch": stop}))
        table, _ = score_table(trajectory, period)
        p_label, predicted = (trajectory.signal(s)[:stop] for s in ("p_label", "predicted"))
        hood = find_neighborhood(trajectory.sample_ids, labels, p_label, predicted, vectors=features[stop], images=None)
        for keep in KEEPS:
            if RESULTS.has(data=name, keep=keep, seed=seed, stop=stop):
                continue
            kept = select(table, budget_for(keep, len(labels)), strategy=DEFAULT_STRATEGY, seed=seed, neighborhood=hood).kept_indices
            result = trained_on(kept, data, test, n_classes=10, seed=seed, n_steps=EPOCHS * -(-len(labels) // 128))
            RESULTS.add({"data": name, "keep": keep, "seed": seed, "stop": stop, "detected": detected, "accuracy": result["accuracy"]})


def table() -> str:
    """Mean accuracy over seeds by stopping epoch; the stop nearest to the detected end against the best."""
    rows = RESULTS.rows()
    lines = [
        "| data | keep | " + " | ".join(f"stop {stop}" for stop in STOPS) + " | detected end | nearest stop to the best, points ± standard error |"
    ]
    lines.append("|---|---|" + "---|" * (len(STOPS) + 2))
    for data, keep in sorted({(r["data"], r["keep"]) for r in rows}, key=lambda c: (c[0], -c[1])):
        mine = {(r["seed"], r["stop"]): 100 * r["accuracy"] for r in rows if (r["data"], r["keep"]) == (data, keep)}
        seeds = [s for s in sorted({seed for seed, _ in mine}) if all((s, stop) in mine for stop in STOPS)]
        if not seeds:
            continue
        grid = np.array([[mine[seed, stop] for stop in STOPS] for seed in seeds])
        ends = [next(r["detected"] for r in rows if (r["data"], r["seed"]) == (data, seed)) for seed in seeds]
        nearest = [int(np.abs(np.array(STOPS) - end).argmin()) for end in ends]
        best = int(grid.mean(0).argmax())
        gap = grid[np.arange(len(seeds)), nearest] - grid[:, best]
        error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else float("nan")
        cells = " | ".join(f"{mean:.2f} ± {spread:.2f}" for mean, spread in zip(grid.mean(0), grid.std(0, ddof=min(1, len(seeds) - 1)), strict=True))
        lines.append(f"| {data} | {keep} | {cells} | {', '.join(map(str, ends))} | {gap.mean():+.2f} ± {error:.2f} (best: {STOPS[best]}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=3)
    for name, seed in [(name, seed) for seed in seeds for name in files][part::parts]:
        if not all(RESULTS.has(data=name, keep=keep, seed=seed, stop=stop) for keep in KEEPS for stop in STOPS):
            one_seed(name, files[name], seed)
