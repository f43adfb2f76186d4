"""Tables of more rows than one file may hold lie in parts: the whole path gives the same, and every part is guarded."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw_shapes

from clprune import pipeline, storage
from clprune.errors import IntegrityError
from clprune.manifest import read_manifest, verify_manifest
from clprune.run import read_run

N = 250


def test_a_run_and_its_manifest_in_parts_say_what_they_say_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = draw_shapes(N, seed=4)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels)
    kept = {}
    for name, rows_a_file in (("one", 1_000), ("parts", 100)):
        monkeypatch.setattr(storage, "ROWS_A_FILE", rows_a_file)
        pipeline.score(str(tmp_path / "data.npz"), tmp_path / name / "run", max_epochs=2)
        storage.write_json(
            tmp_path / name / "another" / "run.json", {"schema_version": storage.SCHEMA_VERSION, "kind": "run", "files": {}}
        )  # looked at first
        kept[name] = pipeline.select(tmp_path / name / "run", tmp_path / name / "m", keep="0.4")
        pipeline.report([tmp_path / name / "m"], tmp_path / name / "page.html")
    table = tmp_path / "parts" / "run" / "scores.parquet"
    assert [pq.read_metadata(part).num_rows for part in sorted(table.iterdir())] == [100, 100, 50]
    assert pq.read_table(table).equals(pq.read_table(tmp_path / "one" / "run" / "scores.parquet"))  # as any reader of Parquet sees it
    assert kept["parts"].kept_ids.tolist() == kept["one"].kept_ids.tolist()
    assert verify_manifest(read_manifest(tmp_path / "parts" / "m")) == []
    assert "dual" in (tmp_path / "parts" / "page.html").read_text()  # the run beside the manifest was found by its digest
    monkeypatch.setattr(storage, "ROWS_A_FILE", 1_000)
    again = pipeline.score(str(tmp_path / "data.npz"), tmp_path / "parts" / "run", max_epochs=2, seed=1, force=True)
    assert table.is_file() and "scores.parquet" in again["files"]


@pytest.mark.parametrize("harm", ["changed", "gone", "doubled"])
def test_a_part_that_is_not_as_written_is_named_and_a_stray_one_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    monkeypatch.setattr(storage, "ROWS_A_FILE", 100)
    images, labels = draw_shapes(N, seed=4)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels)
    pipeline.score(str(tmp_path / "data.npz"), tmp_path / "run", max_epochs=1)
    part = tmp_path / "run" / "scores.parquet" / "part-00001.parquet"
    if harm == "doubled":
        (part.parent / "part-00003.parquet").write_bytes(part.read_bytes())
        assert len(read_run(tmp_path / "run").table.sample_ids) == N
        return
    part.write_bytes(part.read_bytes()[:-1] + b"x") if harm == "changed" else part.unlink()
    with pytest.raises(IntegrityError, match="part-00001"):
        pipeline.select(tmp_path / "run", tmp_path / "m", keep="0.4")
    assert not (tmp_path / "m").exists()


def test_parts_that_an_interruption_left_do_not_stay_beside_fewer_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ROWS_A_FILE", 100)
    for n, files in ((350, 4), (150, 2), (80, 1), (150, 2)):
        storage.write_parquet(tmp_path / "t.parquet", pa.table({"at": np.arange(n)}))
        held = storage.inventory(tmp_path, ["t.parquet"])
        assert len(held) == files and storage.read_parquet(tmp_path, held, "t.parquet")["at"].to_pylist() == list(range(n))
