"""Odd but legitimate data: columns of unusual types, ids that are numbers, images that were left in their files, data sets of people's own making."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from conftest import draw_shapes, manifest_of
from PIL import Image, ImageOps

from clprune import pipeline
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


def test_a_folder_of_part_files_is_one_table(tmp_path: Path) -> None:
    whole = open_source(parquet_of(tmp_path))
    table, folder = pq.read_table(tmp_path / "t.parquet").drop_columns("id"), tmp_path / "parts.parquet"
    folder.mkdir()
    for number in (2, 0, 1):
        pq.write_table(table.slice(4 * number, 4), folder / f"part-0000{number}.snappy.parquet")
    for name in ("_SUCCESS", ".part-00000.crc", "_metadata.parquet"):
        (folder / name).write_bytes(b"no table")
    source = open_source(f"{folder}/")
    assert source.labels.tolist() == whole.labels.tolist() and source.sample_ids[11] == "11"
    assert source.read_bytes is not None and [source.read_bytes(row)[0] for row in range(12)] == [encoded(row) for row in range(12)]
    assert len(load_images(source, cache=tmp_path / "cache")[0]) == 12 and [Path(file).name[9] for file in source.facts["files"]] == ["0", "1", "2"]
    pq.write_table(table.set_column(1, "label", pa.array(range(12))).slice(8), folder / "part-00002.snappy.parquet")
    with pytest.raises(DataError, match=r"do not fit together .*label"):
        open_source(str(folder))
    (folder / "part-00001.snappy.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"part-00001\.snappy\.parquet cannot be read"):
        open_source(str(folder))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_folder_that_is_called_like_a_file_is_taken_for_what_it_holds(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    part = folder / ("label=a" if name == "t.parquet" else "") / f"part-0{folder.suffix}"
    part.parent.mkdir(parents=True)
    part.touch()
    with pytest.raises(DataError, match=rf"{name} is a folder \(.*part-0"):
        open_source(str(folder))
    part.unlink()
    for row in range(4):
        (folder / "ab"[row % 2]).mkdir(exist_ok=True)
        (folder / "ab"[row % 2] / f"{row}.png").write_bytes(encoded(row))
    shutil.rmtree(folder / "label=a", ignore_errors=True)
    assert open_source(str(folder)).class_names == ("a", "b")


@pytest.mark.parametrize("name", ["T.PARQUET", "T.Csv", "T.JSONL", "T.NPZ"])
def test_a_suffix_may_be_in_capitals(tmp_path: Path, name: str) -> None:
    if name == "T.NPZ":
        np.savez(tmp_path / "t.npz", x_train=IMAGES, y_train=LABELS)
    rows = [{"text": f"t{row}", "label": row % 2} for row in range(12)]
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    (tmp_path / name.lower()).rename(tmp_path / name)
    assert len(open_source(str(tmp_path / name))) == 12


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


def test_a_folder_of_images_is_read_as_hugging_face_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split in ("train", "test"):
        for row in range(12):
            folder = tmp_path / "set" / split / f"class {LABELS[row]}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row:02d}.png").write_bytes(encoded(row))
    source = open_source(f"hf:{tmp_path / 'set'}")
    assert capfd.readouterr().err == ""  # no bar of the library's own
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


class Mine(torch.utils.data.Dataset):
    """A data set of somebody's own: the drawn shapes, and these attributes."""

    def __init__(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, row: int) -> Any:
        return IMAGES[row], int(LABELS[row])


@pytest.mark.parametrize(
    "attributes",
    [
        {"samples": [{"path": f"{row}.png", "label": 0} for row in range(12)]},
        {"samples": [(IMAGES[row], 0) for row in range(12)]},
        {"samples": [("a", "b", "c")] * 12},
        {"samples": [(f"{row}.png", 0) for row in range(12)], "root": "elsewhere"},
        {"samples": [("a", 0)] * 24},
        {"features": IMAGES, "targets": LABELS},
        {"classes": 4},
        {"classes": np.unique(LABELS)},
        {"classes": {"dog": 3, "ant": 0, "cow": 2, "bee": 1}, "expected": ("ant", "bee", "cow", "dog")},
        {"classes": {2: "cow", 0: "ant", 3: "dog", 1: "bee"}, "expected": ("ant", "bee", "cow", "dog")},
        {"classes": np.array(["ant", "bee", "cow", "dog"]), "expected": ("ant", "bee", "cow", "dog")},
        {"data": torch.tensor(IMAGES.transpose(0, 3, 1, 2))},
        {"data": IMAGES[..., 0]},
    ],
)
def test_attributes_of_a_data_set_that_mean_something_else_or_take_another_form_do_no_harm(attributes: dict[str, Any], tmp_path: Path) -> None:
    source = open_source(Mine(**attributes))
    assert source.class_names == attributes.get("expected", ("0", "1", "2", "3")) and source.paths is None
    assert source.labels.tolist() == LABELS.tolist() and source.sample_ids.tolist() == [f"{row:02d}" for row in range(12)]
    images, _ = load_images(source, cache=tmp_path)
    np.testing.assert_array_equal(images, IMAGES)


def test_labels_that_a_transform_changes_are_those_of_the_items() -> None:
    class Halved(Mine):
        def __getitem__(self, row: int) -> Any:
            return IMAGES[row], int(LABELS[row] >= 2)

    source = open_source(Halved(targets=LABELS, classes=["ant", "bee", "cow", "dog"]))
    assert source.labels.tolist() == (LABELS >= 2).astype(int).tolist() and source.class_names == ("0", "1")


def test_a_folder_of_which_only_a_part_is_shown_is_no_list_of_files(image_folder: Path) -> None:
    class EverySecond(torchvision.datasets.ImageFolder):
        def __len__(self) -> int:
            return 9

        def __getitem__(self, row: int) -> Any:
            return super().__getitem__(2 * row)

    whole = torchvision.datasets.ImageFolder(str(image_folder))
    source = open_source(EverySecond(str(image_folder)))
    assert source.labels.tolist() == whole.targets[::2] and source.paths is None
    np.testing.assert_array_equal(np.asarray(source.read_input(4)), np.asarray(whole[8][0]))


@pytest.mark.parametrize(("text", "said"), [(None, "row 7 is a NoneType"), ("half \ud83d", "row 7 holds a text that is no Unicode")])
def test_a_text_that_is_none_is_named(text: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_source([(text if row == 7 else f"text {row}", row % 2) for row in range(12)])


def test_texts_with_a_list_of_samples_are_handed_over(tmp_path: Path) -> None:
    class Texts(Mine):
        def __getitem__(self, row: int) -> Any:
            return self.samples[row]

    for row in range(12):
        (tmp_path / f"{row}").write_text("what the file holds is not what the item shows")
    for root in ("", f"{tmp_path}/"):
        data = Texts(samples=[(f"{root}{row}", row % 2) for row in range(12)])
        source = open_source(data)
        export(manifest_of(source, [3, 4], tmp_path / f"m{len(root)}"), source, "webdataset", tmp_path / f"out{len(root)}")
        assert open_source(f"wds:{tmp_path}/out{len(root)}").read_input(1) == f"{root}4"


def test_files_that_are_no_images_are_handed_over_as_what_the_items_show(tmp_path: Path) -> None:
    for row in range(12):
        (tmp_path / "set" / f"c{row % 2}").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "set" / f"c{row % 2}" / f"{row:02d}.npy", IMAGES[row])
    source = open_source(torchvision.datasets.DatasetFolder(str(tmp_path / "set"), np.load, (".npy",)))
    export(manifest_of(source, [0, 7], tmp_path / "m"), source, "parquet", tmp_path / "out")
    again = open_source(str(tmp_path / "out" / "train.parquet"))
    np.testing.assert_array_equal(np.asarray(again.read_input(1)), IMAGES[3, ..., 0])


def shard_of(path: Path, samples: list[dict[str, bytes]]) -> str:
    with tarfile.open(path, "w") as tar:
        for row, held in enumerate(samples):
            for ending, content in held.items():
                member = tarfile.TarInfo(f"{row:04d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return f"wds:{path}"


def test_shards_with_odd_members_are_read_or_their_samples_named(tmp_path: Path) -> None:
    labels = [b"--5", b"-", b"cat", b"cat"]
    source = open_source(shard_of(tmp_path / "a.tar", [{"png": encoded(row), "cls": label} for row, label in enumerate(labels)]))
    assert source.class_names == ("-", "--5", "cat")
    source = open_source(shard_of(tmp_path / "a.tar", [{"txt": b"na\xefve" if row == 2 else b"plain", "cls": b"%d" % (row % 2)} for row in range(6)]))
    assert source.skipped == (("a.tar/0002", "the text is not UTF-8"),)
    told = [json.dumps({"label": row % 2, "sample_id": None if row == 2 else f"s{row}"}).encode() for row in range(4)]
    source = open_source(shard_of(tmp_path / "a.tar", [{"png": encoded(row), "json": text} for row, text in enumerate(told)]))
    assert source.sample_ids.tolist() == [f"a.tar/{row:04d}" for row in range(4)]  # not every sample has an id of its own


@pytest.mark.parametrize("text", ["{", "[]", '{"splits": {"train": {}}}', '{"splits": []}', '{"class_names": 3}', "\xff"])
def test_a_list_of_shards_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    shard_of(tmp_path / "a.tar", [{"png": encoded(row), "cls": b"%d" % (row % 2)} for row in range(4)])
    (tmp_path / "_info.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"_info\.json cannot be read as timm's list"):
        open_source(f"wds:{tmp_path}")


def test_a_class_of_torchvision_that_takes_other_arguments_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for name in ("FakeData", "DatasetFolder"):
        with pytest.raises(UsageError, match=r"takes other arguments .*module:function"):
            open_source(f"torchvision:{name}?root={tmp_path}")


def test_a_column_of_ids_is_taken_as_one_id_a_sample(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x_train=IMAGES, y_train=LABELS, ids=np.array([[f"i{row}"] for row in range(12)]))
    assert open_source(str(tmp_path / "x.npz")).sample_ids.tolist() == [f"i{row}" for row in range(12)]


@pytest.mark.parametrize("form", ["parquet", "shard", "struct", "hf"])
def test_one_image_that_changed_among_many_is_decoded_again(tmp_path: Path, form: str) -> None:
    images, changed = np.random.default_rng(0).integers(0, 256, (600, 8, 8), dtype=np.uint8), 1  # not among those that are looked at

    def written() -> str:
        contents = []
        for image in images:
            Image.fromarray(image).save(content := io.BytesIO(), "BMP")  # of one size, whatever it shows
            contents.append(content.getvalue())
        if form == "shard":
            return shard_of(tmp_path / "a.tar", [{"bmp": content, "cls": b"%d" % (row % 2)} for row, content in enumerate(contents)])
        for row, content in enumerate(contents if form == "struct" else ()):
            (tmp_path / f"{row}.bmp").write_bytes(content)
        held: dict[str, Any] = {"image": [{"path": f"{row}.bmp"} for row in range(600)] if form == "struct" else contents, "label": [0, 1] * 300}
        if form == "hf":
            shutil.rmtree(tmp_path / "set", ignore_errors=True)
            kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=2)})
            datasets.Dataset.from_dict({**held, "image": [{"bytes": content} for content in contents]}, features=kinds).save_to_disk(
                str(tmp_path / "set")
            )
            return f"hf:{tmp_path / 'set'}"
        pq.write_table(pa.table(held), tmp_path / "t.parquet")
        return str(tmp_path / "t.parquet")

    for _ in range(2):
        found, _ = load_images(open_source(written()), cache=tmp_path / "cache")
        np.testing.assert_array_equal(found[..., 0], images)
        images[changed] = 255 - images[changed]


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_lies_on_white(tmp_path: Path, mode: str) -> None:
    image, contents = Image.new("L", (16, 16), 200), []
    image.paste(90, (0, 0, 16, 8))
    for _ in range(4):
        clear = {"L": 90, "RGB": (90, 90, 90), "P": 90}[mode]
        image.convert(mode).save(content := io.BytesIO(), "PNG", transparency=clear)
        contents.append(content.getvalue())
    images, _ = load_images(folder_of(tmp_path / "set", contents, ".png"), cache=tmp_path / "cache")
    assert (images[1, :8] == 255).all() and (images[1, 8:] == 200).all()


def test_texts_that_are_lists_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": ["two", "words"], "label": row % 2}) + "\n" for row in range(4)))
    with pytest.raises(DataError, match="one text a row"):
        open_source(str(tmp_path / "t.jsonl"))


def test_classes_that_differ_by_spaces_or_case_only_are_noted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\na,cat\nb, cat\nc,dog\nd,Dog\ne,cow\n")
    notes = open_source(str(tmp_path / "t.csv")).facts["notes"]
    assert any(note.startswith("classes ' cat', 'Dog', 'cat', 'dog' differ by spaces or by case only") for note in notes)


def test_a_class_of_torchvision_that_calls_its_test_part_val_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Validated(Mine):
        def __init__(self, root: str, split: str = "train") -> None:
            torchvision.datasets.utils.verify_str_arg(split, "split", ("train", "val"))  # as ImageNet does
            if root != str(tmp_path):
                raise RuntimeError("nothing there")
            self.split, self.targets = split, LABELS if split == "train" else LABELS[:5]

        def __len__(self) -> int:
            return len(self.targets)

    monkeypatch.setattr(torchvision.datasets, "Validated", Validated, raising=False)
    source = open_source(f"torchvision:Validated?root={tmp_path}")
    assert source.load_test is not None and len(source.load_test()) == 5
    with pytest.raises(DataError, match="nothing there"):
        open_source("torchvision:Validated?root=elsewhere")


@pytest.mark.parametrize("times", [1, 16])
def test_files_of_16_bits_that_use_12_of_them_are_noted_and_not_stretched(tmp_path: Path, times: int) -> None:
    for row in range(12):
        (tmp_path / "set" / f"c{LABELS[row]}").mkdir(parents=True, exist_ok=True)
        deep = Image.fromarray(IMAGES[row, ..., 0].astype(np.uint16) * 16 * times)
        deep.save(tmp_path / "set" / f"c{LABELS[row]}" / f"{row}.png")
    source = open_source(str(tmp_path / "set"))
    for _ in ("decoded", "from the cache"):
        images, rule = load_images(source, cache=tmp_path / "cache")
        assert all((images[row, ..., 0] == np.asarray(source.read_input(row)) // 256).all() for row in range(12))
        assert ("notes" in rule) == (times == 1)
    pipeline.score(str(tmp_path / "set"), tmp_path / "run", max_epochs=1)
    notes = json.loads((tmp_path / "run" / "run.json").read_text())["notes"]
    assert any(f"brighter than {images.max()} of 255" in note for note in notes) == (times == 1)
