"""Where a manifest may be written: not over the run it is made from, nor over what somebody else put there."""

from pathlib import Path

import pytest

from clprune import pipeline
from clprune.errors import UsageError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("force", [False, True])
def test_a_run_is_not_replaced_by_a_manifest(shapes_run: Path, tmp_path: Path, force: bool) -> None:
    before = contents(shapes_run)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("{}")
    for out in (shapes_run, shapes_run.parent, shapes_run / ".." / shapes_run.name, tmp_path / "other"):
        with pytest.raises(UsageError, match="is, or holds, the folder of a run"):
            pipeline.select(shapes_run, out, keep="0.5", force=force)
    assert contents(shapes_run) == before


def test_force_replaces_a_manifest_and_nothing_else(shapes_run: Path, tmp_path: Path) -> None:
    out, own = tmp_path / "m", tmp_path / "own"
    out.mkdir()
    for keep in ("0.5", "0.25"):  # an empty folder, then a manifest
        assert pipeline.select(shapes_run, out, keep=keep, force=True).n_kept == 600 * float(keep)
    own.mkdir()
    for name in ("thesis.tex", "manifest.json"):  # the second alone could be anybody's
        (own / name).write_text("{}")
    (tmp_path / "file").write_text("mine")
    for place, said in ((own, "manifest.json, thesis.tex"), (tmp_path / "file", "holds no manifest, but file")):
        with pytest.raises(UsageError, match=said):
            pipeline.select(shapes_run, place, keep="0.5", force=True)
    assert set(contents(own)) == {"thesis.tex", "manifest.json"} and (tmp_path / "file").read_text() == "mine"
