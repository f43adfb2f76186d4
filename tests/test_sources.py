"""Sources on real files, good and bad."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from conftest import draw_shapes
from PIL import Image

from clprune.decoding import load_images
from clprune.errors import DataError, LabelError, UsageError
from clprune.sources import open_source
from clprune.sources.python_dataset import source_of_dataset


def test_folder_classes_are_numbered_as_torchvision_numbers_them(image_folder: Path) -> None:
    source, judge = open_source(str(image_folder)), torchvision.datasets.ImageFolder(str(image_folder))
    assert list(source.class_names) == judge.classes
    expected = {Path(path).relative_to(image_folder).as_posix(): label for path, label in judge.samples}
    assert dict(zip(source.sample_ids.tolist(), source.labels.tolist(), strict=True)) == expected
    assert source.sample_bytes.tolist() == [path.stat().st_size for path in source.paths or []]


def test_train_and_test_folders_are_the_splits(image_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "both"
    root.mkdir()
    os.rename(image_folder, root / "train")
    (root / "test" / "class2").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(root / "test" / "class2" / "x.png")
    source = open_source(str(root))
    assert source.load_test is not None
    assert source.load_test().labels.tolist() == [source.class_names.index("class2")]


def test_broken_files_are_listed_by_name_and_left_out_or_refused(image_folder: Path) -> None:
    whole = (image_folder / "class1" / "1.png").read_bytes()
    (image_folder / "class1" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (image_folder / "class1" / "empty.jpg").write_bytes(b"")
    (image_folder / "class1" / "words.png").write_text("not an image")
    (image_folder / "class1" / "notes.txt").write_text("not meant to be one")
    source = open_source(str(image_folder))
    assert {name for name, _ in source.skipped} == {f"class1/{name}" for name in ("cut.png", "empty.jpg", "words.png", "notes.txt")}
    assert len(source) == 18
    with pytest.raises(DataError, match=r"class1/cut\.png"):
        open_source(str(image_folder), strict=True)


def test_a_jpeg_that_is_cut_off_is_left_out(image_folder: Path) -> None:
    path = image_folder / "class1" / "cut.jpg"
    Image.effect_noise((64, 64), 80).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-400])
    assert open_source(str(image_folder)).skipped == (("class1/cut.jpg", "the file is cut off"),)


def test_links_out_of_the_folder_and_loops_are_seen(image_folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    Image.new("RGB", (20, 20)).save(outside)
    os.symlink(outside, image_folder / "class1" / "out.png")
    os.symlink(image_folder / "class1", image_folder / "class1" / "loop")
    source = open_source(str(image_folder))
    assert len(source) == 18 and len(source.skipped) == 2


def test_links_to_nothing_and_what_may_not_be_read_are_left_out_by_name(image_folder: Path) -> None:
    for link, to in (("class1/itself.png", "itself.png"), ("class1/nothing.png", "gone.png"), ("itself", "itself")):
        os.symlink(to, image_folder / link)
    left_out = [("class1/itself.png", "a link to nothing"), ("class1/nothing.png", "a link to nothing")]
    assert open_source(str(image_folder)).skipped == tuple(left_out)
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)  # so that somebody else may look into it
        root = Path(shutil.copytree(image_folder, f"{place}/set", symlinks=True))
        (root / "class1" / "deep").mkdir()
        (root / "class1" / "deep").chmod(0)
        for name in ("t.csv", "t.jsonl"):
            (Path(place) / name).touch(0)
        root_user = os.geteuid() == 0
        try:
            os.seteuid(65534) if root_user else None
            skipped = open_source(str(root)).skipped
            for name in ("t.csv", "t.jsonl"):
                with pytest.raises(DataError, match=rf"{name} cannot be read .*Permission denied"):
                    open_source(f"{place}/{name}")
        finally:
            os.seteuid(0) if root_user else None
            (root / "class1" / "deep").chmod(0o755)
        assert skipped == (("class1/deep", "the folder cannot be read (Permission denied)"), *left_out)


def test_a_name_that_is_not_utf8_gets_an_id_that_is(image_folder: Path) -> None:
    Image.new("RGB", (20, 20)).save(os.fsdecode(os.fsencode(image_folder / "class1") + b"/\xff.png"))
    assert "class1/\\xff.png" in open_source(str(image_folder)).sample_ids.tolist()


def npz(path: Path, **arrays: Any) -> str:
    images, labels = draw_shapes(40, 0)
    np.savez(path / "x.npz", **({"x_train": images, "y_train": labels} | arrays))
    return str(path / "x.npz")


@pytest.mark.parametrize(
    ("arrays", "error", "said"),
    [
        ({"y_train": np.zeros(40, dtype=int)}, LabelError, "one class"),
        ({"y_train": np.r_[np.arange(39) % 4, -3]}, LabelError, "row 39: -3"),
        ({"y_train": np.arange(40) % 4 - 9}, LabelError, r"negative .*a class number from 0 on"),
        ({"y_train": np.r_[np.arange(39) % 4, np.inf]}, LabelError, "row 39: inf"),
        ({"y_train": np.r_[np.arange(39) % 4, 1.5]}, LabelError, "row 39: 1.5"),
        ({"y_train": np.arange(39) % 4}, DataError, "40 samples"),
        ({"y_train": np.eye(4)[np.arange(40) % 4]}, DataError, r"\(40, 4\), x_train has 40 samples"),
        ({"y_train": np.arange(40) % 4, "class_names": np.array(["a", "b", "c"])}, LabelError, r"outside 0\.\.2"),
        ({"ids": np.array(["a", "a"] + [str(i) for i in range(38)])}, DataError, "more than once: a"),
        ({"ids": np.arange(30)}, DataError, r"ids has shape \(30,\), x_train has 40"),
        ({"ids": np.arange(80).reshape(40, 2)}, DataError, r"ids has shape \(40, 2\)"),
        ({"x_train": np.zeros((40, 5), dtype=np.uint8)}, DataError, "shape"),
        ({"x_train": np.zeros((40, 8, 8, 8), dtype=np.uint8)}, DataError, "C 1 or 3"),
        ({"x_train": np.full((40, 8, 8), np.nan)}, DataError, "rows 0, 1"),
        ({"x_train": np.full((40, 8, 8), 300.0)}, DataError, "values lie"),
    ],
)
def test_bad_arrays_are_refused_with_the_row_named(tmp_path: Path, arrays: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        open_source(npz(tmp_path, **arrays))


@pytest.mark.parametrize("scale", [1, 255])
def test_channels_first_and_a_column_of_labels_are_the_same_data(tmp_path: Path, scale: int) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 9, 7, 3), dtype=np.uint8), np.arange(40) % 4
    pixels = images if scale == 1 else images / np.float32(255)
    held = {name: open_source(npz(tmp_path, x_train=x, y_train=y)) for name, x, y in (
        ("last", pixels, labels), ("first", np.ascontiguousarray(np.moveaxis(pixels, 3, 1)), labels[:, None]),
    )}  # fmt: skip
    assert held["first"].fingerprint == held["last"].fingerprint and held["first"].labels.tolist() == labels.tolist()
    assert all((held["first"].read_input(row) == images[row]).all() for row in range(40))
    three_wide = open_source(npz(tmp_path, x_train=images[:, :3, :3]))  # all axes are 3 long: channels last, as written down
    assert (three_wide.read_input(5) == images[5, :3, :3]).all()


def test_another_label_array_can_be_picked_and_changes_the_fingerprint(tmp_path: Path) -> None:
    path = npz(tmp_path, y_other=np.arange(40) % 2)
    assert open_source(f"{path}?labels=y_other").labels.tolist() == (np.arange(40) % 2).tolist()
    assert open_source(f"{path}?labels=y_other").fingerprint != open_source(path).fingerprint
    with pytest.raises(DataError, match="y_none"):
        open_source(f"{path}?labels=y_none")


def test_a_class_with_one_image_is_noted(tmp_path: Path) -> None:
    labels = np.r_[np.arange(39) % 3, 3]
    assert "single sample of 3" in open_source(npz(tmp_path, y_train=labels)).facts["notes"][0]


def test_a_cut_off_file_is_a_data_error(tmp_path: Path) -> None:
    path = Path(npz(tmp_path))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="not a readable"):
        open_source(str(path))


@pytest.mark.parametrize("locator", ["nowhere/at/all", "missing.npz", "missing.parquet", "torchvision:NoSuchSet", "nomodule:nofunction"])
def test_what_does_not_exist_is_named(locator: str) -> None:
    with pytest.raises((DataError, UsageError), match=locator.partition(":")[2] or locator.partition("?")[0]):
        open_source(locator)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders"):
        open_source(str(tmp_path))
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no samples"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_tables_of_paths_read_alike_in_every_form_and_order(image_folder: Path, form: str) -> None:
    folder = open_source(str(image_folder))
    names = [folder.class_names[label] for label in folder.labels]
    table = pa.table({"id": folder.sample_ids.tolist(), "path": folder.sample_ids.tolist(), "label": names})
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    prints = set()
    for number, content in enumerate((table, shuffled)):
        path = image_folder / f"list{number}.{form}"
        if form == "parquet":
            pq.write_table(content, path)
        elif form == "csv":
            pa.csv.write_csv(content, path)
        else:
            path.write_text("".join(f"{row}\n" for row in map(__import__("json").dumps, content.to_pylist())))
        prints.add(open_source(str(path)).fingerprint)
    assert prints == {folder.fingerprint}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"label": [0, 1]}, "needs a column"),
        ({"text": ["a", "b"], "label": ["x", None]}, "all 1 labelled samples are of one class"),
        ({"text": ["a", "b"], "label": [0.0, 0.5]}, "row 1: 0.5"),
        ({"text": ["a", "b"], "label": [0, 1], "id": ["q", "q"]}, "more than once: q"),
        ({"path": ["no.png", "no2.png"], "label": [0, 1]}, "no such file"),
    ],
)
def test_bad_tables_are_refused_with_the_row_named(tmp_path: Path, table: dict[str, Any], said: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=said):
        open_source(str(tmp_path / "t.parquet"))


class Pairs(torch.utils.data.Dataset):
    def __init__(self, form: str) -> None:
        self.images, self.labels_of, self.form = *draw_shapes(30, 0), form

    def __len__(self) -> int:
        return 30

    def __getitem__(self, row: int) -> Any:
        x, y = torch.from_numpy(self.images[row]).permute(2, 0, 1).float() / 255, int(self.labels_of[row])
        return {"tuple": (x, y, "more"), "mapping": {"image": x, "label": y}, "array": (self.images[row], y)}[self.form]


def make_mapping() -> Pairs:
    return Pairs("mapping")


@pytest.mark.parametrize("form", ["tuple", "mapping", "array"])
def test_any_torch_data_set_gives_the_same_images(form: str) -> None:
    from clprune.sources.python_dataset import source_of_dataset

    source = source_of_dataset(Pairs(form), "mine")
    assert source.labels.tolist() == draw_shapes(30, 0)[1].tolist()
    np.testing.assert_array_equal(source.read_input(3), draw_shapes(30, 0)[0][3])


def test_a_function_of_the_users_module_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    assert len(open_source("test_sources:make_mapping")) == 30


def test_torchvision_and_hugging_face_folders_read_what_was_saved(tmp_path: Path, image_folder: Path) -> None:
    import datasets

    images, labels = draw_shapes(20, 0)
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for split, name in (("train", "train"), ("t10k", "t10k")):
        header = np.array([0x803, 20, 16, 16], dtype=">u4").tobytes()
        (tmp_path / "MNIST" / "raw" / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (tmp_path / "MNIST" / "raw" / f"{split}-labels-idx1-ubyte").write_bytes(
            np.array([0x801, 20], dtype=">u4").tobytes() + labels.astype(np.uint8).tobytes()
        )
    source = open_source(f"torchvision:MNIST?root={tmp_path}")
    assert source.labels.tolist() == labels.tolist() and source.load_test is not None and len(source.load_test()) == 20
    np.testing.assert_array_equal(np.asarray(source.images), images)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c", "d"])})
    records = {"img": [Image.fromarray(image[..., 0]) for image in images], "label": labels.tolist()}
    datasets.Dataset.from_dict(records, features=features).save_to_disk(str(tmp_path / "hf"))
    saved = open_source(f"hf:{tmp_path / 'hf'}")
    assert saved.class_names == ("a", "b", "c", "d") and saved.labels.tolist() == labels.tolist()
    np.testing.assert_array_equal(np.asarray(saved.read_input(4)), images[4, ..., 0])


def test_images_of_unlike_sizes_and_modes_come_to_one_form_and_are_decoded_once(image_folder: Path, tmp_path: Path) -> None:
    Image.new("L", (40, 30), 7).save(image_folder / "class1" / "gray.png")
    Image.new("RGBA", (30, 50), (255, 0, 0, 0)).save(image_folder / "class1" / "clear.png")
    Image.fromarray(np.full((25, 25), 512, dtype=np.uint16)).save(image_folder / "class1" / "deep.png")
    source = open_source(str(image_folder))
    images, rule = load_images(source, cache=tmp_path / "cache")
    assert images.shape == (21, 20, 20, 3) and rule["resized"] and rule["size"] == [20, 20]
    place = source.sample_ids.tolist().index
    assert (images[place("class1/clear.png")] == 255).all()  # transparency shows white
    assert (images[place("class1/gray.png")] == 7).all() and (images[place("class1/deep.png")] == 2).all()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    again, _ = load_images(source, cache=tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == files
    np.testing.assert_array_equal(again, images)


def test_a_changed_cache_is_made_again(image_folder: Path, tmp_path: Path) -> None:
    source = open_source(str(image_folder))
    images = np.array(load_images(source, cache=tmp_path)[0])
    path = next(tmp_path.glob("*.npy"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 255
    path.write_bytes(content)
    np.testing.assert_array_equal(load_images(source, cache=tmp_path)[0], images)


def test_small_gray_images_stay_as_they_are(image_folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = {path: rng.integers(0, 256, (12, 14), dtype=np.uint8) for path in sorted(image_folder.rglob("*.png"))}
    for path, image in pixels.items():
        Image.fromarray(image).save(path)
    source = open_source(str(image_folder))
    images, rule = load_images(source, cache=tmp_path / "cache")
    assert images.shape == (18, 12, 14, 1) and not rule["resized"]
    for row, path in enumerate(source.paths or []):
        np.testing.assert_array_equal(images[row, ..., 0], pixels[path])


def test_the_embedded_sample_is_whole() -> None:
    source = open_source("fashion-mnist-sample")
    assert len(source) == 12_000 and source.n_classes == 10 and np.bincount(source.labels).min() > 1100


def test_images_that_changed_without_changing_size_are_decoded_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((8, 8, 3), 10 * number, dtype=np.uint8)).save(tmp_path / "data" / name / f"{number}.bmp")
    first = np.array(load_images(open_source(str(tmp_path / "data")), cache=tmp_path / "cache")[0])
    path = tmp_path / "data" / "a" / "1.bmp"
    written = path.stat()
    Image.fromarray(np.full((8, 8, 3), 200, dtype=np.uint8)).save(path)
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns + 1))
    assert path.stat().st_size == written.st_size
    again = load_images(open_source(str(tmp_path / "data")), cache=tmp_path / "cache")[0]
    assert (again != first).any(axis=(1, 2, 3)).tolist() == [False, True, False, False] and (again[1] == 200).all()


def test_what_code_makes_is_made_again(tmp_path: Path) -> None:
    class Made:
        value = 10

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            return np.full((6, 6, 3), self.value, dtype=np.uint8), index % 2

    data = Made()
    assert (load_images(source_of_dataset(data, "made"), cache=tmp_path)[0] == 10).all()
    data.value = 77  # a transform that was mended: ids, labels and sizes are as before
    assert (load_images(source_of_dataset(data, "made"), cache=tmp_path)[0] == 77).all()


def test_a_transform_that_changed_is_seen_though_the_files_did_not(image_folder: Path, tmp_path: Path) -> None:
    seen = []
    for invert in (False, True):
        data = torchvision.datasets.ImageFolder(str(image_folder), transform=torchvision.transforms.functional.invert if invert else None)
        seen.append(np.array(load_images(source_of_dataset(data, "folder"), cache=tmp_path / "cache")[0]))
    assert (seen[1] == 255 - seen[0]).all()
