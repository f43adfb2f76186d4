"""What evaluations leave beside a manifest (evaluation.json, pool.json), tied to the selection that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clprune.errors import DataError, IntegrityError
from clprune.manifest import Manifest, read_manifest
from clprune.storage import digest_in, read_json, write_json


def selection_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What a manifest's document keeps, and of which data: an evaluation is of these rows, whatever else was chosen."""
    return {"fingerprint": str(manifest.get("fingerprint", "")), "kept_sha256": digest_in(manifest.get("files", {}), "kept.npy")}


def write_result(manifest: Manifest, name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Write a document beside the manifest that was read before the trainings; returns it as it is written.

    Raises DataError where another selection has taken the manifest's place since: the results are not of that one.
    """
    selection = selection_of(manifest.document)
    if selection_of(read_manifest(manifest.folder).document) != selection:
        raise DataError(
            f"{manifest.folder} holds another selection than when this evaluation began, so {name} was not written. Leave the manifest as it is and evaluate again."
        )
    full = {**document, "selection": selection}
    write_json(manifest.folder / name, full)
    return full


def require_of_selection(path: Path, document: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Raise IntegrityError where the evaluation `document` at `path` is of other kept rows or data than the manifest's document; one that was written before this was noted passes."""
    if document.get("selection", selection_of(manifest)) != selection_of(manifest):
        raise IntegrityError(f"{path} is of another selection than the manifest beside it. Remove it, and evaluate again.")


def read_evaluation(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """evaluation.json in the folder of a manifest, whose document is given; None where there is none. Raises as `require_of_selection` and `read_json` do."""
    path = folder / "evaluation.json"
    if not path.exists():
        return None
    document = read_json(path, what="evaluation")
    require_of_selection(path, document, manifest)
    return document
