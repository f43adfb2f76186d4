"""What to label first where nothing is labelled: a representative part, typical samples or the middle of each cluster, against random ones.

    python examples/benchmarks/no_labels.py fashion=FASHION.npz cifar10=CIFAR10.npz
    python examples/benchmarks/no_labels.py sst2=FOLDER --seeds 10     # that of text.py
    python examples/benchmarks/no_labels.py --table

15,000 class-balanced training images, or the 6,920 sentences of SST-2, without any label. `clprune score` makes features of them, `clprune select --label-budget` asks for 1 % and for 10 % of them, the way of a user; the small CNN (of texts the bag of n-grams) is trained on what was asked for, and on as many random samples, with as many steps as 10 epochs of all, and tested on the full test set. Run seed s, training seed 100 + s. One line a
budget and seed; a stopped run goes on with the next.
"""

from __future__ import annotations

import csv
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Results, arguments, bench_scale, on_device, trained_on
from text import written

from clprune import pipeline
from clprune.evaluation import t_975
from clprune.inputs import held_out_inputs, held_out_part, inputs_of
from clprune.sources import open_source
from clprune.training import DeviceData, TokenData, to_device

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "strategy", "labels", "seed"))
SHARES, EPOCHS = (0.01, 0.1), 10
STRATEGIES = ("random_in_clusters", "typical_clusters", "cluster_medoids")


def of_images(path: str, folder: Path) -> tuple[str, DeviceData | TokenData, DeviceData | TokenData, str]:
    """The pool without labels as a file in `folder`; the same with labels and the test set, on the device; what is trained."""
    held = bench_scale(path, with_ids=True)
    np.savez(folder / "pool.npz", x_train=held["x_train"], y_train=np.full(len(held["ids"]), -1), ids=held["ids"])
    return str(folder / "pool.npz"), *on_device(held), "small_cnn"


def of_texts(path: str, folder: Path) -> tuple[str, DeviceData | TokenData, DeviceData | TokenData, str]:
    """The same of SST-2."""
    whole = written(Path(path), folder)
    lines = list(csv.DictReader(whole.open(encoding="utf-8")))
    with open(folder / "pool.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("id", "text", "label"))
        writer.writeheader()
        writer.writerows({"id": line["id"], "text": line["text"], "label": ""} for line in lines if line["split"] == "train")
    source = open_source(str(whole))
    tokens, rule = inputs_of(source, None)
    test = held_out_part(source)
    device = torch.device("cpu")
    return str(folder / "pool.csv"), to_device(tokens, source.labels, device), to_device(held_out_inputs(test, rule), test.labels, device), "text_bag"


def measure(path: str, data_name: str, seed: int) -> list[dict[str, Any]]:
    """Accuracy on what clprune asks for and on random samples, for each strategy and number of labels that is not there yet."""
    rows: list[dict[str, Any]] = []
    accuracy_of_random: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        pool, data, test, model = (of_texts if Path(path).is_dir() else of_images)(path, Path(folder))
        n, labels = len(data), data.labels.cpu().numpy()
        wanted = [
            (rule, round(share * n))
            for rule in STRATEGIES
            for share in SHARES
            if not RESULTS.has(data=data_name, strategy=rule, labels=round(share * n), seed=seed)
        ]
        if not wanted:
            return rows
        fixed: dict[str, Any] = {"n_classes": int(labels.max()) + 1, "seed": 100 + seed, "n_steps": EPOCHS * -(-n // 128), "model": model}
        began = time.perf_counter()
        pipeline.score(pool, f"{folder}/run", seed=seed)
        score_seconds = time.perf_counter() - began
        for strategy, count in wanted:
            began = time.perf_counter()
            made = pipeline.select(f"{folder}/run", f"{folder}/m{count}", label_budget=count, strategy=strategy, seed=seed, force=True).samples
            asked, select_seconds = made.filter(made["kept"])["index"].to_numpy(), time.perf_counter() - began
            found = trained_on(asked, data, test, **fixed)
            if count not in accuracy_of_random:
                random = np.random.default_rng((seed, 43)).permutation(n)[:count]
                accuracy_of_random[count] = trained_on(random, data, test, **fixed)["accuracy"]
            row = {"strategy": strategy, "labels": count, "accuracy": found["accuracy"], "accuracy_of_random": accuracy_of_random[count]}
            row |= {"classes": np.bincount(labels[asked], minlength=fixed["n_classes"]).tolist(), "train_seconds": found["train_seconds"]}
            rows.append(row | {"score_seconds": score_seconds, "select_seconds": select_seconds})
    return rows


def table() -> str:
    """Mean over seeds, and the paired difference with its 95 % interval."""
    rows = RESULTS.rows()
    lines = [
        "| data | strategy | labels | random | asked for | difference, points (95 %) | smallest class | score and select, s | one training, s | seeds |",
        "|---" * 10 + "|",
    ]
    for data, strategy, labels in sorted({(row["data"], row["strategy"], row["labels"]) for row in rows}):
        mine = [row for row in rows if (row["data"], row["strategy"], row["labels"]) == (data, strategy, labels)]
        ours, theirs = (100 * np.array([row[name] for row in mine]) for name in ("accuracy", "accuracy_of_random"))
        gain = ours - theirs
        half = t_975(len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else None
        shown = f"{gain.mean():+.2f}" + ("" if half is None else f" ({gain.mean() - half:+.2f} to {gain.mean() + half:+.2f})")
        seconds = [np.mean([sum(row[name] for name in names) for row in mine]) for names in (("score_seconds", "select_seconds"), ("train_seconds",))]
        lines.append(
            f"| {data} | `{strategy}` | {labels:,} | {theirs.mean():.2f} | {ours.mean():.2f} | {shown} | {min(min(row['classes']) for row in mine)} | {seconds[0]:.0f} | {seconds[1]:.0f} | {len(mine)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=3)
    for name, seed in [(name, seed) for seed in seeds for name in files][part::parts]:
        for row in measure(files[name], name, seed):
            RESULTS.add({"data": name, "seed": seed} | row)
