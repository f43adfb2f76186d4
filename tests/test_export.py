"""Exports read back by the library that owns the format."""

import io
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision
from conftest import manifest_of
from numpy.dtypes import StringDType
from PIL import Image

from clprune import pipeline
from clprune.datatypes import Source, digest_of_ids, rows_of
from clprune.errors import DataError, StorageError, UsageError
from clprune.export import RECORD, export
from clprune.exporters._content import encoded
from clprune.manifest import Manifest
from clprune.sources import open_source


def test_ids_are_found_in_arrays_made_apart() -> None:
    names = ["class1/1.png", "with space/1.png", "with space/10.png", "Ä 3/1.png", "x" * 40]
    made_apart = np.array([names[1], "not there", names[4]], dtype=StringDType())
    assert rows_of(made_apart, np.array(names, dtype=StringDType())).tolist() == [1, -1, 4]


@pytest.fixture
def pruned(image_folder: Path, tmp_path: Path) -> tuple[Source, list[int], Manifest]:
    """Of 18 images seven are kept; class2 loses all of its own."""
    source = open_source(str(image_folder))
    gone = source.class_names.index("class2")
    kept = [row for row in range(len(source)) if source.labels[row] != gone][::2]
    return source, kept, manifest_of(source, kept, tmp_path / "m")


def test_torchvision_reads_the_kept_images_with_their_class_numbers_also_when_a_class_is_empty(
    pruned: tuple[Source, list[int], Manifest], tmp_path: Path
) -> None:
    source, kept, manifest = pruned
    report = export(manifest, source, "imagefolder", tmp_path / "out")
    assert report["link"] == "hardlink" and report["empty_classes"] == ["class2"]
    read = torchvision.datasets.ImageFolder(str(tmp_path / "out"), allow_empty=True)
    assert read.classes == list(source.class_names)
    found = {Path(path).relative_to(tmp_path / "out").as_posix(): label for path, label in read.samples}
    assert found == {str(source.sample_ids[row]): int(source.labels[row]) for row in kept}
    for path, _ in read.samples:
        assert os.path.samefile(path, (source.paths or [])[source.sample_ids.tolist().index(Path(path).relative_to(tmp_path / "out").as_posix())])
    assert report["bytes_written"] == sum((tmp_path / "out" / name).stat().st_size for name in ("class_map.json", RECORD))  # links write nothing


@pytest.mark.parametrize("link", ["symlink", "copy"])
def test_other_ways_of_linking_give_the_same_content(pruned: tuple[Source, list[int], Manifest], tmp_path: Path, link: str) -> None:
    source, kept, manifest = pruned
    report = export(manifest, source, f"imagefolder(link={link!r})", tmp_path / "out")
    assert report["link"] == link
    for row in kept:
        path = tmp_path / "out" / str(source.sample_ids[row])
        assert path.is_symlink() == (link == "symlink") and path.read_bytes() == (source.paths or [])[row].read_bytes()


def test_class_numbers_survive_names_whose_order_is_another_or_that_cannot_be_folders(tmp_path: Path) -> None:
    images, labels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8), np.arange(12) % 4
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, class_names=np.array(["zebra", "a/b", "..", "Zebra"]))
    source = open_source(str(tmp_path / "x.npz"))
    export(manifest_of(source, list(range(12)), tmp_path / "m"), source, "imagefolder", tmp_path / "out")
    read = torchvision.datasets.ImageFolder(str(tmp_path / "out"))
    assert sorted(label for _, label in read.samples) == sorted(labels.tolist())
    for path, label in read.samples:
        np.testing.assert_array_equal(np.asarray(read.loader(path))[..., 0], images[int(Path(path).stem)])
        assert labels[int(Path(path).stem)] == label
    assert {path.name for path in tmp_path.iterdir()} == {"x.npz", "m", "out"}


def test_hugging_face_reads_the_kept_images_with_the_names_of_all_classes(pruned: tuple[Source, list[int], Manifest], tmp_path: Path) -> None:
    source, kept, manifest = pruned
    export(manifest, source, "hf", tmp_path / "out")
    read = datasets.load_from_disk(str(tmp_path / "out"))
    assert list(read["id"]) == source.sample_ids[kept].tolist() and list(read["label"]) == source.labels[kept].tolist()
    assert read.features["label"].names == list(source.class_names)
    for row, image in zip(kept, read["image"], strict=True):
        np.testing.assert_array_equal(np.asarray(image), np.asarray(source.read_input(row)))
    again = open_source(f"hf:{tmp_path / 'out'}")
    assert again.sample_ids.tolist() == source.sample_ids[kept].tolist() and again.class_names == source.class_names


def test_parquet_is_read_by_datasets_and_again_by_clprune(pruned: tuple[Source, list[int], Manifest], tmp_path: Path) -> None:
    source, kept, manifest = pruned
    export(manifest, source, "parquet", tmp_path / "out")
    read = datasets.Dataset.from_parquet(str(tmp_path / "out" / "train.parquet"), cache_dir=str(tmp_path / "cache"))
    assert list(read["label"]) == source.labels[kept].tolist() and read.features["label"].names == list(source.class_names)
    again = open_source(str(tmp_path / "out" / "train.parquet"))
    assert again.sample_ids.tolist() == source.sample_ids[kept].tolist()
    assert again.read_bytes is not None and source.read_bytes is not None and again.read_bytes(2)[0] == source.read_bytes(kept[2])[0]


def test_indices_hold_the_rows_of_the_source_as_it_is_now(tmp_path: Path) -> None:
    images, labels = np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype=np.uint8), np.arange(10) % 2
    ids, order = np.array([f"n{i}" for i in range(10)]), np.random.default_rng(1).permutation(10)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, ids=ids)
    np.savez(tmp_path / "b.npz", x_train=images[order], y_train=labels[order], ids=ids[order])
    a, b = open_source(str(tmp_path / "a.npz")), open_source(str(tmp_path / "b.npz"))
    manifest = manifest_of(a, [1, 4, 7], tmp_path / "m")
    export(manifest, b, "indices", tmp_path / "out")
    rows = np.load(tmp_path / "out" / "kept.npy")
    assert sorted(b.sample_ids[rows].tolist()) == ["n1", "n4", "n7"] and rows.dtype == np.int64
    assert digest_of_ids(b.sample_ids) in (tmp_path / "out" / "kept.json").read_text()


def test_a_destination_inside_the_data_is_refused(pruned: tuple[Source, list[int], Manifest], image_folder: Path) -> None:
    source, _, manifest = pruned
    with pytest.raises(UsageError, match="inside the data folder"):
        export(manifest, source, "imagefolder", image_folder / "out")


def test_an_unknown_form_names_those_that_exist(pruned: tuple[Source, list[int], Manifest], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="imagefolder, indices, label_studio, labels_csv, parquet"):
        export(pruned[2], pruned[0], "floppy", tmp_path / "out")


def test_on_another_file_system_the_next_way_that_works_is_used(pruned: tuple[Source, list[int], Manifest], tmp_path: Path) -> None:
    source, kept, manifest = pruned
    elsewhere = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path
    with tempfile.TemporaryDirectory(dir=elsewhere) as folder:
        report = export(manifest, source, "imagefolder", Path(folder) / "out")
        same = os.stat(folder).st_dev == os.stat(tmp_path).st_dev
        assert report["link"] == ("hardlink" if same else "symlink")  # a memory file system has no reflinks
        for row in kept:
            assert (Path(folder) / "out" / str(source.sample_ids[row])).samefile((source.paths or [])[row])


@pytest.mark.parametrize("form", ["imagefolder", "imagefolder(link='copy')", "webdataset", "parquet", "hf"])
def test_a_kept_file_that_is_gone_is_named_and_no_link_to_nothing_is_made(
    pruned: tuple[Source, list[int], Manifest], tmp_path: Path, form: str
) -> None:
    source, kept, manifest = pruned
    assert source.paths is not None
    gone = source.paths[kept[2]]
    gone.unlink()
    with pytest.raises(DataError, match=rf"{gone.name}.*[Rr]estore it, or score again"):
        export(manifest, source, form, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_that_is_put_in_the_place_of_a_folder_while_it_is_filled_is_not_followed(shapes_npz: Path, tmp_path: Path) -> None:
    plain = open_source(str(shapes_npz))
    manifest = manifest_of(plain, list(range(40)), tmp_path / "m")
    (tmp_path / "outside").mkdir()
    read = 0

    def swapping(index: int) -> Any:
        nonlocal read
        read += 1
        if read == 10:
            (side,) = tmp_path.glob(".out.*.partial")
            for folder in [path for path in side.iterdir() if path.is_dir()]:
                folder.rename(folder.with_name(f"was-{folder.name}"))
                folder.symlink_to(tmp_path / "outside")
        return plain.read_input(index)

    with pytest.raises(StorageError, match="out"):
        export(manifest, replace(plain, read_input=swapping), "imagefolder", tmp_path / "out")
    assert read == 10 and list((tmp_path / "outside").iterdir()) == [] and not (tmp_path / "out").exists()


def test_an_export_is_verified_by_the_record_in_it(image_folder: Path, tmp_path: Path) -> None:
    source = open_source(str(image_folder))
    manifest = manifest_of(source, list(range(12)), tmp_path / "m")
    for way in ("hardlink", "symlink", "copy"):
        export(manifest, source, f"imagefolder(link='{way}')", tmp_path / way)
        assert pipeline.verify(tmp_path / way, data=str(image_folder)) == []
    one = next((tmp_path / "copy").rglob("*.png"))
    one.write_bytes(one.read_bytes()[:-1])
    (problem,) = pipeline.verify(tmp_path / "copy")
    assert one.name in problem and "make it again" in problem
    (tmp_path / "copy" / ".clprune.json").unlink()
    with pytest.raises(DataError, match="nor an export"):
        pipeline.verify(tmp_path / "copy")


def test_force_replaces_an_export_and_nothing_else(
    shapes_npz: Path, shapes_run: Path, image_folder: Path, pruned: tuple[Source, list[int], Manifest], tmp_path: Path
) -> None:
    made = pipeline.select(shapes_run, tmp_path / "project" / "subset", keep="0.5")
    data = tmp_path / "project" / "data" / "shapes.npz"
    data.parent.mkdir()
    data.write_bytes(shapes_npz.read_bytes())
    source = open_source(str(data))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    for place, said in (
        (data.parent, "holds the data"),
        (tmp_path / "project", "holds the manifest"),
        (made.folder, "holds the manifest"),
        (tmp_path / "other", "no export wrote"),
    ):
        with pytest.raises(UsageError, match=said):
            export(made, source, "indices", place, force=True)
    with pytest.raises(UsageError, match="holds the"):
        export(pruned[2], pruned[0], "indices", image_folder.parent, force=True)
    assert data.exists() and (tmp_path / "other" / "thesis.tex").exists() and (made.folder / "manifest.json").exists()
    for _ in range(2):
        export(made, source, "indices", tmp_path / "out", force=True)


def test_suffixes_of_any_case_stay_single(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / "data" / name / "one.JPG")
    source = open_source(str(tmp_path / "data"))
    export(manifest_of(source, [0, 1], tmp_path / "m"), source, "imagefolder", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.JPG*")) == ["one.JPG", "one.JPG"]


def images_of(folder: Path, ids: list[str], form: str = "PNG", labels: list[int] | None = None) -> Source:
    """A Parquet file of images of this form under these ids; the two classes in turn unless told otherwise."""
    rng, contents = np.random.default_rng(0), []
    for _ in ids:
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(content := io.BytesIO(), form)
        contents.append(content.getvalue())
    pq.write_table(pa.table({"image": contents, "id": ids, "label": labels or [row % 2 for row in range(len(ids))]}), folder / "t.parquet")
    return open_source(str(folder / "t.parquet"))


def read_back(source: Source, folder: Path) -> None:
    """torchvision and webdataset find all samples in exports of all of them, with their labels and bytes."""
    manifest = manifest_of(source, list(range(len(source))), folder / "m")
    export(manifest, source, "imagefolder", folder / "out")
    read = torchvision.datasets.ImageFolder(str(folder / "out"))
    assert sorted((label, Path(path).read_bytes()) for path, label in read.samples) == sorted(
        (int(source.labels[row]), encoded(source, row)[0]) for row in range(len(source))
    )
    export(manifest, source, "webdataset", folder / "shards")
    again = open_source(f"wds:{folder / 'shards'}")
    assert again.sample_ids.tolist() == source.sample_ids.tolist() and again.labels.tolist() == source.labels.tolist()


def test_images_without_a_suffix_or_with_another_than_libraries_know_are_found(tmp_path: Path) -> None:
    read_back(images_of(tmp_path, ["a", "b.jpg", "c", "d"], "TIFF"), tmp_path)
    for way in ("", ".jfif"):
        folder = tmp_path / f"files{way}"
        folder.mkdir()
        for row in range(4):
            Image.new("RGB", (8, 8), (row, 9, 9)).save(folder / f"{row}{way}", "JPEG")
        (folder / "t.csv").write_text("path,label\n" + "".join(f"{row}{way},{row % 2}\n" for row in range(4)))
        read_back(open_source(str(folder / "t.csv")), folder)
        assert sorted(path.name for path in (folder / "out").rglob("*.jpg")) == [f"{row}{way}.jpg" for row in range(4)]


def test_what_torchvision_passes_over_is_told(tmp_path: Path) -> None:
    source = images_of(tmp_path, ["a", "b", "c", "d"], "GIF")
    report = export(manifest_of(source, [0, 1], tmp_path / "m"), source, "imagefolder", tmp_path / "out")
    assert "passes over .gif" in report["note"]


def test_ids_that_are_too_long_for_a_file_or_lie_inside_another_one_are_handed_over(tmp_path: Path) -> None:
    long = ["x" * 400 + str(row) for row in range(2)] + ["é" * 130, "/".join(["deep"] * 1200)]
    read_back(
        images_of(tmp_path, [*long, "a.png", "a.png/1", "A.PNG/1.png", "b/c.png", "b/c.png/d/e", "b", "b.png"], labels=[0, 1, *[0] * 9]), tmp_path
    )
    (tmp_path / "turned").mkdir()
    read_back(images_of(tmp_path / "turned", ["a.png/1", "a.png", "c"], labels=[0, 0, 1]), tmp_path / "turned")


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "F", "LA", "P", "1", "I;16"])
def test_open_images_of_every_mode_are_handed_over(tmp_path: Path, mode: str) -> None:
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    image = (
        Image.fromarray(np.arange(256, dtype=np.float32).reshape(16, 16) / 255)
        if mode == "F"
        else gray.convert("I").convert(mode)
        if mode == "I;16"
        else gray.convert(mode)
    )
    source = replace(open_source([(image, row % 2) for row in range(4)]), locator="mine")
    export(manifest_of(source, [0, 1], tmp_path / "m"), source, "imagefolder", tmp_path / "out")
    read = torchvision.datasets.ImageFolder(str(tmp_path / "out"), loader=Image.open)
    assert len(read) == 2
    expected = image.convert("RGB") if mode in ("CMYK", "YCbCr") else image
    np.testing.assert_array_equal(np.asarray(read[0][0]), np.asarray(expected))


def test_an_open_image_keeps_its_orientation(tmp_path: Path) -> None:
    image = Image.new("RGB", (12, 8))
    image.getexif()[0x0112] = 6
    content, suffix = encoded(open_source([(image, 0), (image, 1)]), 0)
    assert suffix == ".png" and Image.open(io.BytesIO(content)).getexif()[0x0112] == 6


def test_an_export_does_not_replace_the_shards_or_files_that_it_is_made_from(tmp_path: Path) -> None:
    first = images_of(tmp_path, [f"i{row}" for row in range(12)])
    manifest = manifest_of(first, list(range(12)), tmp_path / "m")
    export(manifest, first, "webdataset(samples_per_shard=4)", tmp_path / "shards")
    export(manifest, first, "imagefolder", tmp_path / "files")
    export(manifest, first, "hf", tmp_path / "hf")
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"files/{row % 2}/i{row}.png,{row % 2}\n" for row in range(12)))
    for number, (locator, place) in enumerate(
        (
            (f"wds:{tmp_path}/shards/train-{{000000..000002}}.tar", "shards"),
            (f"wds:{tmp_path}/shards/*.tar", "shards"),
            (f"{tmp_path}/t.csv", "files"),
            (f"hf:{tmp_path}/hf", "hf"),
        )
    ):
        source, before = open_source(locator), sorted((tmp_path / place).rglob("*"))
        second = manifest_of(source, [0, 3], tmp_path / f"m{number}")
        with pytest.raises(UsageError, match="holds the data"):
            export(second, source, "webdataset", tmp_path / place, force=True)
        assert sorted((tmp_path / place).rglob("*")) == before
    source = open_source(f"wds:{tmp_path}/shards")
    with pytest.raises(UsageError, match="inside the data folder"):  # where it would be read as a part of them
        export(manifest_of(source, [0, 3], tmp_path / "m9"), source, "webdataset", tmp_path / "shards" / "pruned")


def test_what_an_export_of_other_labels_left_is_not_taken_up(tmp_path: Path) -> None:
    ids, n_read = [f"i{row}" for row in range(12)], 0
    source = images_of(tmp_path, ids)

    def stopping(row: int) -> tuple[bytes, str]:
        nonlocal n_read
        n_read += 1
        if n_read > 6:
            raise KeyboardInterrupt
        assert source.read_bytes is not None
        return source.read_bytes(row)

    with pytest.raises(KeyboardInterrupt):
        export(
            manifest_of(source, list(range(12)), tmp_path / "m"),
            replace(source, read_bytes=stopping),
            "webdataset(samples_per_shard=4)",
            tmp_path / "out",
        )
    mended = images_of(tmp_path, ids, labels=[1, *(row % 2 for row in range(1, 12))])
    export(manifest_of(mended, list(range(12)), tmp_path / "m2"), mended, "webdataset(samples_per_shard=4)", tmp_path / "out")
    assert open_source(f"wds:{tmp_path / 'out'}").labels.tolist() == mended.labels.tolist()
