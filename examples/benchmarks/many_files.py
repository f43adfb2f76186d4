"""Many small files: listing, fingerprint, first decode and an export by hard links, and the listing of a very long table of paths.

    python examples/benchmarks/many_files.py            # 200,000 JPEG files in 1,000 class folders, 5,000,000 rows; about four minutes, 6 GB of disk below /tmp
    python examples/benchmarks/many_files.py --short    # 2,000 files and 1,200,000 rows; nothing is stored
    python examples/benchmarks/many_files.py --table

The files are made first and are in the page cache when they are read, so what is measured is the work, not the disk. Each part runs in a process of its own, whose
start is not counted; seconds are wall clock, beside them the processor seconds of all threads; the peak is that of the resident memory. The floor is the least that the same files take in one thread:
a loop that lists the folders, reads each file whole and decodes it with Pillow.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

RESULTS = Path(__file__).with_suffix(".json")
N_FILES, N_FOLDERS, N_ROWS, SIDE = 200_000, 1000, 5_000_000, 64


def make_files(root: Path, n: int, n_folders: int) -> None:
    """JPEG files of 64 x 64 pixels, about 1.2 kB each."""
    rng = np.random.default_rng(0)
    for folder in range(n_folders):
        (root / f"{folder:04d}").mkdir(parents=True)
    for row in range(n):
        content, coarse = io.BytesIO(), rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse.repeat(SIDE // 8, axis=0).repeat(SIDE // 8, axis=1)).save(content, "JPEG", quality=80)
        (root / f"{row % n_folders:04d}" / f"{row:06d}.jpg").write_bytes(content.getvalue())


def make_table(path: Path, n: int) -> None:
    """`path` and `label` of files that nobody made."""
    rows = 500_000
    schema = pa.schema([("path", pa.string()), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, n, rows):
            part = range(start, min(start + rows, n))
            names = [f"{row * 1000 // n:04d}/{row:07d}.jpg" for row in part]
            writer.write_table(pa.table([pa.array(names), pa.array([row * 1000 // n for row in part])], schema=schema))


def timed(told: dict[str, Any], name: str, work: Callable[[], Any]) -> Any:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    told[name] = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}
    return result


def measure(part: str, place: Path) -> dict[str, Any]:
    """One part, in this process."""
    import clprune
    from clprune.decoding import load_images
    from clprune.export import export
    from clprune.manifest import write_manifest

    told: dict[str, Any] = {}
    moves: list[int] = []
    if part == "floor":

        def floor() -> int:
            n = 0
            for folder in sorted(os.scandir(place / "images"), key=lambda entry: entry.name):
                for entry in os.scandir(folder.path):
                    with open(entry.path, "rb") as file:
                        n += np.asarray(Image.open(io.BytesIO(file.read()))).shape[0] > 0
            return n

        timed(told, "floor", floor)
    elif part == "folder":
        source = timed(told, "listing", lambda: clprune.open_source(str(place / "images"), on_progress=lambda done, total: moves.append(done)))
        told["moves"] = len(moves)
        timed(told, "fingerprint", lambda: source.fingerprint)
        images, _ = timed(told, "decode", lambda: load_images(source, cache=place / "cache", on_progress=lambda done, total: moves.append(done)))
        told |= {"n": len(source), "n_classes": source.n_classes, "shape": list(images.shape)}
    elif part == "export":
        source = timed(told, "listing", lambda: clprune.open_source(str(place / "images")))
        kept = np.random.default_rng(0).permutation(len(source)) < len(source) // 2
        columns = {"sample_id": source.sample_ids.tolist(), "index": np.arange(len(source)), "label": source.labels, "kept": kept}
        columns |= {"rank": np.where(kept, kept.cumsum() - 1, -1), "weight": kept * 1.0}
        document = {"fingerprint": source.fingerprint, "source": source.locator}
        manifest = write_manifest(place / "manifest", pa.table(columns), document)
        report = timed(told, "export", lambda: export(manifest, source, "imagefolder(link='hardlink')", place / "out"))
        told |= {"files": report["files"], "link": report["link"]}
    else:
        source = timed(told, "listing", lambda: clprune.open_source(str(place / "rows.parquet")))
        told["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        told["n"] = len(source)
        timed(told, "fingerprint", lambda: source.fingerprint)
    told.setdefault("peak_gb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
    return told


def all_parts(n_files: int, n_folders: int, n_rows: int) -> dict[str, Any]:
    """Make the data, measure each part in a process of its own, remove the data."""
    with tempfile.TemporaryDirectory(prefix="many-files-") as folder:
        place = Path(folder)
        make_files(place / "images", n_files, n_folders)
        make_table(place / "rows.parquet", n_rows)
        found: dict[str, Any] = {}
        for part in ("floor", "folder", "export", "table"):
            done = subprocess.run([sys.executable, __file__, "--part", part, "--place", str(place)], capture_output=True, text=True, check=True)
            found[part] = json.loads(done.stdout)
            print(part, found[part], flush=True)
    return found | {"cores": os.cpu_count()}


def table() -> str:
    """Seconds and peak memory of each part."""
    found = json.loads(RESULTS.read_text())
    folder, export, rows = found["folder"], found["export"], found["table"]
    n, half = f"{folder['n']:,} JPEG files in {folder['n_classes']:,} folders", f"{export['files'] - 2:,} of them as hard links"
    first = [folder[name] for name in ("listing", "fingerprint", "decode")]
    lines = [
        (f"{n}: listing", folder["listing"], ""),
        ("fingerprint", folder["fingerprint"], ""),
        ("first decode, into the cache", folder["decode"], ""),
        ("the three together", {key: sum(one[key] for one in first) for key in ("seconds", "cpu_seconds")}, f"{folder['peak_gb']:.2f}"),
        ("floor: one thread lists, reads and decodes, and keeps nothing", found["floor"]["floor"], ""),
        (f"export of {half}, after the listing", export["export"], f"{export['peak_gb']:.2f}"),
        (f"{rows['n']:,} rows of a Parquet file of paths and labels: listing", rows["listing"], f"{rows['peak_gb']:.2f}"),
        ("fingerprint", rows["fingerprint"], ""),
    ]
    shown = [f"| {what} | {took['seconds']:.1f} | {took['cpu_seconds']:.1f} | {peak} |" for what, took, peak in lines]
    return "\n".join(["| what | seconds | processor s | peak, GB |", "|---|---|---|---|", *shown])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(measure(given.part, given.place)))
    elif given.short:
        all_parts(N_FILES // 100, N_FOLDERS // 10, 1_200_000)
    else:
        if not given.table:
            RESULTS.write_text(json.dumps(all_parts(N_FILES, N_FOLDERS, N_ROWS), indent=1) + "\n")
        print(table())
