"""Handing over to other libraries in their own form: shards, labelling queues, metadata, and subsets of what is open already."""

import io
import json
import random
import subprocess
import sys
import tarfile
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torchvision
from conftest import draw_shapes, manifest_of
from readers import READERS
from torch.utils.data import DataLoader, TensorDataset

import clprune
from clprune import pipeline
from clprune.errors import FingerprintError, StorageError, UsageError
from clprune.export import export
from clprune.manifest import read_manifest
from clprune.sources import open_source


@pytest.fixture
def shapes(tmp_path: Path) -> tuple[Any, list[int], Any]:
    images, labels = draw_shapes(50, 0)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, class_names=np.array(["d", "a", "c", "b"]))
    source, kept = open_source(str(tmp_path / "x.npz")), sorted(random.Random(0).sample(range(50), 23))
    return source, kept, manifest_of(source, kept, tmp_path / "m")


def test_timm_reads_the_shards_with_their_labels_and_length(shapes: Any, tmp_path: Path) -> None:
    import timm.data

    source, kept, manifest = shapes
    export(manifest, source, "webdataset(samples_per_shard=10)", tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = timm.data.create_dataset("wds/", root=str(tmp_path / "out"), split="train", is_training=False, batch_size=1)
        assert len(read) == 23
        seen = [(np.asarray(image.convert("L")).tobytes(), label) for image, label in read]
    assert sorted(seen) == sorted((source.images[row].tobytes(), int(source.labels[row])) for row in kept)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_timm_reads_the_folders_with_the_class_numbers_of_the_source(shapes: Any, tmp_path: Path) -> None:
    import timm.data

    source, kept, manifest = shapes
    export(manifest, source, "imagefolder", tmp_path / "out")
    read = timm.data.create_dataset("", root=str(tmp_path / "out"))
    seen = [(np.asarray(image.convert("L")).tobytes(), label) for image, label in read]
    assert sorted(seen) == sorted((source.images[row].tobytes(), int(source.labels[row])) for row in kept)


def test_shards_are_the_same_bytes_each_time_and_count_through(shapes: Any, tmp_path: Path) -> None:
    source, _, manifest = shapes
    for name in ("a", "b"):
        export(manifest, source, "webdataset(samples_per_shard=10)", tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [".clprune.json", "_info.json", "train-000000.tar", "train-000001.tar", "train-000002.tar"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    with tarfile.open(tmp_path / "a" / "train-000002.tar") as shard:
        assert shard.getnames()[0] == "000000020.png"


def test_a_shard_is_what_a_plain_writer_makes_of_it_and_is_never_whole_in_memory(shapes: Any, tmp_path: Path) -> None:
    source, kept, manifest = shapes
    megabyte = 1 << 20

    def read(row: int) -> tuple[bytes, str]:
        return bytes([row]) * megabyte, ".jpeg"

    tracemalloc.start()
    export(manifest, replace(source, read_bytes=read), "webdataset", tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * megabyte  # of 23
    with tarfile.open(tmp_path / "plain.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for place, row in enumerate(kept):
            label = int(source.labels[row])
            about = {"class_name": source.class_names[label], "label": label, "sample_id": f"{row:02d}"}
            for ending, held in (("jpg", read(row)[0]), ("cls", b"%d" % label), ("json", json.dumps(about).encode())):
                member = tarfile.TarInfo(f"{place:09d}.{ending}")
                member.size = len(held)
                tar.addfile(member, io.BytesIO(held))
    assert (tmp_path / "out" / "train-000000.tar").read_bytes() == (tmp_path / "plain.tar").read_bytes()


def test_an_export_of_shards_goes_on_after_the_last_whole_one(shapes: Any, tmp_path: Path) -> None:
    source, _, manifest = shapes
    read: list[int] = []

    def failing_late(row: int) -> np.ndarray:
        read.append(row)
        if len(read) == 15:
            raise OSError(28, "No space left on device")
        return source.read_input(row)

    form = "webdataset(samples_per_shard=10)"
    with pytest.raises(StorageError, match="no space"):
        export(manifest, replace(source, read_input=failing_late), form, tmp_path / "out")
    assert not (tmp_path / "out").exists() and len(list(tmp_path.glob(".out.*.partial/train-*.tar"))) == 1
    del read[:]
    export(manifest, replace(source, read_input=lambda row: (read.append(row), source.read_input(row))[1]), form, tmp_path / "out")
    export(manifest, source, form, tmp_path / "whole")
    assert len(read) == 13 and not list(tmp_path.glob(".out.*"))
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_what_another_selection_left_is_not_taken_up(shapes: Any, tmp_path: Path) -> None:
    source, kept, manifest = shapes
    other = manifest_of(source, kept[:-1], tmp_path / "m2")

    def failing(row: int) -> np.ndarray:
        if row == kept[-2]:
            raise OSError(28, "No space left on device")
        return source.read_input(row)

    with pytest.raises(StorageError):
        export(other, replace(source, read_input=failing), "webdataset(samples_per_shard=10)", tmp_path / "out")
    export(manifest, source, "webdataset(samples_per_shard=10)", tmp_path / "out")
    assert [name for name, _, _ in READERS["webdataset"](tmp_path / "out", source)] == source.sample_ids[kept].tolist()


def test_suspects_are_queued_most_suspect_first_with_the_label_that_is_suggested(shapes_run: Path, shapes_npz: Path, tmp_path: Path) -> None:
    pipeline.select(shapes_run, tmp_path / "m", keep="0.5", strategy="blend(suspect_above=0.05)")
    manifest, source = read_manifest(tmp_path / "m"), open_source(str(shapes_npz))
    report = export(manifest, source, "label-studio(which='suspects', tasks_per_file=3, prefix='/data/')", tmp_path / "out")
    rows = {s["sample_id"]: s for s in manifest.samples.to_pylist()}
    tasks = [task for path in sorted((tmp_path / "out").glob("tasks-*.json")) for task in json.loads(path.read_text())]
    suspects = [s for s in rows.values() if s["reason"] == "label suspected wrong"]
    assert report["n_samples"] == len(tasks) == len(suspects) > 3 and report["form"].startswith("label_studio(")
    suspicion = [rows[task["data"]["sample_id"]]["suspicion"] for task in tasks]
    assert suspicion == sorted(suspicion, reverse=True)
    scores = [task["predictions"][0]["score"] for task in tasks]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == len(scores)
    for task in tasks:
        suggested = source.class_names[rows[task["data"]["sample_id"]]["suggested_label"]]
        assert task["predictions"][0]["result"][0]["value"]["choices"] == [suggested] and task["data"]["image"].startswith("/data/images/")
    with pytest.raises(UsageError, match="which='kept' or 'suspects'"):
        export(manifest, source, "label_studio(which='all')", tmp_path / "x")


def test_mlcroissant_validates_the_metadata(shapes: Any, tmp_path: Path) -> None:
    source, _, manifest = shapes
    told = export(manifest, source, "croissant(license='MIT', name='shapes')", tmp_path / "out")
    code = "import sys, warnings; warnings.simplefilter('ignore'); from mlcroissant.scripts.validate import main; from absl import app; app.run(main)"
    done = subprocess.run([sys.executable, "-c", code, "--jsonld", str(tmp_path / "out" / "croissant.json")], capture_output=True, text=True)
    assert done.returncode == 0 and "note" not in told, done.stderr


def test_a_subset_of_an_open_folder_is_what_was_kept_of_it(image_folder: Path, tmp_path: Path) -> None:
    source = open_source(str(image_folder))
    kept = [1, 4, 5, 11, 16]
    manifest = manifest_of(source, kept, tmp_path / "m")
    mine = torchvision.datasets.ImageFolder(str(image_folder), transform=torchvision.transforms.ToTensor())
    subset = manifest.subset(mine)
    assert [Path(mine.samples[row][0]).relative_to(image_folder).as_posix() for row in subset.indices] == source.sample_ids[kept].tolist()
    drawn = list(manifest.sampler(mine, seed=1))
    assert sorted(drawn) == list(subset.indices) and drawn == list(manifest.sampler(mine, seed=1)) != list(manifest.sampler(mine, seed=2))
    weights = manifest.row_weights(mine)
    assert np.flatnonzero(weights).tolist() == list(subset.indices) and weights.sum() == len(kept)
    (image_folder / "class1" / "1.png").unlink()
    with pytest.raises(FingerprintError, match="is not the data set"):
        manifest.subset(torchvision.datasets.ImageFolder(str(image_folder)))


def test_a_subset_of_a_reordered_hugging_face_set_follows_the_ids(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict(
        {"id": [f"n{i}" for i in range(20)], "text": [f"text {i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    )
    manifest = manifest_of(open_source(data), [2, 3, 5, 7], tmp_path / "m")
    assert list(manifest.subset(data)["id"]) == ["n2", "n3", "n5", "n7"]
    assert sorted(manifest.subset(data.shuffle(seed=3))["id"]) == ["n2", "n3", "n5", "n7"]
    with pytest.raises(FingerprintError):
        manifest.subset(data.select(range(19)))


def test_a_subset_of_a_hugging_face_set_goes_by_the_columns_that_were_scored(tmp_path: Path) -> None:
    kinds = datasets.Features(
        {"text": datasets.Value("string"), "fine": datasets.ClassLabel(num_classes=4), "coarse": datasets.ClassLabel(num_classes=2)}
    )
    kinds["key"] = datasets.Value("string")
    rows = {"text": [f"text {i}" for i in range(20)], "fine": [i % 4 for i in range(20)], "coarse": [i % 2 for i in range(20)]}
    data = datasets.Dataset.from_dict(rows | {"key": [f"k{i:02d}" for i in range(20)]}, features=kinds)
    data.save_to_disk(str(tmp_path / "set"))
    source = open_source(f"hf:{tmp_path / 'set'}?label=fine&id=key")
    manifest = manifest_of(source, [2, 3, 5, 7], tmp_path / "m")
    assert list(manifest.subset(data)["key"]) == ["k02", "k03", "k05", "k07"]
    assert sorted(manifest.subset(data.shuffle(seed=3))["key"]) == ["k02", "k03", "k05", "k07"]
    assert list(manifest.subset(data, source=source)["key"]) == ["k02", "k03", "k05", "k07"]
    with pytest.raises(FingerprintError, match="other labels"):  # rows of the source would not be those of this one
        manifest.subset(data.shuffle(seed=3), source=source)


def test_tensors_in_memory_are_taken_with_the_source_that_stands_for_them(shapes: Any) -> None:
    source, kept, manifest = shapes
    x, y = torch.from_numpy(source.images).float(), torch.from_numpy(source.labels)
    subset = manifest.subset(TensorDataset(x, y), source=source)
    assert torch.equal(torch.cat([b for _, b in DataLoader(subset, batch_size=7)]), y[kept])
    with pytest.raises(FingerprintError, match="other labels"):
        manifest.subset(TensorDataset(x, y.roll(1)), source=source)
    with pytest.raises(FingerprintError, match="has 49 samples"):
        manifest.subset(TensorDataset(x[:49], y[:49]), source=source)
    with pytest.raises(FingerprintError, match="is not the data set"):
        manifest.subset(TensorDataset(x, y))  # nothing shows that these are the rows that were scored
    with pytest.raises(UsageError, match="map-style"):
        manifest.subset(iter([]))


def test_both_spellings_name_a_form_and_options_stay_as_they_are(shapes: Any, tmp_path: Path) -> None:
    source, _, manifest = shapes
    for name in ("removal-list", "removal_list"):
        assert export(manifest, source, name, tmp_path / name)["form"] == "removal_list"
    export(manifest, source, "label-studio(prefix='gs://my-bucket/')", tmp_path / "ls")
    assert json.loads((tmp_path / "ls" / "tasks-00000.json").read_text())[0]["data"]["image"].startswith("gs://my-bucket/images/")


def test_the_whole_path_of_a_command_writes_a_removal_list(shapes_run: Path, tmp_path: Path) -> None:
    clprune.select(shapes_run, tmp_path / "m", keep="0.5")
    command = [sys.executable, "-m", "clprune", "export", str(tmp_path / "m"), "--to", "removal-list", str(tmp_path / "gone"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["n_samples"] == 300, done.stderr
    reasons = {line.rsplit(",", 2)[1] for line in (tmp_path / "gone" / "dropped.csv").read_text().splitlines()[1:]}
    assert reasons and "kept" not in reasons
