"""A folder with one subfolder per class, or with `train/` and perhaps `test/` (or `val/`, `valid/`, `validation/`, `dev/`) of that form."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from clprune.datatypes import UNLABELLED, Source
from clprune.decoding import SUFFIXES
from clprune.errors import DataError
from clprune.families import source
from clprune.sources._common import (
    TEST_SPLITS,
    TRAIN_SPLITS,
    look_at_each,
    refuse_skipped,
    require_classes,
    require_ids,
    shown,
    split_among,
    text_of_name,
)
from clprune.sources._table import parts_of

UNLABELLED_FOLDERS = ("unlabelled", "unlabeled")


@source(claims=lambda locator: Path(locator).is_dir() and not parts_of(Path(locator)))
def image_folder(locator: str, *, strict: bool = False, on_progress: Callable[[int, int], None] | None = None) -> Source:
    """Images by class folder; ids are paths relative to the root, classes the sorted folder names (as torchvision numbers them).

    Names of splits are taken in any case; `train/` alone is the training set. A folder `unlabelled` (or `unlabeled`) is no class: what lies in it has no label yet. Files may lie deeper than one level. Links that leave the root are left out, loops are seen. Hidden files are ignored.
    """
    root = Path(locator)
    folders = _folders(root)
    train, test = split_among(folders, TRAIN_SPLITS), split_among(folders, TEST_SPLITS)
    if train is not None and test is not None:
        opened = _open_one(root / train, locator, strict, None, on_progress)
        return replace(opened, load_test=lambda: _open_one(root / test, str(root / test), strict, opened.class_names))
    if train is not None and len(folders) == 1:
        return _open_one(root / train, locator, strict, None, on_progress)
    return _open_one(root, locator, strict, None, on_progress)


def _folders(root: Path) -> list[str]:
    """Names of the folders in `root`, sorted, without hidden ones. Raises DataError where it cannot be read."""
    try:
        return sorted(entry.name for entry in os.scandir(root) if _is_folder(entry) and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror}). Make it readable.") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link to itself, at which an entry fails, is none."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _open_one(
    root: Path, locator: str, strict: bool, known_classes: tuple[str, ...] | None, on_progress: Callable[[int, int], None] | None = None
) -> Source:
    folders = _folders(root)
    if not folders:
        held = shown([text_of_name(name) for name in sorted(os.listdir(root))], 3)
        raise DataError(f"{root} holds no class folders (it holds {held or 'nothing'}). Expected {root}/<class>/<image>.")
    names = known_classes or tuple(text_of_name(name) for name in folders if name.lower() not in UNLABELLED_FOLDERS)
    number = {name: c for c, name in enumerate(names)} | ({} if known_classes else dict.fromkeys(UNLABELLED_FOLDERS, UNLABELLED))
    listed: list[tuple[str, int, Path]] = []
    skipped: list[tuple[str, str]] = []
    real_root, root_is = root.resolve(), root.stat()
    above = {(root_is.st_dev, root_is.st_ino)}
    at_root = (root / "x").as_posix()[:-1]
    for folder in folders:
        if (root / folder).is_symlink() and not (root / folder).resolve().is_relative_to(real_root):
            skipped.append((text_of_name(folder), "a link that leaves the folder"))
            continue
        label = number.get(text_of_name(folder), number.get(folder.lower()))
        if label is None:
            raise DataError(f"{root} has a class folder '{text_of_name(folder)}' that the training part lacks (it has: {', '.join(names)}).")
        left_out: list[tuple[Path, str]] = []
        inside = _walk(root / folder, real_root, left_out, above)
        skipped += [(text_of_name(path.as_posix()[len(at_root) :]), reason) for path, reason in left_out]
        for path in inside:
            name = text_of_name(path.as_posix()[len(at_root) :])
            if path.suffix.lower() not in SUFFIXES:
                skipped.append((name, f"'{path.suffix}' is not a suffix of images"))
            else:
                listed.append((name, label, path))
    looks = look_at_each([path for _, _, path in listed], on_progress)
    skipped += [(name, look) for (name, _, _), look in zip(listed, looks, strict=True) if isinstance(look, str)]
    good = [(one, look) for one, look in zip(listed, looks, strict=True) if not isinstance(look, str)]
    refuse_skipped(skipped, str(root), strict=strict, n_left=len(good))
    paths = [path for (_, _, path), _ in good]
    sample_ids, label_array = (
        require_ids([name for (name, _, _), _ in good], str(root)),
        np.array([label for (_, label, _), _ in good], dtype=np.int64),
    )
    notes = [] if known_classes else require_classes(label_array, names, str(root))
    return Source(
        locator=locator,
        sample_ids=sample_ids,
        labels=label_array,
        class_names=names,
        sample_bytes=np.array([look.n_bytes for _, look in good], dtype=np.int64),
        shapes=np.array([look[1:] for _, look in good], dtype=np.int64),
        read_input=lambda index: _read(paths[index]),
        paths=paths,
        read_bytes=lambda index: (paths[index].read_bytes(), paths[index].suffix.lower()),
        skipped=tuple(skipped),
        facts={"notes": notes, "root": str(root)},
    )


def _walk(folder: Path, real_root: Path, skipped: list[tuple[Path, str]], above: set[tuple[int, int]]) -> list[Path]:
    """Files below `folder` in sorted order; what lies outside the root, what cannot be listed, and folders met again on the way down, are skipped."""
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        skipped.append((folder, f"the folder cannot be read ({error.strerror})"))
        return []
    if (status.st_dev, status.st_ino) in above:
        skipped.append((folder, "a link back to a folder above it"))
        return []
    found = []
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() and not path.exists():
            skipped.append((path, "a link to nothing"))
        elif entry.is_symlink() and not path.resolve().is_relative_to(real_root):
            skipped.append((path, "a link that leaves the folder"))
        elif _is_folder(entry):
            found += _walk(path, real_root, skipped, above | {(status.st_dev, status.st_ino)})
        elif entry.is_file():
            found.append(path)
        else:
            skipped.append((path, "not a regular file"))
    return found


def _read(path: Path):  # type: ignore[no-untyped-def]
    from PIL import Image

    return Image.open(io.BytesIO(path.read_bytes()))  # no file stays open while nobody has loaded the image
