"""What a selection saves, in real units, net of what the pruning itself cost. Nothing is extrapolated from what was not measured."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clprune.datatypes import Savings, SavingsLine
from clprune.errors import UsageError
from clprune.manifest import Manifest
from clprune.prices import DEFAULTS
from clprune.storage import SCHEMA_VERSION, write_json


def savings(
    manifest: Manifest,
    *,
    label_price: float | None = None,
    labelers_per_item: float | None = None,
    labels_owned: bool = True,
    storage_price: float | None = None,
    gpu_price: float | None = None,
    carbon: float | None = None,
    pue: float | None = None,
    trainings: int = 1,
    training_seconds: float | None = None,
    training_kwh: float | None = None,
) -> Savings:
    """The table of savings of a manifest.

    `label_price` USD a label, `storage_price` USD per GB and month, `gpu_price` USD an hour, `carbon` g CO2e per kWh, `pue` facility over machine
    energy. `training_seconds` and `training_kwh` are those of one training on all data; without them the time saved is given as a share only.
    `labels_owned`: the labels of this data set are paid for already, so what is saved is the next round's. Raises UsageError for negative numbers.
    """
    given = {"label_price": label_price, "labelers_per_item": labelers_per_item, "storage_price": storage_price, "carbon": carbon, "pue": pue}
    others = {"gpu_price": gpu_price, "training_seconds": training_seconds, "training_kwh": training_kwh, "trainings": trainings}
    for name, number in (given | others).items():
        if number is not None and not (np.isfinite(number) and number >= 0):
            raise UsageError(f"{name} is {number}; it must be a number of at least 0.")
    price = {name: DEFAULTS[name].value if number is None else number for name, number in given.items()}

    def assumed(name: str) -> dict[str, Any]:
        default = DEFAULTS[name]
        mine = given[name] is not None
        return {"price": price[name], "price_date": None if mine else default.date, "price_source": "given by the user" if mine else default.source}

    document = manifest.document
    kept, n = manifest.n_kept, int(document["n_samples"])
    dropped = n - kept
    keep_fraction = kept / n
    kept_bytes, dropped_bytes = int(document["kept_bytes"]), int(document["dropped_bytes"])
    labels = dropped * price["labelers_per_item"]
    owned_note = (
        "these labels are paid for already; the figure is what labelling as selected would have saved, or will next round"
        if labels_owned
        else "not bought yet"
    )
    lines = [
        SavingsLine("samples kept", kept, "samples", "measured", f"{keep_fraction:.1%} of {n:,}"),
        SavingsLine(
            "labels avoided now",
            0 if labels_owned else labels,
            "labels",
            "computed",
            "0: paid for already" if labels_owned else owned_note,
            **assumed("labelers_per_item"),
        ),
        SavingsLine("labels avoidable", labels, "labels", "computed", owned_note, **assumed("labelers_per_item")),
        SavingsLine("labelling money avoidable", labels * price["label_price"], "USD", "assumed", owned_note, **assumed("label_price")),
        *_bytes_lines(kept_bytes, dropped_bytes, price["storage_price"], assumed("storage_price")),
    ]
    timings = document["timings"]
    cost_seconds = float(timings["score_seconds"]) + float(timings["select_seconds"])
    lines.append(
        SavingsLine(
            "cost of pruning: time",
            cost_seconds,
            "seconds",
            "measured",
            f"{document['run']['epochs_run']} proxy epochs on {document['run']['device']}",
        )
    )
    kwh = timings.get("energy_kwh")
    lines.append(_measured("cost of pruning: energy", kwh, "kWh", str(timings.get("energy_method"))))
    lines.append(
        SavingsLine("training time saved, equal epochs", 1 - keep_fraction, "share of a training", "computed", "each epoch has fewer samples")
    )
    lines.append(
        SavingsLine(
            "training time saved, equal steps", 0.0, "share of a training", "computed", "the subset is trained for as many steps as the full set"
        )
    )
    share, of_epochs = float(document["run"]["share_of_full_training"]), int(document["run"]["share_is_of_epochs"])
    note = f"less {document['run']['epochs_run']} scoring epochs; a full training taken as {of_epochs} epochs of the scoring model; negative: not paid for yet"
    lines.append(
        SavingsLine(
            "net time saved, equal epochs", trainings * (1 - keep_fraction) - share, "full trainings", "computed", f"{trainings} trainings, {note}"
        )
    )
    if training_seconds is None:
        lines.append(
            SavingsLine(
                "net time saved", None, "seconds", "not measured", "give --training-seconds of one training on all data, or run `clprune evaluate`"
            )
        )
    else:
        net = trainings * training_seconds * (1 - keep_fraction) - cost_seconds
        lines.append(SavingsLine("net time saved", net, "seconds", "computed", f"{trainings} trainings at equal epochs, less the pruning"))
        each = training_seconds * (1 - keep_fraction)
        lines.append(
            SavingsLine(
                "trainings until it pays",
                cost_seconds / each if each else None,
                "trainings",
                "computed" if each else "not measured",
                "never, where nothing is dropped",
            )
        )
        if gpu_price is not None:
            lines.append(
                SavingsLine("net compute money", net / 3600 * gpu_price, "USD", "computed", "", price=gpu_price, price_source="given by the user")
            )
    if training_kwh is None or kwh is None:
        lines.append(
            SavingsLine("net energy saved", None, "kWh", "not measured", "give --training-kwh of one training on all data; nothing is guessed")
        )
    else:
        net_kwh = (trainings * training_kwh * (1 - keep_fraction) - kwh) * price["pue"]
        lines.append(
            SavingsLine("net energy saved", net_kwh, "kWh", "computed", f"{trainings} trainings at equal epochs, less the pruning", **assumed("pue"))
        )
        lines.append(
            SavingsLine("net CO2e saved", net_kwh * price["carbon"] / 1000, "kg", "assumed", "average, not marginal, factor", **assumed("carbon"))
        )
    return Savings(tuple(lines), {"n_samples": n, "n_kept": kept, "trainings": trainings, "labels_owned": labels_owned})


def _bytes_lines(kept_bytes: int, dropped_bytes: int, storage_price: float, assumed: dict[str, Any]) -> list[SavingsLine]:
    """Bytes of both parts, and what storing the dropped one costs a month; logged numbers come without sizes."""
    if not kept_bytes + dropped_bytes:
        return [SavingsLine("bytes of dropped samples", None, "bytes", "not measured", "these data came without the sizes of their samples")]
    freed = "freed only if the full set is archived or deleted; hard links free nothing"
    return [
        SavingsLine("bytes of kept samples", kept_bytes, "bytes", "measured", "real sizes of the samples"),
        SavingsLine("bytes of dropped samples", dropped_bytes, "bytes", "measured", freed),
        SavingsLine("storage money a month", dropped_bytes / 1e9 * storage_price, "USD", "assumed", "if the dropped samples are archived", **assumed),
    ]


def _measured(name: str, value: float | None, unit: str, method: str) -> SavingsLine:
    """A measured line; where nothing was measured it says so instead of 0."""
    return SavingsLine(name, None if value is None else float(value), unit, "not measured" if value is None else "measured", method)


def write_savings(folder: Path, result: Savings) -> None:
    """Write savings.json beside the manifest."""
    write_json(
        folder / "savings.json",
        {"schema_version": SCHEMA_VERSION, "kind": "savings", "lines": [asdict(line) for line in result.lines], "facts": dict(result.facts)},
    )
