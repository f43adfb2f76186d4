"""What every source keeps, also those that are added later."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw_shapes, write_shards

from clprune import families
from clprune.sources import open_source


@pytest.mark.parametrize("name", families.names("sources"))
def test_claims_are_quick_and_do_not_raise_on_foreign_locators(name: str) -> None:
    claims = families.facts(families.find("sources", name))["claims"]
    for locator in ("", "nowhere", "a/b.txt", "x:y:z", "~", "..", "fashion-mnist-sampl"):
        assert claims(locator) in (True, False)


def test_no_locator_is_claimed_twice(tmp_path: object) -> None:
    members = families.members("sources")
    for locator in (
        "fashion-mnist-sample",
        str(tmp_path),
        "a.npz?labels=y",
        "b.parquet",
        "hf:x:train",
        "wds:a-{0..3}.tar",
        "x_train.npy",
        "torchvision:CIFAR10",
        "module:function",
    ):
        assert sum(families.facts(member)["claims"](locator) for member in members.values()) == 1, locator


def made(name: str, folder: Path, image_folder: Path) -> str:
    """A small data set that the source reads."""
    images, labels = draw_shapes(40, 0)
    if name == "image_folder":
        return str(image_folder)
    if name == "arrays":
        np.savez(folder / "x.npz", x_train=images, y_train=labels)
        return str(folder / "x.npz")
    if name == "logged":
        np.savez(folder / "l.npz", labels=labels, logits=np.random.default_rng(0).normal(size=(3, 40, 4)), bytes=np.full(40, 7))
        return str(folder / "l.npz")
    if name == "table":
        pq.write_table(pa.table({"text": [f"t{i}" for i in range(40)], "label": labels, "id": [f"i{i}" for i in range(40)]}), folder / "t.parquet")
        return str(folder / "t.parquet")
    if name == "hugging_face":
        datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(40)], "label": labels.tolist()}).save_to_disk(str(folder / "hf"))
        return f"hf:{folder / 'hf'}"
    if name == "python_dataset":
        (folder / "of_mine.py").write_text(
            "import numpy as np\n\n\ndef data():\n    return [(np.full((16, 16), i, dtype=np.uint8), i % 3) for i in range(40)]\n"
        )
        return "of_mine:data"
    if name == "webdataset":
        return write_shards(folder, images, labels)
    if name == "torchvision":
        (folder / "MNIST" / "raw").mkdir(parents=True)
        for part in ("train", "t10k"):
            head, tail = np.array([0x803, 40, 16, 16], dtype=">u4").tobytes(), np.array([0x801, 40], dtype=">u4").tobytes()
            (folder / "MNIST" / "raw" / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
            (folder / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte").write_bytes(tail + labels.astype(np.uint8).tobytes())
        return f"torchvision:MNIST?root={folder}"
    assert name == "embedded", f"say here how a small data set for the source '{name}' is made"
    return "fashion-mnist-sample"


@pytest.mark.parametrize("name", families.names("sources"))
def test_opening_twice_gives_the_same_data_with_unique_ids_and_known_classes(
    name: str, tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    locator = made(name, tmp_path, image_folder)
    first, second = open_source(locator), open_source(locator)
    assert first.fingerprint == second.fingerprint and first.sample_ids.tolist() == second.sample_ids.tolist()
    assert len(set(first.sample_ids.tolist())) == len(first) == len(first.labels) == len(first.sample_bytes)
    assert first.labels.min() >= 0 and first.labels.max() < first.n_classes and (first.sample_bytes > 0).all()
    if first.logged is None:
        value, label = first[len(first) - 1]
        assert value is not None and label == first.labels[-1]
