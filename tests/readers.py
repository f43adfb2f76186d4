"""Exports read back by the library that owns the format: (sample id, label, bytes) of every sample, in the order of the source; None: not held."""

from __future__ import annotations

import csv
import gc
import io
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import datasets
import numpy as np
import torchvision
import webdataset
from PIL import Image

from clprune.datatypes import Source, digest_of_ids
from clprune.exporters._content import encoded

Found = list[tuple[str, int | None, bytes | None]]


def sorted_by_row(found: Found, source: Source) -> Found:
    place = {name: row for row, name in enumerate(source.sample_ids.tolist())}
    return sorted(found, key=lambda held: place[held[0]])


def indices(folder: Path, source: Source) -> Found:
    told = json.loads((folder / "kept.json").read_text())
    rows = np.load(folder / "kept.npy")
    assert rows.dtype == np.int64 and told["indices"] == rows.tolist() == [int(line) for line in (folder / "kept_indices.txt").read_text().split()]
    assert told["order_digest"] == digest_of_ids(source.sample_ids)  # the order that the rows count in
    return [(name, int(source.labels[row]), None) for name, row in zip(told["ids"], rows, strict=True)]


def imagefolder(folder: Path, source: Source) -> Found:
    read = torchvision.datasets.DatasetFolder(str(folder), lambda path: Path(path).read_bytes(), is_valid_file=lambda path: True, allow_empty=True)
    classes = json.loads((folder / "class_map.json").read_text())["classes"]
    assert [entry["folder"] for entry in classes] == read.classes and tuple(entry["class_name"] for entry in classes) == source.class_names
    by_content = {(label, content): Path(path) for (path, label), (content, _) in zip(read.samples, read, strict=True)}
    found: Found = []
    for row, name in enumerate(source.sample_ids.tolist()):  # file names are made safe, so samples are known by what they hold
        key = (int(source.labels[row]), encoded(source, row)[0])
        if key in by_content and Path(name).stem.replace("\\", "_")[:5] in by_content[key].name:
            found.append((name, *key))
    assert len(found) == len(read)
    return found


def of_hugging_face(data: Any) -> Found:
    form = "text" if "text" in data.features else "image"
    if form == "image":
        data = data.cast_column("image", datasets.Image(decode=False))
    return [(s["id"], s["label"], s["text"].encode() if form == "text" else s["image"]["bytes"]) for s in data]


def hf(folder: Path, source: Source) -> Found:
    read = datasets.load_from_disk(str(folder))
    assert tuple(read.features["label"].names) == source.class_names
    return of_hugging_face(read)


def parquet(folder: Path, source: Source) -> Found:
    read = datasets.Dataset.from_parquet(str(folder / "train.parquet"), cache_dir=str(folder.parent / "cache"))
    assert tuple(read.features["label"].names) == source.class_names
    return of_hugging_face(read)


def of_webdataset(folder: Path, source: Source) -> Found:
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    found: Found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the library leaves its last shard open
        samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
        gc.collect()
    for sample in samples:
        about = json.loads(sample["json"])
        content = next(value for name, value in sample.items() if name not in ("cls", "json") and not name.startswith("__"))
        assert int(sample["cls"]) == about["label"] and source.class_names[about["label"]] == about["class_name"]
        found.append((about["sample_id"], about["label"], content))
    return found


def removal_list(folder: Path, source: Source) -> Found:
    rows = list(csv.DictReader(io.StringIO((folder / "dropped.csv").read_text())))
    assert [row["sample_id"] for row in rows] == (folder / "dropped_ids.txt").read_text().splitlines()
    assert all(source.sample_ids[int(row["index"])] == row["sample_id"] for row in rows)
    assert json.loads((folder / "removal-list.json").read_text())["dropped_bytes"] == sum(int(row["bytes"]) for row in rows)
    return sorted_by_row([(row["sample_id"], None, None) for row in rows], source)


def label_studio(folder: Path, source: Source) -> Found:
    page = (folder / "label_config.xml").read_text()
    found: Found = []
    tasks = [task for path in sorted(folder.glob("tasks-*.json")) for task in json.loads(path.read_text())]
    assert [task["data"]["priority"] for task in tasks] == list(range(1, len(tasks) + 1))
    for task in tasks:
        check_task(task, page)
        data = task["data"]
        if "text" in data:
            content = data["text"].encode()
        else:
            place = unquote(data["image"].removeprefix("/data/local-files/?d="))
            root = source.facts.get("root") or source.facts.get("paths_root") or "/"
            content = (folder / place if place.startswith("images/") else Path(str(root)) / place).read_bytes()
        found.append((data["sample_id"], source.class_names.index(data["label"]), content))
    return sorted_by_row(found, source)


def labels_csv(folder: Path, source: Source) -> Found:
    rows = list(csv.DictReader(io.StringIO((folder / "to_label.csv").read_text())))
    assert [int(row["priority"]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(source.sample_ids[int(row["index"])] == row["sample_id"] for row in rows)
    return sorted_by_row([(row["sample_id"], source.class_names.index(row["label"]), None) for row in rows], source)


def check_task(task: dict[str, Any], page: str) -> None:
    """What Label Studio demands of a task: a value for every $name of the page, and results whose names, type and choices are the page's."""
    assert set(task) == {"data", "predictions"} and all(task["data"][name] for name in re.findall(r'value="\$(\w+)"', page))
    for prediction in task["predictions"]:
        assert 0 < prediction["score"] <= 1 and isinstance(prediction["model_version"], str)
        for result in prediction["result"]:
            assert f'<Choices name="{result["from_name"]}" toName="{result["to_name"]}"' in page and result["type"] == "choices"
            assert f'name="{result["to_name"]}" value="$' in page and len(result["value"]["choices"]) == 1


def croissant(folder: Path, source: Source) -> Found:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own code
        import mlcroissant

        read = list(mlcroissant.Dataset(jsonld=str(folder / "croissant.json")).records("samples"))
    found: Found = []
    for sample in read:
        name = sample["samples/id"].decode()
        content = sample.get("samples/text")
        if content is None:  # it gives decoded images
            row = source.sample_ids.tolist().index(name)
            content = encoded(source, row)[0]
            np.testing.assert_array_equal(np.asarray(sample["samples/image"]), np.asarray(Image.open(io.BytesIO(content))))
        found.append((name, int(sample["samples/label"]), content))
    return found


READERS: dict[str, Callable[[Path, Source], Found]] = {
    "croissant": croissant,
    "hf": hf,
    "imagefolder": imagefolder,
    "indices": indices,
    "label_studio": label_studio,
    "labels_csv": labels_csv,
    "parquet": parquet,
    "removal_list": removal_list,
    "webdataset": of_webdataset,
}
