"""How to repeat what a page tells of: the commands with every choice that was made, what they cannot say in words, and where, with what and on which bytes it was done."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from clprune.cells import cell, table
from clprune.subject import Subject

# Entries of `asked` in run.json that are options of `clprune score`, with what they are where they were not given.
USUAL = {
    "max_epochs": 30,
    "seed": 0,
    "exact": False,
    "batch_size": 128,
    "learning_rate": None,
    "whole_network": False,
    "image_size": None,
    "layer": None,
}
TOLERANCE, CONFIDENCE, N_TRIALS = 0.5, 0.9, 12  # of --keep auto, where they were not given
AGAINST = "random,full"


def how_to_repeat(subject: Subject) -> dict[str, Any]:
    """Commands for a shell, notes on what stands for a file or is not recorded, and the tables of facts and digests."""
    steps = [_scored(subject)]
    if subject.manifest is not None:
        steps.append((_selected(subject.manifest), []))
        steps.append((["clprune", "verify", "M", "--data", str(subject.document["source"])], []))
        if subject.evaluation is not None:
            steps.append(_evaluated(subject.evaluation))
    return {
        "commands": [shlex.join(command) for command, _ in steps if command],
        "notes": [note for _, notes in steps for note in notes],
        "facts": _facts(subject),
        "digests": _digests(subject),
    }


def _scored(subject: Subject) -> tuple[list[str], list[str]]:
    """The command that scores, empty where a training of the user's own was recorded, and notes on it."""
    asked, notes = subject.scoring["asked"], []
    if asked["proxy"] == "own loop":
        return [], ["The run RUN was recorded in a training of your own, which no command repeats: train again with a Recorder in it, and save_run."]
    command = ["clprune", "score", str(subject.document["source"]), "--out", "RUN"]
    command += [] if asked["proxy"] == "logged" else ["--proxy", str(asked["proxy"]), "--max-epochs", str(asked["max_epochs"])]
    command += ["--seed", str(asked["seed"])]
    for name, usual in USUAL.items():
        value = asked.get(name, usual)
        if name not in ("max_epochs", "seed") and value != usual:
            command += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    if "embeddings" in asked:
        command += ["--embeddings", "FEATURES.npy"]
        notes.append(f"FEATURES.npy stands for features of your own, which are not kept as you gave them (digest {asked['embeddings']}).")
    if "labels_sha256" in asked:
        command += ["--answers", "ASKED"]
        parent = (subject.scoring.get("pool") or subject.document.get("pool") or {}).get("parent")
        where = "" if not parent else f", which was {parent['manifest']} (answers.json: {parent['answers_sha256']})"
        notes.append(f"ASKED stands for the manifest that asked for labels, with the answers that were added to it{where}.")
    return command, notes


def _selected(manifest: Mapping[str, Any]) -> list[str]:
    budget = manifest["budget"]
    command = ["clprune", "select", "RUN", "--keep", str(budget["asked"]), "--strategy", str(manifest["strategy"]).replace("'", '"')]
    if budget["asked"] == "auto":
        for option, value, usual in (("tolerance", 100 * budget["tolerance"], TOLERANCE), ("confidence", budget["confidence"], CONFIDENCE)):
            command += [] if value == usual else [f"--{option}", f"{value:.10g}"]
        command += [] if (n_trials := len(budget["trials"])) in (0, N_TRIALS) else ["--trials", str(n_trials)]
        command += ["--trial-epochs", str(manifest["trials"]["cost"]["epochs_each"])]  # by default it depends on the data
    return [*command, "--seed", str(manifest["seed"]), "--min-per-class", str(manifest["min_per_class"]), "--out", "M"]


def _evaluated(evaluation: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    facts, notes = evaluation["facts"], []
    command = ["clprune", "evaluate", "M", "--proxy", str(facts["proxy"]), "--epochs", str(facts["epochs"])]
    command += ["--seeds", str(facts["seeds"]), "--budget", str(facts["budget"])]
    against = ",".join(arm for arm in evaluation["arms"] if arm != "pruned")
    command += [] if set(against.split(",")) == set(AGAINST.split(",")) else ["--against", against]
    command += ["--test", str(evaluation["test"])] if evaluation.get("test") else []
    if groups := facts.get("groups"):
        command += ["--group", "COLUMN"]
        named = ", ".join(map(str, groups[:5])) + (f" and {len(groups) - 5} more" if len(groups) > 5 else "")
        notes.append(f"COLUMN stands for the column of the test data that names the groups ({named}); its name is not recorded.")
    return command, notes


def _digests(subject: Subject) -> dict[str, Any]:
    document = subject.document
    digests = [["data (fingerprint)", document["fingerprint"]]]
    digests += [[f"{subject.folder.name}/{name}", facts["sha256"]] for name, facts in sorted(document["files"].items())]
    digests += [[name.replace("_sha256", " of the run"), value] for name, value in sorted(document.get("parent", {}).items())]
    return table("digests", "Digests (sha256)", ["what", "digest"], [[cell(str(a)), cell(str(b), "digest")] for a, b in digests])


def _facts(subject: Subject) -> dict[str, Any]:
    document, scoring = subject.document, subject.scoring
    facts = [
        ["scored", f"{subject.scored_at:%Y-%m-%d %H:%M UTC} ({subject.scored_at_method})" if subject.scored_at else "unknown"],
        ["device", scoring["device"]],
        ["numbers", scoring.get("number_format", "unknown")],
    ]
    facts += [["threads", scoring.get("threads")], ["seed of the proxy run", scoring["asked"]["seed"]]]
    facts += [["seed of the selection", document["seed"]]] if subject.manifest is not None else []
    facts += [["CPU cores" if name == "cpu_count" else f"version of {name}", value] for name, value in sorted(document["versions"].items())]
    return table("facts", "Where and with what", ["what", "value"], [[cell(str(a)), cell(str(b))] for a, b in facts])
