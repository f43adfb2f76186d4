"""Odd but legitimate data: columns of unusual types, ids that are numbers, images that were left in their files, data sets of people's own making."""

import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw_shapes, manifest_of
from PIL import Image, ImageOps

from clprune.datatypes import Source
from clprune.decoding import load_images
from clprune.errors import DataError, UsageError
from clprune.export import export
from clprune.sources import open_source

IMAGES, LABELS = draw_shapes(12, 0)


def encoded(row: int, form: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(IMAGES[row, ..., 0]).save(content, form)
    return content.getvalue()


def parquet_of(folder: Path, **columns: Any) -> str:
    held = {"image": [encoded(row) for row in range(12)], "label": [f"class {c}" for c in LABELS], "id": [f"i{row}" for row in range(12)]}
    pq.write_table(pa.table(held | columns), folder / "t.parquet")
    return str(folder / "t.parquet")


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("image", pa.binary_view()),
        ("image", pa.dictionary(pa.int32(), pa.binary())),
        ("label", pa.string_view()),
        ("label", pa.dictionary(pa.int32(), pa.string())),
        ("id", pa.string_view()),
        ("split", pa.string_view()),
        ("split", pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_columns_of_views_and_dictionaries_read_alike(tmp_path: Path, column: str, kind: pa.DataType) -> None:
    split = ["train"] * 8 + ["test"] * 4
    plain = open_source(parquet_of(tmp_path, split=split))
    held = pq.read_table(tmp_path / "t.parquet")[column].combine_chunks()
    odd = open_source(parquet_of(tmp_path, **{"split": split, column: held.dictionary_encode() if pa.types.is_dictionary(kind) else held.cast(kind)}))
    assert odd.fingerprint == plain.fingerprint and odd.load_test is not None and len(odd.load_test()) == 4
    assert odd.read_bytes is not None and odd.read_bytes(3)[0] == encoded(3)


def test_two_columns_of_one_name_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label,label\n" + "".join(f"t{i},{i % 2},{i % 3}\n" for i in range(6)))
    with pytest.raises(DataError, match=r"several columns of one name \(label\)"):
        open_source(str(tmp_path / "t.csv"))
    (tmp_path / "t.csv").write_text("text,label,,\n" + "".join(f"t{i},{i % 2},,\n" for i in range(6)))  # commas at the end do no harm
    assert len(open_source(str(tmp_path / "t.csv"))) == 6


@pytest.mark.parametrize("form", ["path only", "null bytes", "some bytes"])
def test_images_that_a_struct_only_names_are_read_from_their_files(tmp_path: Path, form: str) -> None:
    for row in range(12):
        (tmp_path / f"{row}.png").write_bytes(encoded(row))
    images: list[dict[str, Any]] = [{"path": f"{row}.png"} for row in range(12)]
    if form != "path only":
        images = [image | {"bytes": encoded(row) if form == "some bytes" and row % 2 else None} for row, image in enumerate(images)]
    kind = pa.struct({"path": pa.string()} | ({} if form == "path only" else {"bytes": pa.binary()}))
    source = open_source(parquet_of(tmp_path, image=pa.array(images, kind)))
    assert not source.skipped and source.fingerprint == open_source(parquet_of(tmp_path)).fingerprint
    assert source.read_bytes is not None and all(source.read_bytes(row) == (encoded(row), ".png") for row in range(12))


def test_a_struct_that_holds_no_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="under the name `bytes`"):
        open_source(parquet_of(tmp_path, image=pa.array([{"data": encoded(row)} for row in range(12)])))


def test_a_folder_of_images_is_read_as_hugging_face_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split in ("train", "test"):
        for row in range(12):
            folder = tmp_path / "set" / split / f"class {LABELS[row]}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row:02d}.png").write_bytes(encoded(row))
    source = open_source(f"hf:{tmp_path / 'set'}")
    assert not source.skipped and len(source) == 12 and source.load_test is not None and len(source.load_test()) == 12
    for row in range(12):
        assert any(source.labels[row] == LABELS[at] and (np.asarray(source.read_input(row)) == IMAGES[at, ..., 0]).all() for at in range(12))


def test_a_split_of_a_data_set_that_has_none_is_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 0]}).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(UsageError, match="without splits, so there is no 'test'"):
        open_source(f"hf:{tmp_path / 'set'}:test")


def test_ids_that_are_large_or_mixed_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    for ids in ([12345678901234567890, 12345678901234567891, 3], [1, 2.50, 1e5]):
        (tmp_path / "t.jsonl").write_text("".join(json.dumps({"id": name, "text": f"t{i}", "label": i % 2}) + "\n\n" for i, name in enumerate(ids)))
        assert open_source(str(tmp_path / "t.jsonl")).sample_ids.tolist() == [json.dumps(name) for name in ids]


def test_labels_with_an_exponent_are_names(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\na,1e5\nb,12\nc,1e5\n")
    assert open_source(str(tmp_path / "t.csv")).class_names == ("12", "1e5")


@pytest.mark.parametrize("texts", [pa.array([10 * row for row in range(12)]), pa.array([b"%d" % (10 * row) for row in range(12)])])
def test_texts_that_are_numbers_or_bytes_are_handed_over(tmp_path: Path, texts: pa.Array) -> None:
    pq.write_table(pa.table({"text": texts, "label": LABELS}), tmp_path / "t.parquet")
    source = open_source(str(tmp_path / "t.parquet"))
    assert source.read_input(3) == "30" and source.sample_bytes[3] == 2
    export(manifest_of(source, [3, 4], tmp_path / "m"), source, "parquet", tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "train.parquet")["text"].to_pylist() == ["30", "40"]


def folder_of(root: Path, contents: list[bytes], suffix: str) -> Source:
    """Two classes of these files in turn."""
    for row, content in enumerate(contents):
        (root / "ab"[row % 2]).mkdir(parents=True, exist_ok=True)
        (root / "ab"[row % 2] / f"{row}{suffix}").write_bytes(content)
    return open_source(str(root))


def test_a_jpeg_with_something_behind_the_picture_is_whole(tmp_path: Path) -> None:
    whole = [encoded(row, "JPEG") for row in range(6)]
    source = folder_of(tmp_path / "phone", [content + b"SEFT" + bytes(200) for content in whole], ".jpg")
    assert not source.skipped and len(source) == 6
    source = folder_of(tmp_path / "cut", [*whole[:5], whole[5][:-40] + bytes(200)], ".jpg")
    assert source.skipped == (("b/5.jpg", "the file is cut off"),)


@pytest.mark.parametrize("form", ["PPM", "TGA"])
def test_a_file_of_any_form_that_is_cut_off_is_left_out(tmp_path: Path, form: str) -> None:
    whole = [encoded(row, form) for row in range(6)]
    for row, content in enumerate([*whole[:5], whole[5][:-60]]):
        (tmp_path / f"{row}.{form.lower()}").write_bytes(content)
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{row}.{form.lower()},{row % 2}\n" for row in range(6)))
    source = open_source(str(tmp_path / "t.csv"))
    assert [name for name, _ in source.skipped] == [f"5.{form.lower()}"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_images_that_are_turned_by_exif_are_neither_cut_nor_scaled(tmp_path: Path, form: str, orientation: int) -> None:
    image, contents = Image.new("L", (30, 20)), []
    image.paste(255, (0, 0, 15, 20))
    image.getexif()[0x0112] = orientation
    for _ in range(4):
        image.save(content := io.BytesIO(), form, exif=image.getexif(), **({"lossless": True} if form == "WEBP" else {}))
        contents.append(content.getvalue())
    images, rule = load_images(folder_of(tmp_path / "set", contents, f".{form.lower()}"), cache=tmp_path / "cache")
    shown = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert not rule["resized"] and images.shape[1:3] == shown.shape
    assert np.abs(images[2, ..., 0].astype(int) - shown).max() < 20
