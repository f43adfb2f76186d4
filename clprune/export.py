"""Hand the kept samples over, in the form that the user's training already reads; complete or absent, with a hidden record of every file's digest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clprune import families
from clprune.datatypes import Source, digest_of_ids
from clprune.errors import UsageError
from clprune.manifest import Manifest
from clprune.storage import SCHEMA_VERSION, inventory, new_folder, read_json, write_json

RECORD = ".clprune.json"  # in an exported folder: the digest of every file, for `clprune verify`


def export(manifest: Manifest, source: Source, form: str, destination: Path, *, force: bool = False) -> dict[str, Any]:
    """Write the kept samples of `source` to `destination` as `form` (an exporter's name, with - or _, and with options if wanted).

    Raises FingerprintError for other data than the manifest's, UsageError for an unknown form, a destination that exists, one inside the data's own folder, and one
    that holds the data, the manifest, or (with `force`) anything that no export wrote.
    """
    member, options, spelled = form_of(form)
    manifest.require_same_data(source)
    if not families.facts(member)["takes_unlabelled"] and (n := int((source.labels[manifest.indices(source)] < 0).sum())):
        fitting = [name for name in families.names("exporters") if families.facts(families.find("exporters", name))["takes_unlabelled"]]
        raise UsageError(f"{n} of these samples have no label yet, and {member.__name__} needs one. Export them as {', '.join(fitting)}.")
    _require_harmless(destination, manifest, source, force)
    started, head = time.perf_counter(), {"form": spelled, "destination": str(destination), "n_samples": manifest.n_kept}
    resume_key = _key_of(manifest, source, spelled) if families.facts(member)["resumes"] else None
    with new_folder(destination, force=force, resume_key=resume_key) as side:
        told = member(manifest, source, side, **options)
        files = sorted(path.relative_to(side).as_posix() for path in side.rglob("*") if path.is_file() and path.name != RECORD)
        record = {
            "schema_version": SCHEMA_VERSION,
            "kind": "export",
            "form": spelled,
            "fingerprint": manifest.fingerprint,
            "n_samples": manifest.n_kept,
        }
        record |= {"order_digest": digest_of_ids(source.sample_ids), "files": inventory(side, files), "manifest_files": manifest.document["files"]}
        write_json(side / RECORD, record | {"told": told})
        told = _with_record(told, side)
    return head | {"seconds": time.perf_counter() - started} | told


def finished_export(manifest: Manifest, form: str, destination: Path) -> dict[str, Any] | None:
    """What the export of this manifest as `form` that stands at `destination` told when it was written; None where there is none, or another one. Its files are not read: `clprune verify` does."""
    if not (destination / RECORD).exists():
        return None
    record = read_json(destination / RECORD, what="export")
    same = record["form"] == form_of(form)[2] and record.get("manifest_files") == manifest.document.get("files", {}) and "told" in record
    head = {"form": record["form"], "destination": str(destination), "n_samples": manifest.n_kept, "seconds": 0.0}
    return head | _with_record(record["told"], destination) if same else None


def _with_record(told: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Files and bytes of an export with those of the record in its folder."""
    return {**told, "files": told["files"] + 1, "bytes_written": told["bytes_written"] + (folder / RECORD).stat().st_size}


def _key_of(manifest: Manifest, source: Source, form: str) -> str:
    """What an export that was cut short must have in common with the next one to be gone on with: the form, the kept samples in their order, the data, and the labels as they are known now."""
    rows = manifest.indices(source)
    labels = [f"{source.sample_ids[row]} {source.labels[row]}" for row in rows.tolist()]
    return digest_of_ids(np.array([form, source.fingerprint, *source.class_names, *manifest.kept_ids.tolist(), *labels], dtype=object))[:12]


def form_of(form: str) -> tuple[Callable[..., dict[str, Any]], dict[str, Any], str]:
    """The exporter that a form names, its options, and the form spelled out. Raises UsageError for an unknown one."""
    name, bracket, rest = form.partition("(")
    return families.choose("exporters", name.replace("-", "_") + bracket + rest)


def _require_harmless(destination: Path, manifest: Manifest, source: Source, force: bool) -> None:
    """Raise UsageError where an export to `destination` would replace what is not an export."""
    place, data = destination.resolve(), _place_of(source.locator)
    root = source.facts.get("root") or (data if data.is_dir() else None)
    if root is not None and place.is_relative_to(Path(root).resolve()) and place != data.resolve():
        raise UsageError(f"{destination} lies inside the data folder {root}. Choose a place outside it.")
    held = [("the manifest", manifest.folder), ("the data", data)]
    if destination.is_dir():  # else there is nothing that could be replaced
        files = [Path(file) for file in source.facts.get("files", ())] + list(source.paths or ())
        held += [("the data", folder) for folder in dict.fromkeys(file.parent for file in files)]
    for what, there in held:
        if there.exists() and there.resolve().is_relative_to(place):
            raise UsageError(f"{destination} holds {what} ({there}), which the export would replace. Choose another place.")
    if force and destination.is_dir() and any(destination.iterdir()) and not (destination / RECORD).exists():
        raise UsageError(
            f"{destination} holds files that no export wrote, and --force would remove them. Choose another place, or empty it yourself."
        )


def _place_of(locator: str) -> Path:
    """The file or folder that a locator names, as far as it names one."""
    name = locator.split("?")[0]
    return Path(name.removeprefix("hf:").partition(":")[0] if name.startswith("hf:") else name.removeprefix("wds:"))
