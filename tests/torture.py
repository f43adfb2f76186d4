"""Break everything, many times, and count what was lost: kills, corruption, full disks, races, hostile images and names.

    python tests/torture.py            # the full counts; prints one line a row and writes torture.json here
    python tests/torture.py --share 0.02 --only kills_of_select

A row is a function (count, rng, folder) -> list of failures; `make test` runs each with a small count (tests/test_torture.py).
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import platform
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from conftest import draw_shapes
from PIL import Image

from clprune import pipeline
from clprune.errors import ClpruneError
from clprune.sources import open_source
from clprune.storage import locked

Row = Callable[[int, np.random.Generator, Path], list[str]]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torture", "torch", "clprune.pipeline", "clprune.trajectory", "clprune.neighborhood", "clprune.selection", "clprune.export"]
)


# ---- what is broken


def prepared(folder: Path) -> Path:
    """Data, a finished run and a manifest in `folder`; returns it."""
    if not (folder / "m").exists():
        images, labels = draw_shapes(240, 0)
        np.savez(folder / "data.npz", x_train=images, y_train=labels)
        pipeline.score(str(folder / "data.npz"), folder / "run", max_epochs=2)
        pipeline.select(folder / "run", folder / "m", keep="0.5")
    return folder


def scoring(folder: str, out: str) -> None:
    pipeline.score(f"{folder}/data.npz", Path(out), max_epochs=2)


def selecting(folder: str, out: str) -> None:
    pipeline.select(Path(folder) / "run", Path(out), keep="0.5", force=True)


def exporting(folder: str, out: str) -> None:
    pipeline.export(Path(folder) / "m", "imagefolder", Path(out), force=True)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, without what a clock or a meter wrote."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (".lock", "live.json"):
            data = path.read_bytes()
            if path.name in ("manifest.json", "run.json"):
                document = json.loads(data)
                for name in ("timings", "seconds", "energy_kwh", "energy_method", "parent"):
                    document.pop(name, None)
                data = json.dumps(document, sort_keys=True).encode()
            found[path.relative_to(folder).as_posix()] = data
    return found


def _kills(work: Callable[[str, str], None], check: Callable[[Path], list[str]], count: int, rng: np.random.Generator, folder: Path) -> list[str]:
    """Kill `work` at random moments, each time over what the last one left; what stands there must be whole, and a repeat must end as an unbroken run does."""
    prepared(folder)
    whole = folder / "whole"
    at = time.perf_counter()
    work(str(folder), str(whole))
    usual, expected, failures = time.perf_counter() - at, content(whole), []
    for number in range(count):
        out = folder / f"out-{number % 7}"
        process = CONTEXT.Process(target=work, args=(str(folder), str(out)))
        process.start()
        process.join(float(rng.uniform(0, 1.3 * usual)))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            failures.append(f"kill {number}: the process ended with {process.exitcode}")
        failures += [f"kill {number}: {problem}" for problem in check(out)]
        if number % 5 == 4:
            try:
                work(str(folder), str(out))
            except ClpruneError as error:
                failures.append(f"kill {number}: the repeat was refused: {error}")
            if (now := content(out)) != expected:
                failures.append(
                    f"kill {number}: the repeat differs in {sorted(set(now) ^ set(expected)) or [n for n in now if now[n] != expected[n]]}"
                )
            if left := [path.name for path in folder.iterdir() if path.name.startswith(f".{out.name}.")]:
                failures.append(f"kill {number}: left behind {left}")
            if work is scoring:
                shutil.rmtree(out)
    return failures


def _whole_or_absent(marker: str) -> Callable[[Path], list[str]]:
    return lambda out: pipeline.verify(out) if (out / marker).exists() else []


def kills_of_score(count: int, rng: np.random.Generator, folder: Path) -> list[str]:
    return _kills(scoring, _whole_or_absent("run.json"), count, rng, folder)


def kills_of_select(count: int, rng: np.random.Generator, folder: Path) -> list[str]:
    return _kills(selecting, lambda out: pipeline.verify(out) if out.exists() else [], count, rng, folder)


def kills_of_export(count: int, rng: np.random.Generator, folder: Path) -> list[str]:
    def check(out: Path) -> list[str]:
        images = len(list(out.rglob("*.png"))) if out.exists() else 120
        return [] if images == 120 else [f"{images} of 120 images"]

    return _kills(exporting, check, count, rng, folder)


def _dying_at(work: str, folder: str, out: str, step: int, after: bool, counter: Any) -> None:
    """Run `work` and die at the `step`-th call that changes the file system, before or after it; `counter` is told how many there were."""
    done = 0
    for name in ("replace", "rename", "fsync", "unlink", "mkdir", "link", "open"):
        real = getattr(os, name)

        def counted(*arguments: Any, real: Any = real, name: str = name, **options: Any) -> Any:
            nonlocal done
            changes = name != "open" or bool(arguments[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            done += changes
            if changes and done == step and not after:
                os._exit(137)
            try:
                return real(*arguments, **options)
            finally:  # also after a call that failed, as that of a folder which is there already
                if changes and done == step:
                    os._exit(137)

        setattr(os, name, counted)
    globals()[work](folder, out)
    if counter is not None:
        counter.value = done


def crash_points(count: int, rng: np.random.Generator, folder: Path) -> list[str]:
    """Every call that changes the file system (or `count` of them at random) in a select and an export over older ones and in a score, before and after it."""
    prepared(folder)
    failures: list[str] = []
    markers, expected, points = {"selecting": "manifest.json", "exporting": "class_map.json", "scoring": "run.json"}, {}, []
    for work in markers:
        whole, counter = folder / f"whole-{work}", CONTEXT.Value("i", 0)
        for _ in range(1 if work == "scoring" else 2):  # the second time over the first
            process = CONTEXT.Process(target=_dying_at, args=(work, str(folder), str(whole), -1, False, counter))
            process.start()
            process.join()
        expected[work] = content(whole)
        points += [(work, step, after) for step in range(1, counter.value + 1) for after in (False, True)]
    for number, at in enumerate(rng.permutation(len(points))[:count].tolist()):
        work, step, after = points[at]
        out, place = folder / "crashed", f"{work}, step {step}, {'after' if after else 'before'}"
        shutil.rmtree(out, ignore_errors=True)
        if work != "scoring":
            globals()[work](str(folder), str(out))
        process = CONTEXT.Process(target=_dying_at, args=(work, str(folder), str(out), step, after, None))
        process.start()
        process.join()
        if process.exitcode != 137:
            failures.append(f"{place}: the process ended with {process.exitcode}")
        if work == "scoring":
            failures += [f"{place}: {problem}" for problem in (pipeline.verify(out) if (out / "run.json").exists() else [])]
        else:
            if not out.exists():
                globals()[work](str(folder), str(folder / "other"))  # the next command in that place puts back what was set aside
                shutil.rmtree(folder / "other")
            if content(out) != expected[work]:
                failures.append(f"{place}: the manifest or export is lost or mixed")
        if number % 9 == 0:
            globals()[work](str(folder), str(out))
            if content(out) != expected[work]:
                failures.append(f"{place}: the repeat differs")
    return failures


# ---- corruption


def corrupted(count: int, rng: np.random.Generator, folder: Path) -> list[str]:
    """Flip, cut, zero, empty, swap or delete what a run or a manifest holds: `verify` and whoever reads it must say so, by name, without a traceback."""
    prepared(folder)
    failures = []
    for number in range(count):
        kind = ("run", "m")[number % 2]
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder / kind, copy)
        files = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.name not in (".lock", "live.json")]
        path = files[int(rng.integers(len(files)))]
        data = bytearray(path.read_bytes())
        way = ("flip", "cut", "zero", "empty", "delete", "swap", "header")[int(rng.integers(7))]
        if way == "flip" and data:
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        elif way == "cut":
            data = data[: int(rng.integers(len(data)))]
        elif way == "zero":
            data = bytearray(len(data))
        elif way == "empty":
            data = bytearray()
        elif way == "swap":
            data = bytearray(files[(files.index(path) + 1) % len(files)].read_bytes())
        elif way == "header":
            data[:4] = struct.pack("<I", 0xFFFFFFFF)
        if bytes(data) == path.read_bytes() and way != "delete":
            continue
        path.unlink() if way == "delete" else path.write_bytes(bytes(data))
        said: list[str] = []
        try:
            said = pipeline.verify(copy)
        except ClpruneError as error:
            said = [str(error)]
        except Exception as error:
            failures.append(f"{kind}/{path.name}, {way}: {type(error).__name__} instead of a message: {error}")
        named = [text for text in said if path.name in text or path.name in ("manifest.json", "run.json")]
        document = path.name in ("manifest.json", "run.json")
        if not named and not (document and way == "flip" and _same_document(folder / kind / path.name, path)):
            failures.append(f"{kind}/{path.name}, {way}: not noticed ({said})")
    return failures


def _same_document(before: Path, after: Path) -> bool:
    """Whether a JSON document was changed in a place that nothing is built on."""
    try:
        old, new = json.loads(before.read_text()), json.loads(after.read_text())
    except ValueError:
        return False
    needed = ("schema_version", "fingerprint", "files", "kind", "n_samples", "n_kept")
    return all(old.get(name) == new.get(name) for name in needed)


# ---- space, permission, races


def _limited(folder: str, out: str, n_bytes: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
    try:
        selecting(folder, out)
    except ClpruneError:
        os._exit(3)
    os._exit(0)


def full_disk(count: int, rng: np.random.Generator, folder: Path) -> list[str]:
    """No file may grow beyond a random number of bytes: a clear error, the old manifest intact, nothing left beside it."""
    prepared(folder)
    out, failures = folder / "old", []
    selecting(str(folder), str(out))
    before = content(out)
    largest = max(path.stat().st_size for path in out.iterdir())
    for number in range(count):
        process = CONTEXT.Process(target=_limited, args=(str(folder), str(out), int(rng.integers(1, largest))))
        process.start()
        process.join()
        if process.exitcode != 3:
            failures.append(f"{number}: exit {process.exitcode} instead of a clear error")
        if content(out) != before:
            failures.append(f"{number}: the old manifest changed")
        if left := [path.name for path in folder.iterdir() if path.name.startswith(".old.")]:
            failures.append(f"{number}: left behind {left}")
    return failures


def _contender(folder: str, ready: Any, won: Any) -> None:
    ready.wait()  # all have started: on a busy machine that takes longer than one of them holds the folder
    try:
        with locked(Path(folder)):
            won.value += 1
            time.sleep(0.2)
    except ClpruneError as error:
        if "in use by process" not in str(error):
            won.value += 100


def races(count: int, rng: np.random.Generator, folder: Path) -> list[str]:
    """Two to four processes reach for one folder: one holds it, the others are told who; a killed holder holds nothing."""
    failures = []
    for number in range(count):
        place, n_processes = folder / f"lock-{number}", int(rng.integers(2, 5))
        ready, won = CONTEXT.Barrier(n_processes + 1), CONTEXT.Value("i", 0)
        processes = [CONTEXT.Process(target=_contender, args=(str(place), ready, won)) for _ in range(n_processes)]
        for process in processes:
            process.start()
        ready.wait()
        if number % 3 == 0:
            time.sleep(0.05)
            processes[0].kill()  # also where it has ended
        for process in processes:
            process.join()
        if number % 3 and won.value != 1:
            failures.append(f"{number}: {won.value} winners")
        with locked(place):
            pass
    return failures


# ---- hostile input


def hostile_image(rng: np.random.Generator) -> tuple[bytes, str]:
    """Content and suffix of an image that is broken, huge, odd, or something else."""
    pixels = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    form = str(rng.choice(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]))
    buffer = io.BytesIO()
    mode = str(rng.choice(["RGB", "L", "P", "1", "RGBA", "CMYK", "I;16", "LA"]))
    try:
        pixels.convert("L").convert("I").convert("I;16").save(buffer, "PNG") if mode == "I;16" else pixels.convert(mode).save(buffer, form)
    except (OSError, ValueError):
        pixels.save(buffer, form)
    data, suffix = buffer.getvalue(), str(rng.choice([".png", ".jpg", ".gif", ".bmp", ".webp", ".tif"]))
    kind = int(rng.integers(8))
    if kind == 0:
        data = data[: int(rng.integers(len(data)))]
    elif kind == 1:
        spoiled = bytearray(data)
        for _ in range(8):
            spoiled[int(rng.integers(len(spoiled)))] = int(rng.integers(256))
        data = bytes(spoiled)
    elif kind == 2:
        data = b""
    elif kind == 3:
        data = rng.bytes(400)
    elif kind == 4:  # a PNG that claims 60,000 x 60,000 pixels
        head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        import zlib

        data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + b"\0\0\0\0IEND\xaeB`\x82"
    elif kind == 5:
        tall = io.BytesIO()
        Image.fromarray(np.zeros((int(rng.integers(1, 3000)), 1), dtype=np.uint8)).save(tall, "PNG")
        data = tall.getvalue()
    elif kind == 6:
        data = b"<svg/>" + data
    return data, suffix


def hostile_images(count: int, rng: np.random.Generator, folder: Path) -> list[str]:
    """Folders with good and hostile images: each is read or left out by name, quickly, in little memory."""
    from clprune.decoding import load_images

    failures = []
    for batch in range(0, count, 10):
        root = folder / f"images-{batch}"
        for c in ("a", "b"):
            (root / c).mkdir(parents=True)
            for i in range(3):
                Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(root / c / f"good{i}.png")
        for i in range(min(10, count - batch)):
            data, suffix = hostile_image(rng)
            (root / "a" / f"bad{i}{suffix}").write_bytes(data)
        if batch % 50 == 0:
            os.mkfifo(root / "a" / "pipe.png")
            (root / "a" / "folder.png").mkdir()
        at = time.perf_counter()
        try:
            source = open_source(str(root))
            load_images(source, cache=folder / "cache")
            names = {str(name) for name in source.sample_ids.tolist()} | {name for name, _ in source.skipped}
            if lost := [p.name for p in root.rglob("bad*") if p.relative_to(root).as_posix() not in names]:
                failures.append(f"batch {batch}: neither read nor named: {lost}")
        except ClpruneError as error:
            if "bad" not in str(error):
                failures.append(f"batch {batch}: refused without the file's name: {error}")
        except Exception as error:
            failures.append(f"batch {batch}: {type(error).__name__}: {error}")
        if (took := time.perf_counter() - at) > 20:
            failures.append(f"batch {batch}: {took:.0f} s")
    if (peak := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6) > 4:
        failures.append(f"{peak:.1f} GB of memory")
    return failures


NAMES = [
    "line\nbreak",
    "tab\there",
    "\u202egnp.evil",
    "e\u0301",
    "\u00e9",
    "x" * 200,
    "Case",
    "case",
    "-rf",
    " lead",
    "trail ",
    "..a",
    "a..",
    "%2e%2e",
    "$(id)",
    "'\"",
    "\\",
    "con",
    "nul.",
    "😀",
]


def hostile_names(count: int, rng: np.random.Generator, folder: Path) -> list[str]:
    """Names that break tools, exported and read back; ids of tables that point elsewhere. Nothing may be written outside the destination."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from conftest import manifest_of

    from clprune.export import export

    failures = []
    for batch in range(0, count, 20):
        root = folder / f"names-{batch}"
        fence = root / "fence"
        (fence / "in").mkdir(parents=True)
        names = [NAMES[int(rng.integers(len(NAMES)))] + (f"{rng.integers(99)}" if rng.random() < 0.5 else "") for _ in range(20)]
        image = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        if batch % 40:
            ids = [str(rng.choice(["../../out", "/tmp/clprune-escaped", "a/../../../b", "./x", "..", "C:\\x", "a\0b"])) + f"{i}" for i in range(20)]
            pq.write_table(pa.table({"image": [buffer.getvalue()] * 20, "label": [i % 2 for i in range(20)], "id": ids}), root / "t.parquet")
            locator = str(root / "t.parquet")
        else:
            for i, name in enumerate(dict.fromkeys(names)):
                (root / "data" / ("p", "q")[i % 2]).mkdir(parents=True, exist_ok=True)
                (root / "data" / ("p", "q")[i % 2] / f"{name}.png").write_bytes(buffer.getvalue())
            (root / "data" / "p" / os.fsdecode(b"\xff\xfe.png")).write_bytes(buffer.getvalue())
            locator = str(root / "data")
        before = {path for path in root.rglob("*")}
        try:
            source = open_source(locator)
            kept = list(range(0, len(source), 2))
            manifest = manifest_of(source, kept, root / "m")
            before |= {path for path in (root / "m").rglob("*")} | {root / "m"}
            for form in ("imagefolder", "webdataset", "removal-list", "parquet", "label-studio"):
                export(manifest, source, form, fence / "in" / form.replace("-", "_"))
        except ClpruneError:
            continue  # a clear refusal is an outcome
        except Exception as error:
            failures.append(f"batch {batch}: {type(error).__name__}: {error}")
            continue
        outside = [path for path in root.rglob("*") if path not in before and not path.is_relative_to(fence / "in")]
        if outside or Path("/tmp/clprune-escaped0").exists() or any((folder / name).exists() for name in ("out0", "b0")):
            failures.append(f"batch {batch}: written outside: {outside[:3]}")
        written = [path for path in (fence / "in" / "imagefolder").rglob("*") if path.is_file() and path.name != "class_map.json"]
        if len(written) != len(kept) or {path.read_bytes() for path in written} != {buffer.getvalue()}:
            failures.append(f"batch {batch}: {len(written)} of {len(kept)} images exported")
    return failures


ROWS: dict[str, tuple[Row, int, int]] = {  # the row, its full count, and the count in `make test`
    "kills_of_score": (kills_of_score, 500, 4),
    "kills_of_select": (kills_of_select, 700, 10),
    "kills_of_export": (kills_of_export, 500, 10),
    "crash_points": (crash_points, 1_000, 6),
    "corrupted": (corrupted, 1_000, 60),
    "full_disk": (full_disk, 100, 4),
    "races": (races, 300, 4),
    "hostile_images": (hostile_images, 500, 60),
    "hostile_names": (hostile_names, 2_000, 120),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts")
    parser.add_argument("--only", choices=list(ROWS), action="append")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    results, path = [], Path(__file__).with_suffix(".json")
    for name in given.only or ROWS:
        row, full, _ = ROWS[name]
        count, at = max(1, round(given.share * full)), time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            os.environ["CLPRUNE_CACHE"] = f"{folder}/cache"
            failures = row(count, np.random.default_rng(given.seed), Path(folder))
        results.append(
            {"row": name, "tried": count, "failed": len(failures), "seconds": round(time.perf_counter() - at, 1), "failures": failures[:20]}
        )
        print(f"{name:20} tried {count:5}  failed {len(failures):3}  {results[-1]['seconds']:7.1f} s", *failures[:5], sep="\n    ", flush=True)
    if given.only is None and given.share == 1:
        path.write_text(json.dumps({"machine": platform.machine(), "cores": os.cpu_count(), "rows": results}, indent=1) + "\n")
    return int(any(result["failed"] for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
