"""Small real data for the tests: drawn shapes that a network learns within a few epochs."""

from __future__ import annotations

import io
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from clprune.datatypes import Source
from clprune.manifest import Manifest, write_manifest


def draw_shapes(n: int, seed: int, n_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(n, 16, 16, 1) uint8 bars at one of `n_classes` places, on noise; labels (n,)."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % n_classes)
    images = rng.normal(60, 25, (n, 16, 16, 1))
    for row, label in enumerate(labels):
        at = 2 + 3 * label + rng.integers(0, 2)
        images[row, at : at + 2, 3:13] += rng.uniform(60, 160)
    return np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int64)


def write_shards(folder: Path, images: np.ndarray, labels: np.ndarray) -> str:
    """Two shards by webdataset's own writer, in which the same keys occur."""
    import webdataset

    for shard in (0, 1):
        with webdataset.TarWriter(str(folder / f"part-{shard}.tar")) as tar:
            for row in range(shard, len(images), 2):
                content = io.BytesIO()
                Image.fromarray(images[row, ..., 0]).save(content, "PNG")
                tar.write({"__key__": f"{row // 2:04d}", "png": content.getvalue(), "cls": int(labels[row])})
    return f"wds:{folder}/part-{{0..1}}.tar"


def manifest_of(source: Source, kept: list[int], folder: Path) -> Manifest:
    """A manifest that keeps these rows, the last one first."""
    n = len(source)
    rank = np.full(n, -1)
    rank[kept] = np.arange(len(kept))[::-1]
    columns = {
        "sample_id": source.sample_ids.tolist(),
        "index": np.arange(n),
        "label": source.labels,
        "kept": rank >= 0,
        "rank": rank,
        "weight": (rank >= 0) * 1.0,
        "reason": np.where(rank >= 0, "kept", "not chosen").tolist(),
    }
    return write_manifest(folder, pa.table(columns), {"fingerprint": source.fingerprint, "source": source.locator})


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLPRUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def shapes_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 training and 200 test images in an .npz."""
    path = tmp_path_factory.mktemp("shapes") / "shapes.npz"
    (x, y), (x_test, y_test) = draw_shapes(600, 0), draw_shapes(200, 1)
    np.savez(path, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture(scope="session")
def shapes_run(shapes_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs on it."""
    from clprune import pipeline

    folder = tmp_path_factory.mktemp("runs") / "run"
    pipeline.score(str(shapes_npz), folder, max_epochs=3)
    return folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Six classes with awkward names, three images each."""
    root = tmp_path / "images"
    rng = np.random.default_rng(0)
    for name in ["class1", "class10", "class2", "été à", "with space", "Ä 3"]:
        (root / name).mkdir(parents=True)
        for i in (1, 2, 10):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root
