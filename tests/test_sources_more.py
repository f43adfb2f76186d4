"""Shards, streams, tables as people write them, mapped arrays, links, and data sets of every item form."""

import base64
import csv
import dataclasses
import io
import json
import os
from collections import namedtuple
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import draw_shapes, write_shards
from PIL import Image

from clprune.decoding import load_images
from clprune.errors import DataError, UsageError
from clprune.sources import _table, open_source

IMAGES, LABELS = draw_shapes(40, 0)


def png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image[..., 0]).save(content, "PNG")
    return content.getvalue()


def test_keys_that_repeat_from_shard_to_shard_stay_apart(tmp_path: Path) -> None:
    source = open_source(write_shards(tmp_path, IMAGES, LABELS))
    assert sorted(source.sample_ids.tolist()) == sorted(f"part-{row % 2}.tar/{row // 2:04d}" for row in range(40))
    for row, name in enumerate(source.sample_ids.tolist()):
        origin = 2 * int(name[-4:]) + int(name[5])
        assert source.labels[row] == LABELS[origin]
        np.testing.assert_array_equal(np.asarray(source.read_input(row)), IMAGES[origin, ..., 0])


@pytest.mark.parametrize("form", ["part-*.tar", "part-{0,1}.tar", ""])
def test_shards_are_found_by_pattern_and_by_folder(tmp_path: Path, form: str) -> None:
    whole = open_source(write_shards(tmp_path, IMAGES, LABELS))
    assert open_source(f"wds:{tmp_path}/{form}").fingerprint == whole.fingerprint


def test_shards_of_two_folders_with_the_same_names_stay_apart(tmp_path: Path) -> None:
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        write_shards(tmp_path / part, IMAGES, LABELS)
    source = open_source(f"wds:{tmp_path}")
    assert len(source) == 80 and "b/part-1.tar/0003" in source.sample_ids.tolist()


def test_bad_shards_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path, IMAGES, LABELS)
    with pytest.raises(DataError, match=r"no shard .*part-2\.tar"):
        open_source(f"wds:{tmp_path}/part-{{0..2}}.tar")
    whole = (tmp_path / "part-1.tar").read_bytes()
    (tmp_path / "part-1.tar").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(DataError, match=r"part-1\.tar is (cut off|not a whole)"):
        open_source(f"wds:{tmp_path}/part-{{0..1}}.tar")


def test_a_stream_needs_an_id_column_and_then_is_read_like_the_set_itself(tmp_path: Path) -> None:
    rows = {"key": [f"k{i:02d}" for i in range(40)], "image": [{"bytes": png(x), "path": None} for x in IMAGES], "label": LABELS.tolist()}
    features = datasets.Features(
        {"key": datasets.Value("string"), "image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c", "d"])}
    )
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "set" / "train.parquet"))
    with pytest.raises(DataError, match=r"Please name a column of unique ids.*key, image, label"):
        open_source(f"hf:{tmp_path / 'set'}:train?streaming=1")
    with pytest.raises(UsageError, match="no column 'uid'"):
        open_source(f"hf:{tmp_path / 'set'}:train?streaming=1&id=uid")
    streamed = open_source(f"hf:{tmp_path / 'set'}:train?streaming=1&id=key")
    whole = open_source(f"hf:{tmp_path / 'set'}:train?id=key")
    assert streamed.fingerprint == whole.fingerprint and streamed.class_names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(np.asarray(streamed.read_input(7)), IMAGES[7, ..., 0])


def test_an_open_stream_is_taken_too(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict(
        {"id": [f"k{i}" for i in range(30)], "text": [f"t {i}" for i in range(30)], "label": [i % 3 for i in range(30)]}
    )
    assert open_source(data.to_iterable_dataset()).fingerprint == open_source(data).fingerprint
    with pytest.raises(DataError, match="Please name a column"):
        open_source(data.remove_columns("id").to_iterable_dataset())


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_images_in_text_files_are_base64(tmp_path: Path, form: str) -> None:
    rows = [
        {"id": f"{i:03d}", "image": base64.b64encode(png(x)).decode(), "label": f"c{y}"} for i, (x, y) in enumerate(zip(IMAGES, LABELS, strict=True))
    ]
    path = tmp_path / f"t.{form}"
    write_rows(path, rows)
    source = open_source(str(path))
    assert source.sample_ids.tolist()[:2] == ["000", "001"] and source.class_names == ("c0", "c1", "c2", "c3")
    np.testing.assert_array_equal(np.asarray(source.read_input(5)), IMAGES[5, ..., 0])


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_texts_and_ids_are_taken_as_they_are_written(tmp_path: Path, form: str) -> None:
    texts = ["007", "a, b", 'said "no"', "two\nlines", "NA", "  kept  ", "été"]
    rows = [{"id": f"{i:03d}", "text": text, "label": ["pos", "neg"][i % 2], "split": "train"} for i, text in enumerate(texts)]
    write_rows(tmp_path / f"t.{form}", [*rows, {"id": "900", "text": "held out", "label": "neg", "split": "Test"}])
    source = open_source(str(tmp_path / f"t.{form}"))
    assert [source.read_input(row) for row in range(7)] == texts and source.sample_ids.tolist() == [f"{i:03d}" for i in range(7)]
    assert source.kind == "text" and source.load_test is not None and source.load_test().labels.tolist() == [source.class_names.index("neg")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "sep=;", "json"])
def test_text_of_any_usual_encoding_and_separator_reads_alike(tmp_path: Path, encoding: str, separator: str) -> None:
    texts = ["a; b", "a, b", "tab\tand | bar", "two\nlines", "été", "label;text", "7,5"]
    columns = {"id": [f"{i}5" for i in range(7)], "text": texts, "label": ["Hund, groß", "Katze"] * 3 + ["Katze"]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path, held = tmp_path / ("t.jsonl" if separator == "json" else "t.csv"), io.StringIO()
    held.write(f"{separator}\r\n" if separator.startswith("sep=") else "")  # for Excel, which does not show it
    writer = csv.DictWriter(held, list(columns), delimiter="," if separator == "json" else separator[-1])
    writer.writeheader()
    writer.writerows(rows)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes((lines if separator == "json" else held.getvalue()).encode(encoding))
    source = open_source(str(path))
    assert [source.read_input(row) for row in range(7)] == texts and source.sample_ids.tolist() == columns["id"]
    assert [source.class_names[c] for c in source.labels] == columns["label"]


def test_a_comma_counts_where_it_gives_the_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;label;text,text,label\n" + "".join(f"x;{i};y,t{i},{i % 2}\n" for i in range(6)))
    assert [open_source(str(tmp_path / "t.csv")).read_input(row) for row in range(6)] == [f"t{i}" for i in range(6)]
    (tmp_path / "t.csv").write_text("text:label\n" + "".join(f"t{i}:{i % 2}\n" for i in range(6)))
    with pytest.raises(DataError, match="in these letters; it has `text:label`"):
        open_source(str(tmp_path / "t.csv"))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_columns_of_other_names_read_as_those_of_the_usual_ones(tmp_path: Path, form: str) -> None:
    usual = [{"id": f"00{i}", "text": f"words {i}", "label": i % 3, "split": "test" if i > 8 else "train", "site": f"s{i % 2}"} for i in range(12)]
    other = [{"Key": r["id"], "label": 5, "path": "x", "Body": r["text"], "Class": r["label"], "fold": r["split"], "site": r["site"]} for r in usual]
    for name, rows in (("usual", usual), ("other", other)):
        write_rows(tmp_path / f"{name}.{form}", rows)
    plain = open_source(f"{tmp_path}/usual.{form}")
    named = open_source(f"{tmp_path}/other.{form}?text=Body&label=Class&id=Key&split=fold")
    assert plain.load_test is not None and named.load_test is not None
    for left, right in ((plain, named), (plain.load_test(), named.load_test())):
        assert left.fingerprint == right.fingerprint and left.class_names == right.class_names
        assert [left.read_input(row) for row in range(len(left))] == [right.read_input(row) for row in range(len(right))]
        assert left.facts["columns"]["site"]() == right.facts["columns"]["site"]()
    with pytest.raises(UsageError, match=r"there is no column 'Klass' \(there are: Key, label, path, Body, Class, fold, site\)"):
        open_source(f"{tmp_path}/other.{form}?text=Body&label=Klass")
    with pytest.raises(UsageError, match="no option lable"):
        open_source(f"{tmp_path}/other.{form}?text=Body&lable=Class")


def test_columns_that_nobody_asked_for_may_share_a_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,Body,x,Class\n" + "".join(f"1,t{i},2,{i % 2}\n" for i in range(6)))
    source = open_source(f"{tmp_path}/t.csv?text=Body&label=Class")
    assert [source.read_input(row) for row in range(6)] == [f"t{i}" for i in range(6)] and source.labels.tolist() == [0, 1] * 3
    with pytest.raises(UsageError, match="there are several columns 'x'"):
        open_source(f"{tmp_path}/t.csv?text=x&label=Class")


def test_a_named_label_column_keeps_its_class_names(tmp_path: Path) -> None:
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"]), "fine": datasets.ClassLabel(names=["x", "y", "z"])}
    )
    held = {"img": [{"bytes": png(image), "path": None} for image in IMAGES[:6]], "label": [0, 1] * 3, "fine": [0, 1, 2] * 2}
    datasets.Dataset.from_dict(held, features=features).to_parquet(tmp_path / "t.parquet")
    source = open_source(f"{tmp_path}/t.parquet?image=img&label=fine")
    assert source.class_names == ("x", "y", "z") and source.labels.tolist() == [0, 1, 2] * 2
    np.testing.assert_array_equal(np.asarray(source.read_input(4)), IMAGES[4, ..., 0])


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_line_in_another_encoding_is_named(tmp_path: Path, form: str) -> None:
    write_rows(tmp_path / f"t.{form}", [{"text": f"t{i}" if i < 5 else "caf", "label": i % 2} for i in range(7)])
    content = (tmp_path / f"t.{form}").read_bytes()
    (tmp_path / f"t.{form}").write_bytes(content.replace(b"caf", b"caf\xe9", 1))
    with pytest.raises(DataError, match=f"line {7 if form == 'csv' else 6} is not UTF-8. Save"):
        open_source(str(tmp_path / f"t.{form}"))


def test_the_metadata_file_of_an_image_folder_is_a_table(image_folder: Path) -> None:
    folder = open_source(str(image_folder))
    rows = [{"file_name": name, "label": folder.class_names[y]} for name, y in zip(folder.sample_ids.tolist(), folder.labels, strict=True)]
    write_rows(image_folder / "metadata.jsonl", rows)
    assert open_source(str(image_folder / "metadata.jsonl")).fingerprint == folder.fingerprint


def test_names_of_files_in_a_column_of_images_are_refused_with_the_remedy(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.csv", [{"image": "a/b.png", "label": "x"}, {"image": "c.png", "label": "y"}])
    with pytest.raises(DataError, match="For file names call the column `path`"):
        open_source(str(tmp_path / "t.csv"))


def test_npy_files_beside_each_other_stay_mapped(tmp_path: Path) -> None:
    test_images, test_labels = draw_shapes(12, 1)
    held = {"x_train": IMAGES, "y_train": LABELS, "x_test": test_images, "y_test": test_labels, "y_other": np.roll(LABELS, 1)}
    for name, array in held.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.savez(tmp_path / "all.npz", **held)
    source = open_source(str(tmp_path / "x_train.npy"))
    assert isinstance(source.images, np.memmap) and source.load_test is not None and len(source.load_test()) == 12
    assert source.fingerprint == open_source(str(tmp_path / "all.npz")).fingerprint
    assert open_source(f"{tmp_path / 'x_train.npy'}?labels=y_other").labels.tolist() == np.roll(LABELS, 1).tolist()
    with pytest.raises(DataError, match="no file"):
        open_source(str(tmp_path / "x_none.npy"))


def test_class_folders_that_are_links_count_inside_the_root_only(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "outside" / "x.png")
    os.symlink(tmp_path / "outside", image_folder / "away")
    os.symlink(image_folder, image_folder / "round")
    source = open_source(str(image_folder))
    assert len(source) == 18
    assert dict(source.skipped)["away"] == "a link that leaves the folder" and "a link back to a folder above it" in dict(source.skipped).values()


def test_images_deeper_than_one_level_belong_to_their_class(image_folder: Path) -> None:
    (image_folder / "class1" / "a" / "b").mkdir(parents=True)
    os.rename(image_folder / "class1" / "1.png", image_folder / "class1" / "a" / "b" / "1.png")
    source = open_source(str(image_folder))
    assert source.class_names[source.labels[source.sample_ids.tolist().index("class1/a/b/1.png")]] == "class1"


Named, Turned = namedtuple("Named", ["image", "label"]), namedtuple("Turned", ["label", "weight", "image"])


class Items(torch.utils.data.Dataset):
    def __init__(self, form: str) -> None:
        self.form = form

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> Any:
        x, y = torch.from_numpy(IMAGES[row]).permute(2, 0, 1), torch.tensor(LABELS[row])
        forms = {"dict": {"pixel_values": x, "labels": y}, "named": Named(x, y), "turned": Turned(y, 1.0, x), "list": [x, y]}
        return forms[self.form]


@pytest.mark.parametrize("form", ["dict", "named", "turned", "list"])
def test_items_of_every_form_give_the_same_data_set(form: str) -> None:
    source = open_source(Items(form))
    assert source.fingerprint == open_source(Items("list")).fingerprint and source.labels.tolist() == LABELS.tolist()
    np.testing.assert_array_equal(source.read_input(3), IMAGES[3])


def test_a_data_set_of_texts_is_text() -> None:
    source = open_source([("good", 1), ("bad", 0), ("fine", 1)])
    assert source.kind == "text" and source.sample_bytes.tolist() == [4, 3, 4] and source.read_input(1) == "bad"


def test_a_table_of_parquet_with_large_types_reads_alike(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.table(
        {
            "id": pa.array([f"{i}" for i in range(40)], pa.large_string()),
            "image": pa.array([png(x) for x in IMAGES], pa.large_binary()),
            "label": LABELS,
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    np.testing.assert_array_equal(np.asarray(open_source(str(tmp_path / "t.parquet")).read_input(9)), IMAGES[9, ..., 0])


def test_a_listing_counts_every_file_it_has_looked_at(image_folder: Path, tmp_path: Path) -> None:
    for row in range(300):
        os.link(image_folder / "class1" / "1.png", image_folder / "class1" / f"more{row}.png")
    moves: list[tuple[int, int]] = []
    source = open_source(str(image_folder), on_progress=lambda done, total: moves.append((done, total)))
    assert moves == [(128, 318), (256, 318), (318, 318)]
    part = source.part(np.array([5, 2]))
    images, rule = load_images(part, cache=tmp_path / "cache", on_progress=lambda done, total: moves.append((done, total)))
    assert moves[3:] == [(2, 2)] and rule["size"] == [20, 20]
    np.testing.assert_array_equal(images[1], np.asarray(source.read_input(2)))


def test_what_the_heads_say_is_what_decoding_looks_up(image_folder: Path, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.effect_noise((40, 24), 60).save(image_folder / "class1" / "turned.jpg", exif=turned)
    Image.effect_noise((300, 300), 90).save(image_folder / "class1" / "large.png")  # more than is read at first
    source = open_source(str(image_folder))
    assert source.shapes is not None and not source.skipped
    judge = load_images(dataclasses.replace(source, shapes=None), cache=tmp_path / "a")
    images, rule = load_images(source, cache=tmp_path / "b")
    assert rule == judge[1] and source.shapes[source.sample_ids.tolist().index("class1/turned.jpg")].tolist() == [24, 40, 1]
    np.testing.assert_array_equal(images, judge[0])


def test_a_very_long_table_is_listed_without_its_files_and_a_broken_one_is_named_when_it_is_decoded(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_source(str(image_folder))
    rows = [
        {"file_name": name, "label": folder.class_names[y], "bytes": 7} for name, y in zip(folder.sample_ids.tolist(), folder.labels, strict=True)
    ]
    write_rows(image_folder / "m.jsonl", [*rows, {"file_name": "class1/none.png", "label": "class1", "bytes": 7}])
    assert len(open_source(str(image_folder / "m.jsonl")).skipped) == 1
    monkeypatch.setattr(_table, "LOOKED_AT", 10)
    source = open_source(str(image_folder / "m.jsonl"))
    assert len(source) == 19 and not source.skipped and source.sample_bytes.tolist() == [7] * 19 and "not looked at" in str(source.facts["notes"])
    assert source.paths is not None and list(source.paths[:2]) == [image_folder / rows[0]["file_name"], image_folder / rows[1]["file_name"]]
    with pytest.raises(DataError, match=r"class1/none\.png.*cannot be decoded"):
        load_images(source, cache=tmp_path / "cache")
    assert len(open_source(str(image_folder / "m.jsonl"), strict=False).part(np.arange(3))) == 3
    with pytest.raises(DataError, match="no such file"):
        open_source(str(image_folder / "m.jsonl"), strict=True)
