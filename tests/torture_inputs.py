"""Rows of torture.py that give clprune broken, hostile or odd things: files, disks, neighbours, images, names."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import signal
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from conftest import draw_shapes, manifest_of
from PIL import Image
from torture_crashes import CONTEXT, WORKS, content, in_child, prepared

from clprune import pipeline
from clprune.errors import ClpruneError, GuardError
from clprune.sources import open_source
from clprune.storage import SCHEMA_VERSION, locked, write_json

# ---- corruption

FORMS = ("imagefolder(link='copy')", "indices", "hf", "parquet", "webdataset", "removal_list", "label_studio", "labels_csv", "croissant")
MAY_BE_ABSENT = (
    "evaluation.json",
    "savings.json",
    "exports.json",
    "answers.json",
    "checkpoint.json",
)  # what a later step writes, or has not written yet


def every_kind(folder: Path) -> list[Path]:
    """A folder of every kind that `clprune verify` takes: a run with a trial, one that was interrupted, a manifest with all that later steps put beside it, a round of labelling with answers, every export."""
    prepared(folder)
    if not (folder / "asked").exists():
        images, labels = draw_shapes(120, 0)
        known, (test_images, test_labels) = np.where(np.arange(120) % 3 == 0, labels, -1), draw_shapes(20, 1)
        np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=test_images, y_test=test_labels)
        trial = {"schema_version": SCHEMA_VERSION, "kind": "finished trial", "of": "0a1b", "wrong": [3, 7], "seconds": 0.5, "energy_kwh": None}
        write_json(folder / "run" / "trials" / "0a1b.json", trial)
        try:
            pipeline.evaluate(folder / "m-0", seeds=1, against="random", epochs=1)
        except GuardError:
            pass  # no better than random after one epoch; it is written all the same
        pipeline.savings(folder / "m-0")
        for form in FORMS:
            pipeline.export(folder / "m-0", form, folder / "exports" / form.partition("(")[0])
        np.savez(folder / "pool.npz", x_train=images, y_train=known)
        pipeline.score(str(folder / "pool.npz"), folder / "pool-run", max_epochs=1)
        asked = pipeline.select(folder / "pool-run", folder / "asked", label_budget=10)
        from clprune.labels import add_answers

        (folder / "answers.csv").write_text("sample_id,label\n" + "".join(f"{name},1\n" for name in asked.kept_ids.tolist()[:5]))
        add_answers(folder / "asked", [folder / "answers.csv"])
        in_child(interrupted, str(folder), str(folder / "unfinished"))
    return [folder / name for name in ("run", "m-0", "asked", "unfinished")] + sorted((folder / "exports").iterdir())


def interrupted(folder: str, out: str) -> None:
    """A score that is killed after its second epoch."""

    def told(event: dict[str, Any]) -> None:
        if event["stage"] == "train" and event["done"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    pipeline.score(f"{folder}/data.npz", Path(out), max_epochs=3, on_progress=told)


def spoiled(data: bytes, way: str, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """The content of a file after something happened to it."""
    changed = bytearray(data)
    if way == "flip" and data:
        changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif way == "cut":
        changed = changed[: int(rng.integers(len(data) + 1))]
    elif way == "zero":
        start = int(rng.integers(max(1, len(data) // 4096 + 1))) * 4096
        changed[start : start + 4096] = bytes(len(changed[start : start + 4096]))
    elif way == "empty":
        changed = bytearray()
    elif way == "swap":
        changed = bytearray(others[int(rng.integers(len(others)))])
    elif way == "header":
        changed[:8] = struct.pack("<Q", 0x7FFFFFFFFFFFFFFF)
    elif way == "version" and b'"schema_version": ' in data:
        changed = bytearray(re.sub(rb'"schema_version": \d+', b'"schema_version": 77', data))
    return bytes(changed)


def corrupted(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """Spoil one file of any artefact: `verify` must name it and say what to do, and a step that reads it must refuse or give what it gives of the whole one; no traceback, no signal."""
    kinds, failures, tried = every_kind(folder), [], 0
    whole = folder / "whole"
    pipeline.select(folder / "run", whole, keep="0.5")
    right, number = content(whole), 0
    while tried < count:
        kind, number = kinds[number % len(kinds)], number + 1
        copy = folder / "copies" / kind.name
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(kind, copy)
        ignored = (".lock", ".owner", "live.json")  # they hold nothing that is built on
        files = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.name not in ignored]
        path = files[int(rng.integers(len(files)))]
        data = path.read_bytes()
        way = ("flip", "cut", "zero", "empty", "delete", "swap", "header", "version")[int(rng.integers(8))]
        absent = path.name in MAY_BE_ABSENT or path.parent.name == "trials" or path.parent.parent.name == "evaluation"
        after = spoiled(data, way, rng, [other.read_bytes() for other in files if other != path])
        if after == data if way != "delete" else absent:
            continue
        tried += 1
        path.unlink() if way == "delete" else path.write_bytes(after)
        where, said, refused = f"{kind.name}/{path.relative_to(copy)}, {way}", list[str](), False
        try:
            said = pipeline.verify(copy)
        except ClpruneError as error:
            said = [str(error)]
        except Exception as error:
            failures.append(f"{where}: {type(error).__name__} instead of a message: {error}")
        helpful = [text for text in said if path.name in text and re.search("estore|again|--force|Upgrade|Check the path", text)]
        if not helpful and not (path.suffix == ".json" and way == "flip" and same_document(data, after)):
            failures.append(f"{where}: not told so that it helps ({said})")
        if kind.name == "run":
            try:
                pipeline.select(copy, whole, keep="0.5", force=True)
            except ClpruneError:
                refused = True
            except Exception as error:
                failures.append(f"{where}: select ends with {type(error).__name__}: {error}")
            if not refused and content(whole) != right:
                failures.append(f"{where}: select made something else of it in silence")
    return tried, failures


def same_document(before: bytes, after: bytes) -> bool:
    """Whether a JSON text still says the same."""
    try:
        return bool(json.loads(before) == json.loads(after))
    except ValueError:
        return False


# ---- space, permission, races


def _limited(work: str, folder: str, out: str, kind: str, limit: int) -> None:
    """Do it with files that cannot grow beyond `limit` bytes, few open files, or as somebody who may not write there; exit code 3 for a clear error."""
    if kind == "size":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    elif kind == "files":
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    else:
        WORKS[work](folder, f"{folder}/first")  # so that nothing is left to import: the other user may not be allowed to read Python's own files
        shutil.rmtree(f"{folder}/first")
        os.setgid(65534)
        os.setuid(65534)
    try:
        WORKS[work](folder, out)
    except ClpruneError as error:
        os._exit(3 if out in str(error) or Path(out).name in str(error) else 4)
    os._exit(0)


def full_disk(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """No file may grow beyond a random number of bytes, 64 open files, no permission: a clear error that names the place, the old state intact, nothing left beside it; afterwards the same command ends well."""
    prepared(folder)
    os.chmod(folder, 0o755)
    failures, works = [], [work for work in ("selecting", "exporting", "scoring")]
    before, largest, after = dict[str, dict[str, bytes]](), dict[str, int](), dict[str, dict[str, bytes]]()
    for work in works:
        out = folder / f"old-{work}"
        WORKS[work](str(folder), str(folder / f"new-{work}"))
        after[work] = content(folder / f"new-{work}")
        largest[work] = max(path.stat().st_size for path in (folder / f"new-{work}").rglob("*") if path.is_file())
        if work != "scoring":
            WORKS[work](str(folder), str(out), 1)
        before[work] = content(out)
    for number in range(count):
        work, kind = works[number % 3], ("size", "size", "size", "files", "permission")[number % 5]
        if kind == "permission" and os.geteuid():
            kind = "size"
        out, limit = folder / f"old-{work}", int(rng.integers(1, largest[work]))
        code = in_child(_limited, work, str(folder), str(out), kind, limit)
        where = f"{number}: {work}, {kind} {limit if kind == 'size' else ''}"
        if code not in ((0, 3) if kind == "files" else (3,)):
            failures.append(f"{where}: exit {code} instead of a clear error")
        if code == 0:
            shutil.rmtree(out)
            WORKS[work](str(folder), str(out), 1) if work != "scoring" else None
        elif work != "scoring" and content(out) != before[work]:
            failures.append(f"{where}: the old state changed")
        elif work == "scoring" and (out / "run.json").exists():
            failures.append(f"{where}: there is a run")
        if left := [path.name for path in folder.iterdir() if path.name.startswith(".old-")]:
            failures.append(f"{where}: left behind {left}")
        if work == "scoring" and number % 2:
            WORKS[work](str(folder), str(out))
            if content(out) != after[work]:
                failures.append(f"{where}: the repeat differs")
            shutil.rmtree(out)
    return count, failures


def _contender(folder: str, ready: Any, won: Any) -> None:
    ready.wait()  # all have started: on a busy machine that takes longer than one of them holds the folder
    try:
        with locked(Path(folder)):
            won.value += 1
            time.sleep(0.2)
    except ClpruneError as error:
        if "in use by process" not in str(error):
            won.value += 100


def races(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
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
        at = time.perf_counter()
        with locked(place):
            if (took := time.perf_counter() - at) > 1:
                failures.append(f"{number}: it took {took:.1f} s to take over the lock")
    return count, failures


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
        data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + b"\0\0\0\0IEND\xaeB`\x82"
    elif kind == 5:
        tall = io.BytesIO()
        Image.fromarray(np.zeros((int(rng.integers(1, 3000)), 1), dtype=np.uint8)).save(tall, "PNG")
        data = tall.getvalue()
    elif kind == 6:
        data = b"<svg/>" + data
    return data, suffix


def hostile_images(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """Folders with good and hostile images: each is read or left out by name, quickly, in little memory."""
    from clprune.decoding import load_images

    failures, peak_before = [], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
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
        at = time.process_time()  # not the clock: other programs may hold the processor
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
        if (took := time.process_time() - at) > 2:  # for all of the batch
            failures.append(f"batch {batch}: {took:.0f} s")
    if (taken := (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before) / 1e6) > 1.5:
        failures.append(f"{taken:.1f} GB of memory")
    return count, failures


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


def hostile_names(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """Names that break tools, exported and read back; ids of tables that point elsewhere. Nothing may be written outside the destination."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from clprune.export import export

    failures, forms = [], ("imagefolder", "webdataset", "removal-list", "parquet", "label-studio")
    for batch in range(0, count, 20):
        root = folder / f"names-{batch}"
        fence = root / "fence"
        (fence / "in").mkdir(parents=True)
        names = [NAMES[int(rng.integers(len(NAMES)))] + (f"{rng.integers(99)}" if rng.random() < 0.5 else "") for _ in range(20)]
        image = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        if batch % 40:
            elsewhere = [
                "../../out",
                "/tmp/clprune-escaped",
                "a/../../../b",
                "./x",
                "..",
                "C:\\x",
                *(["a\0b"] if batch % 200 == 20 else []),
            ]  # one with NUL is refused
            ids = [str(rng.choice(elsewhere)) + f"{i}" for i in range(20)]
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
            for form in forms:
                export(manifest, source, form, fence / "in" / form.replace("-", "_"))
        except ClpruneError:
            kept = []  # a clear refusal is an outcome
        except Exception as error:
            failures.append(f"batch {batch}: {type(error).__name__}: {error}")
            kept = []
        places = [fence / "in" / form.replace("-", "_") for form in forms]
        outside = [path for path in root.rglob("*") if path not in before and not any(path.is_relative_to(place) for place in places)]
        outside += [path for path in (*Path("/tmp").glob("clprune-escaped*"), *folder.glob("out*"), *folder.glob("b[0-9]*")) if path not in before]
        if outside:
            failures.append(f"batch {batch}: written outside: {outside[:3]}")
            for path in outside:
                path.unlink(missing_ok=True) if not path.is_dir() else None
        if not kept:
            continue
        written = [
            path for path in (fence / "in" / "imagefolder").rglob("*") if path.is_file() and path.name not in ("class_map.json", ".clprune.json")
        ]
        if len(written) != len(kept) or {path.read_bytes() for path in written} != {buffer.getvalue()}:
            failures.append(f"batch {batch}: {len(written)} of {len(kept)} images exported")
    return count, failures
