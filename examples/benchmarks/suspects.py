"""How well `suspicion` finds wrong labels, beside cleanlab on cross-validated probabilities of the same proxy at no more than the same cost.

    python examples/benchmarks/suspects.py fashion=FASHION.npz cifar10=CIFAR10.npz --cleanlab PYTHON
    python examples/benchmarks/suspects.py --table

All training images unless `--samples` says fewer (class-balanced). Fashion-MNIST: 20 % of the labels replaced by another class at random ("symmetric"), and 20 % by the class that
follows ("class-dependent"), drawn anew for each seed. CIFAR-10 with the labels that people gave (CIFAR-10N, Wei et al., 2022, arXiv:2110.12088), arrays `y_aggre` and `y_worse` of the file;
wrong is what differs from `y_train`. "unequal": classes of 1,500 down to 75, in geometric progression, with 10 % of the labels replaced at random or none ("unequal, none").
"none" is the data as they are, whose labels count as right, so that nothing should be flagged. Suspicion is that of the run folder of `clprune score` (small CNN, stops by itself), nothing else. cleanlab's `find_label_issues` is given
probabilities from FOLDS-fold cross-validation of the small CNN with a cosine, which together train on no more samples than scoring did. `--cleanlab` names the Python that has it. With
`--runs FOLDER` run folders and probabilities stay there, and are used again; suspicion is computed anew from what a run recorded.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, auc, bench_scale, on_device

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "noise", "samples", "seed"))
SHARE, BATCH = 0.2, 128
UNEQUAL, SIZES = ("unequal, none", "unequal"), [int(1_500 * 20 ** (-c / 9)) for c in range(10)]
FOLDS = 3
NOISES = {"fashion": ("none", "symmetric", "class-dependent", *UNEQUAL), "cifar10": ("none", "y_aggre", "y_worse", *UNEQUAL)}
BARS = {"symmetric": 0.98, "class-dependent": 0.93, "y_aggre": 0.95, "y_worse": 0.90}
CLEANLAB = """
import sys, numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
given = np.load(sys.argv[1])
labels, p = given["labels"], given["p"].astype(np.float64)
np.savez(sys.argv[2], issue=find_label_issues(labels, p), quality=get_label_quality_scores(labels, p))
"""


def labels_with(noise: str, held: dict[str, np.ndarray], path: str, seed: int) -> np.ndarray:
    """Training labels (N,) of which some are wrong."""
    clean, rng = held["y_train"], np.random.default_rng((seed, 40))
    n_classes = int(clean.max()) + 1
    if noise.startswith("y_"):
        return np.load(path)[noise].astype(np.int64)[held["ids"].astype(np.int64)]
    if noise.endswith("none"):
        return clean
    step = 1 if noise == "class-dependent" else rng.integers(1, n_classes, len(clean))
    return np.where(rng.random(len(clean)) < (SHARE / 2 if noise in UNEQUAL else SHARE), (clean + step) % n_classes, clean)


def unequal(path: str, seed: int) -> dict[str, np.ndarray]:
    """The data of `bench_scale` with SIZES training images of the classes, drawn anew for each seed."""
    held, rng = bench_scale(path, with_ids=True), np.random.default_rng((seed, 42))
    rows = np.sort(np.concatenate([rng.permutation(np.flatnonzero(held["y_train"] == c))[:size] for c, size in enumerate(SIZES)]))
    return held | {name: held[name][rows] for name in ("x_train", "y_train", "ids")}


def cross_validated(held: dict[str, np.ndarray], labels: np.ndarray, seed: int, n_seen: int) -> np.ndarray:
    """Probabilities (N, C) of each sample from a model that did not see it; all folds together train on at most `n_seen` samples, repeats counted."""
    from clprune.proxies import build_proxy
    from clprune.training import Recipe, new_state, predict, seed_everything, train

    data, _ = on_device(held | {"y_train": labels})
    n_classes, probability = int(labels.max()) + 1, np.empty((len(labels), int(labels.max()) + 1))
    parts = np.array_split(np.random.default_rng((seed, 41)).permutation(len(labels)), FOLDS)
    for fold, part in enumerate(parts):
        seed_everything(100 * seed + fold)
        recipe = Recipe(schedule="cosine")
        state = new_state(build_proxy("small_cnn", n_classes, data.input_shape), data.device, recipe)
        rows = np.setdiff1d(np.arange(len(labels)), part)
        train(state, data, recipe, n_epochs=1, n_steps=n_seen // (FOLDS * BATCH), seed=seed, rows=rows)
        logits = predict(state.model, data, rows=np.sort(part))[0].astype(np.float64)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability[np.sort(part)] = p / p.sum(axis=1, keepdims=True)
    return probability


def found(flagged: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of what was flagged."""
    hit = int((flagged & wrong).sum())
    return {
        "precision": hit / max(1, int(flagged.sum())),
        "recall": hit / max(1, int(wrong.sum())),
        "f1": 2 * hit / max(1, int(flagged.sum() + wrong.sum())),
    }


def measure(data: str, path: str, noise: str, samples: int, seed: int, python: str | None, work: Path) -> dict[str, Any]:
    """Score with wrong labels, and let cleanlab judge the same labels."""
    from clprune import pipeline
    from clprune.neighborhood import find_neighborhood
    from clprune.run import read_run
    from clprune.suspects import suspect_above

    held = unequal(path, seed) if noise in UNEQUAL else bench_scale(path, samples, with_ids=True)
    labels = labels_with(noise, held, path, seed)
    wrong, name = labels != held["y_train"], f"{data}-{noise}-{len(labels)}-{seed}".replace(", ", "-")
    file, run = work / f"{name}.npz", work / name
    if not (run / "run.json").exists():
        np.savez(file, x_train=held["x_train"], y_train=labels, ids=held["ids"])
        pipeline.score(str(file), run, seed=seed)
        file.unlink()
    scored = read_run(run)
    document, epochs = scored.document, slice(scored.document["clp"]["start_epoch"], scored.document["clp"]["end_epoch"])
    p_label, predicted = (np.load(run / "trajectory" / f"{signal}.npy")[epochs] for signal in ("p_label", "predicted"))
    suspicion = find_neighborhood(scored.table.sample_ids, labels, p_label, predicted, vectors=scored.vectors, images=None).suspicion
    row: dict[str, Any] = {"data": data, "noise": noise, "samples": len(labels), "seed": seed, "n_wrong": int(wrong.sum())}
    row |= {"epochs": document["epochs_run"], "seconds": document["seconds"], "above": suspect_above(suspicion)}
    flagged = suspicion > row["above"]
    row |= {"n_flagged": int(flagged.sum())} | found(flagged, wrong)
    if not wrong.any():
        return row
    row |= {"auc": auc(suspicion, wrong), "auc_of_mean_loss": auc(scored.table.difficulty("mean_loss"), wrong)}
    if python is not None:
        given = work / f"{name}-folds{FOLDS}.npz"
        if not given.exists():
            np.savez(given, labels=labels, p=cross_validated(held, labels, seed, len(labels) * document["epochs_run"]))
        judged = work / f"{name}-judged.npz"
        subprocess.run([python, "-c", CLEANLAB, str(given), str(judged)], check=True)
        told = np.load(judged)
        row["cleanlab"] = {"folds": FOLDS, "auc": auc(-told["quality"], wrong), **found(told["issue"], wrong)}
    return row


def table() -> str:
    """Means over seeds, standard deviation of the area under the curve; F1 of cleanlab beside that of what `score` flags."""
    lines = [
        "| data | wrong labels | samples | ROC AUC of suspicion | bar | of the mean loss | of cleanlab's score | suspect above | flagged | precision / recall / F1 of the flagged | of cleanlab's | epochs | seeds |"
    ]
    lines.append("|" + "---|" * 13)
    rows = RESULTS.rows()
    for data, noise, samples in sorted(
        {(r["data"], r["noise"], r["samples"]) for r in rows}, key=lambda cell: (cell[2], cell[0], BARS.get(cell[1], 0), cell[1])
    ):
        mine = [r for r in rows if (r["data"], r["noise"], r["samples"]) == (data, noise, samples)]
        theirs = [r["cleanlab"] for r in mine if "cleanlab" in r]
        above, n_flagged = (np.mean([r[key] for r in mine]) for key in ("above", "n_flagged"))
        epochs = ", ".join(str(r["epochs"]) for r in mine)
        if noise.endswith("none"):
            lines.append(f"| {data} | {noise} | {samples:,} |  |  |  |  | {above:.3f} | {n_flagged:,.0f} |  |  | {epochs} | {len(mine)} |")
            continue
        aucs = np.array([r["auc"] for r in mine])
        shown = f"{aucs.mean():.3f}" + (f" ± {aucs.std(ddof=1):.3f}" if len(mine) > 1 else "")
        share = np.mean([r["n_wrong"] / r["samples"] for r in mine])
        flags = [
            " / ".join(f"{np.mean([r[key] for r in those]):.2f}" for key in ("precision", "recall", "f1")) if those else ""
            for those in (mine, theirs)
        ]
        bar = f"{BARS[noise]:.2f}" if noise in BARS else ""
        others = f"{np.mean([r['auc_of_mean_loss'] for r in mine]):.3f} | " + (f"{np.mean([r['auc'] for r in theirs]):.3f}" if theirs else "")
        lines.append(
            f"| {data} | {noise}, {share:.0%} | {samples:,} | {shown} | {bar} | {others} | {above:.3f} | {n_flagged:,.0f} | {flags[0]} | {flags[1]} | {epochs} | {len(mine)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="NAME=FILE.npz, names fashion and cifar10")
    parser.add_argument("--seeds", default="1,2,3", help="the rule was chosen on seed 0 of 15,000 images")
    parser.add_argument("--samples", type=int, help="class-balanced; all by default")
    parser.add_argument("--noise", help="only this one")
    parser.add_argument("--cleanlab", metavar="PYTHON", help="an interpreter that has cleanlab; without, its columns stay empty")
    parser.add_argument("--runs", type=Path, help="where run folders stay")
    parser.add_argument("--part", default="0/1", help="0/2 and 1/2 for two processes, one a core")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if not given.table:
        part, parts = map(int, given.part.split("/"))
        files = dict(item.partition("=")[::2] for item in given.data)
        jobs = [
            (seed, data, noise)
            for seed in map(int, given.seeds.split(","))
            for data in files
            for noise in NOISES[data]
            if given.noise in (None, noise)
        ]
        with tempfile.TemporaryDirectory() as folder:
            work = given.runs or Path(folder)
            work.mkdir(parents=True, exist_ok=True)
            for seed, data, noise in jobs[part::parts]:
                samples = sum(SIZES) if noise in UNEQUAL else given.samples or len(np.load(files[data])["y_train"])
                if not RESULTS.has(data=data, noise=noise, samples=samples, seed=seed):
                    RESULTS.add(measure(data, files[data], noise, samples, seed, given.cleanlab, work))
    print(table())
