"""How well two runs with other seeds agree on each score, over the epoch at which scoring stops.

    python examples/benchmarks/reliability.py fashion=FASHION.npz
    python examples/benchmarks/reliability.py --table

15,000 class-balanced training images, recorded runs of 30 epochs that differ in seed only (weights, order, augmentation), cut at several epochs; Spearman's rank
correlation of a score over the samples, mean over the pairs of seeds. The period's end is the live rule's in each run.
"""

from __future__ import annotations

import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
from common import Results, arguments, bench_scale, on_device

from clprune.proxies import build_proxy
from clprune.ranking import mean_ranks
from clprune.recorder import Recorder
from clprune.score_table import score_table
from clprune.training import Recipe, new_state, seed_everything, train

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "stop", "score"))
STOPS = (1, 2, 3, 4, 6, 8, 10, 15, 22, 30)


def scores_by_stop(path: str, seed: int) -> tuple[dict[int, dict[str, np.ndarray]], int | None]:
    """Every score after each stop, and where the live rule fired."""
    held = bench_scale(path)
    data, _ = on_device(held)
    seed_everything(seed)
    state = new_state(build_proxy("small_cnn", 10, data.input_shape), data.device, Recipe())
    recorder = Recorder(range(len(data)), n_classes=10, model=state.model)
    train(state, data, Recipe(), n_epochs=max(STOPS), seed=seed, observe=recorder.observe, end_epoch=lambda _: recorder.end_epoch() and False)
    period, trajectory = recorder.critical_period(), recorder.trajectory()
    cut = {stop: type(period)(**(period.__dict__ | {"start_epoch": 0, "end_epoch": stop})) for stop in STOPS}
    return {stop: dict(score_table(trajectory, until)[0].values) for stop, until in cut.items()}, recorder.live.fired_epoch


def table() -> str:
    """A row a score, most reliable at the detected end first; the mean over scores last."""
    rows = RESULTS.rows()
    lines = ["| data | score | " + " | ".join(f"stop {stop}" for stop in STOPS) + " | detected ends |", "|---|---|" + "---|" * (len(STOPS) + 1)]
    for data in sorted({r["data"] for r in rows}):
        mine = {(r["score"], r["stop"]): r["correlation"] for r in rows if r["data"] == data}
        ends = next(r["detected"] for r in rows if r["data"] == data)
        nearest = min(STOPS, key=lambda stop: abs(stop - np.mean([end for end in ends if end])))
        names = sorted({name for name, _ in mine}, key=lambda name: (-mine[name, nearest], name))
        for name in names:
            lines.append(f"| {data} | `{name}` | " + " | ".join(f"{mine[name, stop]:.2f}" for stop in STOPS) + f" | {', '.join(map(str, ends))} |")
        means = [np.nanmean([mine[name, stop] for name in names]) for stop in STOPS]
        lines.append(f"| {data} | mean | " + " | ".join(f"{mean:.2f}" for mean in means) + " | |")
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=3)
    for name in list(files)[part::parts]:
        if RESULTS.has(data=name):
            continue
        with tempfile.TemporaryDirectory():
            made = [scores_by_stop(files[name], seed) for seed in seeds]
        for stop in STOPS:
            for score in made[0][0][stop]:
                ranked = [mean_ranks(scores[stop][score]) for scores, _ in made]
                pairs = [float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else float("nan") for a, b in combinations(ranked, 2)]
                row = {"data": name, "stop": stop, "score": score, "correlation": round(float(np.mean(pairs)), 4), "lowest": round(min(pairs), 4)}
                RESULTS.add(row | {"detected": [end for _, end in made], "seeds": len(seeds)})
