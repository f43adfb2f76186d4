"""The arrays of an .npz file, memory-mapped where they lie in it uncompressed; shared by the sources that read one."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

from clprune.errors import DataError


def names_in_npz(path: Path) -> set[str]:
    """Names of the arrays, from the archive's directory alone; empty where the file is none or not readable."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()


def holds_logged_numbers(locator: str) -> bool:
    """Whether an .npz holds numbers that a training logged rather than its inputs."""
    path = locator.partition("?")[0]
    return path.lower().endswith(".npz") and bool({"logits", "losses"} & (found := names_in_npz(Path(path)))) and "x_train" not in found


def open_npy(path: Path, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """The .npy files of the folder of `path` by name, memory-mapped. Raises DataError for a missing or broken file among the `wanted`; others that cannot be read are left out."""
    if not path.is_file():
        raise DataError(f"there is no file {path}. Check the path.")
    held = {}
    for beside in sorted(path.parent.glob("*.npy")):
        try:
            held[beside.stem] = np.load(beside, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            if beside.stem in wanted:
                raise DataError(f"{beside} is not a readable .npy file ({error}). Write it again with numpy.save.") from error
    return held


def open_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays by name; those that are stored uncompressed and large are memory-mapped. Raises DataError for a missing or broken file."""
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            held: dict[str, np.ndarray] = {}
            for info in archive.infolist():
                key = info.filename.removesuffix(".npy")
                if info.compress_type == zipfile.ZIP_STORED and info.file_size > 1 << 20:
                    file.seek(info.header_offset + 26)
                    name_length, extra_length = np.frombuffer(file.read(4), "<u2")
                    start = info.header_offset + 30 + int(name_length) + int(extra_length)
                    file.seek(start)
                    version = np.lib.format.read_magic(file)
                    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                    shape, fortran, dtype = header(file)
                    if dtype.hasobject:
                        raise DataError(f"{path}: array '{key}' holds Python objects; save it with a plain dtype.")
                    if file.tell() + dtype.itemsize * int(np.prod(shape)) > start + info.file_size:
                        raise DataError(f"{path}: array '{key}' is cut off.")
                    held[key] = np.memmap(path, dtype=dtype, mode="r", offset=file.tell(), shape=shape, order="F" if fortran else "C")
                else:
                    with archive.open(info) as member:
                        held[key] = np.lib.format.read_array(member, allow_pickle=False)
            return held
    except FileNotFoundError:
        raise DataError(f"there is no file {path}. Check the path.") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path} is not a readable .npz file ({error}). Write it again with numpy.savez.") from error
