"""What sources make of labels: numbered by the names of classes, one a sample, and refused with the row named where they are broken."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import draw_shapes
from PIL import Image

from clprune.decoding import load_images
from clprune.errors import DataError, LabelError, UsageError
from clprune.inputs import held_out_part
from clprune.sources import open_source

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


def test_other_npy_files_of_the_folder_do_not_matter(tmp_path: Path) -> None:
    images, labels = draw_shapes(40, 0)
    np.save(tmp_path / "x_train.npy", images)
    np.save(tmp_path / "y_train.npy", labels)
    np.save(tmp_path / "notes.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert len(open_source(str(tmp_path / "x_train.npy"))) == 40
    np.save(tmp_path / "ids.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"ids\.npy"):
        open_source(str(tmp_path / "x_train.npy"))
