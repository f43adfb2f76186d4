"""Everything that is written goes through here: complete or absent, never half.

A file is written beside its target, synced, moved over it in one step, and its folder synced. A folder is filled to the side and
renamed in. What is read back is checked against its digest before it is parsed (a flipped bit in Parquet, npy or safetensors
is not noticed by their readers).
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import io
import json
import os
import platform
import re
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.dtypes import StringDType

from clprune.errors import ClpruneError, DataError, IntegrityError, SchemaError, StorageError, UsageError

SCHEMA_VERSION = 2
OLDEST_SCHEMA_VERSION = 1  # whose documents have no seal
SEAL = "document_sha256"
_CHUNK_BYTES = 1 << 22
BRIEFLY = 60.0  # seconds to wait for a folder that others hold for milliseconds
ROWS_A_FILE = 50_000_000  # of a Parquet table
PART = 1 << 16  # rows of a table whose ids are Python strings at the same time


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ClpruneError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(
                f"no space to write {path} ({error.strerror}). Free some space or choose another place; nothing that existed was changed."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError(f"no permission to write {path} ({error.strerror}). Choose a folder you may write to.") from error
        raise StorageError(f"cannot write {path}: {error}.") from error


def require_space(folder: Path, n_bytes: int, what: str) -> None:
    """Refuse before writing when `folder`'s file system has less than 1.2 times `n_bytes` free."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < 1.2 * n_bytes:
        raise StorageError(
            f"{what} needs {n_bytes / 1e6:.0f} MB in {folder}, where {free / 1e6:.0f} MB are free. Free some space or choose another place."
        )


def may_write(folder: Path) -> bool:
    """Whether this process may make files in a folder, or make the folder where it is not there yet."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def require_writable(folder: Path) -> None:
    """Raise StorageError before work whose result could not be kept in `folder`."""
    if not may_write(folder):
        raise StorageError(f"no permission to write {folder}, where the results are kept. Copy it to a place where you may write.")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, kind: str) -> Path:
    """A name beside `path` for what is not finished: it says which process of which machine writes it, so that what a killed one left can be told from work."""
    host = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
    short = path.name if len(path.name.encode()) < 200 else hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
    return path.with_name(f".{short}.{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}.{kind}")


def sweep(folder: Path) -> None:
    """Remove what processes of this machine that are gone left unfinished in `folder`; a folder that was set aside for its successor, which never came, is put back."""
    host = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
    for path in folder.iterdir() if folder.is_dir() else ():
        if (found := _UNFINISHED.fullmatch(path.name)) is None or found["host"] != host or _alive(int(found["pid"])):
            continue
        target = path.with_name(found["name"])
        if found["kind"] == "old" and not target.exists() and not re.fullmatch("[0-9a-f]{32}", found["name"]):  # such a name was shortened
            os.rename(path, target)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


_UNFINISHED = re.compile(r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{6})-(?P<pid>\d+)-[0-9a-f]{8}\.(?P<kind>tmp|partial|old)", re.DOTALL)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _exchange(side: Path, destination: Path) -> bool:
    """Swap two folders in one step (Linux); False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        at_cwd, exchange = -100, 2
        return int(libc.renameat2(at_cwd, os.fsencode(side), at_cwd, os.fsencode(destination), exchange)) == 0
    except (OSError, AttributeError):
        return False


def _rename_to_free(side: Path, destination: Path) -> None:
    """Rename a folder to where nothing is, or an empty folder (or a link to one). Raises UsageError where something is there by now: renaming itself sees that, in one step."""
    try:
        os.rename(side, destination)  # POSIX: a folder takes the place of an empty folder and of nothing else
    except OSError:
        require_free(destination, force=False)
        if not destination.is_symlink():
            raise
        destination.unlink()
        os.rename(side, destination)


def _make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, each synced into the one above: else a power cut could take a new folder with all that was synced in it."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _sync_folder(new.parent)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file to the side; it takes the place of the one at `path` in one step when the block ends well. Raises StorageError; then what was there before is still there."""
    temporary = _beside(path, "tmp")
    with _explained(path):
        _make_folder(path.parent)
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Replace the file at `path` in one step. Raises StorageError; then what was there before is still there."""
    with new_file(path) as file:
        file.write(content)


def move(path: Path, to: Path) -> None:
    """Rename for good before anything else happens: after a power cut a file must not be there again when what it names is gone. The folder of `to` is made."""
    _make_folder(to.parent)
    os.replace(path, to)
    _sync_folder(to.parent)  # first: else it could be in neither
    _sync_folder(path.parent)


def _plain(value: Any) -> Any:
    """numpy numbers and arrays as what JSON knows."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} does not go into JSON")


def to_json(document: Any, *, indent: int | None = 2) -> str:
    """JSON as clprune writes it everywhere: sorted keys, UTF-8, NaN refused."""
    return json.dumps(document, indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain)


def write_json(path: Path, document: Mapping[str, Any], *, sealed: bool = True) -> None:
    """Write a document. One of clprune's own (with a schema_version) is sealed: it holds the sha256 of all else that is in it, so that `read_json` notices a change."""
    if sealed and "schema_version" in document:
        document = {name: value for name, value in document.items() if name != SEAL}
        document = {**document, SEAL: _seal_of(json.loads(to_json(document)))}  # of what a reader will see
    write_bytes(path, (to_json(document) + "\n").encode())


def _seal_of(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json({name: value for name, value in document.items() if name != SEAL}, indent=None).encode()).hexdigest()


def read_json(path: Path, *, what: str, sealed: bool = True, of: str | None = None) -> dict[str, Any]:
    """Read a JSON document that clprune wrote. Raises DataError where it is missing, IntegrityError where it is broken, not as it was written or `of` something else, SchemaError where it is newer."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"there is no {what} at {path.parent} ({path.name} is missing). Check the path, or make it again.") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise IntegrityError(f"{path} is not readable JSON ({error}). Restore it, or remove it and make the {what} again.") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise IntegrityError(f"{path} is not a {what} of clprune: it has no schema_version. Restore it, or make the {what} again.")
    if not OLDEST_SCHEMA_VERSION <= version <= SCHEMA_VERSION:
        versions = document.get("versions")
        writer = versions.get("clprune") if isinstance(versions, dict) else None
        raise SchemaError(
            f"{path} has schema version {version}{f' (written by clprune {writer})' if writer else ''}, this clprune reads {OLDEST_SCHEMA_VERSION} to {SCHEMA_VERSION}. "
            + ("Upgrade clprune." if version > SCHEMA_VERSION else f"Make the {what} again.")
        )
    if sealed and version > 1 and document.get(SEAL) != _seal_of(document):
        raise IntegrityError(f"{path} is not as it was written ({SEAL} differs). Restore it, or remove it and make the {what} again.")
    if of is not None and document.get("of", of) != of:
        raise IntegrityError(f"{path} holds that of {document['of']}: two files were swapped. Restore it, or remove it and make the {what} again.")
    return document


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table with page checksums; the same table gives the same bytes.

    More than ROWS_A_FILE rows become a folder of that name with one file for each so many, in order: what reads Parquet reads it as one table, or by parts side by side.
    """
    starts = range(0, max(1, len(table)), ROWS_A_FILE)
    with _explained(path):
        if path.is_dir():
            shutil.rmtree(path)  # what an interruption left: one file takes its place in one step, but several cannot
        elif len(starts) > 1:
            path.unlink(missing_ok=True)
    for number, start in enumerate(starts):
        buffer = io.BytesIO()
        pq.write_table(table.slice(start, ROWS_A_FILE), buffer, compression="zstd", write_page_checksum=True)
        write_bytes(path if len(starts) == 1 else path / f"part-{number:05d}.parquet", buffer.getbuffer())


def read_parquet(folder: Path, files: Mapping[str, Mapping[str, Any]], name: str, columns: list[str] | None = None) -> pa.Table:
    """The table that `write_parquet` wrote to `folder / name`, checked against its digests in the inventory `files`, and the checksums of its pages."""
    parts = files_of(files, name)
    if not parts:
        raise IntegrityError(f"{folder}: its inventory does not name {name}. Restore it, or make it again.")
    require_intact(folder, parts)
    return pa.concat_tables([_read_parquet(folder / part, columns) for part in sorted(parts)])


def _read_parquet(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, page_checksum_verification=True)
    except FileNotFoundError:
        raise DataError(f"{path} is missing.") from None
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(f"{path} cannot be read as Parquet ({error}). Restore it, or make it again.") from error


def ids_of(column: pa.ChunkedArray) -> np.ndarray:
    """A column of ids as an array of strings, part by part: a Python string for each of many millions would take more memory than all else."""
    ids = np.empty(len(column), dtype=StringDType())
    for start in range(0, len(column), PART):
        ids[start : start + PART] = column.slice(start, PART).to_pylist()
    return ids


def write_npy(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getbuffer())


def read_npy(path: Path, *, mapped: bool = False) -> np.ndarray:
    """Read an array, as a read-only memory map if `mapped`."""
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} is missing.") from None
    except (OSError, ValueError, EOFError) as error:
        raise IntegrityError(f"{path} cannot be read as an array ({error}). Restore it, or make it again.") from error


@contextmanager
def mapped_npy(path: Path, shape: tuple[int, ...], dtype: Any) -> Iterator[np.memmap]:
    """Fill a large array through a memory map; it appears at `path` when the block ends well.

    The space is reserved first: writing to a memory map on a full disk would kill the process.
    """
    temporary = _beside(path, "tmp")
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    require_space(path.parent, n_bytes, f"{path.name}")
    with _explained(path):
        _make_folder(path.parent)
        try:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
            with open(temporary, "r+b") as file:
                if file.seek(0, os.SEEK_END):
                    os.posix_fallocate(file.fileno(), 0, file.tell())
            yield array  # type: ignore[misc]
            array.flush()
            with open(temporary, "r+b") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def digest_of_file(path: Path) -> str:
    """sha256 of a file, read in chunks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inventory(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Bytes and sha256 of files in `folder`, and of those in its folders among `names`, by relative path: what a manifest holds of them."""
    files = [
        file for name in names for file in ([f"{name}/{part.name}" for part in (folder / name).iterdir()] if (folder / name).is_dir() else [name])
    ]
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": digest_of_file(folder / name)} for name in sorted(files)}


def files_of(files: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Mapping[str, Any]]:
    """What an inventory holds of the file `name`, or of those in the folder of that name."""
    return {file: facts for file, facts in files.items() if file == name or file.startswith(f"{name}/")}


def digest_in(files: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """The sha256 of a file in an inventory; of a folder that of its files' digests; "" where it names neither."""
    digests = [facts["sha256"] for _, facts in sorted(files_of(files, name).items())]
    return hashlib.sha256("".join(digests).encode()).hexdigest() if len(digests) > 1 else "".join(digests)


def verify_inventory(folder: Path, files: Mapping[str, Mapping[str, Any]], *, links: bool = False) -> list[str]:
    """What is wrong with the files of an inventory, one sentence each; empty if all is well. With `links` a file may be a link to one elsewhere."""
    problems = []
    for name, expected in sorted(files.items()):
        path = folder / name
        try:
            if not (path.parent if links else path).resolve().is_relative_to(folder.resolve()) or ".." in path.parts[len(folder.parts) :]:
                problems.append(f"{name}: lies outside {folder}; this inventory was not written by clprune.")
            elif not path.is_file():
                problems.append(f"{name}: missing. Restore it, or make it again.")
            elif path.stat().st_size != expected["bytes"]:
                problems.append(f"{name}: has {path.stat().st_size} bytes, {expected['bytes']} were written. Restore it, or make it again.")
            elif digest_of_file(path) != expected["sha256"]:
                problems.append(f"{name}: its content changed since it was written (sha256 differs). Restore it, or make it again.")
        except OSError as error:
            problems.append(f"{name}: cannot be read ({error.strerror}). Make it readable, or make it again.")
    return problems


def require_intact(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise IntegrityError that names every file which is not as written."""
    if problems := verify_inventory(folder, files):
        raise IntegrityError(f"{folder}: " + " ".join(problems))


def require_free(destination: Path, *, force: bool) -> None:
    """Raise UsageError where `destination` holds something and `force` is False."""
    if destination.exists() and not force and not (destination.is_dir() and not any(destination.iterdir())):
        raise UsageError(f"{destination} exists already. Choose another place, or pass --force to replace it.")


@contextmanager
def new_folder(destination: Path, *, force: bool = False, resume_key: str | None = None) -> Iterator[Path]:
    """Fill a folder to the side; it appears at `destination` in one step when the block ends well, and not at all otherwise.

    With `resume_key` what was written before a failure stays to the side, and the next call with that key is given it again. Raises UsageError where `destination` holds something and `force` is False,
    at once, and also where somebody else put it there in the meantime.
    """
    destination = destination.absolute()
    with _explained(destination):
        sweep(destination.parent)
    require_free(destination, force=force)
    side = destination.with_name(f".{destination.name}.{resume_key}.partial") if resume_key else _beside(destination, "partial")
    old = _beside(destination, "old")
    with _explained(destination):
        _make_folder(destination.parent)
        side.mkdir(exist_ok=resume_key is not None)
        done = False
        try:
            yield side
            for folder, _, files in os.walk(side):
                for name in files:
                    _sync_file(Path(folder) / name)
                _sync_folder(Path(folder))
            if not force:
                _rename_to_free(side, destination)
            elif destination.exists() and _exchange(side, destination):
                os.rename(side, old)  # what was there before is at the side now
            else:
                if destination.exists():
                    os.rename(destination, old)
                os.rename(side, destination)
            _sync_folder(destination.parent)
            done = True
        except BaseException:
            if old.exists() and not destination.exists():
                os.rename(old, destination)
            raise
        finally:
            if done or resume_key is None:
                shutil.rmtree(side, ignore_errors=True)
            old.unlink() if old.is_symlink() else shutil.rmtree(old, ignore_errors=True)


def _sync_file(path: Path) -> None:
    """Bring a file's content to the disk. Links hold no content of their own; their names are synced with the folder they are in."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) or status.st_nlink > 1:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, *, wait_seconds: float = 0) -> Iterator[None]:
    """Hold a folder for this process. Raises StorageError that names the owner if another process holds it, and goes on to for `wait_seconds`."""
    with _explained(folder):
        _make_folder(folder)
        lock, owner = FileLock(folder / ".lock"), folder / ".owner"
        try:
            lock.acquire(timeout=wait_seconds)
        except Timeout:
            seen = owner.read_text().strip() if owner.exists() else "unknown"
            raise StorageError(f"{folder} is in use by process {seen}. Wait for it, or choose another folder.") from None
        try:
            owner.write_text(f"{os.getpid()}\n")
            for place in (folder, *(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())):
                sweep(place)
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()


def cache_folder() -> Path:
    """Where decoded images, and which of them resemble each other, are kept: CLPRUNE_CACHE, else the user's cache folder. Safe to delete."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("CLPRUNE_CACHE") or user_cache_path("clprune"))


def remembered(kind: str, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays that `make()` gave for this key before, from the cache; else `make()`, whose result is kept there. They must depend on what the key digests alone.

    A file that is not as it was written counts as missing, and a cache that cannot be written does no harm.
    """
    from safetensors.numpy import load, save

    folder = cache_folder() / kind
    for path in folder.glob(f"{key}-*.safetensors"):
        with suppress(OSError):
            content = path.read_bytes()
            if path.stem == f"{key}-{hashlib.sha256(content).hexdigest()[:16]}":
                return load(content)
    made = make()
    content = save({name: np.ascontiguousarray(value) for name, value in made.items()})
    with suppress(StorageError, OSError):
        write_bytes(folder / f"{key}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors", content)
    return made
