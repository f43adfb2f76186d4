"""Near-duplicates: planted copies that are found, other rows that are flagged, and the duplicates that a data set has by itself.

    python examples/benchmarks/near_duplicates.py fashion=FASHION.npz --sheets FOLDER
    python examples/benchmarks/near_duplicates.py cifar10=CIFAR10.npz --seeds "" --sheets FOLDER
    python examples/benchmarks/near_duplicates.py --table

All training images as they are, and once more with 3,000 planted copies of different ones, a fifth each: moved by 1 or 2 pixels, mirrored, 10 % brighter or darker, JPEG of quality 50, Gaussian noise of
sigma 8 of 255; drawn anew for each seed. The rule was chosen on seed 30. A copy is found where it and its original are put in one group. Other rows are the originals of the file; those that are flagged for their planted copy do not count. `--sheets` writes
pictures of what was flagged in the files as they are, pairs side by side. About two minutes a data set on one core.
`--versions 2,4` measures sets of which every image is there so many times, as offline augmentation writes them: that part of the first 12,000 rows, and copies of each of another kind.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import Results
from numpy.dtypes import StringDType
from PIL import Image

from clprune.neighborhood import find_neighborhood

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "copies", "seed"))
N_COPIES, IN_ALL = 3000, 12_000
KINDS = ("shift", "mirror", "brightness", "jpeg", "noise")
SHOWN, COLUMNS = 64, 8  # pairs on a sheet


def copy_of(image: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A changed (H, W, C) uint8 image."""
    height, width, channels = image.shape
    if kind == "shift":
        moves = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if dy or dx]
        dy, dx = moves[rng.integers(len(moves))]
        return np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")[2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]
    if kind == "mirror":
        return image[:, ::-1]
    if kind == "brightness":
        return np.clip(np.rint(image * rng.choice([0.9, 1.1])), 0, 255).astype(np.uint8)
    if kind == "jpeg":
        stored = io.BytesIO()
        Image.fromarray(image[..., 0] if channels == 1 else image).save(stored, "JPEG", quality=50)
        return np.asarray(Image.open(stored)).reshape(image.shape)
    return np.clip(np.rint(image + rng.normal(0, 8, image.shape)), 0, 255).astype(np.uint8)


def measure(name: str, path: str, n_copies: int, seed: int, sheets: Path | None, n_rows: int | None = None) -> dict[str, Any]:
    """Flag near-duplicates by the images alone. More copies than rows: every row has several, each of another kind."""
    held, rng = np.load(path), np.random.default_rng(seed)
    images, labels = held["x_train"][:n_rows], held["y_train"][:n_rows].astype(np.int64)
    images = images[..., None] if images.ndim == 3 else images
    n, originals = len(images), np.resize(rng.permutation(len(images)), n_copies)
    kinds = np.array([KINDS[(at + at // n) % len(KINDS)] for at in range(n_copies)])
    copies = [copy_of(images[row], kind, rng) for row, kind in zip(originals, kinds, strict=True)]
    images = np.concatenate([images, np.stack(copies)]) if copies else images
    labels = np.concatenate([labels, labels[originals]])
    ids = np.array([f"{row:06d}" for row in range(len(images))], dtype=StringDType())
    started = time.process_time()
    hood = find_neighborhood(ids, labels, None, None, vectors=None, images=images)
    seconds = time.process_time() - started
    leader = np.where(hood.duplicate_of >= 0, hood.duplicate_of, np.arange(len(images)))
    found = leader[n:] == leader[originals]
    flagged = np.flatnonzero(hood.duplicate_of[:n] >= 0)
    others = flagged[hood.duplicate_of[flagged] < n]
    row: dict[str, Any] = {
        "data": name,
        "rows": n,
        "copies": n_copies,
        "seed": seed,
        "found": {kind: float(found[kinds == kind].mean()) for kind in KINDS if n_copies},
    }
    row |= {"found_all": float(found.mean()) if n_copies else None, "others_flagged": len(others), "cpu_seconds": seconds}
    partner = hood.duplicate_of[others]
    row |= {"exact": int((hood.duplicate_distance[others] == 0).sum()), "another_label": int((labels[others] != labels[partner]).sum())}
    row |= {"groups": len(np.unique(partner))}
    if sheets is not None and not n_copies:
        near = others[hood.duplicate_distance[others] > 0]
        nearest = near[np.argsort(hood.duplicate_distance[near], kind="stable")]
        for part, rows in (
            ("nearest", nearest[:SHOWN]),
            ("random", np.random.default_rng(31).permutation(near)[:SHOWN]),
            ("farthest", nearest[-SHOWN:]),
        ):
            sheet(sheets / f"{name}-{part}.png", images, rows, hood.duplicate_of[rows])
    return row


def sheet(path: Path, images: np.ndarray, rows: np.ndarray, partners: np.ndarray) -> None:
    """Pairs side by side, COLUMNS to a line, a dark gap between."""
    if not len(rows):
        return
    pairs = np.concatenate([images[rows], images[partners]], axis=2)  # (M, H, 2 W, C)
    pairs = np.pad(pairs, ((0, -len(pairs) % COLUMNS), (2, 2), (4, 4), (0, 0)))
    lines = [np.concatenate(list(pairs[at : at + COLUMNS]), axis=1) for at in range(0, len(pairs), COLUMNS)]
    whole = np.concatenate(lines).repeat(2, axis=0).repeat(2, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(whole[..., 0] if whole.shape[2] == 1 else whole).save(path)


def table() -> str:
    """Share of the planted copies found, by kind, and what else was flagged."""
    lines = [
        "| data | rows | planted copies found | " + " | ".join(KINDS) + " | other rows flagged | of these equal | with another label | processor s |"
    ]
    lines.append("|" + "---|" * (7 + len(KINDS)))
    for r in sorted(RESULTS.rows(), key=lambda r: (not r["data"].startswith("fashion"), r["data"], -r["copies"], r["seed"])):
        kinds = " | ".join(f"{r['found'][kind]:.1%}" if r["copies"] else "" for kind in KINDS)
        all_found = f"{r['found_all']:.1%} of {r['copies']:,} (seed {r['seed']})" if r["copies"] else "none planted"
        share = r["others_flagged"] / r["rows"]
        lines.append(
            f"| {r['data']} | {r['rows']:,} | {all_found} | {kinds} | {r['others_flagged']:,} ({share:.2%}) | {r['exact']} | {r['another_label']} | {r['cpu_seconds']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="NAME=FILE.npz")
    parser.add_argument("--seeds", default="30,31,32", help="of the planted copies")
    parser.add_argument("--as-they-are", action=argparse.BooleanOptionalAction, default=True, help="also without copies")
    parser.add_argument("--versions", default="", help="of every image: how often it is there, itself included")
    parser.add_argument("--sheets", type=Path, help="write pictures of flagged pairs here")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    for name, _, path in () if given.table else [item.partition("=") for item in given.data]:
        for n_copies, seed in [(0, 0)] * given.as_they_are + [(N_COPIES, int(seed)) for seed in given.seeds.split(",") if seed]:
            if not RESULTS.has(data=name, copies=n_copies, seed=seed):
                RESULTS.add(measure(name, path, n_copies, seed, given.sheets))
        for k in [int(k) for k in given.versions.split(",") if k]:
            n_rows = IN_ALL // k
            job = {"data": f"{name}, every image {k} times", "copies": (k - 1) * n_rows, "seed": 30}
            if not RESULTS.has(**job):
                RESULTS.add(measure(name, path, (k - 1) * n_rows, 30, None, n_rows) | job)
    print(table())
