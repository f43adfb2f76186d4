"""What a selection saves, in real units, net of what the pruning itself cost. Nothing is extrapolated from what was not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clprune.datatypes import Savings, SavingsLine
from clprune.errors import ClpruneError, UsageError
from clprune.evaluation_record import read_evaluation
from clprune.manifest import Manifest
from clprune.prices import DEFAULTS, FEES, UNITS, fee_for, read_tiers
from clprune.storage import BRIEFLY, SCHEMA_VERSION, locked, read_json, write_json
from clprune.wording import NOT_RUN_HERE, counted


def savings(
    manifest: Manifest,
    *,
    label_price: float | None = None,
    labelers_per_item: float | None = None,
    labels_owned: bool = True,
    label_fee: str = "none",
    storage_price: float | None = None,
    gpu_price: float | None = None,
    carbon: float | None = None,
    pue: float | None = None,
    trainings: int = 1,
    training_seconds: float | None = None,
    training_kwh: float | None = None,
    prices: Mapping[str, Mapping[str, Any]] | None = None,
) -> Savings:
    """The table of savings of a manifest.

    `label_price` USD a label, `label_fee` the platform's fee a sample ("none", "ground-truth", or tiers such as "50000:0.08,inf:0.02"),
    `storage_price` USD per GB and month, `gpu_price` USD an hour, `carbon` g CO2e per kWh, `pue` facility over machine energy.
    `training_seconds` and `training_kwh` are those of one training on all data; without them they are taken from evaluation.json beside the
    manifest, and without that the time saved is given as a share only. `labels_owned`: the labels of this data set are paid for already, so
    none of them can be avoided any more. `prices` are those of `read_prices`, for what is not given here. Exports that were made are counted from exports.json. Raises UsageError for negative numbers.
    """
    given = {"label_price": label_price, "labelers_per_item": labelers_per_item, "storage_price": storage_price, "carbon": carbon, "pue": pue}
    others = {"gpu_price": gpu_price, "training_seconds": training_seconds, "training_kwh": training_kwh, "trainings": trainings}
    for name, number in (given | others).items():
        if number is not None and not (np.isfinite(number) and number >= 0):
            raise UsageError(f"{name} is {number}; it must be a number of at least 0.")
    table = {name: asdict(default) for name, default in DEFAULTS.items()} | dict(prices or {})
    price = {name: table[name]["value"] if number is None else number for name, number in given.items()}

    def assumed(name: str) -> dict[str, Any]:
        if given[name] is not None:
            return {"price": price[name], "price_unit": UNITS[name], "price_date": None, "price_source": "given by the user"}
        return {"price": price[name], "price_unit": UNITS[name], "price_date": table[name]["date"], "price_source": table[name]["source"]}

    gpu: dict[str, Any] | None = None
    if gpu_price is not None:
        gpu = {"price": gpu_price, "price_date": None, "price_source": "given by the user"}
    elif "gpu_price" in table:
        gpu = {"price": table["gpu_price"]["value"], "price_date": table["gpu_price"]["date"], "price_source": table["gpu_price"]["source"]}
    lines = _samples_and_labels(manifest, price, labels_owned, label_fee, assumed)
    lines += _bytes(manifest, price["storage_price"], assumed("storage_price"))
    lines += _time(manifest, trainings, training_seconds, gpu)
    lines += _energy(manifest, trainings, training_kwh, price, assumed)
    asked = given | others | {"labels_owned": labels_owned, "label_fee": label_fee, "prices": dict(prices or {})}
    facts = {"n_samples": int(manifest.document["n_samples"]), "n_kept": manifest.n_kept, "trainings": trainings, "labels_owned": labels_owned}
    return Savings(tuple(lines), facts | {"asked": asked})


def _n_candidates(manifest: Manifest) -> int:
    """How many samples could be trained on: all, or in a pool those that have a label."""
    return int(sum(manifest.document["samples_per_class"]) if manifest.document.get("pool") else manifest.document["n_samples"])


def _samples_and_labels(manifest: Manifest, price: Mapping[str, float], owned: bool, label_fee: str, assumed: Any) -> list[SavingsLine]:
    kept, n = manifest.n_kept, _n_candidates(manifest)
    labels = (n - kept) * price["labelers_per_item"]
    tiers = read_tiers(label_fee)
    fee = fee_for(n, tiers) - fee_for(kept, tiers)
    paid, avoidable = (labels, 0.0) if owned else (0.0, labels)
    paid_note = "of dropped samples; that money does not come back" if owned else "none of these labels is bought yet"
    note = "0: paid for already; before labelling, the same choice avoids as many as are paid for here" if owned else "not bought yet"
    lines = [
        SavingsLine(
            "samples kept", kept, "samples", "measured", f"{kept / n:.1%} of {n:,}" + (" that have a label" if manifest.document.get("pool") else "")
        ),
        SavingsLine("labels already paid for", paid, "labels", "assumed", paid_note, **assumed("labelers_per_item")),
        SavingsLine("labels avoidable", avoidable, "labels", "assumed", note, **assumed("labelers_per_item")),
        SavingsLine("labelling money already paid", paid * price["label_price"], "USD", "assumed", paid_note, **assumed("label_price")),
        SavingsLine("labelling money avoidable", avoidable * price["label_price"], "USD", "assumed", note, **assumed("label_price")),
    ]
    if tiers:
        known = FEES.get(label_fee)
        source: dict[str, Any] = {
            "price_date": known.date if known else None,
            "price_source": known.source if known else "given by the user",
            "price": tiers[0][1],
            "price_unit": UNITS["label_fee"],
        }
        said = "the price shown is that of the first tier; " + note
        lines.append(SavingsLine("platform fee avoidable", 0.0 if owned else fee, "USD", "assumed", said, **source))
    return lines


def _bytes(manifest: Manifest, storage_price: float, assumed: dict[str, Any]) -> list[SavingsLine]:
    kept_bytes, dropped_bytes = int(manifest.document["kept_bytes"]), int(manifest.document["dropped_bytes"])
    if not kept_bytes + dropped_bytes:
        return [SavingsLine("bytes of dropped samples", None, "bytes", "not measured", "these data came without the sizes of their samples")]
    lines = [
        SavingsLine("bytes of kept samples", kept_bytes, "bytes", "measured", "real sizes of the samples"),
        SavingsLine("bytes of dropped samples", dropped_bytes, "bytes", "measured", "freed only if the full set is archived or deleted"),
        SavingsLine("bytes freed so far", 0, "bytes", "computed", "clprune deletes nothing, and an export by links frees nothing"),
    ]
    for export in read_exports(manifest.folder):
        way = f", {export['link']}" if export.get("link") else ""
        note = f"{counted(int(export['files']), 'file')}{way}: {export['destination']}"
        lines.append(SavingsLine(f"files written by export {export['form']}", int(export["files"]), "files", "measured", export["destination"]))
        lines.append(SavingsLine(f"bytes written by export {export['form']}", int(export["bytes_written"]), "bytes", "measured", note))
    money = dropped_bytes / 1e9 * storage_price
    return [
        *lines,
        SavingsLine(
            "storage money a month",
            money,
            "USD",
            "assumed",
            "if the dropped samples are archived; GB of 10^9 bytes, a bill by 2^30 is 7 % lower",
            **assumed,
        ),
    ]


def _time(manifest: Manifest, trainings: int, training_seconds: float | None, gpu: Mapping[str, Any] | None) -> list[SavingsLine]:
    document, timings = manifest.document, manifest.document["timings"]
    dropped_share = 1 - manifest.n_kept / _n_candidates(manifest)
    cost = float(timings["score_seconds"]) + float(timings["select_seconds"])
    run, share, of_epochs = document["run"], float(document["run"]["share_of_full_training"]), int(document["run"]["share_is_of_epochs"])
    tried = document.get("trials", {}).get("cost", {"trainings": 0, "epochs": 0.0})
    share += tried["epochs"] / of_epochs
    finishing = (document.get("pool") or {}).get("finishing_epochs", 0)
    elsewhere = NOT_RUN_HERE.get(run.get("proxy"))
    epochs = f"{counted(run['epochs_run'], 'epoch')} {elsewhere}" if elsewhere else counted(run["epochs_run"], "proxy epoch")
    on = "" if elsewhere else f" on {run['device']}"
    run_for = epochs + (f" and {finishing} more before the last look" if finishing else "")
    tried_for = f"{counted(round(tried['epochs']), 'epoch')} of {counted(tried['trainings'], 'short training')}" if tried["trainings"] else ""
    charged = " and ".join(part for part in (run_for if float(run["share_of_full_training"]) else "", tried_for) if part)
    spent = " and ".join(part for part in (run_for, tried_for) if part)
    yardstick = f"{counted(trainings, 'training')}, less {charged or 'nothing: what was scored was trained anyway'}; a full training taken as {of_epochs} epochs of the scoring model; negative: not paid for yet"
    parts = f"scoring {timings['score_seconds']:,.1f} s ({spent}{on}), selecting {timings['select_seconds']:,.1f} s"
    lines = [
        SavingsLine("cost of pruning: time", cost, "seconds", "measured", parts),
        SavingsLine("training time saved, equal epochs", dropped_share, "share of a training", "computed", "each epoch has fewer samples"),
        SavingsLine(
            "training time saved, equal steps", 0.0, "share of a training", "computed", "the subset is trained for as many steps as the full set"
        ),
        SavingsLine("net time saved, equal epochs", trainings * dropped_share - share, "full trainings", "computed", yardstick),
    ]
    evaluated = _evaluation_of(manifest)
    if evaluated is not None:
        note = f"{counted(evaluated['n_trainings'], 'training')} and their tests; a check, not counted in the net"
        lines.append(_measured("cost of evaluating: time", evaluated["seconds"], "seconds", note))
    measured = _measured_training(manifest)
    each, how = None, ""
    if training_seconds is not None:
        lines.append(SavingsLine("one training on all data: time", training_seconds, "seconds", "computed", "as given by the user"))
        each = training_seconds * dropped_share
    elif measured is not None:
        lines.append(
            SavingsLine("one training on all data: time", measured["seconds"], "seconds", "measured", f"evaluation.json: {measured['what']}")
        )
        each = measured["seconds"] * dropped_share
        if measured["saved_seconds"] is not None:
            each, how = measured["saved_seconds"], "; from measured trainings of both"
    if each is None:
        note = "give --training-seconds of one training on all data" + _or_evaluate(manifest)
        return [*lines, SavingsLine("net time saved", None, "seconds", "not measured", note)]
    net = trainings * each - cost
    lines.append(
        SavingsLine("net time saved", net, "seconds", "computed", f"{counted(trainings, 'training')} at equal epochs, less the pruning{how}")
    )
    pays = cost / each if each > 0 else None
    note = "at equal epochs; at equal steps no time is saved" if pays is not None else "never: a training on the kept samples is not shorter"
    lines.append(SavingsLine("trainings until it pays", pays, "trainings", "computed" if pays is not None else "not measured", note))
    if gpu is not None:
        lines.append(SavingsLine("net compute money", net / 3600 * gpu["price"], "USD", "computed", "", price_unit=UNITS["gpu_price"], **gpu))
    return lines


def _or_evaluate(manifest: Manifest) -> str:
    """The other way to know what a training takes; none where there is nothing to train on."""
    return "" if manifest.document["run"].get("proxy") == "logged" else ", or run `clprune evaluate` against full"


def _energy(manifest: Manifest, trainings: int, training_kwh: float | None, price: Mapping[str, float], assumed: Any) -> list[SavingsLine]:
    timings = manifest.document["timings"]
    kwh, dropped_share = timings.get("energy_kwh"), 1 - manifest.n_kept / _n_candidates(manifest)
    how = str(timings.get("energy_method")) + ("" if kwh is None else "; selecting itself is not metered")
    lines = [_measured("cost of pruning: energy", kwh, "kWh", how)]
    if (evaluated := _evaluation_of(manifest)) is not None:
        lines.append(_measured("cost of evaluating: energy", evaluated["kwh"], "kWh", evaluated["method"]))
    measured = _measured_training(manifest)
    each = None
    if training_kwh is not None:
        lines.append(SavingsLine("one training on all data: energy", training_kwh, "kWh", "computed", "as given by the user"))
        each = training_kwh * dropped_share
    elif measured is not None and measured["kwh"] is not None:
        lines.append(_measured("one training on all data: energy", measured["kwh"], "kWh", f"evaluation.json: {measured['energy_method']}"))
        each = measured["kwh"] * dropped_share if measured["saved_kwh"] is None else measured["saved_kwh"]
    if each is None or kwh is None:
        note = f"give --training-kwh of one training on all data{_or_evaluate(manifest)}; nothing is guessed"
        note = note if each is None else "what the pruning itself used was not measured"
        return [*lines, SavingsLine("net energy saved", None, "kWh", "not measured", note)]
    net = (trainings * each - kwh) * price["pue"]
    return [
        *lines,
        SavingsLine(
            "net energy saved", net, "kWh", "computed", f"{counted(trainings, 'training')} at equal epochs, less the pruning", **assumed("pue")
        ),
        SavingsLine("net CO2e saved", net * price["carbon"] / 1000, "kg", "assumed", "average, not marginal, factor", **assumed("carbon")),
    ]


def _evaluation_of(manifest: Manifest) -> dict[str, Any] | None:
    """What `evaluate` took for this manifest, all of it; None where it was not run."""
    if (document := read_evaluation(manifest.folder, manifest.document)) is None:
        return None
    facts, runs = document["facts"], [run for arm in document["arms"].values() for run in arm["runs"]]
    method = facts.get("energy_method") or "not every training was measured"
    return {"seconds": facts.get("seconds"), "kwh": facts.get("energy_kwh"), "method": method, "n_trainings": len(runs)}


def _measured_training(manifest: Manifest) -> dict[str, Any] | None:
    """Seconds and kWh of one training on all data from evaluation.json, and what the kept samples saved of them where both had equal epochs."""
    document = read_evaluation(manifest.folder, manifest.document)
    if document is None or "full" not in document["arms"]:
        return None
    arms, facts = document["arms"], document["facts"]

    def mean_kwh(arm: str) -> float | None:
        values = [run["energy_kwh"] for run in arms[arm]["runs"]]
        return None if None in values else float(np.mean(np.array(values, dtype=float)))

    full, full_kwh = float(arms["full"]["seconds_mean"]), mean_kwh("full")
    saved = saved_kwh = None
    if facts["budget"] == "equal-epochs" and "pruned" in arms:
        saved, pruned_kwh = full - float(arms["pruned"]["seconds_mean"]), mean_kwh("pruned")
        saved_kwh = None if full_kwh is None or pruned_kwh is None else full_kwh - pruned_kwh
    what = f"{counted(facts['epochs'], 'epoch')} of {facts['proxy']} on {facts['device']}"
    method = arms["full"]["runs"][0]["energy_method"]
    return {"seconds": full, "kwh": full_kwh, "saved_seconds": saved, "saved_kwh": saved_kwh, "what": what, "energy_method": method}


def _measured(name: str, value: float | None, unit: str, method: str) -> SavingsLine:
    """A measured line; where nothing was measured it says so instead of 0."""
    return SavingsLine(name, None if value is None else float(value), unit, "not measured" if value is None else "measured", method)


def write_savings(folder: Path, result: Savings) -> None:
    """Write savings.json beside the manifest."""
    write_json(
        folder / "savings.json",
        {"schema_version": SCHEMA_VERSION, "kind": "savings", "lines": [asdict(line) for line in result.lines], "facts": dict(result.facts)},
    )


def asked_options(folder: Path) -> dict[str, Any]:
    """The prices that `clprune savings` was last given for this manifest, for whoever counts again; empty where it was not run."""
    if not (folder / "savings.json").exists():
        return {}
    return dict(read_json(folder / "savings.json", what="savings")["facts"].get("asked", {}))


def note_export(folder: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """Add what an export wrote to exports.json beside the manifest; a later export to the same place takes the earlier one's.

    Returns `told`, with a note where that could not be written: the export is complete all the same.
    """
    one = {key: told.get(key) for key in ("form", "destination", "files", "bytes_written", "link", "seconds")}
    one["destination"] = str(Path(told["destination"]).resolve())  # one place, from wherever the command is given
    try:
        with locked(folder, wait_seconds=BRIEFLY):
            others = [export for export in read_exports(folder) if export["destination"] != one["destination"]]
            write_json(folder / "exports.json", {"schema_version": SCHEMA_VERSION, "kind": "exports", "exports": [*others, one]})
    except ClpruneError as error:
        notes = [*filter(None, [told.get("note")]), f"`clprune savings` will not count this export: {error}"]
        return {**told, "note": " ".join(notes)}
    return dict(told)


def read_exports(folder: Path) -> list[dict[str, Any]]:
    """The exports of a manifest so far, in the order they were made."""
    return list(read_json(folder / "exports.json", what="list of exports")["exports"]) if (folder / "exports.json").exists() else []
