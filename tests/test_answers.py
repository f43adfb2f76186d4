"""Answers to a labelling round as tools and people write them."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_shapes, manifest_of
from PIL import Image

from clprune import pipeline
from clprune.errors import LabelError
from clprune.labels import add_answers, kept_answers, read_answers
from clprune.manifest import Manifest, read_manifest
from clprune.sources import open_source


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run by the kind of its classes: names with spaces around them, truth values, numbers."""
    folder, (images, labels) = tmp_path_factory.mktemp("rounds"), draw_shapes(60, 0, n_classes=2)
    found = {}
    for kind, (a, b) in {"spaces": ("cat ", "dog"), "truth": ("false", "true"), "numbers": ("0", "1")}.items():
        text = [("" if row % 3 else (a, b)[label]) for row, label in enumerate(labels)]
        np.savez(folder / f"{kind}.npz", x_train=images, y_train=np.array(text))
        pipeline.score(str(folder / f"{kind}.npz"), folder / kind, max_epochs=1)
        found[kind] = folder / kind
    return found


@pytest.mark.parametrize(
    ("kind", "name", "label", "meant"),
    [
        ("spaces", "a.csv", "cat ", "cat "),
        ("spaces", "a.csv", "cat", "cat "),
        ("spaces", "a.csv", " dog", "dog"),
        ("truth", "a.jsonl", True, "true"),
        ("truth", "a.csv", "FALSE", "false"),
        ("numbers", "a.jsonl", 1.0, "1"),
        ("numbers", "a.jsonl", 0, "0"),
        ("numbers", "a.csv", "1.0", "1"),
    ],
)
def test_answers_mean_the_class_that_tables_have_rewritten(
    runs: dict[str, Path], tmp_path: Path, kind: str, name: str, label: object, meant: str
) -> None:
    asked = pipeline.select(runs[kind], tmp_path / "m", label_budget=3)
    if name.endswith("csv"):
        text = "sample_id,label\n" + "".join(f"{sample_id},{label}\n" for sample_id in asked.kept_ids.tolist())
    else:
        text = "".join(json.dumps({"sample_id": sample_id, "label": label}) + "\n" for sample_id in asked.kept_ids.tolist())
    (tmp_path / name).write_text(text)
    assert add_answers(tmp_path / "m", [tmp_path / name])["added"] == 3
    assert set(kept_answers(read_manifest(tmp_path / "m")).values()) == {meant}
    assert add_answers(tmp_path / "m", [tmp_path / name])["repeated"] == 3


def test_what_is_no_rewritten_class_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    asked = pipeline.select(runs["numbers"], tmp_path / "m", label_budget=3)
    for label in ("1.5", "2.0", "TRUE", "01"):
        (tmp_path / "a.csv").write_text(f"sample_id,label\n{asked.kept_ids[0]},{label}\n")
        with pytest.raises(LabelError, match="of unknown classes"):
            add_answers(tmp_path / "m", [tmp_path / "a.csv"])


def test_a_row_with_more_fields_than_columns_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sample_id,label\n1,a\n2,a, the second\n")
    with pytest.raises(LabelError, match=r"a\.csv row 3 has more fields"):
        read_answers(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("sample_id,label\n1,a,,\n")  # commas at the end hold nothing
    assert [answer.label for answer in read_answers(tmp_path / "a.csv")] == ["a"]


@pytest.mark.parametrize(("separator", "encoding"), [(",", "utf-8-sig"), (";", "cp1252"), (";", "utf-8-sig"), ("\t", "utf-16"), ("sep=;", "utf-16")])
def test_answers_are_read_as_spreadsheets_save_them(tmp_path: Path, separator: str, encoding: str) -> None:
    rows = [("priority", "sample_id", "guess", "label"), ("1", "a, b.png", "", "Hund, groß"), ("2", "c.png", "", "Katze")]
    told, separator = [separator] if separator.startswith("sep=") else [], separator[-1]
    quoted = ['"' + cell + '"' if separator in cell else cell for row in rows for cell in row]
    lines = told + [separator.join(quoted[at : at + 4]) for at in range(0, 12, 4)]
    (tmp_path / "a.csv").write_bytes("\r\n".join(lines).encode(encoding))
    if encoding == "cp1252":
        with pytest.raises(LabelError, match="Save it as UTF-8"):
            read_answers(tmp_path / "a.csv")
    else:
        assert [(answer.sample_id, answer.label) for answer in read_answers(tmp_path / "a.csv")] == [("a, b.png", "Hund, groß"), ("c.png", "Katze")]


def filled_in(table: Path) -> None:
    """Label every row of a table with its guess, or with `a`."""
    csv.field_size_limit(1 << 30)
    rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"), newline="")))
    csv.field_size_limit(131_072)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"label": "a"} for row in rows)


def exported(manifest: Manifest, locator: str, folder: Path) -> Path:
    pipeline.export(manifest.folder, "labels-csv", folder / "out", data=locator)
    return folder / "out" / "to_label.csv"


def test_a_table_of_long_texts_or_of_names_that_are_not_utf8_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"text": "long " * 40_000, "label": "ab"[row % 2], "id": f"i{row}"}) + "\n" for row in range(4))
    )
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "set" / name / "1.png")
    os.rename(tmp_path / "set" / "a" / "1.png", os.fsdecode(os.fsencode(tmp_path / "set" / "a") + b"/\xe4.png"))
    for locator in (f"{tmp_path}/t.jsonl", f"{tmp_path}/set"):
        source = open_source(locator)
        folder = tmp_path / Path(locator).stem
        folder.mkdir(exist_ok=True)
        table = exported(manifest_of(source, list(range(len(source))), tmp_path / f"m-{folder.name}"), locator, tmp_path / f"out-{folder.name}")
        filled_in(table)
        assert {answer.sample_id for answer in read_answers(table)} == set(source.sample_ids.tolist())


def test_rows_are_numbered_as_a_spreadsheet_does(tmp_path: Path) -> None:
    rows = b'sample_id,label,text\r\n"A,1",2,"two\nlines"\r\n\r\n,,\r\nB,3,x\r\n'
    for before in (b"", b"sep=,\r\n"):  # a line that Excel does not show
        (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + before + rows)
        assert [(answer.sample_id, answer.where) for answer in read_answers(tmp_path / "a.csv")] == [("A,1", "a.csv row 2"), ("B", "a.csv row 5")]
