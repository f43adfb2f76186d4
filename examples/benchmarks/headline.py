"""What to expect, in a few lines, from the stored results of the other tables.

python examples/benchmarks/headline.py
"""

from __future__ import annotations

import runpy
import statistics
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RANDOM, DEFAULT, TOLERANCE = "random(class_balanced=True)", "blend", 0.5


def module(name: str) -> dict[str, Any]:
    return runpy.run_path(str(HERE / f"{name}.py"))


def rows_of(name: str) -> list[dict[str, Any]]:
    return list(module(name)["RESULTS"].rows())


def gains(rows: list[dict[str, Any]], rival: str) -> list[float]:
    """Mean difference of the default to `rival`, in points and paired over seeds, of every cell (data, noise, budget, share) that has both."""
    cells: dict[Any, dict[tuple[str, int], float]] = {}
    for row in rows:
        share = None if rival == "full" else row["keep"]  # everything is one row for all shares
        key = row["data"], str(row.get("noise")), row.get("budget"), share
        cells.setdefault(key, {})[row["strategy"], row["seed"]] = 100 * row["accuracy"]
    pairs = [[cell[DEFAULT, seed] - cell[rival, seed] for how, seed in cell if how == rival and (DEFAULT, seed) in cell] for cell in cells.values()]
    return [statistics.mean(pair) for pair in pairs if pair]


def span(values: list[float]) -> str:
    return f"{statistics.mean(values):+.1f} points on average, {min(values):+.1f} to {max(values):+.1f} over {len(values)} cells"


def table() -> str:
    """A line a question: what was measured, and where it stands."""
    chosen = rows_of("selection")
    steps = [row for row in chosen if row["budget"] == "steps"]
    clean, noisy = ([row for row in steps if bool(row["noise"]) == wrong] for wrong in (False, True))
    most = [row for row in noisy if row["keep"] in (0.7, 1.0)]
    epochs = [row["score_epochs"] for row in clean if row["strategy"] == DEFAULT]
    cases = rows_of("keep_auto")
    held = sum(100 * statistics.mean(row["realised"]) <= TOLERANCE for row in cases)
    dropped = 1 - statistics.mean(row["keep_fraction"] for row in cases)
    lines = {
        "a part against as many random samples, same steps": f"{span(gains(clean, RANDOM))} (Fashion-MNIST and CIFAR-10, 0.1 to 0.7 kept)",
        "the same with 20 or 40 % wrong labels": f"{span(gains(noisy, RANDOM))} (0.3 to 0.7 kept)",
        "seven tenths of data with wrong labels against all of them": span(gains(most, "full")),
        "a part against random on eleven unlike sets: two classes, a rare one, few images, garbage, copies ...": span(
            gains(rows_of("unlike_data"), RANDOM)
        ),
        "ResNet-18 trained on what the small CNN chose, against random": span(gains(rows_of("transfer"), RANDOM)),
        "cost of scoring": f"{min(epochs)} to {max(epochs)} epochs of the proxy, found by itself: {min(epochs) / 2:.0f} to {max(epochs) / 2:.0f} % of a training of 200",
        "`--keep auto`: no more than 0.5 points lost": f"{held} of {len(cases)} cases; {dropped:.0%} dropped on average",
        "suspected wrong labels": of_suspects(),
        "labels not bought yet": of_labels(),
        "**not** against all data for as few steps": f"InfoBatch, at equal epochs: {span(gains(chosen, 'infobatch'))}",
        "**not** on texts (SST-2)": "choosing by difficulty loses there, so the default draws at random what is neither suspected nor repeated",
        "**not shown** in the field's own setting, all of CIFAR-10 and ResNet-18 for 200 epochs": of_full_scale(),
    }
    return "\n".join(["| question | measured |", "|---|---|", *(f"| {question} | {answer} |" for question, answer in lines.items())])


def of_suspects() -> str:
    """Precision and recall of what is flagged, the least and the greatest over data and kinds of noise."""
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows_of("suspects"):
        if row["n_wrong"]:
            kinds.setdefault((row["data"], row["noise"]), []).append(row)
    precision, recall = ([statistics.mean(row[what] for row in rows) for rows in kinds.values()] for what in ("precision", "recall"))
    return f"{min(precision):.0%} to {max(precision):.0%} of the flagged are wrong, {min(recall):.0%} to {max(recall):.0%} of the wrong are flagged, over {len(kinds)} kinds of noise"


def of_labels() -> str:
    """How many labels that clprune asks for serve as well as the most random ones."""
    rounds, rows = module("label_budget")["ROUNDS"], rows_of("label_budget")
    mine, random = (
        np.mean([row["accuracies"] for row in rows if (row["data"], row["rule"]) == ("fashion", rule)], axis=0) for rule in ("clprune", "random")
    )
    at = int(np.argmax(mine >= random[-1]))
    return f"{rounds[at]:,} that it asks for serve as well as {rounds[-1]:,} random ones ({100 * mine[at]:.1f} and {100 * random[-1]:.1f} %, Fashion-MNIST)"


def of_full_scale() -> str:
    """What the default of then and DUAL gained there."""
    rows = rows_of("full_scale")
    gained = {}
    for name in ("blend", "dual"):
        mine = [row | {"strategy": DEFAULT if row["strategy"].startswith(name) else row["strategy"]} for row in rows]
        gained[name] = " and ".join(f"{value:+.1f}" for value in reversed(gains(mine, "random")))
    return f"an older default {gained['blend']} points to random at 0.2 and 0.1 kept, DUAL {gained['dual']}; the one of now waits for a GPU"


if __name__ == "__main__":
    print(table())
