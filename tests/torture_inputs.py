"""Rows of torture.py that give clprune broken, hostile or odd things: files, disks, neighbours, images, names, labels, numbers, old folders."""

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import draw_shapes, manifest_of
from PIL import Image
from torture_crashes import CONTEXT, WORKS, content, in_child, prepared

from clprune import distributed, pipeline
from clprune.errors import ClpruneError, GuardError
from clprune.sources import open_source
from clprune.storage import SCHEMA_VERSION, locked, write_json
from clprune.training import epoch_rows

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
        ignored = (".lock", "live.json")  # they hold nothing that is built on
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
    return count, failures


# ---- labels and numbers


def _npz(folder: Path, n: int = 24, **arrays: Any) -> str:
    """An .npz of `n` drawn images of four classes, with other arrays where they are given."""
    images, labels = draw_shapes(n, 0) if n else (np.zeros((0, 16, 16, 1), np.uint8), np.zeros(0, np.int64))
    path = folder / f"{len(list(folder.iterdir()))}.npz"
    np.savez(path, **({"x_train": images, "y_train": labels} | arrays))
    return str(path)


def _text(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def _labels(*first: Any) -> np.ndarray:
    """Labels of 24 samples, the first ones as given."""
    return np.array([*first, *(np.arange(24) % 4)[len(first) :]])


def outcomes(folder: Path) -> list[tuple[str, Callable[[], Any], type[ClpruneError] | None, str | Callable[[Any], bool]]]:
    """What is given, the call, the error that is documented (None: it works), and what the message says or what must be true of the result."""
    from clprune.errors import DataError, LabelError, TrainingError, UsageError
    from clprune.manifest import read_manifest
    from clprune.recorder import Recorder
    from clprune.scored_arrays import score_arrays

    rng = np.random.default_rng(0)
    y, losses, logits = np.arange(24) % 4, rng.random((3, 24)), rng.normal(size=(3, 24, 4))
    log = folder / "log"
    score_arrays(y, losses=np.ones((3, 24)), out=log)
    torch = __import__("torch")

    def having(array: np.ndarray, at: Any, value: float) -> np.ndarray:
        changed = array.astype(float)
        changed[at] = value
        return changed

    def opened(**arrays: Any) -> Callable[[], Any]:
        return lambda: open_source(_npz(folder, **arrays))

    def kept(keep: str, strategy: str = "hardest(score='mean_loss')", **more: Any) -> Callable[[], list[str]]:
        return lambda: read_manifest(pipeline.select(log, folder / "kept", keep=keep, strategy=strategy, force=True, **more).folder).kept_ids.tolist()

    def first(n: int) -> Callable[[Any], bool]:
        return lambda ids: ids == [f"{row:02d}" for row in range(n)]

    def observed(*calls: Any, n: int = 24) -> Callable[[], Any]:
        def run() -> Any:
            recorder = Recorder(range(n))
            for index, values, labels in calls:
                recorder.observe(torch.as_tensor(index), torch.as_tensor(values), torch.as_tensor(labels))
            return recorder.end_epoch()

        return run

    def twins() -> Any:
        images = np.zeros((24, 16, 16, 1), np.uint8)
        pipeline.score(_npz(folder, x_train=images), folder / "twins", max_epochs=1)
        return pipeline.select(folder / "twins", folder / "twins-kept", keep="0.5", force=True).n_kept

    noted = lambda text: lambda source: any(text in note for note in source.facts["notes"])  # noqa: E731
    unknown = lambda n: lambda source: int((source.labels < 0).sum()) == n  # noqa: E731
    trained = lambda **more: lambda: pipeline.score(_npz(folder), folder / "trained", force=True, **({"max_epochs": 1} | more))  # noqa: E731
    some, batch = np.arange(8), rng.normal(size=(8, 4)).astype(np.float32)
    return [
        ("labels -1", opened(y_train=_labels(-1, -1)), None, unknown(2)),
        ("a label below -1", opened(y_train=_labels(-2)), LabelError, "row 0: -2"),
        ("whole numbers as floats", opened(y_train=_labels(0.0)), None, lambda source: source.labels.dtype == np.int64),
        ("half a label", opened(y_train=_labels(1.5)), LabelError, "row 0: 1.5"),
        ("a label that is NaN", opened(y_train=_labels(np.nan)), None, unknown(1)),
        ("a label that is infinite", opened(y_train=_labels(np.inf)), LabelError, "not whole numbers"),
        ("a label of a million millions", opened(y_train=_labels(10**12)), LabelError, "row 0"),
        ("no sample of a class", opened(y_train=np.where(y == 2, 3, y)), None, noted("no samples of 2")),
        ("one sample of a class", opened(y_train=_labels(7)), None, noted("a single sample of 7")),
        ("names as labels", opened(y_train=np.array(["b", "a"] * 12)), None, lambda source: source.class_names == ("a", "b")),
        ("truth values as labels", opened(y_train=y % 2 == 0), None, lambda source: source.class_names == ("false", "true")),
        ("Python objects as labels", opened(y_train=np.array([{}] * 24, dtype=object)), DataError, "readable|Python objects"),
        ("complex labels", opened(y_train=y + 1j), LabelError, "whole numbers"),
        ("soft labels", opened(y_train=np.eye(4)[y]), DataError, "label"),
        ("one class only", opened(y_train=np.zeros(24, np.int64)), LabelError, "one class"),
        ("too few labels", opened(y_train=y[:23]), DataError, "23"),
        ("no sample", opened(n=0), DataError, "images must be"),
        ("one sample", opened(n=1), LabelError, "one class"),
        ("two samples", opened(n=2), None, lambda source: len(source) == 2),
        ("no label anywhere", opened(y_train=np.full(24, -1)), None, noted("no sample has a label")),
        ("images that are NaN", opened(x_train=np.full((24, 16, 16, 1), np.nan)), DataError, "NaN or infinity"),
        ("images without sides", opened(x_train=np.zeros(24, np.uint8)), DataError, "shape"),
        ("images without pixels", opened(x_train=np.zeros((24, 0, 16, 1), np.uint8)), DataError, "shape|pixels"),
        ("a table without labels", lambda: open_source(_text(folder, "a.csv", "text\na\nb\n")), DataError, "label"),
        ("a table with an empty label", lambda: open_source(_text(folder, "b.csv", "text,label\na,x\nb,\nc,y\n")), None, unknown(1)),
        ("the same id twice", lambda: open_source(_text(folder, "c.csv", "id,text,label\n1,a,x\n1,b,y\n")), DataError, "more than once: 1"),
        ("half a line of JSON", lambda: open_source(_text(folder, "d.jsonl", '{"text": "a", "label": 1}\n{"text": "b')), DataError, "d.jsonl"),
        ("a table without rows", lambda: open_source(_text(folder, "e.csv", "text,label\n")), DataError, "no samples|rows"),
        ("losses NaN from an epoch on", lambda: score_arrays(y, losses=having(losses, slice(1, None), np.nan)), DataError, "epoch 1"),
        ("an infinite loss", lambda: score_arrays(y, losses=having(losses, (2, 5), np.inf)), DataError, r"epoch 2 .*05"),
        (
            "one loss that is NaN",
            lambda: score_arrays(y, losses=having(losses, (1, 3), np.nan)),
            None,
            lambda got: np.isfinite(got.table.values["mean_loss"][3]),
        ),
        ("never seen", lambda: score_arrays(y, losses=having(losses, (slice(None), 3), np.nan)), DataError, "03|never"),
        ("half a row of NaN logits", lambda: score_arrays(y, logits=having(logits, (0, 0, 1), np.nan)), DataError, "00"),
        ("infinite logits", lambda: score_arrays(y, logits=having(logits, (0, 0, 1), -np.inf)), DataError, "finite"),
        (
            "huge logits",
            lambda: score_arrays(y, logits=logits * 1e30),
            None,
            lambda got: all(np.isfinite(v).all() for v in got.table.values.values()),
        ),
        (
            "logits all equal",
            lambda: score_arrays(y, logits=np.zeros((3, 24, 4))),
            None,
            lambda got: len(set(got.table.values["el2n"].round(6))) == 1,
        ),
        ("logits of one class", lambda: score_arrays(np.zeros(24, int), logits=logits[..., :1]), DataError, "two or more"),
        ("logits and losses", lambda: score_arrays(y, logits=logits, losses=losses), UsageError, "both"),
        ("neither", lambda: score_arrays(y), UsageError, "neither"),
        ("logits without labels", lambda: score_arrays(None, logits=logits), LabelError, "need labels"),
        ("a label as large as the number of classes", lambda: score_arrays(_labels(4), logits=logits), LabelError, "row 0: 4"),
        ("no label beside logits", lambda: score_arrays(_labels(-1), logits=logits), LabelError, "row 0: -1|missing"),
        ("embeddings that are NaN", lambda: score_arrays(y, losses=losses, embeddings=np.full((24, 3), np.nan)), DataError, "NaN"),
        ("too few embeddings", lambda: score_arrays(y, losses=losses, embeddings=np.ones((23, 3))), DataError, "23 entries"),
        ("losses of three axes", lambda: score_arrays(y, losses=logits), DataError, "shape"),
        ("losses that are words", lambda: score_arrays(y, losses=losses.astype(str)), DataError, "type"),
        ("ids twice", lambda: score_arrays(y, losses=losses, ids=["a"] * 24), DataError, "more than once"),
        ("one epoch", lambda: score_arrays(y, losses=losses[:1]), None, lambda got: got.period.end_epoch == 1),
        ("keep 0", kept("0"), UsageError, "from 1 to 24"),
        ("keep 0.0", kept("0.0"), UsageError, "0.0"),
        ("keep 1.5", kept("1.5"), UsageError, "1.5"),
        ("keep -0.5", kept("-0.5"), UsageError, "-0.5"),
        ("keep NaN", kept("nan"), UsageError, "nan"),
        ("keep a word", kept("half"), UsageError, "half"),
        ("keep one more than there are", kept("25"), UsageError, "from 1 to 24"),
        ("keep all of it", kept("1.0"), None, lambda ids: len(ids) == 24),
        ("keep everything by number", kept("24"), None, lambda ids: len(ids) == 24),
        ("keep less than a sample of each class", kept("3"), GuardError, "would vanish"),
        ("keep one sample, classes may vanish", kept("1", min_per_class=0), None, first(1)),
        ("keep a share of next to nothing", kept("1e-9", min_per_class=0), None, first(1)),
        ("ties go to the smaller id", kept("12"), None, first(12)),
        ("more of each class than it has", kept("24", min_per_class=1000), None, lambda ids: len(ids) == 24),
        ("a strategy that is not there", kept("0.5", "wisest"), UsageError, "wisest"),
        ("a score that is not there", kept("0.5", "hardest(score='wisdom')"), ClpruneError, "wisdom"),
        ("only twins", twins, None, lambda n: n == 12),
        ("a rate that breaks the training", trained(learning_rate=1e30, max_epochs=3), TrainingError, "Lower the learning rate"),
        ("a rate that is NaN", trained(learning_rate=float("nan")), UsageError, "rate"),
        ("no epoch", trained(max_epochs=0), UsageError, "epoch"),
        ("batches of nothing", trained(batch_size=0), UsageError, "batch"),
        ("batches larger than the data", trained(batch_size=1000), None, lambda document: document["epochs_run"] == 1),
        ("a loop whose loss is NaN", observed((some, batch * np.nan, some % 4)), DataError, "finite|NaN"),
        ("a loop that observes nothing", observed(), UsageError, "nothing was observed"),
        ("a loop over nothing", observed(n=0), DataError, "empty"),
        ("a row that is not there", observed((some + 20, batch, some % 4)), UsageError, "row"),
        ("a label in a loop that is not a class", observed((some, batch, some)), ClpruneError, "label|class"),
        ("labels of half a batch", observed((some, batch, some[:4] % 4)), UsageError, "shape|labels"),
    ]


def labels_and_numbers(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """Labels, numbers and sizes at their limits: each has the outcome that is documented, and an error says what was seen."""
    failures = []
    cases = outcomes(folder)
    for at in rng.permutation(len(cases))[:count].tolist():
        name, call, error, expected = cases[at]
        try:
            got = call()
        except ClpruneError as raised:
            if error is None or not isinstance(raised, error) or not re.search(str(expected), str(raised)):
                failures.append(f"{name}: {type(raised).__name__}: {raised}")
        except Exception as raised:
            failures.append(f"{name}: {type(raised).__name__} instead of a message: {raised}")
        else:
            if error is not None or not callable(expected) or not expected(got):
                failures.append(f"{name}: ended with {got!r:.200}")
    return min(count, len(cases)), failures


# ---- exactly once, and what earlier versions wrote


def exactly_once(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """Samples, processes, batch sizes and epochs at random: over all processes every sample counts once an epoch, and every process takes part in as many steps."""
    failures = []
    for number in range(count):
        n, world, batch_size, epoch, seed = (int(rng.integers(low, high)) for low, high in ((1, 200), (1, 10), (1, 70), (0, 50), (0, 10)))
        visits = np.zeros(n, dtype=int)
        for batch in epoch_rows(np.arange(n), epoch, seed, batch_size):
            parts = [distributed.shard_rows(batch, rank, world) for rank in range(world)]
            if len({len(rows) for rows, _ in parts}) != 1:
                failures.append(f"{number}: {n} samples, {world} processes: steps of different sizes")
            for rows, real in parts:
                np.add.at(visits, rows[real], 1)
        if (visits != 1).any():
            failures.append(
                f"{number}: {n} samples, {world} processes, batches of {batch_size}: {int((visits == 0).sum())} missing, {int((visits > 1).sum())} twice"
            )
    return count, failures


GOLDEN = Path(__file__).parents[1] / "data"


def old_data(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """What each earlier schema version wrote is read, verified and worked with; what a later one will write is refused, with what to do."""
    tried, failures = 0, []
    for version in range(1, SCHEMA_VERSION + 1):
        golden = folder / f"schema-{version}"
        shutil.copytree(GOLDEN / golden.name, golden)
        data = str(golden / "data.npz")
        steps: dict[str, Callable[[], Any]] = {
            "verify the run": lambda: pipeline.verify(golden / "run", data=data) == [],  # noqa: B023
            "verify the manifest": lambda: pipeline.verify(golden / "subset", data=data) == [],  # noqa: B023
            "select": lambda: pipeline.select(golden / "run", golden / "again", keep="0.5", strategy="hardest(score='dual')").n_kept == 20,  # noqa: B023
            "export": lambda: pipeline.export(golden / "subset", "indices", golden / "rows", data=data)["n_samples"] == 20,  # noqa: B023
            "savings": lambda: len(pipeline.savings(golden / "subset").lines) > 5,  # noqa: B023
            "score": lambda: pipeline.score(data, golden / "fresh", max_epochs=1)["schema_version"] == SCHEMA_VERSION,  # noqa: B023
            "kept": lambda: np.array_equal(np.load(golden / "again" / "kept.npy"), np.load(golden / "subset" / "kept.npy")),  # noqa: B023
        }
        for name, step in steps.items():
            tried += 1
            try:
                if not step():
                    failures.append(f"version {version}, {name}: not as it was")
            except Exception as error:
                failures.append(f"version {version}, {name}: {type(error).__name__}: {error}")
        for name, read in (
            ("run/run.json", pipeline.verify),
            ("subset/manifest.json", pipeline.verify),
            ("subset/evaluation.json", pipeline.savings),
        ):
            for other, remedy in ((SCHEMA_VERSION + 1, "Upgrade clprune"), (0, "again")):
                tried += 1
                path = golden / name
                before = path.read_bytes()
                path.write_text(json.dumps(json.loads(before) | {"schema_version": other}))
                try:
                    read(path.parent)
                    failures.append(f"version {version}, {name} of version {other} is read")
                except ClpruneError as error:
                    if f"schema version {other}" not in str(error) or remedy not in str(error) or path.name not in str(error):
                        failures.append(f"version {version}, {name} of version {other}: {error}")
                path.write_bytes(before)
    return tried, failures
