"""A folder with one subfolder per class, as torchvision, timm and Keras read it; files are linked where that is possible."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from clprune.datatypes import Source
from clprune.decoding import SUFFIXES, suffix_of
from clprune.errors import DataError, StorageError
from clprune.exporters._content import encoded
from clprune.families import exporter, require_one_of
from clprune.manifest import Manifest
from clprune.storage import SCHEMA_VERSION, write_json

FOR_TORCHVISION = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # what its ImageFolder takes for images
LONGEST_NAME = 255  # bytes of a file or folder name: file systems take no longer ones
LONGEST_PATH = 1000  # bytes below the class folder, of the 4,096 that a whole path may have


@contextmanager
def _folder(root: int, inner: PurePosixPath) -> Iterator[int]:
    """A folder below the open folder `root`, made where it is missing and opened step by step: one that somebody has put a link in the place of is refused, not followed."""
    at = os.dup(root)
    try:
        for part in inner.parts:
            try:
                os.mkdir(part, dir_fd=at)
            except FileExistsError:
                pass
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def _new_file(name: str, folder: int) -> Any:
    return open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=folder), "wb")


def _hard_link(source: Path, name: str, folder: int) -> None:
    os.link(source.resolve() if source.is_symlink() else source, name, dst_dir_fd=folder)


def _reflink(source: Path, name: str, folder: int) -> None:
    """A copy that shares its blocks until one of the two is changed (btrfs, xfs)."""
    if not sys.platform.startswith("linux"):
        raise OSError(errno.ENOTSUP, "no reflinks here")
    import fcntl

    with open(source, "rb") as original, _new_file(name, folder) as copy:
        try:
            fcntl.ioctl(copy.fileno(), 0x40049409, original.fileno())  # FICLONE
        except OSError:
            os.unlink(name, dir_fd=folder)
            raise


def _symlink(source: Path, name: str, folder: int) -> None:
    os.symlink(source.resolve(), name, dir_fd=folder)


def _copy(source: Path, name: str, folder: int) -> None:
    with open(source, "rb") as original, _new_file(name, folder) as copy:
        shutil.copyfileobj(original, copy)


WAYS: dict[str, Callable[[Path, str, int], None]] = {"hardlink": _hard_link, "reflink": _reflink, "symlink": _symlink, "copy": _copy}


@exporter
def imagefolder(manifest: Manifest, source: Source, destination: Path, *, link: str = "auto") -> dict[str, Any]:
    """DEST/<class>/<file> for every kept sample, all class folders, and class_map.json (folder, class id, class name).

    Files are hard-linked, else reflinked, symlinked or copied (`link` picks one way); other inputs are written as their bytes or as PNG.
    torchvision numbers classes by sorted folder names: where that is not the order of the class ids, or a name cannot be a folder, folders get
    the class id in front. A class without kept samples is an empty folder, which `ImageFolder` takes with `allow_empty=True`.
    Raises UsageError for another `link`, DataError for a file that is no longer there.
    """
    require_one_of("imagefolder", ("auto", *WAYS), link=link)
    folders = _folder_names(source.class_names)
    root = os.open(destination, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            os.mkdir(folder, dir_fd=root)
        written, ways, suffixes = _filled(manifest, source, root, folders, link)
    finally:
        os.close(root)
    classes = [
        {"folder": folder, "class_id": c, "class_name": name} for c, (folder, name) in enumerate(zip(folders, source.class_names, strict=True))
    ]
    write_json(destination / "class_map.json", {"schema_version": SCHEMA_VERSION, "classes": classes})
    written += (destination / "class_map.json").stat().st_size
    empty = [folder for folder in folders if not any((destination / folder).iterdir())]
    links = ", ".join(ways) if len(ways) < 2 else ", ".join(f"{count:,} by {name}" for name, count in ways.items())
    told = {"files": manifest.n_kept + 1, "bytes_written": written, "link": links or None, "empty_classes": empty}
    notes = ["the files are links: to edit one is to edit the original, and they free no space"] if {"hardlink", "symlink"} & set(ways) else []
    if source.kind != "text" and (strange := sorted(suffixes - set(FOR_TORCHVISION))):
        notes.append(f"torchvision.datasets.ImageFolder passes over {', '.join(strange)}, unless it is given is_valid_file")
    if empty:
        notes.append("read it with torchvision.datasets.ImageFolder(..., allow_empty=True), so that the empty classes keep their numbers")
    return told | ({"note": "; ".join(notes)} if notes else {})


def _filled(manifest: Manifest, source: Source, root: int, folders: list[str], link: str) -> tuple[int, Counter[str], set[str]]:
    """Put every kept sample into its class folder below the open folder `root`; bytes that were written, how many files by which way, and the suffixes they have."""
    taken, suffixes, paths = dict[str, str](), set[str](), source.paths
    way, written, ways = (link if link != "auto" else "hardlink"), 0, Counter[str]()
    for row in manifest.indices(source).tolist():
        folder = folders[int(source.labels[row])]
        content, suffix = (b"", _suffix_of_file(paths[row])) if paths is not None else encoded(source, row)
        inner = PurePosixPath(folder, _free(_inner_name(str(source.sample_ids[row]), suffix, source, row), folder, taken))
        suffixes.add(inner.suffix.lower())
        with _folder(root, inner.parent) as at:
            if paths is None:
                with _new_file(inner.name, at) as file:
                    file.write(content)
                written += len(content)
                continue
            way = _place(paths[row], inner.name, at, way, fixed=link != "auto")
        written += paths[row].stat().st_size if way == "copy" else 0
        ways[way] += 1
    return written, ways, suffixes


def _place(source: Path, name: str, folder: int, way: str, *, fixed: bool) -> str:
    """Link or copy one file into an open folder; from the first way that fails on, the next one is used. Returns the way that worked."""
    ways = list(WAYS)
    for candidate in ways[ways.index(way) :]:
        try:
            WAYS[candidate](source, name, folder)
            return candidate
        except OSError as error:
            _require_file(source)  # else a link to nothing could be made
            if fixed or candidate == "copy" or error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageError(f"cannot {candidate} {source} to {name}: {error.strerror}.") from error
    raise AssertionError("copy either works or raises")


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"there is no file {path} any more, which is among the kept ones. Restore it, or score again without it.")


def _folder_names(class_names: tuple[str, ...]) -> list[str]:
    """A folder name for each class, unique, and in sorted order the order of the classes."""
    plain = [name if re.fullmatch(r"(?!\.)[^/\0]{1,200}", name) and len(name.encode()) <= 255 else "" for name in class_names]
    if all(plain) and plain == sorted(plain) and len({name.casefold() for name in plain}) == len(plain):
        return plain
    width = len(str(len(class_names) - 1))
    safe = [re.sub(r"[/\0]", "_", name).strip(". ") for name in class_names]
    return [f"{c:0{width}d}_{name}".encode()[:200].decode("utf-8", "ignore") for c, name in enumerate(safe)]


def _suffix_of_file(path: Path) -> str:
    """Its own suffix as it is written, or that of what the file holds where its own is none of an image: `ImageFolder` would pass it over."""
    if path.suffix.lower() in SUFFIXES:
        return path.suffix
    _require_file(path)
    found = suffix_of(path.read_bytes())
    return path.suffix if found == ".bin" else found


def _inner_name(sample_id: str, suffix: str, source: Source, row: int) -> str:
    """The path of a sample below its class folder: its own inner path without the class, made safe, and short enough for a file system."""
    parts = [part for part in PurePosixPath(sample_id.replace("\0", "_")).parts if part not in ("/", "..", ".")]
    if len(parts) > 1 and parts[0] == source.class_names[int(source.labels[row])]:
        parts = parts[1:]
    name = "/".join(parts) or "sample"
    name = name if name.lower().endswith(suffix.lower()) else name + suffix
    if len(name.encode()) <= LONGEST_PATH and all(len(part.encode()) <= LONGEST_NAME for part in name.split("/")):
        return name
    start = name.replace("/", "_").encode()[: LONGEST_NAME - 55].decode("utf-8", "ignore")
    return f"{start}~{hashlib.sha256(sample_id.encode()).hexdigest()[:16]}{suffix}"


def _free(name: str, folder: str, taken: dict[str, str]) -> str:
    """`name`, with a number where this class has a sample or a folder of that name already (also where only case differs), and without folders where one would lie inside a file."""

    def key(candidate: str) -> str:
        return f"{folder}/{candidate}".casefold()

    def above(path: str) -> list[str]:
        return [path[:at] for at, letter in enumerate(path) if letter == "/"]

    if any(taken.get(path) == "file" for path in above(key(name))):
        name = name.replace("/", "_")
    stem, dot, suffix = name.rpartition(".")
    candidate, number = name, 1
    while key(candidate) in taken:
        candidate, number = f"{stem}~{number}{dot}{suffix}", number + 1
    taken |= dict.fromkeys(above(key(candidate)), "folder") | {key(candidate): "file"}
    return candidate
