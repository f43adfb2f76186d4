"""Accuracy after training on what each strategy keeps: data x noise x share x strategy x seeds.

    python examples/benchmarks/selection.py fashion=FASHION.npz cifar10=CIFAR10.npz --part 0/2 &
    python examples/benchmarks/selection.py fashion=FASHION.npz cifar10=CIFAR10.npz --part 1/2
    python examples/benchmarks/selection.py --table                                # every cell
    python examples/benchmarks/selection.py --figure examples/benchmarks/selection.svg

15,000 class-balanced training images of each file, the full test set, small CNN, batch 128, SGD 0.05 with one cosine. Equal steps: every arm has as many steps as 20 epochs
of all 15,000; `steps x3` and `steps x6` are three and six times as many, to see whether these are enough. Equal epochs: 20 epochs of what is kept, and the arms that see all data (a shortened
schedule = RS2, InfoBatch) get the same number of steps. Score seed s, training seed 100 + s. Accuracy is that of the last epoch; the best of eight looks stands beside it because papers often print that. Noise is a share of the labels
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
from common import N_TRAIN, Results, bench_scale, on_device, with_noise

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
BUDGETS = {"steps": "", "epochs": ", equal epochs", "steps x3": ", three times the steps", "steps x6": ", six times the steps"}
LONGER = {"steps x3": 3, "steps x6": 6}


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
    add(6, 0.0, 1.0, "full", "steps x3")
    for keep in KEEPS:
        for strategy in (RANDOM, DEFAULT):
            add(6 if keep == 0.3 else 7, 0.0, keep, strategy, "steps x3")
    add(8, 0.0, 1.0, "full", "steps x6")
    for keep in KEEPS:
        for strategy in ALWAYS:
            add(9, 0.0, keep, strategy, "steps x3")
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


def labelled(path: str, noise: float | str, n_train: int) -> dict[str, Any]:
    """The bench-scale data with the labels of this kind of noise; `y_clean` are the right ones."""
    held = bench_scale(path, n_train, with_ids=True)
    if isinstance(noise, str):
        return held | {"y_clean": held["y_train"], "y_train": np.load(path)[noise][held["ids"].astype(int)].astype(np.int64)}
    return with_noise(held, noise)


def measure(job: dict[str, Any], path: str, work: Path, *, n_train: int = N_TRAIN, epochs: int = EPOCHS) -> dict[str, Any]:
    """Score (once a seed and noise), select, train, test."""
    from clprune import pipeline
    from clprune.dynamic import dynamic_arm
    from clprune.manifest import read_manifest
    from clprune.proxies import build_proxy
    from clprune.run import read_run
    from clprune.sources import open_source
    from clprune.training import Recipe, TrainingState, new_state, predict, seed_everything, train

    held = labelled(path, job["noise"], n_train)
    wrong = held["y_train"] != held["y_clean"]
    train_data, test_data = on_device(held)
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
    n_steps = epochs * -(-(n_keep if job["budget"] == "epochs" else n) // BATCH) * LONGER.get(job["budget"], 1)
    labels, looks = test_data.labels.cpu().numpy(), []
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


def cells(every: list[dict[str, Any]]) -> dict[tuple[str, str, str, str], dict[float, list[dict[str, Any]]]]:
    """Rows by data, noise, training budget and strategy; then by share, largest first."""
    order = {strategy: at for at, strategy in enumerate(("full", RANDOM, DEFAULT, *ALWAYS, *OTHERS, *DYNAMIC))}
    grouped: dict[Any, dict[float, list[dict[str, Any]]]] = {}
    budgets = list(BUDGETS)
    for row in sorted(every, key=lambda r: (r["data"], str(r["noise"]), budgets.index(r["budget"]), order[r["strategy"]], -r["keep"], r["seed"])):
        grouped.setdefault((row["data"], str(row["noise"]), row["budget"], row["strategy"]), {}).setdefault(row["keep"], []).append(row)
    return grouped


def to_random(rows: list[dict[str, Any]], base: list[dict[str, Any]]) -> tuple[np.ndarray, float]:
    """Differences to random of the same seeds, in points, and half the width of their 95 % interval (nan for a single one)."""
    of = {row["seed"]: row["accuracy"] for row in base}
    gain = np.array([100 * (row["accuracy"] - of[row["seed"]]) for row in rows if row["seed"] in of])
    return gain, t_975(len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan


def plain(rows: list[dict[str, Any]]) -> str:
    """Mean accuracy in percent with its standard deviation; nothing where there are no rows."""
    accuracy = 100 * np.array([row["accuracy"] for row in rows])
    return f"{accuracy.mean():.2f}" + (f" ± {accuracy.std(ddof=1):.2f}" if len(rows) > 1 else "") if rows else ""


def table() -> str:
    """A row a strategy, a column a share: random's accuracy and that of everything, the others' paired difference to it with the half width of its 95 % interval (none: a single seed); the best of a column in bold."""
    grouped = cells(RESULTS.rows())
    lines = [
        "| data | wrong labels | strategy | everything | " + " | ".join(f"{keep:g}" for keep in KEEPS) + " |",
        "|---|---|---|---|" + "---|" * len(KEEPS),
    ]
    for (data, noise, budget, strategy), by_keep in grouped.items():
        if strategy == "full":
            continue
        family = {s: rows for (d, w, b, s), rows in grouped.items() if (d, w, b) == (data, noise, budget)}
        texts = [plain(family.get("full", {}).get(1.0, [])) if strategy == RANDOM else ""]
        for keep in KEEPS:
            rows, text = by_keep.get(keep, []), ""
            if rows and strategy == RANDOM:
                text = plain(rows)
            elif rows:
                means = {
                    s: to_random(held[keep], family[RANDOM][keep])[0].mean()
                    for s, held in family.items()
                    if len(held.get(keep, [])) > 1 and s != RANDOM
                }
                gain, half = to_random(rows, family[RANDOM][keep])
                text = f"{gain.mean():+.2f}" + ("" if np.isnan(half) else f" ± {half:.2f}")
                text = f"**{text}**" if strategy in means and gain.mean() == max(means.values()) > 0 else text
            texts.append(text)
        lines.append(f"| {data}{BUDGETS[budget]} | {NOISES.get(noise, noise)} | `{strategy}` | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def details(every: list[dict[str, Any]]) -> str:
    """Every cell: mean and standard deviation over seeds, the best look, the worst class, wrong labels kept, and the cost after one, three and ten trainings."""
    lines = [
        "| data | wrong labels | strategy | keep | accuracy, % | to random, points (95 %) | best look, % | worst class, % | wrong labels kept | cost after 1 / 3 / 10 | seeds |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|---|---|")
    grouped = cells(every)
    for (data, noise, budget, strategy), by_keep in grouped.items():
        for keep, cell in by_keep.items():
            accuracy = 100 * np.array([r["accuracy"] for r in cell])
            gain, half = to_random(cell, grouped.get((data, noise, budget, RANDOM), {}).get(keep, []))
            shown = "" if strategy == RANDOM or not len(gain) else f"{gain.mean():+.2f}" + ("" if np.isnan(half) else f" ± {half:.2f}")
            spread = f" ± {accuracy.std(ddof=1):.2f}" if len(accuracy) > 1 else ""
            kept = "" if "wrong_kept" not in cell[0] or noise == "0.0" else f"{np.mean([r['wrong_kept'] for r in cell]):.1%}"
            epochs = EPOCHS * LONGER.get(budget, 1)
            full = -(-N_TRAIN // BATCH) * epochs
            scoring = np.mean([r["score_epochs"] for r in cell]) / epochs if strategy not in ("full", *DYNAMIC, RANDOM) else 0.0
            cost = " / ".join(f"{(scoring + times * cell[0]['steps'] / full) / times:.2f}" for times in (1, 3, 10))
            best, worst = 100 * np.mean([r["best"] for r in cell]), 100 * np.mean([r["worst_class"] for r in cell])
            lines.append(
                f"| {data}{BUDGETS[budget]} | {NOISES.get(noise, noise)} | `{strategy}` | {keep:g} | {accuracy.mean():.2f}{spread} | {shown} | {best:.2f} | {worst:.1f} | {kept} "
                f"| {cost} | {len(cell)} |"
            )
    return "\n".join(lines)


def figure(path: Path) -> None:
    """Accuracy over the kept share for random, the default and the best baselines, bands of one standard deviation; SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "clprune"
    import matplotlib.pyplot as plt

    grouped = cells(RESULTS.rows())
    drawn = {key[:3] for key, by_keep in grouped.items() if any(len(rows) > 1 for keep, rows in by_keep.items() if keep < 1)}
    panels = [key for key in dict.fromkeys((d, w, b) for d, w, b, _ in grouped) if key[2] == "steps" and key in drawn]
    drawing, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.4), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        for (d, w, b, strategy), by_keep in grouped.items():
            seen = {keep: 100 * np.array([r["accuracy"] for r in rows]) for keep, rows in by_keep.items() if len(rows) > 1}
            if (d, w, b) != panel or not seen:
                continue
            shares = sorted(seen)
            mean, spread = (np.array([getattr(seen[keep], what)() for keep in shares]) for what in ("mean", "std"))
            if strategy == "full":
                axis.axhline(mean[0], color="grey", linestyle=":", label="everything")
                continue
            (line,) = axis.plot(shares, mean, marker="o", markersize=3, linewidth=2 if strategy == DEFAULT else 1, label=strategy.split("(class")[0])
            axis.fill_between(shares, mean - spread, mean + spread, color=line.get_color(), alpha=0.15, linewidth=0)
        axis.set(title=f"{panel[0]}, {NOISES.get(panel[1], panel[1])} wrong labels", xlabel="kept share", ylabel="test accuracy, %")
        axis.legend(fontsize=7)
    drawing.tight_layout()
    drawing.savefig(path, metadata={"Date": None})


def short() -> None:
    """Three strategies on 2,000 of the embedded images, two seeds, 4 epochs' worth of steps: a minute, nothing kept; shows that the machinery runs, decides nothing."""
    from clprune.inputs import held_out_inputs, inputs_of
    from clprune.sources import open_source

    train = open_source("fashion-mnist-sample")
    test, (images, rule), rows = train.load_test(), inputs_of(train, None), []
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/sample.npz"
        np.savez(file, x_train=images, y_train=train.labels, x_test=held_out_inputs(test, rule), y_test=test.labels)
        for seed in range(2):
            for strategy in (RANDOM, DEFAULT, "hardest(score='el2n')"):
                job = {"data": "sample", "noise": 0.0, "keep": 0.3, "strategy": strategy, "budget": "steps", "seed": seed}
                rows.append(measure(job, file, Path(folder), n_train=2_000, epochs=4))
    print(details(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="NAME=FILE.npz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--tiers",
        default="1,2,3,4,5,6,7,8,9",
        help="1: default and random; 2: wrong labels; 3: baselines; 4: equal epochs; 5: the other baselines; 6 and 7: three times the steps, at 0.3 and at the other shares; 8: six times, everything; 9: the baselines at three times",
    )
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--table", action="store_true", help="print every cell")
    parser.add_argument("--figure", type=Path, help="draw accuracy over the kept share to this SVG file")
    parser.add_argument("--short", action="store_true", help="a minute on the embedded sample; nothing is kept")
    given = parser.parse_args()
    if given.table:
        print(details(RESULTS.rows()))
    if given.figure:
        figure(given.figure)
    if given.short:
        short()
    this, of = map(int, given.part.split("/"))
    files = dict(item.partition("=")[::2] for item in given.data)
    with tempfile.TemporaryDirectory() as folder:
        for one in jobs(files, given.seeds, [int(tier) for tier in given.tiers.split(",")])[this::of]:
            if not RESULTS.has(**one) and not out_of_reach(one):
                RESULTS.add(measure(one, files[one["data"]], Path(folder)))
