"""What `clprune verify` looks at: a run, a manifest or an exported folder, and all documents that later steps have put into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clprune.datatypes import Source
from clprune.errors import DataError
from clprune.evaluation_record import require_of_selection
from clprune.export import RECORD
from clprune.labels import kept_answers
from clprune.manifest import read_manifest, verify_manifest
from clprune.run import read_run
from clprune.storage import digest_of_file, read_json, verify_inventory

BESIDE = {  # what later steps write into a run or a manifest: pattern -> kind of document
    "evaluation.json": "evaluation",
    "evaluation/*/*.json": "finished training",
    "savings.json": "savings",
    "exports.json": "exports",
    "pool.json": "pool evaluation",
    "answers.json": "answers",
    "trials/*.json": "finished trial",
    "clp-end.json": "clp-end",
}


def verify(folder: Path, source: Source | None = None) -> list[str]:
    """What is wrong in a folder, one sentence each that names the file and what to do; empty if all is well.

    `source` is compared with the data that were scored. Raises DataError where the folder is none of clprune's, or where the record that names its files is
    missing, broken (IntegrityError) or of another schema version (SchemaError): then nothing can be said of the rest.
    """
    if folder.name in ("manifest.json", "run.json", RECORD):
        folder = folder.parent
    if (folder / "manifest.json").exists():
        return verify_manifest(read_manifest(folder), source) + _problems_beside(folder)
    if (folder / RECORD).exists():
        document = read_json(folder / RECORD, what="export")
        problems = (
            [] if document.get("kind") == "export" else [f"{RECORD} is the record of a {document.get('kind')}, not of an export. Export again."]
        )
        return problems + verify_inventory(folder, document.get("files", {}), links=True) + _other_data(document, source)
    if not (folder / "run.json").exists() and (folder / "checkpoint").is_dir():
        return _problems_of_checkpoint(folder / "checkpoint")
    if not (folder / "run.json").exists():
        raise DataError(f"{folder} holds neither a run (run.json), nor a manifest (manifest.json), nor an export ({RECORD}). Check the path.")
    run = read_run(folder)
    return verify_inventory(folder, run.document["files"]) + _problems_beside(folder) + _other_data(run.document, source)


def _other_data(document: Mapping[str, Any], source: Source | None) -> list[str]:
    if source is None or source.fingerprint == document["fingerprint"]:
        return []
    return [
        f"{source.locator} is not the data set that was scored: its fingerprint is {source.fingerprint[:12]}, that of the record {document['fingerprint'][:12]}."
    ]


def _problems_beside(folder: Path) -> list[str]:
    """What is wrong with the documents of later steps."""
    problems = []
    for pattern, kind in BESIDE.items():
        for path in sorted(folder.glob(pattern)):
            name = path.relative_to(folder).as_posix()
            try:
                of = "/".join(path.relative_to(folder).with_suffix("").parts[1:])
                document = read_json(path, what=kind, of=of or None)
                seen = document.get("kind")
                if seen != kind:
                    problems.append(f"{name}: holds a document of kind '{seen}', not '{kind}'. Restore it, or remove it and make it again.")
                elif kind == "answers":
                    kept_answers(read_manifest(folder))
                elif kind in ("evaluation", "pool evaluation"):
                    require_of_selection(path, document, read_manifest(folder).document)
            except DataError as error:
                problems.append(f"{name}: {error}")
    return problems


def _problems_of_checkpoint(folder: Path) -> list[str]:
    """What is wrong with what an interrupted run goes on from."""
    if not (folder / "checkpoint.json").exists():
        return []
    files = read_json(folder / "checkpoint.json", what="checkpoint")["files"]
    return [
        f"checkpoint/{name}: missing or changed. The interrupted run cannot go on from it: pass --force to start anew."
        for name, digest in sorted(files.items())
        if not (folder / name).is_file() or digest_of_file(folder / name) != digest
    ]
