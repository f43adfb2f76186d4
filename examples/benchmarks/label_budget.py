"""Accuracy over the number of labels bought, round by round: clprune against random labelling and the usual rules of active learning.

    python examples/benchmarks/label_budget.py fashion=FASHION.npz cifar10=CIFAR10.npz --part 0/2 &
    python examples/benchmarks/label_budget.py fashion=FASHION.npz cifar10=CIFAR10.npz --part 1/2
    python examples/benchmarks/label_budget.py --table

15,000 class-balanced training images with their labels hidden; 1,000 random ones are labelled first, the same for every rule, then rounds at 2,000, 4,000, 7,000 and 10,000. At every round the
small CNN is trained anew with as many steps as 10 epochs of all 15,000, and tested on the full test set. The rules of the field (entropy, margin, k-center, BADGE, TypiClust, plain versions below) look
at the pool with that trained network, which costs them nothing here; clprune looks with its own short run, whose seconds are stated. One line a rule and seed; a stopped run goes on with
the next. clprune's rounds go the way of a user: score --answers, select --label-budget, labels add.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, arguments, bench_scale, machine, on_device

from clprune import pipeline
from clprune.evaluation import t_975
from clprune.labels import add_answers
from clprune.proxies import build_proxy
from clprune.training import DeviceData, Recipe, new_state, predict, seed_everything, train

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "rule", "seed"))
ROUNDS, STEPS = (1_000, 2_000, 4_000, 7_000, 10_000), 10 * 118
CLPRUNE = ("clprune", "clprune:hardest(score='uncertainty')", "clprune:typical_clusters")

Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]


def entropy(p: np.ndarray, features: np.ndarray, labelled: np.ndarray, pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return pool[np.argsort((p[pool] * np.log(p[pool] + 1e-12)).sum(axis=1), kind="stable")[:n]]


def margin(p: np.ndarray, features: np.ndarray, labelled: np.ndarray, pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    top = np.sort(p[pool], axis=1)
    return pool[np.argsort(top[:, -1] - top[:, -2], kind="stable")[:n]]


def k_center(p: np.ndarray, features: np.ndarray, labelled: np.ndarray, pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Greedy, from what is labelled (Sener & Savarese, 2018)."""
    gap = np.full(len(pool), np.inf)
    for row in labelled:
        gap = np.minimum(gap, ((features[pool] - features[row]) ** 2).sum(axis=1))
    picked = []
    for _ in range(n):
        at = int(gap.argmax())
        picked.append(pool[at])
        gap = np.minimum(gap, ((features[pool] - features[pool[at]]) ** 2).sum(axis=1))
    return np.array(picked)


def badge(p: np.ndarray, features: np.ndarray, labelled: np.ndarray, pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ on gradients of the last layer under the predicted label (Ash et al., 2020); distances of outer products from those of their factors."""
    a, b = p[pool].astype(np.float64), features[pool].astype(np.float64)
    a[np.arange(len(a)), a.argmax(axis=1)] -= 1
    length_a, length_b = (a**2).sum(axis=1), (b**2).sum(axis=1)
    gap, picked = None, [int((length_a * length_b).argmax())]
    while len(picked) < n:
        at = picked[-1]
        new = np.maximum(length_a * length_b + length_a[at] * length_b[at] - 2 * (a @ a[at]) * (b @ b[at]), 0)
        gap = new if gap is None else np.minimum(gap, new)
        gap[picked] = 0
        picked.append(int(rng.choice(len(pool), p=gap / gap.sum())))
    return pool[np.array(picked)]


def typiclust(p: np.ndarray, features: np.ndarray, labelled: np.ndarray, pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """The most typical sample of the largest clusters that hold least that is labelled, at most 500 clusters (Hacohen et al., 2022)."""
    from clprune.neighbors import assign, kmeans, nearest

    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    at = assign(unit, kmeans(unit, min(500, len(labelled) + n), rng))
    typical = 1 / np.maximum(nearest(unit, 20)[0].mean(axis=1), 1e-6)
    left = {c: rows[np.argsort(-typical[rows], kind="stable")].tolist() for c in np.unique(at) if len(rows := pool[at[pool] == c])}
    held = np.bincount(at[labelled], minlength=at.max() + 1)
    sizes = np.bincount(at, minlength=at.max() + 1)
    picked: list[int] = []
    while len(picked) < n:
        c = min((c for c in left if left[c]), key=lambda c: (held[c], -sizes[c]))
        picked.append(left[c].pop(0))
        held[c] += 1
    return np.array(picked)


def random(p: np.ndarray, features: np.ndarray, labelled: np.ndarray, pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(pool)[:n]


RULES: dict[str, Rule] = {"random": random, "margin": margin, "badge": badge, "entropy": entropy, "k_center": k_center, "typiclust": typiclust}


def trained(rows: np.ndarray, data: DeviceData, test: DeviceData, seed: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Test accuracy of a small CNN trained on `rows`; its probabilities and features of all training images."""
    seed_everything(seed)
    recipe = Recipe(schedule="cosine")
    state = new_state(build_proxy("small_cnn", 10, data.input_shape), data.device, recipe)
    train(state, data, recipe, n_epochs=1, n_steps=STEPS, seed=seed, rows=np.sort(rows))
    accuracy = float((predict(state.model, test)[0].argmax(axis=1) == test.labels.cpu().numpy()).mean())
    logits, features = predict(state.model, data)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert features is not None
    return accuracy, p / p.sum(axis=1, keepdims=True), features


def run_of(rule: str, path: str, seed: int) -> dict[str, Any]:
    """All rounds of one rule."""
    held = bench_scale(path, with_ids=True)
    data, test = on_device(held)
    n, labels, rng = len(held["ids"]), held["y_train"], np.random.default_rng((seed, 41))
    labelled = rng.permutation(n)[: ROUNDS[0]]
    accuracies, choosing, classes = [], 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        known = np.where(np.isin(np.arange(n), labelled), labels, -1)
        np.savez(f"{folder}/pool.npz", x_train=held["x_train"], y_train=known, ids=held["ids"])
        answers = None
        for number, count in enumerate(ROUNDS):
            accuracy, p, features = trained(labelled, data, test, 100 + seed)
            accuracies.append(accuracy)
            if number + 1 == len(ROUNDS):
                break
            wanted, pool, begun = ROUNDS[number + 1] - count, np.setdiff1d(np.arange(n), labelled), time.perf_counter()
            if rule in RULES:
                fresh = RULES[rule](p, features, labelled, pool, wanted, rng)
            else:
                strategy = rule.partition(":")[2] or None
                pipeline.score(f"{folder}/pool.npz", f"{folder}/run{number}", seed=seed, answers=answers)
                answers = f"{folder}/m{number}"
                made = pipeline.select(f"{folder}/run{number}", answers, label_budget=wanted, strategy=strategy, seed=seed)
                fresh = np.sort(made.samples.filter(made.samples["kept"])["index"].to_numpy())
                Path(f"{folder}/a.csv").write_text("sample_id,label\n" + "".join(f"{held['ids'][row]},{labels[row]}\n" for row in fresh))
                add_answers(Path(answers), [Path(f"{folder}/a.csv")])
            choosing += time.perf_counter() - begun
            assert len(np.unique(fresh)) == wanted and not np.isin(fresh, labelled).any()
            labelled = np.concatenate([labelled, fresh])
            classes.append(np.bincount(labels[labelled], minlength=10).tolist())
    area = float(np.trapezoid(accuracies, ROUNDS) / (ROUNDS[-1] - ROUNDS[0]))
    return {"accuracies": accuracies, "area": area, "choosing_seconds": choosing, "machine": machine(), "classes": classes}


def table() -> str:
    """Accuracy by round, the area under it and its paired difference to random labelling, mean over seeds."""
    rows = RESULTS.rows()
    lines = [
        "| data | rule | " + " | ".join(f"{count:,}" for count in ROUNDS) + " | area, % | to random, points (95 %) | choosing, s (CPU) | seeds |"
    ]
    lines.append("|---" * (len(ROUNDS) + 6) + "|")
    order = [*CLPRUNE, *RULES]
    for data, rule in sorted({(r["data"], r["rule"]) for r in rows}, key=lambda key: (key[0], order.index(key[1]))):
        mine = [r for r in rows if (r["data"], r["rule"]) == (data, rule)]
        base = {r["seed"]: r["area"] for r in rows if r["data"] == data and r["rule"] == "random"}
        gain = 100 * np.array([r["area"] - base[r["seed"]] for r in mine if r["seed"] in base])
        half = t_975(len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else None
        shown = (
            ""
            if rule == "random" or not len(gain)
            else f"{gain.mean():+.2f}" + ("" if half is None else f" ({gain.mean() - half:+.2f} to {gain.mean() + half:+.2f})")
        )
        cells = " | ".join(f"{100 * value:.2f}" for value in np.mean([r["accuracies"] for r in mine], axis=0))
        choosing = [r["choosing_seconds"] for r in mine if r.get("machine", "CPU") == "CPU"]
        lines.append(
            f"| {data} | `{rule}` | {cells} | {100 * np.mean([r['area'] for r in mine]):.2f} | {shown} | {f'{np.mean(choosing):.0f}' if choosing else ''} | {len(mine)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=3)
    first = ["random", CLPRUNE[0], "margin"]
    jobs = [
        {"data": name, "rule": rule, "seed": seed}
        for some in (first, [r for r in (*RULES, *CLPRUNE) if r not in first])
        for seed in seeds
        for rule in some
        for name in files
    ]
    for job in jobs[part::parts]:
        if not RESULTS.has(**job):
            RESULTS.add(job | run_of(str(job["rule"]), files[str(job["data"])], int(job["seed"])))
