"""Labels that were bought for a pool: answers to what a manifest asked for, checked, kept beside it, and added to the data when they are scored again."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from clprune.datatypes import UNLABELLED, Source
from clprune.errors import IntegrityError, LabelError, UsageError
from clprune.manifest import Manifest, read_manifest
from clprune.sources._common import require_classes
from clprune.sources._csv import HEAD, encoding_of, separator_of
from clprune.storage import BRIEFLY, SCHEMA_VERSION, digest_of_file, ids_of, locked, read_json, to_json, write_json
from clprune.wording import counted

NAMED = 10  # rows that an error names
ID_COLUMNS, LABEL_COLUMNS = ("sample_id", "id"), ("label", "answer", "class")


@dataclass(frozen=True)
class Answer:
    """One answer and where it stands: "FILE row 3"."""

    sample_id: str
    label: str
    where: str


def read_answers(path: Path) -> list[Answer]:
    """Answers in a .csv (columns sample_id and label, as a spreadsheet writes it: separators and encodings as in `sources/_csv.py`), .jsonl of the same, or .json that Label Studio exports. Empty labels are no answers.

    Raises LabelError that names the file, and the row where one cannot be read.
    """
    try:
        content = path.read_bytes()
        text = content.decode(encoding_of(content))
    except FileNotFoundError:
        raise LabelError(f"there is no file {path}. Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{path} cannot be read ({error}). Save it as UTF-8 text.") from error
    try:
        if path.suffix == ".json":
            return list(_of_label_studio(json.loads(text), path))
        if path.suffix == ".jsonl":
            rows: Iterator[tuple[int, Any]] = _lines_of(text, path)
        else:
            csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # a text may be longer than what csv takes by itself
            separator, told = separator_of(
                text[:HEAD], lambda columns: bool(columns.intersection(ID_COLUMNS) and columns.intersection(LABEL_COLUMNS))
            )
            rows = _numbered(csv.DictReader(io.StringIO(text.split("\n", told)[-1], newline=""), delimiter=separator))
        return list(_of_rows(rows, path))
    except (ValueError, RecursionError, csv.Error) as error:
        raise LabelError(f"{path} is not readable as {path.suffix or 'CSV'} ({error}). Give .csv, .jsonl, or Label Studio's .json.") from error


def _numbered(reader: csv.DictReader[str]) -> Iterator[tuple[int, Any]]:
    """Each row by the number that a spreadsheet shows: blank rows, which the reader passes over, count, and line breaks within a cell do not."""
    within = 0
    for row in reader:
        within += sum(str(value).count("\n") for value in row.values())
        yield reader.line_num - within, dict(row)


def _lines_of(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """What each line of a .jsonl holds, by its number. Raises LabelError that names the line that holds nothing readable."""
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if line.strip():
                yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LabelError(f"{path} row {number} is not readable as JSON ({error}). Mend that line, or leave it out.") from error


def _of_rows(rows: Iterator[tuple[int, Any]], path: Path) -> Iterator[Answer]:
    for number, row in rows:
        if not isinstance(row, dict):
            raise LabelError(f'{path} row {number} is {_shown(row)}, not an object. Write it as {{"sample_id": ..., "label": ...}}.')
        if any(row.get(None) or ()):
            raise LabelError(
                f"{path} row {number} has more fields than the first row has columns ({_shown(row[None])}). Put what holds a comma in quotes."
            )
        name = next((row[key] for key in ID_COLUMNS if row.get(key) is not None), None)
        key = next((key for key in LABEL_COLUMNS if key in row), None)
        if name is None or key is None:
            raise LabelError(f"{path} row {number} has no sample_id or no label (it has: {', '.join(map(str, row))}). Both columns are needed.")
        if isinstance(row[key], (list, dict)) or isinstance(name, (list, dict)):
            raise LabelError(f"{path} row {number} has {_shown(row)}, in which an id or a label is no text or number. One class a sample is needed.")
        if row[key] is not None and str(row[key]).strip():
            yield Answer(str(name), str(row[key]), f"{path.name} row {number}")


def _of_label_studio(tasks: Any, path: Path) -> Iterator[Answer]:
    """The choices of annotations that were not cancelled, one answer an annotation."""
    for number, task in enumerate(tasks if isinstance(tasks, list) else [tasks], 1):
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict) or "sample_id" not in data:
            raise LabelError(f"{path} task {number} has no data.sample_id. Give the export (JSON) of tasks that clprune wrote.")
        for annotation in _listed(task, "annotations", dict, path, number):
            results = _listed(annotation, "result", dict, path, number)
            choices = [c for result in results for c in _listed(result.get("value", {}), "choices", str, path, number)]
            if choices and not annotation.get("was_cancelled"):
                if len(choices) > 1:
                    raise LabelError(
                        f"{path} task {number} ({data['sample_id']}) has {len(choices)} choices in one annotation. One class a sample is needed."
                    )
                yield Answer(str(data["sample_id"]), str(choices[0]), f"{path.name} task {number}")


def _listed(holder: Any, key: str, kind: type, path: Path, number: int) -> list[Any]:
    """The list of `kind` that a part of a task holds under `key`, empty where there is none. Raises LabelError where something else stands there."""
    found = holder.get(key, []) if isinstance(holder, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, kind) for item in found):
        raise LabelError(f"{path} task {number} is no annotation of Label Studio: {key} in {_shown(holder)}. Give its export (JSON) as it is.")
    return found


def _shown(value: Any) -> str:
    """The beginning of a JSON value, for an error."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def class_meant(label: str, names: Sequence[str]) -> str:
    """The class that an answer means: the one of that name, else the only one that differs by spaces around it, or as tables rewrite numbers and truth values; else the answer without spaces around it.

    >>> class_meant("2.0", ["1", "2"]), class_meant("TRUE", ["false", "true"]), class_meant(" new", ["cat "]), class_meant("cat", ["cat "])
    ('2', 'true', 'new', 'cat ')
    """
    if label in names:
        return label
    plain = label.strip()
    meant = [name for name in names if name.strip() == plain] or [name for name in names if name in ("false", "true") and name == plain.lower()]
    if not meant and plain.endswith(".0"):
        meant = [name for name in names if name == plain[:-2] and name.isdecimal()]
    return meant[0] if len(meant) == 1 else plain


def add_answers(folder: Path, files: Sequence[Path], *, new_classes: bool = False) -> dict[str, Any]:
    """Check the answers in `files` against the manifest in `folder` and keep them in its answers.json; all of them, or none.

    Raises LabelError that names the rows with unknown ids, unknown classes (unless `new_classes`, or no class is known yet), or answers that differ from each other, from
    earlier answers, or from a label that the data have. The same answer given again is counted, not refused.
    """
    manifest = read_manifest(folder)
    if "pool" not in manifest.document:
        raise UsageError(f"{folder} asks for no labels. Make a manifest with `clprune select RUN --label-budget N`.")
    with locked(manifest.folder, wait_seconds=BRIEFLY):
        ids, names = manifest.samples["sample_id"].to_pylist(), [str(name) for name in manifest.document["class_names"]]
        given = {name: label for name, label in zip(ids, manifest.samples["label"].to_pylist(), strict=True)}
        asked = set(manifest.kept_ids.tolist())
        held = kept_answers(manifest)
        found: dict[str, Answer] = {}
        unknown, classless, conflicts, repeated = [], [], [], 0
        allowed = set(names) if names and not new_classes else None
        written = [answer for path in files for answer in read_answers(Path(path))]
        meant = {label: class_meant(label, names) for label in {answer.label for answer in written}}
        for answer in (replace(answer, label=meant[answer.label]) for answer in written):
            if answer.sample_id not in given:
                unknown.append(f"{answer.where}: {answer.sample_id}")
            elif allowed is not None and answer.label not in allowed:
                classless.append(f"{answer.where}: {answer.label} for {answer.sample_id}")
            else:
                before = found[answer.sample_id].label if answer.sample_id in found else held.get(answer.sample_id)
                if before is None and given[answer.sample_id] != UNLABELLED:
                    before = names[given[answer.sample_id]]
                if before is not None and before != answer.label:
                    conflicts.append(f"{answer.where}: {answer.sample_id} is {answer.label}, but was {before}")
                repeated += before == answer.label
                found.setdefault(answer.sample_id, answer)
        problems = [
            f"{counted(len(rows), 'answer')} {'is' if len(rows) == 1 else 'are'} {what} ({'; '.join(rows[:NAMED])}{f' and {len(rows) - NAMED} more' if len(rows) > NAMED else ''})"
            for rows, what in (
                (unknown, "for ids that these data do not have"),
                (classless, f"of unknown classes (known: {', '.join(names)})"),
                (conflicts, "other than an earlier one"),
            )
            if rows
        ]
        if problems:
            raise LabelError(f"no answer was added: {'. '.join(problems)}. Mend those rows" + (", or pass --new-classes." if classless else "."))
        fresh = {name: answer.label for name, answer in found.items() if name not in held and given[name] == UNLABELLED}
        labels = held | fresh
        write_json(
            manifest.folder / "answers.json",
            {"schema_version": SCHEMA_VERSION, "kind": "answers", "fingerprint": manifest.fingerprint, "labels": labels, "digest": _digest(labels)},
        )
    open_ids = asked - set(labels)
    return {
        "added": len(fresh),
        "repeated": int(repeated),
        "not_asked_for": len(set(fresh) - asked),
        "answered": len(labels),
        "open": len(open_ids),
        "asked": len(asked),
    }


def _digest(labels: dict[str, str]) -> str:
    return hashlib.sha256(to_json(labels, indent=None).encode()).hexdigest()


def kept_answers(manifest: Manifest) -> dict[str, str]:
    """Label by sample id of the answers that were added to a manifest. Raises IntegrityError where the file was changed by something else."""
    path = manifest.folder / "answers.json"
    if not path.exists():
        return {}
    document = read_json(path, what="answers")
    if (
        document.get("kind") != "answers"
        or document.get("fingerprint") != manifest.fingerprint
        or document.get("digest") != _digest(document.get("labels", {}))
    ):
        raise IntegrityError(f"{path} is not as it was written. Restore it, or remove it and add the answers again.")
    return dict(document["labels"])


def with_answers(source: Source, manifest: Manifest) -> tuple[Source, Bool[np.ndarray, "N"], dict[str, Any]]:
    """The data with all labels that the manifest and its answers know, which questions are still open (N,), and what the next round says of its parent.

    Classes keep their numbers; names that are new come after them. Raises FingerprintError for other data, LabelError where there is no answer yet, or all labels are of one class.
    """
    answers = kept_answers(manifest)
    if not answers:
        raise LabelError(f"{manifest.folder} has no answers yet. Add them with `clprune labels add {manifest.folder} FILE`.")
    known = with_known_labels(source, manifest)
    names = [*known.class_names, *sorted(set(answers.values()) - set(known.class_names))]
    number = {name: c for c, name in enumerate(names)}
    place = {name: row for row, name in enumerate(source.sample_ids.tolist())}
    labels = known.labels.copy()
    for name, answer in answers.items():
        labels[place[name]] = number[answer]
    if len(classes := np.unique(labels[labels != UNLABELLED])) < 2:
        raise LabelError(
            f"all {int((labels != UNLABELLED).sum())} labels that are known with the {len(answers)} answers in {manifest.folder} are of one class ({names[classes[0]]}), and at least two classes are needed "
            f"to learn from. Label more, also samples that were not asked for, and add them with `clprune labels add {manifest.folder} FILE`; or ask again for more, with a larger --label-budget and another --out, and add all answers there."
        )
    still_open = np.zeros(len(source), dtype=bool)
    asked = np.concatenate([manifest.kept_ids, _asked_before(manifest)])
    still_open[[place[name] for name in asked.tolist()]] = True
    parent: dict[str, Any] = {"manifest": str(manifest.folder.absolute()), "manifest_sha256": digest_of_file(manifest.folder / "manifest.json")}
    parent |= {
        "answers_sha256": digest_of_file(manifest.folder / "answers.json"),
        "n_answers": len(answers),
        "round": manifest.document["pool"]["round"],
    }
    told_before = require_classes(source.labels, source.class_names, source.locator)  # of labels that were missing then
    notes = [note for note in source.facts.get("notes", []) if note not in told_before]
    notes = [*require_classes(labels, names, source.locator), *notes]
    labelled = replace(source.with_labels(labels, tuple(names)), facts=dict(source.facts) | {"notes": notes})
    return labelled, still_open & (labels == UNLABELLED), parent


def with_known_labels(source: Source, manifest: Manifest) -> Source:
    """The data with the labels that were known when the manifest was made, where that was a round of labelling; else as they are. Raises FingerprintError for other data."""
    if "pool" not in manifest.document:
        return source
    manifest.require_same_data(source)
    label = dict(zip(manifest.samples["sample_id"].to_pylist(), manifest.samples["label"].to_pylist(), strict=True))
    labels = np.array([label[name] for name in source.sample_ids.tolist()], dtype=np.int64)
    return source.with_labels(labels, tuple(str(name) for name in manifest.document["class_names"]))


def _asked_before(manifest: Manifest) -> np.ndarray:
    """Ids that earlier rounds asked for and nobody has answered."""
    samples = manifest.samples
    return ids_of(samples.filter(samples["asked_before"])["sample_id"])


def labels_digest(labels: Int[np.ndarray, "N"]) -> str:
    """sha256 of labels by row: what tells rounds of the same data apart."""
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()
