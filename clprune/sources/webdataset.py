"""Tar shards of the webdataset form: `wds:train-{000000..000009}.tar`, a pattern with *, or a folder with timm's `_info.json`."""

from __future__ import annotations

import glob
import io
import json
import re
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clprune.datatypes import UNLABELLED, Source
from clprune.errors import DataError
from clprune.families import source
from clprune.sources._common import (
    TEST_SPLITS,
    TRAIN_SPLITS,
    among,
    holds_names,
    integer_labels,
    look_at,
    refuse_skipped,
    require_classes,
    require_ids,
    require_range,
    split_among,
)

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")


@dataclass
class _Sample:
    """Where the members of one sample lie: ending -> (offset, bytes) in its shard."""

    shard: Path
    key: str
    members: dict[str, tuple[int, int]]

    def read(self, ending: str) -> bytes:
        offset, size = self.members[ending]
        with open(self.shard, "rb") as file:
            file.seek(offset)
            return file.read(size)


@source(claims=lambda locator: locator.startswith("wds:"))
def webdataset(locator: str, *, strict: bool = False) -> Source:
    """Samples with an image (or `txt`) member and a label: member `cls`, or `label` in member `json` (empty or null: none yet). Read in place, nothing is unpacked.

    Keys repeat from shard to shard, so an id is the shard's path below the shards' common folder, `/` and the key; where every sample's `json` has a
    `sample_id`, as in clprune's own shards, that is the id. Raises DataError for shards that are missing, compressed or cut off.
    """
    place = Path(locator.removeprefix("wds:"))
    info_path = (place if place.is_dir() else place.parent) / "_info.json"
    splits, names = _info(info_path) if info_path.is_file() else ({}, ())
    if not place.is_dir():
        return _open(_expanded(str(place), locator), locator, strict, names)
    if not splits:
        return _open(sorted(place.rglob("*.tar")), locator, strict, names)
    files = {split: [place / shard for shard in shards] for split, shards in splits.items()}
    train = split_among(files, TRAIN_SPLITS) or next(iter(files))
    opened = _open(files[train], locator, strict, names)
    test = split_among([split for split in files if split != train], TEST_SPLITS)
    if test is None:
        return opened
    return replace(opened, load_test=lambda: _open(files[test], f"{locator} ({test})", strict, opened.class_names, is_test=True))


def _info(path: Path) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Shards by split and class names from timm's `_info.json`. Raises DataError where that is not what it holds."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        splits = {str(split): [str(name) for name in told["filenames"]] for split, told in held.get("splits", {}).items()}
        return splits, tuple(str(name) for name in held.get("class_names", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as timm's list of shards ({type(error).__name__}: {error}). Mend it, or move it away.") from error


def _expanded(pattern: str, locator: str) -> list[Path]:
    """The files that `{a..b}`, `{x,y}` and * stand for. Raises DataError where one is missing or none is there."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces:
        span = re.fullmatch(r"(\d+)\.\.(\d+)", braces[1])
        if span:
            width = len(span[1]) if span[1].startswith("0") and len(span[1]) > 1 else 0
            parts = [f"{number:0{width}d}" for number in range(int(span[1]), int(span[2]) + 1)]
        else:
            parts = braces[1].split(",")
        return [path for part in parts for path in _expanded(pattern[: braces.start()] + part + pattern[braces.end() :], locator)]
    found = [Path(name) for name in sorted(glob.glob(pattern))] if set("*?") & set(pattern) else [Path(pattern)]
    if missing := [path for path in found if not path.is_file()]:
        raise DataError(f"{locator}: there is no shard {missing[0]}. Check the numbers between the braces.")
    if not found:
        raise DataError(f"{locator}: no file is named like {pattern}.")
    return found


def _open(shards: list[Path], locator: str, strict: bool, class_names: tuple[str, ...], *, is_test: bool = False) -> Source:
    if not shards:
        raise DataError(f"{locator} holds no shards (files that end in .tar).")
    samples = [sample for shard in shards for sample in _listed(shard, locator)]
    parents = [path.parent.parts for path in shards]
    depth = next((at for at, parts in enumerate(zip(*parents, strict=False)) if len(set(parts)) > 1), min(map(len, parents)))
    skipped: list[tuple[str, str]] = []
    good: list[tuple[_Sample, str, str, Any]] = []  # sample, id by its place, ending of its input, label
    about: list[dict[str, Any]] = []
    for sample in samples:
        name = "/".join((*sample.shard.parts[depth:], sample.key))
        told = _told(sample)
        ending = next((e for e in (*IMAGES, "txt") if e in sample.members), None)
        label = told.get("label")
        if "cls" in sample.members:
            label = sample.read("cls").decode("utf-8", "backslashreplace").strip() or None
        elif isinstance(label, str):
            label = label.strip() or None
        if ending is None or not ("cls" in sample.members or "label" in told):
            skipped.append(
                (
                    name,
                    f"no {'image or text' if ending is None else 'label (member cls, or label in json)'} (members: {', '.join(sorted(sample.members))})",
                )
            )
        elif isinstance(look := _look_at_text(sample.read(ending)) if ending == "txt" else look_at(sample.read(ending)), str):
            skipped.append((name, look))
        else:
            good.append((sample, name, ending, label))
            about.append(told)
    refuse_skipped(skipped, locator, strict=strict, n_left=len(good))
    texts = [ending == "txt" for _, _, ending, _ in good]
    if any(texts) and not all(texts):
        raise DataError(f"{locator} holds images and texts. Score them apart.")
    values = [int(label) if re.fullmatch(r"-?\d+", str(label)) else label for _, _, _, label in good]
    labels, found = integer_labels(values, locator, "cls")
    names = class_names or _told_names(about, labels) or found
    told_ids = [told.get("sample_id") for told in about]
    ids = [name for _, name, _, _ in good] if None in told_ids else [str(told_id) for told_id in told_ids]
    if class_names and holds_names(values):
        labels = among(labels, found, class_names, locator, ids=ids, known="the classes")
    if is_test:
        require_range(labels, names, locator, ids=ids)
    notes = [] if is_test else require_classes(labels, names, locator)

    def read_input(index: int) -> Any:
        from PIL import Image

        sample, _, ending, _ = good[index]
        return sample.read(ending).decode() if ending == "txt" else Image.open(io.BytesIO(sample.read(ending)))

    return Source(
        locator=locator,
        sample_ids=require_ids(ids, locator),
        labels=labels,
        class_names=names,
        sample_bytes=np.array([sample.members[ending][1] for sample, _, ending, _ in good], dtype=np.int64),
        read_input=read_input,
        kind="text" if all(texts) else "image",
        read_bytes=lambda index: (good[index][0].read(good[index][2]), f".{good[index][2]}"),
        skipped=tuple(skipped),
        facts={"notes": notes, "files": [str(shard) for shard in shards]},
    )


def _listed(shard: Path, locator: str) -> list[_Sample]:
    """The samples of a shard by key, in its order. A key is a member's name up to the first dot of its last part, as webdataset cuts it."""
    found: dict[str, _Sample] = {}
    try:
        with tarfile.open(shard, mode="r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                stem, dot, ending = name.partition(".")
                if not member.isreg() or not dot or not stem:
                    continue
                key = f"{folder}/{stem}" if folder else stem
                members = found.setdefault(key, _Sample(shard, key, {})).members
                if ending.lower() in members:
                    raise DataError(f"{locator}: {shard} holds {member.name} twice. Keys must be unique within a shard.")
                members[ending.lower()] = (member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{locator}: {shard} is not a whole, uncompressed tar file ({error}). Write it again, or unpack .tar.gz to .tar.") from error
    with open(shard, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 512))
        ended = not any(file.read())  # a tar file ends with blocks of zeros; its reader takes a cut for the end
    if not ended or any(offset + length > size for sample in found.values() for offset, length in sample.members.values()):
        raise DataError(f"{locator}: {shard} is cut off. Fetch it again.")
    return list(found.values())


def _look_at_text(content: bytes) -> str | None:
    """What is wrong with a text, None where nothing is."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return "the text is not UTF-8"
    return None


def _told(sample: _Sample) -> dict[str, Any]:
    """What the member `json` of a sample says, where it has one. Raises DataError where that cannot be read."""
    if "json" not in sample.members:
        return {}
    try:
        told = json.loads(sample.read("json"))
    except ValueError as error:
        raise DataError(f"{sample.shard}: the member json of '{sample.key}' cannot be read ({error}). Mend or remove it.") from error
    return told if isinstance(told, dict) else {}


def _told_names(about: list[dict[str, Any]], labels: np.ndarray) -> tuple[str, ...] | None:
    """Class names by number from the `class_name` of every sample's json, where each class has one; None otherwise."""
    told = {int(label): str(one["class_name"]) for label, one in zip(labels, about, strict=True) if label != UNLABELLED and "class_name" in one}
    return tuple(told[c] for c in range(len(told))) if len(told) and sorted(told) == list(range(int(labels.max()) + 1)) else None
