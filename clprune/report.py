"""One self-contained HTML page on a run or a manifest, for people who decide: verdict, evidence, harm, savings, samples, how to repeat it.

No network, no scripts from elsewhere: a policy in the page forbids it. Below 3 MB whatever the size of the data: pictures are small and few, the
map is binned, and the list that the search box looks through is bounded and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from clprune import figures
from clprune.cells import cell, count, data_name, duration, listed, number, percent, rounded, share, table, times100
from clprune.datatypes import Savings
from clprune.figures import Figure
from clprune.gallery import galleries, n_duplicates, search_list
from clprune.harm import DROP_POINTS, LESS_ACCURATE, N_ERRORS, STARVED_BELOW, ClassHarm, harm_by_class
from clprune.prices import price_used
from clprune.repeating import how_to_repeat
from clprune.storage import write_bytes
from clprune.subject import Subject
from clprune.wording import NOT_RUN_HERE, counted, points

MOST_CLASSES = 200  # rows of the table of classes
DYNAMIC = {"shortened": "all samples, shortened", "rs2": "all samples, RS2", "infobatch": "all samples, InfoBatch"}  # what each of dynamic.py sees
ARM_NAMES = {"pruned": "kept samples", "random": "random, same class sizes", "full": "all samples"} | DYNAMIC


def report(subjects: Sequence[tuple[Subject, Savings | None]], out: Path, *, now: datetime | None = None) -> dict[str, Any]:
    """Write the page on one run or manifest, or the comparison of several, to `out`; returns its path, bytes and verdict."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    now = now or datetime.now(UTC)
    folder = Path(__file__).parent / "page"
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style, script = (Markup((folder / name).read_text(encoding="utf-8")) for name in ("report.css", "report.js"))
    if len(subjects) == 1:
        name, context = "report.html", _page(*subjects[0])
    else:
        name, context = "comparison.html", _comparison(subjects, now)
    text = environment.get_template(name).render(style=style, script=script, written=now.strftime("%Y-%m-%d %H:%M UTC"), **context)
    content = text.encode("utf-8", "replace")
    write_bytes(out, content)
    return {"path": str(out), "bytes": len(content), "verdict": context["verdict"]["sentence"], "status": context["verdict"]["status"]}


# --- the page of one subject -----------------------------------------------------------------------------------------------------------------


def _page(subject: Subject, savings: Savings | None) -> dict[str, Any]:
    classes, reference = _classes(subject)
    shown, pictured = galleries(subject)
    return {
        "title": f"Pruning report: {data_name(str(subject.document['source']))}",
        "source": subject.document["source"],
        "place": _names([subject.folder])[0],
        "selected": subject.manifest is not None,
        "verdict": _verdict(subject, savings, classes),
        "tiles": _tiles(subject, savings),
        "evaluation": _evaluation(subject),
        "of_logged_numbers": subject.of_logged_numbers,
        "harm": _harm(subject, classes, reference),
        "savings": _savings_table(savings) if savings is not None else None,
        "period": _period(subject),
        "choice": _choice(subject),
        "galleries": shown,
        "no_source": subject.no_source,
        "search": search_list(subject, pictured),
        "reproduce": how_to_repeat(subject),
    }


def _classes(subject: Subject) -> tuple[list[ClassHarm], str | None]:
    sizes = subject.per_class(np.arange(subject.n_samples))
    kept = sizes if subject.kept is None else subject.per_class(subject.kept)
    return harm_by_class(subject.class_names, sizes, kept, subject.evaluation if subject.manifest is not None else None)


def _verdict(subject: Subject, savings: Savings | None, classes: Sequence[ClassHarm]) -> dict[str, str]:
    """The sentence at the top, and a word for it: good, caution or open (not measured)."""
    n, could, clp = subject.n_samples, subject.n_candidates, subject.scoring["clp"]
    if subject.manifest is None:
        which = f"{counted(n, 'sample')} are" if could == n else f"{could:,} of {n:,} samples have a label and are"
        end = f"the critical period ended by epoch {clp['end_epoch']}" if clp["settled"] else "the end of the critical period was not established"
        return {"status": "open", "word": "Nothing selected yet", "sentence": f"{which} scored; {end}. Nothing is selected yet."}
    kept = int(subject.manifest["n_kept"])
    sentence = f"Kept {kept:,} of {could:,} samples{' that have a label' if could < n else ''} ({share(kept / could)})"
    sentence += f", of {n:,} in all" if could < n else ""
    damaged = [c.name for c in classes if c.flags]
    if subject.evaluation is None or "pruned" not in subject.evaluation["arms"]:
        status, word = "open", "Accuracy not measured yet"
        sentence += "; what that does to accuracy is not measured yet"
    else:
        arms, comparison = subject.evaluation["arms"], subject.evaluation["comparison"]
        sentence += f": accuracy {percent(arms['pruned']['accuracy_mean'], arms['pruned']['accuracy_sd'])}"
        parts = [
            _difference(comparison[f"to_{arm}"], name)
            for arm, name in (("random", "a random choice"), ("full", "training on everything"))
            if f"to_{arm}" in comparison
        ]
        sentence += (", " if parts else "") + " and ".join(parts)
        beaten = comparison.get("not_better_than_random")
        status, word = (
            ("caution", "Not better than random" + (", by one seed" if comparison["to_random"]["n"] == 1 else " beyond the spread"))
            if beaten
            else ("good", "Better than random")
            if beaten is False
            else ("open", "One seed decides nothing" if "to_random" in comparison else "Not compared with random")
        )
    if damaged:
        status, word = "caution", word + (", and classes are damaged" if word.startswith("Not better") else ", but classes are damaged")
        sentence += f"; {len(damaged)} of {counted(len(classes), 'class')} suffer{'s' if len(damaged) == 1 else ''} ({listed(damaged)})"
    if not clp["settled"]:
        sentence += "; the end of the critical period was not established"
    return {"status": status, "word": word, "sentence": sentence + "." + _pays(savings)}


def _difference(told: Mapping[str, Any], name: str) -> str:
    gap = 100 * told["difference"]
    interval = "" if told["interval"] is None else f" (95 % interval {points(told['interval'][0])} to {points(told['interval'][1])})"
    if abs(gap) < 0.005:
        return f"level with {name}{interval}"
    return f"{abs(gap):.2f} points {'above' if gap >= 0 else 'below'} {name}{interval}"


def _pays(savings: Savings | None) -> str:
    lines = {line.name: line for line in savings.lines} if savings is not None else {}
    cost, after = lines.get("cost of pruning: time"), lines.get("trainings until it pays")
    if cost is None or cost.value is None:
        return ""
    told = f" Pruning cost {duration(cost.value)}"
    if after is None or after.value is None:
        return told + "."
    each = lines["one training on all data: time"].value or 0.0
    return told + f"; at equal epochs it pays after {counted(rounded(after.value), 'training')} of {duration(each)} on all data."


def _tiles(subject: Subject, savings: Savings | None) -> list[dict[str, str]]:
    """The few numbers that are looked for first."""
    tiles = [{"name": "samples", "value": f"{subject.n_samples:,}", "note": counted(len(subject.class_names), "class")}]
    if subject.manifest is not None:
        kept, could = int(subject.manifest["n_kept"]), subject.n_candidates
        of = f"the {could:,} that have a label" if could < subject.n_samples else "them"
        tiles.append({"name": "kept", "value": f"{kept:,}", "note": f"{share(kept / could)} of {of}"})
    if subject.evaluation is not None and subject.manifest is not None:
        to_random = subject.evaluation["comparison"].get("to_random")
        if to_random:
            tiles.append(
                {"name": "against random", "value": points(to_random["difference"]), "note": f"points of accuracy, {counted(to_random['n'], 'seed')}"}
            )
    suspects = subject.scoring.get("suspects", {})
    if suspects:
        tiles.append(
            {
                "name": "suspect labels",
                "value": f"{suspects['n']:,}",
                "note": f"suspicion above {suspects['above']:.2g}" if suspects["n"] else "none stands out from what is merely hard",
            }
        )
    tiles.append({"name": "near-duplicates", "value": f"{n_duplicates(subject):,}", "note": "repeat another sample"})
    clp = subject.scoring["clp"]
    tiles.append(
        {
            "name": "critical period",
            "value": f"{clp['end_epoch'] - clp['start_epoch']}",
            "note": "epochs, settled" if clp["settled"] else "epochs, end not established",
        }
    )
    cost = next((line for line in savings.lines if line.name == "cost of pruning: time"), None) if savings is not None else None
    seconds = cost.value if cost is not None else subject.document.get("seconds")
    if seconds is not None:
        tiles.append(
            {
                "name": "cost of pruning",
                "value": duration(float(seconds)),
                "note": "scoring and selecting" if subject.scoring["proxy"] in NOT_RUN_HERE else f"on {subject.scoring['device']}",
            }
        )
    return tiles


def _evaluation(subject: Subject) -> dict[str, Any] | None:
    if subject.evaluation is None or subject.manifest is None:
        return None
    facts = subject.evaluation["facts"]
    arms = {name: subject.evaluation["arms"][name] for name in ARM_NAMES if name in subject.evaluation["arms"]}
    optional = {
        "calibration error": lambda arm: arm.get("calibration_error_mean"),
        "worst group": lambda arm: arm.get("worst_group_mean"),
        "corrupted, mean": lambda arm: arm.get("corruptions", {}).get("mean"),
    }
    extra = {name: get for name, get in optional.items() if any(get(arm) is not None for arm in arms.values())}
    headers = [
        "trained on",
        "samples",
        "accuracy, %",
        "standard deviation",
        "worst class, %",
        *(f"{name}, %" for name in extra),
        "steps",
        "seconds",
        "Wh",
    ]
    rows = []
    for name, arm in arms.items():
        runs = arm["runs"]
        kwh = [run["energy_kwh"] for run in runs]
        row = [cell(ARM_NAMES[name]), count(runs[0]["n_samples"]), number(100 * arm["accuracy_mean"], ".2f")]
        row += [number(None if arm["accuracy_sd"] is None else 100 * arm["accuracy_sd"], ".2f"), number(100 * arm["worst_class_mean"], ".1f")]
        row += [number(None if get(arm) is None else 100 * get(arm), ".2f") for get in extra.values()]
        row += [count(runs[0]["steps"]), number(arm["seconds_mean"], ".1f")]
        row.append(number(None if None in kwh else 1000 * float(np.mean(kwh)), ".3g"))
        rows.append(row)
    accuracy = {ARM_NAMES[name]: [run["accuracy"] for run in arm["runs"]] for name, arm in arms.items()}
    corrupted = sorted({kind for arm in arms.values() for kind in arm.get("corruptions", {})} - {"mean"})
    tested = facts.get("test_per_class")
    on_so_many = f", {counted(sum(tested), 'test sample')}" if tested else ""
    of_arms = table(
        "evaluation",
        f"Test accuracy after training, {facts['budget']}, {counted(facts['epochs'], 'epoch')} of {facts['proxy']}, {counted(facts['seeds'], 'seed')}{on_so_many}",
        headers,
        rows,
    )
    of_corruptions = None
    if corrupted:
        body = [
            [cell(kind.replace("_", " "))] + [number(times100(arm.get("corruptions", {}).get(kind)), ".2f") for arm in arms.values()]
            for kind in [*corrupted, "mean"]
        ]
        of_corruptions = table(
            "corruptions",
            f"Accuracy on the corrupted test split, %; {facts.get('corruptions', '')}".rstrip("; "),
            ["corruption", *(ARM_NAMES[arm] for arm in arms)],
            body,
        )
    return {
        "table": of_arms,
        "figure": figures.accuracies(accuracy, "Accuracy of each training"),
        "corruptions": of_corruptions,
        "groups": _groups(arms),
        "sentence": subject.evaluation["comparison"].get("sentence", ""),
        "budget": facts["budget"],
        "dynamic": any(arm in DYNAMIC for arm in arms),
    }


def _groups(arms: Mapping[str, Any]) -> dict[str, Any] | None:
    """Mean accuracy of each group of test samples by arm; None where no groups were named."""
    by_arm = {name: [run.get("per_group") for run in arm["runs"]] for name, arm in arms.items()}
    if any(run is None for runs in by_arm.values() for run in runs):
        return None
    names = list(next(iter(by_arm.values()))[0])
    rows = [
        [cell(group)] + [number(100 * float(np.mean([run[group] for run in runs])), ".2f") for runs in by_arm.values()]
        for group in names[:MOST_CLASSES]
    ]
    some = f"; {MOST_CLASSES} of {len(names):,} groups" if len(names) > MOST_CLASSES else ""
    return table("groups", f"Accuracy of each group of test samples, %{some}", ["group", *(ARM_NAMES[arm] for arm in by_arm)], rows)


def _harm(subject: Subject, classes: Sequence[ClassHarm], reference: str | None) -> dict[str, Any] | None:
    if subject.manifest is None:
        return None
    arms = [arm for arm in ("pruned", "random", "full") if any(arm in c.accuracy for c in classes)]
    headers = [
        "class",
        "samples",
        "kept",
        "share kept, %",
        *(f"accuracy, {ARM_NAMES[arm]}, %" for arm in arms),
        *(["change, points"] if reference else []),
        "finding",
    ]
    worst_first = sorted(
        range(len(classes)),
        key=lambda c: (not classes[c].flags, classes[c].change if classes[c].change is not None else 0.0, classes[c].kept_share, c),
    )
    shown = sorted(worst_first[:MOST_CLASSES]) if len(classes) > MOST_CLASSES else list(range(len(classes)))
    rows = []
    for c in shown:
        one = classes[c]
        row = [cell(one.name), count(one.n_samples), count(one.n_kept)]
        row.append(number(100 * one.kept_share, ".1f") if one.n_samples else cell("no samples", "number absent"))
        row += [number(times100(one.accuracy.get(arm)), ".1f") for arm in arms]
        row += [number(times100(one.change), "+.1f")] if reference else []
        rows.append([*row, cell(", ".join(one.flags) or "none", "flag" if one.flags else "")])
    measured = [one for one in classes if one.change is not None]
    figure = None
    if measured and reference:
        changes, errors = (np.array([getattr(one, key) or 0.0 for one in measured]) for key in ("change", "standard_error"))
        figure = figures.class_changes(
            [one.name for one in measured],
            changes,
            errors,
            [any(flag.startswith(LESS_ACCURATE) for flag in one.flags) for one in measured],
            reference,
        )
    rule = f"“Starved”: the class keeps less than {STARVED_BELOW:g} times the share that the whole set keeps. "
    if reference:
        against = "training on everything" if reference == "full" else "a random choice"
        rule += f"“Less accurate”: its accuracy fell by more than {100 * DROP_POINTS:g} points, and by more than {N_ERRORS:g} standard errors, against {against}."
        rule += (
            " “As with random samples”: no more than as many random ones, so it is the number of samples and not the choice."
            if "random" in arms and reference == "full"
            else ""
        )
    elif arms:
        rule += "Accuracy by class is compared with nothing; run clprune evaluate against full or random."
    elif not subject.of_logged_numbers:
        rule += "Accuracy by class is not measured; run clprune evaluate."
    note = f"{MOST_CLASSES} of {len(classes):,} classes, the worst ones." if len(classes) > MOST_CLASSES else ""
    flagged = [one.name for one in classes if one.flags]
    sentence = (
        f"{len(flagged)} of {counted(len(classes), 'class')} {'is' if len(flagged) == 1 else 'are'} flagged: {listed(flagged)}."
        if flagged
        else f"None of the {counted(len(classes), 'class')} is flagged."
    )
    return {"table": table("harm", note or "All classes", headers, rows), "figure": figure, "rule": rule, "sentence": sentence}


def _savings_table(savings: Savings) -> dict[str, Any]:
    headers = ["line", "value", "unit", "how known", "price or factor used", "note"]
    rows = []
    for line in savings.lines:
        rows.append([cell(line.name), number(line.value, "savings"), cell(line.unit), cell(line.method), cell(price_used(line)), cell(line.note)])
    return table("savings", "Savings, net of the pruning itself", headers, rows)


def _period(subject: Subject) -> dict[str, Any]:
    clp = subject.scoring["clp"]
    ends = clp["indicators"]
    figure = None
    if subject.curve_epochs is not None and len(subject.curve_epochs):
        figure = figures.critical_period(
            subject.curve_epochs,
            subject.curves,
            sorted(ends),
            ends,
            start_epoch=clp["start_epoch"],
            end_epoch=clp["end_epoch"],
            settled=clp["settled"],
        )
    rows = [
        [cell(name.replace("_", " ")), number(end, ".2f") if end is not None else cell("abstains", "number absent")]
        for name, end in sorted(ends.items())
    ]
    interval = "" if clp["interval"] is None else f", interval of the deciding curves {clp['interval'][0]:.1f} to {clp['interval'][1]:.1f}"
    after = (
        f" and (before the last look at what has no label) {more} more"
        if (more := (subject.scoring.get("pool") or {}).get("finishing_epochs"))
        else ""
    )
    elsewhere = NOT_RUN_HERE.get(subject.scoring["proxy"])
    epochs = counted(subject.scoring["epochs_run"], "epoch")
    ran = f"{epochs} of {subject.scoring['proxy']}{after} {'was' if subject.scoring['epochs_run'] == 1 and not after else 'were'} run"
    state = "Ended by" if clp["settled"] else "Not established; used up to"
    return {
        "figure": figure,
        "sentence": f"{state} epoch {clp['end_epoch']}, from epoch {clp['start_epoch']}{interval}; confidence {clp['confidence']:.2f}: {clp['reason']}.",
        "table": table("ends", "Where each deciding curve bends, in epochs", ["curve", "end, epochs"], rows),
        "cost": f"{f'Seen were {epochs} {elsewhere}{after}' if elsewhere else ran}, {share(subject.scoring['share_of_full_training'])} of the epochs of a full training of {subject.scoring['share_is_of_epochs']}.",
    }


def _choice(subject: Subject) -> dict[str, Any]:
    scores = {name: values for name in subject.score_names if not np.isnan(values := subject.score(name)).all()}
    shown: list[Figure] = []
    notes = [] if scores else ["No sample has a score: none has a label."]
    if scores:
        figure, infinite = figures.score_distributions(scores, {name: subject.high_means(name) for name in scores}, subject.kept)
        shown.append(figure)
        notes = [
            f"{counted(n, 'sample')} {'has' if n == 1 else 'have'} an infinite {name.replace('_', ' ')} (never learned in the period); drawn at the right edge."
            for name, n in infinite.items()
        ]
    if subject.kept is not None:
        sizes, kept = (subject.per_class(rows) for rows in (np.arange(subject.n_samples), subject.kept))
        shown.append(figures.kept_by_class(subject.class_names, sizes, kept))
    if {"confidence", "variability"} <= set(scores):
        shown.append(figures.difficulty_map(scores["confidence"], scores["variability"], subject.kept))
    reasons_table = None
    if subject.manifest is not None:
        reasons = sorted(subject.manifest["reasons"].items(), key=lambda pair: -pair[1])
        rows = [[cell(reason), count(n), number(100 * n / subject.n_samples, ".1f")] for reason, n in reasons]
        reasons_table = table("reasons", "Why samples are kept or dropped", ["reason", "samples", "share of all, %"], rows)
    return {
        "figures": shown,
        "notes": notes,
        "table": reasons_table,
        "strategy": subject.manifest["strategy"] if subject.manifest is not None else None,
    }


# --- several subjects ------------------------------------------------------------------------------------------------------------------------


def _comparison(subjects: Sequence[tuple[Subject, Savings | None]], now: datetime) -> dict[str, Any]:
    """One row a run or manifest, oldest first: a policy over time."""
    headers = [
        "name",
        "scored",
        "days since scored",
        "samples",
        "kept, % of labelled",
        "strategy",
        "accuracy, %",
        "standard deviation",
        "against random, points",
    ]
    headers += ["cost of pruning, s", "net time saved, s", "net in full trainings", "trainings of this subset", "classes flagged"]
    rows, accuracy, same = [], {}, {subject.document["fingerprint"] for subject, _ in subjects}
    ordered = sorted(subjects, key=lambda pair: (pair[0].scored_at or now, str(pair[0].folder)))
    for (subject, savings), name in zip(ordered, _names([subject.folder for subject, _ in ordered]), strict=True):
        lines = {line.name: line.value for line in savings.lines} if savings is not None else {}
        arm = subject.evaluation["arms"].get("pruned") if subject.evaluation is not None and subject.manifest is not None else None
        to_random = subject.evaluation["comparison"].get("to_random") if subject.evaluation is not None and arm else None
        days = None if subject.scored_at is None else (now - subject.scored_at).total_seconds() / 86400
        if arm:
            accuracy[name] = [run["accuracy"] for run in arm["runs"]]
        row = [
            cell(name),
            cell(f"{subject.scored_at:%Y-%m-%d}" if subject.scored_at else "unknown"),
            number(days, ".1f"),
            count(subject.n_samples),
        ]
        kept = None if subject.manifest is None else 100 * int(subject.manifest["n_kept"]) / subject.n_candidates
        row.append(cell("none yet", "number absent") if kept is None else number(kept, ".1f"))
        row.append(cell(str(subject.document.get("strategy", "nothing selected yet"))))
        row += [number(times100(arm["accuracy_mean"] if arm else None), ".2f"), number(times100(arm["accuracy_sd"] if arm else None), ".2f")]
        row.append(number(times100(to_random["difference"] if to_random else None), "+.2f"))
        row += [number(lines.get("cost of pruning: time", subject.document.get("seconds")), ".1f"), number(lines.get("net time saved"), ".1f")]
        row += [number(lines.get("net time saved, equal epochs"), "+.2f"), count(savings.facts["trainings"] if savings is not None else None)]
        row.append(count(sum(bool(one.flags) for one in _classes(subject)[0]) if subject.manifest is not None else None))
        rows.append(row)
    data = "all of one data set" if len(same) == 1 else f"of {len(same)} different data sets (accuracies of different data are not comparable)"
    measured = f"{len(accuracy)} of {len(subjects)} {'has' if len(accuracy) == 1 else 'have'} a measured accuracy"
    return {
        "title": f"Comparison of {len(subjects)} runs and selections",
        "verdict": {"status": "open", "word": "Comparison", "sentence": f"{len(subjects)} runs or selections, {data}; {measured}."},
        "compared": table("comparison", "Oldest first", headers, rows),
        "drawn": figures.accuracies(accuracy, "Accuracy of each selection") if accuracy else None,
    }


def _names(folders: Sequence[Path]) -> list[str]:
    """The ends of the paths of folders: two parts, or as many as tell them apart."""
    paths = [folder.resolve() for folder in folders]
    for n_parts in range(2, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-n_parts:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names
