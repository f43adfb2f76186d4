"""What to expect, in a few lines, from the stored results of the other tables.

python examples/benchmarks/headline.py
"""

from __future__ import annotations

import runpy
import statistics
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from clprune.datatypes import FULL_TRAINING_EPOCHS

HERE = Path(__file__).parent
RANDOM, DEFAULT, SETS = "random(class_balanced=True)", "blend", {"fashion": "Fashion-MNIST", "cifar10": "CIFAR-10"}
TOLERANCE = 0.5  # points, of `--keep auto`

Rows = list[dict[str, Any]]


def module(name: str) -> dict[str, Any]:
    return runpy.run_path(str(HERE / f"{name}.py"))


def rows_of(name: str) -> Rows:
    return list(module(name)["RESULTS"].rows())


def by(rows: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], Hashable]) -> dict[Any, Rows]:
    groups: dict[Any, Rows] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def gain(mine: Rows, rival: Rows) -> float | None:
    """Mean difference in accuracy, in points, of the seeds that both have; None where there are none."""
    of = {row["seed"]: row["accuracy"] for row in rival}
    both = [100 * (row["accuracy"] - of[row["seed"]]) for row in mine if row["seed"] in of]
    return statistics.mean(both) if both else None


def gains(rows: Rows, rival: str, mine: str = DEFAULT) -> list[float]:
    """Those of every cell: data set, wrong labels, budget and share."""
    cells = by(rows, lambda row: (row["data"], str(row.get("noise")), row.get("budget"), row["keep"])).values()
    found = [gain(named.get(mine, []), named.get(rival, [])) for named in (by(cell, lambda row: row["strategy"]) for cell in cells)]
    return [value for value in found if value is not None]


def span(values: list[float]) -> str:
    return f"{statistics.mean(values):+.1f} points on average, {min(values):+.1f} to {max(values):+.1f} over {len(values)} cells"


def table() -> str:
    """A line a question: what was measured, and where it stands."""
    selection = module("selection")
    chosen: Rows = selection["RESULTS"].rows()
    steps = [row for row in chosen if row["budget"] == "steps"]
    clean, noisy = ([row for row in steps if bool(row["noise"]) == wrong] for wrong in (False, True))
    epochs = [row["score_epochs"] for row in clean if row["strategy"] == DEFAULT]
    least, most = (100 * bound(epochs) / FULL_TRAINING_EPOCHS for bound in (min, max))
    lines = {
        "a part against as many random samples, right labels": span(gains(clean, RANDOM)),
        "the same with 20 or 40 % wrong labels": span(gains(noisy, RANDOM)),
        "a part against everything, right labels": "; ".join(f"{SETS[name]} {against_all(rows)}" for name, rows in by(clean, lambda row: row["data"]).items()),
        "the same with wrong labels": "; ".join(
            f"{SETS[name]}, {selection['NOISES'][noise]}: {against_all(rows)}" for (name, noise), rows in by(noisy, lambda row: (row["data"], str(row["noise"]))).items()
        ),
        "a part against random on unlike sets: two classes, a rare one, few images, garbage, copies ...": span(gains(rows_of("unlike_data"), RANDOM)),
        "ResNet-18 trained on what the small CNN chose, against random": span(gains(rows_of("transfer"), RANDOM)),
        "cost of scoring": f"{min(epochs)} to {max(epochs)} epochs of the small CNN, found by itself (other sets up to 30): {least:g} to {most:g} % of {FULL_TRAINING_EPOCHS}",
        f"`--keep auto`: no more than {TOLERANCE} points lost": of_keep_auto(),
        "suspected wrong labels": of_suspects(),
        "labels not bought yet": of_labels(),
        "**no** at equal epochs, against a method that sees all data": f"{span(gains(chosen, 'infobatch'))}, to InfoBatch",
        "**no** on texts (SST-2)": of_texts(),
        "**not yet** in the field's own setting: all of CIFAR-10, ResNet-18, 200 epochs": of_full_scale(),
    }  # fmt: skip
    return "\n".join(["| question | measured |", "|---|---|", *(f"| {question} | {answer} |" for question, answer in lines.items())])


def against_all(rows: Rows) -> str:
    """The default's difference to all data by share, largest share first."""
    full, mine = (by((row for row in rows if row["strategy"] == strategy), lambda row: row["keep"]) for strategy in ("full", DEFAULT))
    return ", ".join(f"{gain(mine[keep], full[1.0]):+.1f} ({keep:g})" for keep in sorted(mine, reverse=True))


def of_keep_auto() -> str:
    """In how many cases the loss was within the tolerance, and how much was dropped, with and without planted wrong labels or copies."""
    rows = rows_of("keep_auto")
    held = sum(100 * statistics.mean(row["realised"]) <= TOLERANCE for row in rows)
    dropped = {
        plain: 1 - statistics.mean(row["keep_fraction"] for row in some) for plain, some in by(rows, lambda row: row["kind"] == "clean").items()
    }
    return (
        f"{held} of {len(rows)} cases; dropped on average {dropped[True]:.0%} as they are, {dropped[False]:.0%} with planted wrong labels or copies"
    )


def of_suspects() -> str:
    """Precision and recall of what is flagged, the least and the greatest over sets of labels, and how many right labels are flagged where all are right."""
    rows = rows_of("suspects")
    sets = by((row for row in rows if row["n_wrong"]), lambda row: (row["data"], row["noise"], row["samples"])).values()
    precision, recall = ([statistics.mean(row[what] for row in some) for some in sets] for what in ("precision", "recall"))
    false = max(row["n_flagged"] / row["samples"] for row in rows if not row["n_wrong"])
    return (
        f"{min(precision):.0%} to {max(precision):.0%} of the flagged are wrong, {min(recall):.0%} to {max(recall):.0%} of the wrong are flagged, over {len(sets)} sets; "
        f"where all labels are right at most {false:.1%} are flagged"
    )


def of_labels() -> str:
    """How many labels that clprune asks for serve as well as the most random ones, between rounds by straight lines."""
    rounds, rows, said = module("label_budget")["ROUNDS"], rows_of("label_budget"), []
    for name, title in SETS.items():
        mine, random = (
            np.mean([row["accuracies"] for row in rows if (row["data"], row["rule"]) == (name, rule)], axis=0) for rule in ("clprune", "random")
        )
        said.append(
            f"{np.interp(random[-1], np.maximum.accumulate(mine), rounds):,.0f} on {title}" if mine.max() >= random[-1] else f"more on {title}"
        )
    return f"as well as {rounds[-1]:,} random ones serve {' and '.join(said)} that it asks for"


def of_texts() -> str:
    """Difference to random of the default and of choosing by difficulty."""
    gaps = {
        asked: statistics.mean(np.mean(row["pruned"]) - np.mean(row["random"]) for row in some)
        for asked, some in by(rows_of("text"), lambda row: row["asked"]).items()
    }
    return f"choosing by difficulty {gaps[DEFAULT]:+.1f} points to random; so the default draws at random ({gaps['the default']:+.1f})"


def of_full_scale() -> str:
    """What each rule gained over random at a tenth."""
    found = {
        name: gains([row for row in rows_of("full_scale") if row["keep"] == 0.1], "random", name)
        for name in ("blend", "blend(scored_share=0.15)", "dual", "rs2")
    }
    names = {"blend": "the default", "blend(scored_share=0.15)": "an older default", "dual": "DUAL", "rs2": "RS2, which sees all data,"}
    said = ", ".join(f"{names[name]} {values[0]:+.1f}" for name, values in found.items() if values)
    return f"at 0.1 kept, points to random: {said}{'' if found['blend'] else '; the default of now waits for a GPU'}"


if __name__ == "__main__":
    print(table())
