"""What sources make of labels: numbered by the names of classes, one a sample, and refused with the row named where they are broken."""

import io
import json
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import draw_shapes
from PIL import Image

from clprune.datatypes import Source
from clprune.decoding import load_images
from clprune.errors import DataError, LabelError, UsageError
from clprune.inputs import held_out_part, inputs_of
from clprune.sources import open_source
from clprune.sources.python_dataset import source_of_dataset

ANIMALS = np.array(["ant", "bee", "cow", "dog"])


def npz(path: Path, **arrays: Any) -> str:
    images, labels = draw_shapes(40, 0)
    np.savez(path / "x.npz", **({"x_train": images, "y_train": labels} | arrays))
    return str(path / "x.npz")


def named(source: Any) -> list[str]:
    return [source.class_names[c] for c in source.labels.tolist()]


def test_names_in_a_test_part_that_lacks_a_class_are_numbered_as_in_training(tmp_path: Path) -> None:
    images, labels = draw_shapes(40, 0)
    rows = labels > 0
    path = npz(tmp_path, y_train=ANIMALS[labels], x_test=images[rows], y_test=ANIMALS[labels[rows]])
    assert named(held_out_part(open_source(path))) == ANIMALS[labels[rows]].tolist()


def test_names_are_numbered_in_the_order_of_class_names(tmp_path: Path) -> None:
    names = ANIMALS[draw_shapes(40, 0)[1]]
    source = open_source(npz(tmp_path, y_train=names, class_names=ANIMALS[::-1]))
    assert source.class_names == tuple(ANIMALS[::-1]) and named(source) == names.tolist()


def test_bytes_are_text(tmp_path: Path) -> None:
    names = ANIMALS[draw_shapes(40, 0)[1]]
    source = open_source(npz(tmp_path, y_train=np.char.encode(names), ids=np.array([f"é{i}".encode() for i in range(40)])))
    assert named(source) == names.tolist() and source.sample_ids[3] == "é3"
    assert open_source(npz(tmp_path, class_names=np.char.encode(ANIMALS))).class_names == tuple(ANIMALS)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y_train": np.array(["ant", "bee", "cow", "elk"] * 10), "class_names": ANIMALS}, r"labels elk are not among class_names .*row 3: elk"),
        ({"class_names": np.array(["a", "b", "c", "a"])}, "more than once: a"),
        ({"y_train": np.array([*(row % 4 for row in range(39)), 2**64 - 1], dtype=np.uint64)}, "row 39: 18446744073709551615"),
        ({"y_train": np.r_[np.arange(39) % 4, 1e20]}, r"row 39: 1e\+20"),
        ({"x_test": np.zeros((2, 16, 16), np.uint8), "y_test": np.array([0, 4])}, "row 1: 4"),
        ({"x_test": np.zeros((2, 16, 16), np.uint8), "y_test": np.array(["ant", "bee"])}, "labels ant, bee are not among"),
    ],
)
def test_labels_of_arrays_that_name_no_class_are_refused(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(LabelError, match=said):
        source = open_source(npz(tmp_path, **arrays))
        assert source.load_test is not None
        held_out_part(source)


def test_an_unknown_option_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no option label \(options: labels\)"):
        open_source(npz(tmp_path) + "?label=y_train")
    with pytest.raises(UsageError, match=r"no option split \(options: root, download\)"):
        open_source(f"torchvision:MNIST?root={tmp_path}&split=letters")
    with pytest.raises(UsageError, match=r"no option ids \(options: streaming, id, label\)"):
        open_source(f"hf:{tmp_path}?ids=name")


def test_other_npy_files_of_the_folder_do_not_matter(tmp_path: Path) -> None:
    images, labels = draw_shapes(40, 0)
    np.save(tmp_path / "x_train.npy", images)
    np.save(tmp_path / "y_train.npy", labels)
    np.save(tmp_path / "notes.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert len(open_source(str(tmp_path / "x_train.npy"))) == 40
    np.save(tmp_path / "ids.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"ids\.npy"):
        open_source(str(tmp_path / "x_train.npy"))


def table(path: Path, form: str = "parquet", **columns: Any) -> str:
    """A table of texts: two rows of each animal, and what `columns` say instead."""
    held = {"text": [f"words {row}" for row in range(8)], "label": [*ANIMALS, *ANIMALS]} | columns
    content, file = pa.table({name: values for name, values in held.items() if values is not None}), path / f"t.{form}"
    if form == "parquet":
        pq.write_table(content, file)
    elif form == "csv":
        pa.csv.write_csv(content, file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in content.to_pylist()))
    return str(file)


@pytest.mark.parametrize("name", ["dev", "Valid", "TEST", "validation "])
def test_rows_of_any_usual_name_of_a_test_split_are_held_out(tmp_path: Path, name: str) -> None:
    source = open_source(table(tmp_path, split=["Train"] * 4 + ["training"] * 2 + [name] * 2))
    assert len(source) == 6 and named(held_out_part(source)) == ["cow", "dog"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"split": ["train"] * 6 + ["extra", None]}, r"`split` of 2 rows holds 'extra', \(empty\)"),
        ({"split": ["test"] * 8}, "all 8 rows are of the split test"),
        ({"label": [*ANIMALS[:3]] * 2 + ["bee", "elk"], "split": ["train"] * 6 + ["test"] * 2}, "labels elk are not among .*'1': elk"),
        ({"label": [0, 1, 2, 0, 1, 2, 1, 3], "split": ["train"] * 6 + ["test"] * 2, "id": list("abcdefgh")}, r"outside 0\.\.2 .'h': 3"),
        ({"label": [[0, 1]] * 8}, r"row 0: \[0 1\].*one class a sample"),
        ({"label": [[0, 1]] * 4 + [[2]] * 4}, r"row 0: \[0, 1\].*one class a sample"),
        ({"id": ["a", None, "c", "", *"efgh"]}, r"`id` is empty in 2 rows \(rows 1, 3\)"),
    ],
)
def test_tables_that_say_what_nobody_can_mean_are_refused(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        held_out_part(open_source(table(tmp_path, **columns)))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_ids_that_look_like_dates_and_labels_with_zeros_in_front_stay_as_they_are_written(tmp_path: Path, form: str) -> None:
    days = [f"2024-01-0{day}" for day in range(1, 9)]
    source = open_source(table(tmp_path, form, id=days, label=["01", "02", "10", "11"] * 2))
    assert source.sample_ids.tolist() == days and source.class_names == ("01", "02", "10", "11")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["0", "1", "2", "1"], ("0", "1", "2")),
        (["0.0", "1.0", "", "1"], ("0", "1")),
        (["True", "false", "NA", "true"], ("false", "true")),
        (["1", "x", "1", "x"], ("1", "x")),
    ],
)
def test_labels_of_a_csv_file_are_numbers_where_all_of_them_are(tmp_path: Path, labels: list[str], names: tuple[str, ...]) -> None:
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"words {row},{label}\n" for row, label in enumerate(labels)))
    assert open_source(str(tmp_path / "t.csv")).class_names == names


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_row_of_three_million_characters_is_read(tmp_path: Path, form: str) -> None:
    source = open_source(table(tmp_path, form, text=["x" * 3_000_000, *"bcdefgh"]))
    assert source.sample_bytes.max() == 3_000_000


def hugging_face(path: Path, test_names: list[str] | None = None, **features: Any) -> str:
    """A saved data set of eight texts with a label, and a test split whose classes are named in the order of `test_names`."""

    def split(names: list[str]) -> Any:
        columns = {"text": [f"words {row}" for row in range(8)]} | {name: [0, 1, 2, 3] * 2 for name in features or {"label": 0}}
        kinds = {
            name: datasets.Value("int64") if kind == "number" else datasets.ClassLabel(names=names)
            for name, kind in (features or {"label": 0}).items()
        }
        return datasets.Dataset.from_dict(columns, features=datasets.Features({"text": datasets.Value("string"), **kinds}))

    splits = {"train": split(ANIMALS.tolist())} | ({"test": split(test_names)} if test_names else {})
    datasets.DatasetDict(splits).save_to_disk(str(path / "hf"))
    return f"hf:{path / 'hf'}"


def test_a_test_split_with_its_classes_in_another_order_is_numbered_by_their_names(tmp_path: Path) -> None:
    source = open_source(hugging_face(tmp_path, ["cow", "dog", "ant", "bee"]))
    assert named(source) == ANIMALS.tolist() * 2 and named(held_out_part(source)) == ["cow", "dog", "ant", "bee"] * 2


def test_a_test_split_with_a_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="labels elk are not among the classes of the training part"):
        held_out_part(open_source(hugging_face(tmp_path, ["cow", "dog", "elk", "bee"])))


def test_the_column_called_label_is_taken_before_other_columns_of_classes(tmp_path: Path) -> None:
    path = hugging_face(tmp_path, author="classes", label="classes")
    assert open_source(path).labels.tolist() == [0, 1, 2, 3] * 2
    dataset = datasets.load_from_disk(path.removeprefix("hf:"))["train"]
    assert open_source(dataset.map(lambda row: {"author": 0}).cast_column("author", dataset.features["author"])).labels.max() == 3


def test_several_columns_of_classes_are_refused_unless_one_is_named(tmp_path: Path) -> None:
    path = hugging_face(tmp_path, author="classes", topic="classes")
    with pytest.raises(DataError, match=r"author, topic.*\?label=author"):
        open_source(path)
    assert open_source(f"{path}?label=topic").n_classes == 4
    with pytest.raises(UsageError, match="no column 'other'"):
        open_source(f"{path}?label=other")


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(("train", "test"), [("train", "valid"), ("Train", "Test"), ("training", "dev"), ("train", "validation"), ("train", None)])
def test_folders_named_as_splits_are_the_splits(image_folder: Path, tmp_path: Path, train: str, test: str | None) -> None:
    root = tmp_path / "both"
    root.mkdir()
    classes = open_source(str(image_folder)).class_names
    image_folder.rename(root / train)
    if test is not None:
        (root / test / "class2").mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(root / test / "class2" / "x.png")
    source = open_source(str(root))
    assert source.class_names == classes and source.sample_ids[0].startswith("class")
    assert source.load_test is None if test is None else named(held_out_part(source)) == ["class2"]


def shards(folder: Path, members: dict[str, list[dict[str, str]]], info: dict[str, Any] | None = None) -> str:
    """A shard for each split in which sample i is an image and these members, beside timm's `_info.json`."""
    folder.mkdir(exist_ok=True)
    for split, samples in members.items():
        with tarfile.open(folder / f"{split}.tar", "w") as tar:
            for row, held in enumerate(samples):
                for ending, content in ({"png": png(np.full((8, 8), row, np.uint8))} | {name: text.encode() for name, text in held.items()}).items():
                    member = tarfile.TarInfo(f"{row:04d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    (folder / "_info.json").write_text(json.dumps({"splits": {split: {"filenames": [f"{split}.tar"]} for split in members}} | (info or {})))
    return f"wds:{folder}"


def test_an_empty_label_in_a_shard_is_none(tmp_path: Path) -> None:
    for info in ({}, {"class_names": ANIMALS.tolist()}):
        source = open_source(shards(tmp_path, {"train": [{"cls": text} for text in ("0", "", "1", " ")]}, info))
        assert source.labels.tolist() == [0, -1, 1, -1]
    source = open_source(shards(tmp_path, {"train": [{"cls": text} for text in ("bee", "", "ant")]}, {"class_names": ANIMALS.tolist()}))
    assert source.labels.tolist() == [1, -1, 0]
    source = open_source(shards(tmp_path, {"train": [{"json": json.dumps({"label": label})} for label in (0, None, 1, "")]}))
    assert source.labels.tolist() == [0, -1, 1, -1] and not source.skipped


def test_the_test_shards_are_numbered_by_names_and_hold_no_other_class(tmp_path: Path) -> None:
    train = [{"cls": name} for name in ANIMALS]
    assert named(held_out_part(open_source(shards(tmp_path, {"train": train, "dev": [{"cls": "cow"}, {"cls": "bee"}]})))) == ["cow", "bee"]
    for label, first in (("elk", "ant"), ("7", "0")):
        with pytest.raises(LabelError, match=f"0001': {label}"):
            held_out_part(open_source(shards(tmp_path, {"train": train, "test": [{"cls": first}, {"cls": label}]})))


def test_a_json_member_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.tar: the member json of '0001'"):
        open_source(shards(tmp_path, {"train": [{"json": '{"label": 0}'}, {"json": "{"}]}))


class Items(torch.utils.data.Dataset):
    """The drawn shapes in some form, with these labels and attributes."""

    def __init__(self, images: Any, labels: Any, **attributes: Any) -> None:
        self.images, self.held = images, labels
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Any:
        return self.images[row], self.held[row]


IMAGES, LABELS = draw_shapes(40, 0)


@pytest.mark.parametrize("form", ["255", "1", "half", "dark first"])
def test_floats_of_a_data_set_are_read_by_one_rule(form: str) -> None:
    expected = IMAGES.copy()
    if form == "dark first":
        expected[0] = 1  # by itself it could be an image in [0, 1], all white
    given = expected.astype(np.float32) / (255 if form == "1" else 1)
    source = open_source(Items(given.astype(np.float16) if form == "half" else given, LABELS))
    assert all((source.read_input(row) == expected[row]).all() for row in range(40))


@pytest.mark.parametrize("form", ["arrays", "function"])
@pytest.mark.parametrize("kind", ["255", "1", "uint8"])
def test_floats_of_a_test_part_are_read_as_those_of_the_training_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, kind: str) -> None:
    dark = np.clip(IMAGES // 200, 0, 1)  # by themselves they could be images in [0, 1], black and white
    test = dark if kind == "255" else IMAGES // 4
    train, given = (images / np.float32(1 if kind == "255" else 255) for images in (IMAGES, test))
    train = IMAGES if kind == "uint8" else train

    def opened(test: Any) -> Source:
        if form == "arrays":
            np.savez(tmp_path / "x.npz", x_train=train, y_train=LABELS, x_test=test, y_test=LABELS)
            return open_source(str(tmp_path / "x.npz"))
        monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(make=lambda: (Items(train, LABELS), Items(test, LABELS))))
        return open_source("mine:make")

    load_test = opened(given).load_test
    assert load_test is not None and all((load_test().read_input(row) == test[row]).all() for row in range(40))
    if kind == "1":
        load_test = opened(IMAGES.astype(np.float32)).load_test
        with pytest.raises(DataError, match=r"values lie in \[0, 2\d\d\], those of .*Scale (both|all images) alike"):
            [load_test().read_input(row) for row in range(40)] if load_test else None


def test_floats_that_leave_the_range_a_little_are_no_wrapped_numbers(tmp_path: Path) -> None:
    given = (IMAGES - IMAGES.min()) / np.float32(np.ptp(IMAGES)) * 1.012 - 0.005  # as splines leave what they resized
    np.savez(tmp_path / "x.npz", x_train=given, y_train=LABELS)
    source = open_source(str(tmp_path / "x.npz"))
    assert all((source.read_input(row) == np.round(np.clip(given[row], 0, 1) * 255)).all() for row in range(40))


def test_standardised_inputs_keep_their_order_in_every_image() -> None:
    standardised = (IMAGES / np.float32(255) - 0.5) / 0.25
    standardised[0] = 0.5  # this one by itself would be taken for an image in [0, 1]
    source = open_source(Items(standardised, LABELS))
    assert (source.read_input(0) == 160).all() and np.ptp(source.read_input(3)) > 100


@pytest.mark.parametrize(
    ("images", "labels", "attributes", "said"),
    [
        (IMAGES.astype(np.uint16) * 257, LABELS, {}, r"values lie in \[.*\]; give pixels"),
        (np.r_[IMAGES[:39].astype(float), np.full((1, 16, 16, 1), np.nan)], LABELS, {}, "row 39 holds NaN"),
        (IMAGES, LABELS * 0.5, {}, "row 0: 1.5|not whole numbers"),
        (IMAGES, np.eye(4)[LABELS], {}, "one class a sample"),
        (IMAGES, torch.eye(4)[torch.tensor(LABELS)], {"targets": torch.eye(4)[torch.tensor(LABELS)]}, "one class a sample"),
        (IMAGES, ["elk", *ANIMALS[LABELS[1:]]], {"classes": ANIMALS.tolist()}, "labels elk are not among"),
        (IMAGES, LABELS, {"sample_ids": ["a", "b"]}, "2 ids .sample_ids., the data set has 40"),
        (IMAGES, dict(enumerate(LABELS[:30])), {}, "row 30 cannot be read .KeyError: 30"),
    ],
)
def test_items_that_cannot_be_used_are_refused_with_the_row_named(images: Any, labels: Any, attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_source(Items(images, labels, **attributes))


def test_images_of_five_bands_are_refused_where_they_would_be_trained_on_and_taken_from_a_loop_of_ones_own() -> None:
    items = Items(IMAGES[:, :, :, 0, None].repeat(5, 3), LABELS)
    with pytest.raises(DataError, match=r"row 0 has shape \(16, 16, 5\)"):
        source_of_dataset(items, "module:function")
    assert open_source(items).kind == "array" and open_source(items).read_input(3).shape == (16, 16, 5)
    with pytest.raises(DataError, match=r"neither images .*Record your own training"):
        inputs_of(open_source(items), None)


def test_names_as_labels_are_numbered_by_the_classes() -> None:
    names = ANIMALS[LABELS]
    assert named(open_source(Items(IMAGES, names))) == names.tolist()
    source = open_source(Items(IMAGES, names, classes=ANIMALS[::-1].tolist()))
    assert source.class_names == tuple(ANIMALS[::-1]) and named(source) == names.tolist()
    assert open_source(Items(IMAGES, np.where(LABELS == 3, np.nan, LABELS))).labels.min() == -1


def make_both() -> Any:
    """A test part that lacks a class, numbered without it as torchvision's folders are."""
    rows = LABELS > 0
    return Items(IMAGES, LABELS, classes=ANIMALS.tolist()), Items(IMAGES[rows], LABELS[rows] - 1, classes=ANIMALS[1:].tolist())


def make_nothing() -> Any:
    raise RuntimeError("no data today")


def test_a_function_gives_its_test_part_by_names_or_says_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    assert named(held_out_part(open_source("test_sources_labels:make_both"))) == ANIMALS[LABELS[LABELS > 0]].tolist()
    with pytest.raises(DataError, match=r"test_sources_labels:make_nothing: the function failed .RuntimeError: no data today"):
        open_source("test_sources_labels:make_nothing")


def test_two_classes_of_one_name_in_torchvision_stay_apart() -> None:
    assert open_source(Items(IMAGES, LABELS, classes=["crane", "bee", "crane", "dog"])).class_names == ("crane (0)", "bee", "crane (2)", "dog")
    several = [("tench", "Tinca tinca"), ("crane",), ["crane"], (b"dog", "hound")]  # as torchvision's ImageNet names them
    assert open_source(Items(IMAGES, LABELS, classes=several)).class_names == ("tench, Tinca tinca", "crane (1)", "crane (2)", "dog, hound")


@pytest.mark.parametrize(("mode", "pixels", "shown"), [
    ("I;16B", (np.arange(256).reshape(16, 16) * 256).astype(">u2"), np.arange(256)), ("F", np.arange(256, dtype=np.float32).reshape(16, 16) / 255, np.arange(256)),
    ("F", np.arange(256, dtype=np.float32).reshape(16, 16), np.arange(256)), ("I", np.arange(256, dtype=np.int32).reshape(16, 16), np.arange(256)),
    ("I", np.arange(256, dtype=np.int32).reshape(16, 16) * 256, np.arange(256)),
])  # fmt: skip
def test_deep_tiff_files_are_decoded_by_their_range(tmp_path: Path, mode: str, pixels: np.ndarray, shown: np.ndarray) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        image = Image.frombytes(mode, (16, 16), pixels.tobytes())
        image.save(tmp_path / "set" / name / "x.tif")
        with Image.open(tmp_path / "set" / name / "x.tif") as saved:
            assert saved.mode == mode
    images, _ = load_images(open_source(str(tmp_path / "set")), cache=tmp_path / "cache")
    assert images.shape == (2, 16, 16, 1) and images[1].reshape(-1).tolist() == shown.tolist()


def test_a_tiff_file_of_other_numbers_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), np.nan if name == "b" else 1, np.float32)).save(tmp_path / "set" / name / "x.tif")
    with pytest.raises(DataError, match=r"b/x\.tif' cannot be decoded .*its pixels lie in \[nan"):
        load_images(open_source(str(tmp_path / "set")), cache=tmp_path / "cache")
