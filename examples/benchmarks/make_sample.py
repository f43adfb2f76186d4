"""Make the embedded data set from Fashion-MNIST's four IDX files.

    python examples/benchmarks/make_sample.py FOLDER_WITH_IDX_GZ_FILES data/fashion-mnist-sample

12,000 training rows and 2,000 test images, class-balanced, as Parquet with PNG bytes that Hugging Face `datasets` reads too. On purpose, 3 % of the
training rows carry a wrong label and 3 % are near-duplicates of other rows (moved by one or two pixels, mirrored, or noised). `truth.json`
lists them; nothing but the last lines of `clprune demo` reads it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
N_TRAIN, N_TEST, SHARE = 12_000, 2_000, 0.03
FEATURES = {"id": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images = np.frombuffer(gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return images.reshape(-1, 28, 28), labels.astype(np.int64)


def pick(images: np.ndarray, labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of `per_class` images of every class, none of them equal to another, in random order."""
    seen, rows = set(), []
    for c in range(len(CLASSES)):
        mine = []
        for row in rng.permutation(np.flatnonzero(labels == c)):
            digest = hashlib.sha256(images[row].tobytes()).digest()
            if digest not in seen and len(mine) < per_class:
                seen.add(digest)
                mine.append(row)
        rows += mine
    return rng.permutation(rows)


def varied(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A near-duplicate: one of a shift, a mirror image and noise, or two of them."""
    changes = rng.choice(["shift", "mirror", "noise"], size=rng.integers(1, 3), replace=False)
    result = image.astype(np.float64)
    if "mirror" in changes:
        result = result[:, ::-1]
    if "shift" in changes:
        dy, dx = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if (dy, dx) != (0, 0)][rng.integers(24)]
        padded = np.pad(result, 2)
        result = padded[2 + dy : 30 + dy, 2 + dx : 30 + dx]
    if "noise" in changes:
        result = result + rng.normal(0, 8, result.shape) * (result > 0)
    return np.clip(np.round(result), 0, 255).astype(np.uint8)


def write(path: Path, ids: list[str], images: np.ndarray, labels: np.ndarray) -> None:
    def png(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    content = pa.array([{"bytes": png(image), "path": None} for image in images], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table = pa.table({"id": ids, "image": content, "label": labels})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    pq.write_table(table, path, compression="zstd", compression_level=19, write_page_checksum=True, row_group_size=2000)


def main(source: Path, target: Path) -> None:
    rng = np.random.default_rng(2025)
    images, labels = read(source, "train")
    n_planted = round(SHARE * N_TRAIN)
    rows = pick(images, labels, (N_TRAIN - n_planted) // len(CLASSES), rng)
    originals = rng.choice(len(rows), n_planted, replace=False)
    others = np.setdiff1d(np.arange(len(rows)), originals)
    wrong = rng.choice(others, n_planted, replace=False)
    copies = np.stack([varied(images[rows[i]], rng) for i in originals])
    every, true = np.concatenate([images[rows], copies]), np.concatenate([labels[rows], labels[rows[originals]]])
    given = true.copy()
    given[wrong] = (true[wrong] + rng.integers(1, len(CLASSES), n_planted)) % len(CLASSES)
    order = rng.permutation(len(every))
    place = np.argsort(order)
    ids = [f"train-{i:05d}" for i in range(len(every))]
    target.mkdir(parents=True, exist_ok=True)
    write(target / "train.parquet", ids, every[order], given[order])
    truth = {
        "wrong_labels": {ids[place[i]]: int(true[i]) for i in sorted(wrong, key=lambda i: place[i])},
        "duplicates": {ids[place[len(rows) + k]]: ids[place[i]] for k, i in enumerate(originals)},
    }
    (target / "truth.json").write_text(json.dumps(truth, indent=0, sort_keys=True) + "\n")
    test_images, test_labels = read(source, "t10k")
    rows = pick(test_images, test_labels, N_TEST // len(CLASSES), rng)
    write(target / "test.parquet", [f"test-{i:04d}" for i in range(len(rows))], test_images[rows], test_labels[rows])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
