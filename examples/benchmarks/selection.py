"""Accuracy after training on what each strategy keeps: data x noise x share x strategy x seeds.

    python examples/benchmarks/selection.py fashion=FASHION.npz cifar10=CIFAR10.npz --part 0/2 &
    python examples/benchmarks/selection.py fashion=FASHION.npz cifar10=CIFAR10.npz --part 1/2
    python examples/benchmarks/selection.py --table

15,000 class-balanced training images of each file, the full test set, small CNN, batch 128, SGD 0.05 with one cosine. Equal steps: every arm has as many steps as 20 epochs
of all 15,000. Equal epochs: 20 epochs of what is kept, and the arms that see all data (a shortened schedule = RS2, InfoBatch) get the same number of steps. Score seed s,
training seed 100 + s. Accuracy is that of the last epoch; the best of eight looks stands beside it because papers often print that. Noise is a share of the labels
replaced by another class at random, or the name of an array of labels in the file (`y_worse`: the worst of three people, CIFAR-10N). Each result is a line in selection.json,
so that a stopped run goes on; the jobs come in the order of their weight: tier 1 is random and the default in all cells. A baseline that its first seed leaves more than
1.5 points behind the default (about two standard deviations of such a difference) gets no further seeds. One process a core.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, bench_scale, on_cpu, with_noise

from clprune.evaluation import t_975

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "noise", "keep", "strategy", "budget", "seed"))
EPOCHS, BATCH, LOOKS, BEHIND = 20, 128, 8, 0.015
HUMAN = "y_worse"
NOISES = {"0.0": "0%", "0.2": "20%", HUMAN: "40%, human"}
KEEPS, MIDDLE = (0.7, 0.5, 0.3, 0.2, 0.1), (0.5, 0.2)
RANDOM, DEFAULT = "random(class_balanced=True)", "blend"
ALWAYS = ("beta_sampling", "hardest(score='el2n')", "stratified", "hardest(score='forgetting')", "d2", "k_center")
OTHERS = ("hardest(score='dual')", "moderate", "hardest(score='grand')", "hardest(score='dyn_unc')", "hardest(score='tdds')", "herding", "diverse")
DYNAMIC = ("shortened", "infobatch")  # arms of `clprune evaluate` that see all data


def jobs(files: dict[str, str], seeds: int, tiers: list[int]) -> list[dict[str, Any]]:
    """What is to be trained, most telling first: the default against random, the same with wrong labels, then the baselines, equal epochs, and the other baselines."""
    plan: list[tuple[int, dict[str, Any]]] = []

    def add(tier: int, noise: float | str, keep: float, strategy: str, budget: str = "steps") -> None:
        names = [name for name, path in files.items() if noise != HUMAN or HUMAN in np.load(path)]
        plan.extend((tier, {"data": name, "noise": noise, "keep": keep, "strategy": strategy, "budget": budget}) for name in names)

    add(1, 0.0, 1.0, "full")
    for keep in KEEPS:
        for strategy in (RANDOM, DEFAULT):
            add(1, 0.0, keep, strategy)
        for strategy in ALWAYS:
            add(3, 0.0, keep, strategy)
    for noise in (0.2, HUMAN):
        add(2, noise, 1.0, "full")
        for keep in (0.7, 0.5, 0.3):
            for strategy in (RANDOM, DEFAULT):
                add(2, noise, keep, strategy)
    for keep in MIDDLE:
        for strategy in (RANDOM, DEFAULT, *DYNAMIC):
            add(4, 0.0, keep, strategy, "epochs")
        for strategy in OTHERS:
            add(5, 0.0, keep, strategy)
    return [job | {"seed": seed} for tier in tiers for seed in range(seeds) for at, job in plan if at == tier]


def out_of_reach(job: dict[str, Any]) -> bool:
    """Whether the first seed of a baseline was so far behind the default's that further seeds decide nothing."""
    if job["seed"] == 0 or job["strategy"] in (RANDOM, DEFAULT, "full", *DYNAMIC):
        return False
    first = {
        row["strategy"]: row["accuracy"]
        for row in RESULTS.rows()
        if all(row[name] == job[name] for name in ("data", "noise", "keep", "budget")) and row["seed"] == 0
    }
    return job["strategy"] in first and DEFAULT in first and first[job["strategy"]] < first[DEFAULT] - BEHIND


def labelled(path: str, noise: float | str) -> dict[str, Any]:
    """The bench-scale data with the labels of this kind of noise; `y_clean` are the right ones."""
    held = bench_scale(path, with_ids=True)
    if isinstance(noise, str):
        return held | {"y_clean": held["y_train"], "y_train": np.load(path)[noise][held["ids"].astype(int)].astype(np.int64)}
    return with_noise(held, noise)


def measure(job: dict[str, Any], path: str, work: Path) -> dict[str, Any]:
    """Score (once a seed and noise), select, train, test."""
    from clprune import pipeline
    from clprune.dynamic import dynamic_arm
    from clprune.manifest import read_manifest
    from clprune.proxies import build_proxy
    from clprune.run import read_run
    from clprune.sources import open_source
    from clprune.training import Recipe, TrainingState, new_state, predict, seed_everything, train

    held = labelled(path, job["noise"])
    wrong = held["y_train"] != held["y_clean"]
    train_data, test_data = on_cpu(held)
    n, seed, observe, facts = len(wrong), 100 + job["seed"], None, {}
    rows: Any = np.arange(n)
    n_keep = round(job["keep"] * n)
    if job["strategy"] in DYNAMIC:
        rows, observe = dynamic_arm(job["strategy"], np.arange(n), n_keep, seed)
    elif job["strategy"] != "full":
        file, run = work / f"{job['data']}-{job['noise']}.npz", work / f"run-{job['data']}-{job['noise']}-{job['seed']}"
        if not file.exists():
            np.savez(file, **{name: held[name] for name in ("x_train", "y_train", "ids")})
        scored = read_run(run).document if (run / "run.json").exists() else pipeline.score(str(file), run, seed=job["seed"])
        made = pipeline.select(run, work / "m", keep=str(n_keep), strategy=job["strategy"], seed=job["seed"], force=True)
        rows = np.sort(read_manifest(made.folder).indices(open_source(str(file))))
        facts = {
            "score_seconds": scored["seconds"],
            "score_epochs": scored["epochs_run"],
            "settled": scored["clp"]["settled"],
            "wrong_kept": float(wrong[rows].mean()),
        }
    n_steps = EPOCHS * -(-n // BATCH) if job["budget"] == "steps" else EPOCHS * -(-n_keep // BATCH)
    labels, looks = test_data.labels.numpy(), []
    right = np.zeros(len(labels), dtype=bool)

    def look(state: TrainingState) -> bool:
        if state.steps_done * LOOKS // n_steps > len(looks) and state.steps_done < n_steps:
            looks.extend(
                [float((predict(state.model, test_data)[0].argmax(axis=1) == labels).mean())] * (state.steps_done * LOOKS // n_steps - len(looks))
            )
            state.model.train()
        return False

    seed_everything(seed)
    recipe = Recipe(schedule="cosine")
    state = new_state(build_proxy("small_cnn", 10, train_data.input_shape), train_data.device, recipe)
    run_of = train(state, train_data, recipe, n_epochs=1, n_steps=n_steps, seed=seed, rows=rows, observe=observe, end_epoch=look)
    right = predict(state.model, test_data)[0].argmax(axis=1) == labels
    accuracy, worst = float(right.mean()), min(float(right[labels == c].mean()) for c in np.unique(labels))
    facts |= {"n_kept": n if callable(rows) else len(rows), "accuracy": accuracy, "best": max([accuracy, *looks]), "worst_class": worst}
    return job | facts | {"steps": run_of.steps, "train_seconds": run_of.seconds}


def table() -> str:
    """Mean and standard deviation over seeds, the paired difference to random with its 95 % interval, and the cost after one, three and ten trainings."""
    rows = RESULTS.rows()
    lines = [
        "| data | wrong labels | keep | strategy | accuracy, % | to random, points (95 %) | best look, % | worst class, % | wrong labels kept | cost after 1 / 3 / 10 | seeds |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|---|---|")
    order = {strategy: at for at, strategy in enumerate(("full", RANDOM, DEFAULT, *ALWAYS, *OTHERS, *DYNAMIC))}
    cells = sorted({(r["data"], str(r["noise"]), r["budget"] != "steps", -r["keep"], order[r["strategy"]], r["strategy"]) for r in rows})
    for data, noise, by_epochs, keep, _, strategy in cells:
        mine = [r for r in rows if (r["data"], str(r["noise"]), r["budget"] != "steps", -r["keep"]) == (data, noise, by_epochs, keep)]
        base = {r["seed"]: r["accuracy"] for r in mine if r["strategy"] == RANDOM}
        cell = [r for r in mine if r["strategy"] == strategy]
        accuracy = 100 * np.array([r["accuracy"] for r in cell])
        gain = 100 * np.array([r["accuracy"] - base[r["seed"]] for r in cell if r["seed"] in base])
        shown = ""
        if strategy != RANDOM and len(gain):
            half = t_975(len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0
            shown = f"{gain.mean():+.2f}" + (f" ({gain.mean() - half:+.2f} to {gain.mean() + half:+.2f})" if len(gain) > 1 else "")
        spread = f" ± {accuracy.std(ddof=1):.2f}" if len(accuracy) > 1 else ""
        kept = "" if "wrong_kept" not in cell[0] or noise == "0.0" else f"{np.mean([r['wrong_kept'] for r in cell]):.1%}"
        full = -(-15_000 // BATCH) * EPOCHS
        scoring = np.mean([r["score_epochs"] for r in cell]) / EPOCHS if strategy not in ("full", *DYNAMIC, RANDOM) else 0.0
        cost = " / ".join(f"{(scoring + times * cell[0]['steps'] / full) / times:.2f}" for times in (1, 3, 10))
        best, worst = 100 * np.mean([r["best"] for r in cell]), 100 * np.mean([r["worst_class"] for r in cell])
        where = f"{-keep:g}{', equal epochs' if by_epochs else ''}"
        lines.append(
            f"| {data} | {NOISES.get(noise, noise)} | {where} | `{strategy}` | {accuracy.mean():.2f}{spread} | {shown} | {best:.2f} | {worst:.1f} | {kept} | {cost} | {len(cell)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="NAME=FILE.npz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--tiers", default="1,2,3,4,5", help="1: default and random; 2: wrong labels; 3: baselines; 4: equal epochs; 5: the other baselines"
    )
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        print(table())
        raise SystemExit
    this, of = map(int, given.part.split("/"))
    files = dict(item.partition("=")[::2] for item in given.data)
    with tempfile.TemporaryDirectory() as folder:
        for one in jobs(files, given.seeds, [int(tier) for tier in given.tiers.split(",")])[this::of]:
            if not RESULTS.has(**one) and not out_of_reach(one):
                RESULTS.add(measure(one, files[one["data"]], Path(folder)))
