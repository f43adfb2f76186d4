"""Complete or absent, and checked before it is read."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clprune import storage
from clprune.errors import DataError, IntegrityError, SchemaError, StorageError, UsageError
from clprune.storage import (
    inventory,
    locked,
    mapped_npy,
    new_folder,
    read_json,
    read_npy,
    read_parquet,
    remembered,
    require_space,
    verify_inventory,
    write_bytes,
    write_json,
    write_npy,
    write_parquet,
)


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "a", "not bytes")  # type: ignore[arg-type]
    assert (tmp_path / "a").read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out") as side:
        (side / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "out") as side:
        (side / "one").write_text("1")
    with pytest.raises(UsageError, match="--force"), new_folder(tmp_path / "out"):
        pass
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out", force=True):
        raise RuntimeError
    assert (tmp_path / "out" / "one").read_text() == "1"
    with new_folder(tmp_path / "out", force=True) as side:
        (side / "two").write_text("2")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["two"] and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_of_two_that_fill_one_folder_without_force_the_first_to_end_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for force, stays in ((False, "quick"), (True, "slow")):
        with suppress(UsageError) if force else pytest.raises(UsageError, match=r"exists already.*--force"), new_folder(out, force=force) as slow:
            (slow / "slow").write_text("")
            with new_folder(out, force=force) as quick:
                (quick / "quick").write_text("")
        assert [path.name for path in out.iterdir()] == [stays] and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_of_what_appears_while_a_folder_is_filled_only_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name, made in (
        ("empty", lambda path: path.mkdir()),
        ("link", lambda path: path.symlink_to(tmp_path / "elsewhere")),
        ("file", lambda path: path.write_text("mine")),
    ):
        with suppress(UsageError), new_folder(tmp_path / name) as side:
            (side / "new").write_text("")
            made(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "elsewhere",
        "empty",
        "empty/new",
        "file",
        "link",
        "link/new",
    ]


@pytest.mark.parametrize("at", [0, 200, -5])
def test_every_flipped_bit_is_found(tmp_path: Path, at: int) -> None:
    write_npy(tmp_path / "x.npy", np.arange(100))
    write_parquet(tmp_path / "t.parquet", pa.table({"a": np.arange(1000)}))
    files = inventory(tmp_path, ["x.npy", "t.parquet"])
    assert verify_inventory(tmp_path, files) == []
    for name in files:
        content = bytearray((tmp_path / name).read_bytes())
        content[at] ^= 4
        (tmp_path / name).write_bytes(content)
        assert verify_inventory(tmp_path, {name: files[name]})[0].startswith(f"{name}: its content changed")
    (tmp_path / "x.npy").write_bytes(b"")
    assert "has 0 bytes" in verify_inventory(tmp_path, files)[1]
    (tmp_path / "x.npy").unlink()
    assert "missing" in verify_inventory(tmp_path, files)[1]


def test_an_inventory_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "run").mkdir()
    assert "outside" in verify_inventory(tmp_path / "run", {"../secret": {"bytes": 1, "sha256": "0"}})[0]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        read_json(tmp_path / "run.json", what="run")
    for text, error in (("{", IntegrityError), ("[]", IntegrityError), ('{"schema_version": 1000}', SchemaError)):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(error, match=r"run\.json"):
            read_json(tmp_path / "run.json", what="run")
    (tmp_path / "x").write_bytes(b"junk")
    with pytest.raises(IntegrityError, match="x cannot be read"):
        read_npy(tmp_path / "x")
    with pytest.raises(IntegrityError, match="x cannot be read"):
        read_parquet(tmp_path, inventory(tmp_path, ["x"]), "x")
    with pytest.raises(IntegrityError, match=r"does not name y\.parquet"):
        read_parquet(tmp_path, inventory(tmp_path, ["x"]), "y.parquet")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"x")
    files = inventory(tmp_path, ["x"])

    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(storage, "digest_of_file", denied)
    assert verify_inventory(tmp_path, files) == ["x: cannot be read (Permission denied). Make it readable, or make it again."]


def test_numbers_that_json_does_not_know_are_refused_rather_than_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_space_is_asked_for_before_a_memory_map(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="are free"):
        require_space(tmp_path / "deep" / "er", 1 << 60, "this")
    with mapped_npy(tmp_path / "m.npy", (3, 4), np.float32) as array:
        array[:] = 7
        assert not (tmp_path / "m.npy").exists()
    assert (read_npy(tmp_path / "m.npy", mapped=True) == 7).all()


def test_a_folder_in_use_names_its_owner(tmp_path: Path) -> None:
    import os

    with locked(tmp_path / "run"), pytest.raises(StorageError, match=f"process {os.getpid()}"), locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass


def test_what_a_killed_process_left_is_swept_and_what_it_set_aside_comes_back(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = f"""
import os, signal
from pathlib import Path
from clprune import storage
folder = Path({str(tmp_path)!r})
storage.write_bytes(folder / 'a' / 'kept.txt', b'old')
storage._exchange = lambda side, destination: False  # a system that cannot swap two folders
rename = os.rename
def killed_between(source, target):
    rename(source, target)
    if str(target).endswith('.old'):
        os.kill(os.getpid(), signal.SIGKILL)
os.rename = killed_between
with storage.new_folder(folder / 'a', force=True) as side:
    (side / 'kept.txt').write_text('new')
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert not (tmp_path / "a").exists() and len(list(tmp_path.iterdir())) == 2
    living = storage._beside(tmp_path / "b", "partial")
    living.mkdir()
    storage.sweep(tmp_path)
    assert (tmp_path / "a" / "kept.txt").read_text() == "old"
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a", living])


def test_a_folder_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("old")
    missing: list[bool] = []
    rename = os.rename

    def watched(source: object, target: object) -> None:
        rename(source, target)  # type: ignore[arg-type]
        missing.append(not (tmp_path / "a").exists())

    monkeypatch.setattr(os, "rename", watched)
    with storage.new_folder(tmp_path / "a", force=True) as side:
        (side / "x").write_text("new")
    assert (tmp_path / "a" / "x").read_text() == "new" and missing == [False]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_link_to_a_folder_is_replaced_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_text("mine")
    (tmp_path / "link").symlink_to("real")
    with new_folder(tmp_path / "link", force=True) as side:
        (side / "x").write_text("new")
    assert (tmp_path / "link" / "x").read_text() == "new" and (tmp_path / "real" / "x").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_names_as_long_as_a_file_system_allows_are_written(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / ("ä" * 127), b"x")
    assert (tmp_path / ("ä" * 127)).read_bytes() == b"x"


def test_a_document_that_was_changed_is_refused_and_one_of_the_version_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"schema_version": storage.SCHEMA_VERSION, "kind": "x", "n": {3: 0.1, 12: [1, None]}, "of": "this"})
    assert read_json(path, what="x", of="this")["n"] == {"3": 0.1, "12": [1, None]}
    with pytest.raises(IntegrityError, match="two files were swapped"):
        read_json(path, what="x", of="that")
    text = path.read_text()
    for change in (('"x"', '"y"'), ("0.1", "0.2"), ("null", "true"), (storage.SEAL, "seal")):
        path.write_text(text.replace(*change))
        with pytest.raises(IntegrityError, match=r"x\.json is not as it was written"):
            read_json(path, what="x")
    path.write_text('{"schema_version": 1, "n": 2}')
    assert read_json(path, what="x")["n"] == 2
    for version, remedy in ((0, "Make the x again"), (storage.SCHEMA_VERSION + 1, "Upgrade clprune")):
        path.write_text(f'{{"schema_version": {version}, "versions": {{"clprune": "9.9"}}}}')
        with pytest.raises(SchemaError, match=rf"written by clprune 9\.9.*{remedy}"):
            read_json(path, what="x")


def test_new_folders_are_synced_into_the_ones_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(storage, "_sync_folder", synced.append)
    write_bytes(tmp_path / "a" / "b" / "c", b"x")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_what_is_moved_is_gone_before_anything_else_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[Path, bool]] = []
    write_bytes(tmp_path / "a", b"x")
    (tmp_path / "b").mkdir()
    monkeypatch.setattr(storage, "_sync_folder", lambda folder: synced.append((folder, (tmp_path / "a").exists())))
    storage.move(tmp_path / "a", tmp_path / "b" / "a")
    assert synced == [(tmp_path / "b", False), (tmp_path, False)] and (tmp_path / "b" / "a").read_bytes() == b"x"


def test_what_is_remembered_is_made_once_again_where_it_was_changed_and_every_time_where_nothing_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLPRUNE_CACHE", str(tmp_path / "cache"))
    calls: list[int] = []

    def make() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"a": np.arange(3), "b": np.zeros((0, 2), dtype=np.float32)}

    for expected in (1, 1):
        assert {name: value.tolist() for name, value in remembered("numbers", "key", make).items()} == {"a": [0, 1, 2], "b": []}
        assert len(calls) == expected
    remembered("numbers", "other", make)
    assert len(calls) == 2
    (path,) = (tmp_path / "cache" / "numbers").glob("key-*")
    for spoiled in (b"", path.read_bytes()[:-1] + b"x"):
        path.write_bytes(spoiled)
        assert remembered("numbers", "key", make)["a"].tolist() == [0, 1, 2]
    assert len(calls) == 4 and len(remembered("numbers", "key", make)) == 2 and len(calls) == 4
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CLPRUNE_CACHE", str(tmp_path / "file"))
    assert remembered("numbers", "key", make)["a"].tolist() == [0, 1, 2] and len(calls) == 5
