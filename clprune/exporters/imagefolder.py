"""A folder with one subfolder per class, as torchvision, timm and Keras read it; files are linked where that is possible."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from clprune.datatypes import Source
from clprune.errors import StorageError
from clprune.exporters._content import encoded
from clprune.families import exporter
from clprune.manifest import Manifest
from clprune.storage import write_json


def _hard_link(source: Path, target: Path) -> None:
    os.link(source.resolve() if source.is_symlink() else source, target)


def _reflink(source: Path, target: Path) -> None:
    """A copy that shares its blocks until one of the two is changed (btrfs, xfs)."""
    if not sys.platform.startswith("linux"):
        raise OSError(errno.ENOTSUP, "no reflinks here")
    import fcntl

    with open(source, "rb") as original, open(target, "xb") as copy:
        try:
            fcntl.ioctl(copy.fileno(), 0x40049409, original.fileno())  # FICLONE
        except OSError:
            target.unlink()
            raise


def _symlink(source: Path, target: Path) -> None:
    os.symlink(source.resolve(), target)


WAYS: dict[str, Callable[[Path, Path], Any]] = {"hardlink": _hard_link, "reflink": _reflink, "symlink": _symlink, "copy": shutil.copyfile}


@exporter
def imagefolder(manifest: Manifest, source: Source, destination: Path, *, link: str = "auto") -> dict[str, Any]:
    """DEST/<class>/<file> for every kept sample, all class folders, and class_map.json (folder, class id, class name).

    Files are hard-linked, else reflinked, symlinked or copied (`link` picks one way); other inputs are written as their bytes or as PNG.
    torchvision numbers classes by sorted folder names: where that is not the order of the class ids, or a name cannot be a folder, folders get
    the class id in front. A class without kept samples is an empty folder, which `ImageFolder` takes with `allow_empty=True`.
    """
    folders = _folder_names(source.class_names)
    for folder in folders:
        (destination / folder).mkdir()
    taken, made, paths = set[str](), {destination / folder for folder in folders}, source.paths
    way, written, ways = (link if link != "auto" else "hardlink"), 0, Counter[str]()
    for row in manifest.indices(source).tolist():
        folder = folders[int(source.labels[row])]
        if paths is not None:
            path = paths[row]
            target = destination / folder / _free(_inner_name(str(source.sample_ids[row]), path.suffix, source, row), folder, taken)
            _make(target.parent, made)
            way = _place(path, target, way, fixed=link != "auto")
            written += path.stat().st_size if way == "copy" else 0
            ways[way] += 1
        else:
            content, suffix = encoded(source, row)
            target = destination / folder / _free(_inner_name(str(source.sample_ids[row]), suffix, source, row), folder, taken)
            _make(target.parent, made)
            target.write_bytes(content)
            written += len(content)
    classes = [
        {"folder": folder, "class_id": c, "class_name": name} for c, (folder, name) in enumerate(zip(folders, source.class_names, strict=True))
    ]
    write_json(destination / "class_map.json", {"schema_version": 1, "classes": classes})
    written += (destination / "class_map.json").stat().st_size
    empty = [folder for folder in folders if not any((destination / folder).iterdir())]
    links = ", ".join(ways) if len(ways) < 2 else ", ".join(f"{count:,} by {name}" for name, count in ways.items())
    told = {"files": manifest.n_kept + 1, "bytes_written": written, "link": links or None, "empty_classes": empty}
    notes = ["the files are links: to edit one is to edit the original, and they free no space"] if {"hardlink", "symlink"} & set(ways) else []
    if empty:
        notes.append("read it with torchvision.datasets.ImageFolder(..., allow_empty=True), so that the empty classes keep their numbers")
    return told | ({"note": "; ".join(notes)} if notes else {})


def _make(folder: Path, made: set[Path]) -> None:
    if folder not in made:
        folder.mkdir(parents=True, exist_ok=True)
        made.add(folder)


def _place(source: Path, target: Path, way: str, *, fixed: bool) -> str:
    """Link or copy one file; from the first way that fails on, the next one is used. Returns the way that worked."""
    ways = list(WAYS)
    for candidate in ways[ways.index(way) :]:
        try:
            WAYS[candidate](source, target)
            return candidate
        except OSError as error:
            if fixed or candidate == "copy" or error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageError(f"cannot {candidate} {source} to {target}: {error.strerror}.") from error
    raise AssertionError("copy either works or raises")


def _folder_names(class_names: tuple[str, ...]) -> list[str]:
    """A folder name for each class, unique, and in sorted order the order of the classes."""
    plain = [name if re.fullmatch(r"(?!\.)[^/\0]{1,200}", name) and len(name.encode()) <= 255 else "" for name in class_names]
    if all(plain) and plain == sorted(plain) and len({name.casefold() for name in plain}) == len(plain):
        return plain
    width = len(str(len(class_names) - 1))
    safe = [re.sub(r"[/\0]", "_", name).strip(". ") for name in class_names]
    return [f"{c:0{width}d}_{name}".encode()[:200].decode("utf-8", "ignore") for c, name in enumerate(safe)]


def _inner_name(sample_id: str, suffix: str, source: Source, row: int) -> str:
    """The path of a sample below its class folder: its own inner path without the class, made safe."""
    parts = [part for part in PurePosixPath(sample_id.replace("\0", "_")).parts if part not in ("/", "..", ".")]
    if len(parts) > 1 and parts[0] == source.class_names[int(source.labels[row])]:
        parts = parts[1:]
    name = "/".join(parts) or "sample"
    return name if name.lower().endswith(suffix) else name + suffix


def _free(name: str, folder: str, taken: set[str]) -> str:
    """`name`, with a number where a sample of this class has it already (also where only case differs)."""
    stem, dot, suffix = name.rpartition(".")
    candidate, number = name, 1
    while f"{folder}/{candidate}".casefold() in taken:
        candidate, number = f"{stem}~{number}{dot}{suffix}", number + 1
    taken.add(f"{folder}/{candidate}".casefold())
    return candidate
