"""What every exporter keeps, also those that are added later."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import manifest_of
from readers import READERS
from test_every_source import made

from clprune import families, pipeline
from clprune.errors import DataError, FingerprintError, StorageError, UsageError
from clprune.export import export
from clprune.exporters._content import encoded
from clprune.manifest import read_manifest
from clprune.sources import open_source


@pytest.fixture(scope="module")
def manifest(shapes_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifest") / "m"
    pipeline.select(shapes_run, folder, keep="0.25", strategy="hardest")
    return folder


@pytest.mark.parametrize("name", families.names("exporters"))
def test_writes_all_or_nothing(name: str, manifest: Path, shapes_npz: Path, tmp_path: Path) -> None:
    source, record = open_source(str(shapes_npz)), read_manifest(manifest)
    report = export(record, source, name, tmp_path / "out")
    n = len(source) - record.n_kept if name == "removal_list" else record.n_kept
    assert report["n_samples"] == n and any((tmp_path / "out").iterdir())
    with pytest.raises(UsageError, match="exists already"):
        export(record, source, name, tmp_path / "out")
    export(record, source, name, tmp_path / "out", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", families.names("exporters"))
def test_refuses_other_data_and_leaves_nothing(name: str, manifest: Path, shapes_npz: Path, tmp_path: Path) -> None:
    held = dict(np.load(shapes_npz))
    held["y_train"] = np.roll(held["y_train"], 1)
    np.savez(tmp_path / "other.npz", **held)
    with pytest.raises(FingerprintError, match="is not the data set"):
        export(read_manifest(manifest), open_source(str(tmp_path / "other.npz")), name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_option_of_the_wrong_kind_or_value_is_refused_and_leaves_nothing(manifest: Path, shapes_npz: Path, tmp_path: Path) -> None:
    source, record = open_source(str(shapes_npz)), read_manifest(manifest)
    for form, said in (
        ("imagefolder(link='nope')", "Give link as one of 'auto', 'hardlink'"),
        ("imagefolder(link=1)", "link as text in quotes"),
        ("webdataset(samples_per_shard=1.5)", "samples_per_shard as a whole number"),
        ("label_studio(tasks_per_file='x')", "tasks_per_file as a whole number"),
    ):
        with pytest.raises(UsageError, match=said):
            export(record, source, form, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_failing_export_leaves_what_was_there(manifest: Path, shapes_npz: Path, tmp_path: Path) -> None:
    source, record = open_source(str(shapes_npz)), read_manifest(manifest)
    export(record, source, "indices", tmp_path / "out")
    before = sorted(path.name for path in (tmp_path / "out").iterdir())

    def full_disk(index: int) -> bytes:
        raise OSError(28, "No space left on device")

    broken = replace(source, read_input=full_disk)
    with pytest.raises(StorageError, match="no space"):
        export(record, broken, "imagefolder", tmp_path / "out", force=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", families.names("exporters"))
@pytest.mark.parametrize("origin", families.names("sources"))
def test_a_round_trip_gives_exactly_the_kept_ids_labels_and_bytes(
    origin: str, name: str, tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    source = open_source(made(origin, tmp_path / "data", image_folder))
    kept = np.sort(np.random.default_rng(0).permutation(len(source))[:9]).tolist()
    manifest, destination = manifest_of(source, kept, tmp_path / "m"), tmp_path / "out"
    if source.logged is not None and name not in ("indices", "removal_list", "labels_csv"):
        with pytest.raises(DataError, match="no inputs"):
            export(manifest, source, name, destination)
        assert not destination.exists()
        return
    export(manifest, source, name.replace("_", "-"), destination)
    found = READERS[name](destination, source)
    ids, labels = source.sample_ids.tolist(), source.labels.tolist()
    rows = [row for row in range(len(source)) if row not in kept] if name == "removal_list" else kept
    assert [sample_id for sample_id, _, _ in found] == [ids[row] for row in rows]
    for row, (_, label, content) in zip(rows, found, strict=True):
        assert label in (labels[row], None)
        assert content is None or content == encoded(source, row)[0]
