"""Rows of torture.py that kill, crash or cut the power, and then look at what is left."""

from __future__ import annotations

import builtins
import io
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import draw_shapes

from clprune import pipeline, storage
from clprune.errors import ClpruneError
from clprune.run import REPLACED

# the server's own path: what it cannot import beforehand (it does not say so), every process it forks would import anew, for seconds
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torture", "torch._dynamo", "pyarrow.dataset", "codecarbon"]
    + [f"clprune.{name}" for name in ("pipeline", "trajectory", "neighborhood", "scored_run", "selection", "trials", "pool", "export")]
    + ["clprune.exporters.imagefolder", "clprune.proxies.small_cnn"]
)
KEPT = ("0.5", "0.3")  # two manifests that can be told apart


# ---- what is interrupted


def prepared(folder: Path) -> Path:
    """Data, a finished run and two manifests in `folder`; returns it."""
    if not (folder / "m-1").exists():
        images, labels = draw_shapes(120, 0)
        np.savez(folder / "data.npz", x_train=images, y_train=labels)
        pipeline.score(str(folder / "data.npz"), folder / "run", max_epochs=2)
        for variant in (0, 1):
            selecting(str(folder), str(folder / f"m-{variant}"), variant)
    return folder


def scoring(folder: str, out: str, variant: int = 0) -> None:
    pipeline.score(f"{folder}/data.npz", Path(out), max_epochs=2, batch_size=48)


def rescoring(folder: str, out: str, variant: int = 0) -> None:
    """A run over another one."""
    pipeline.score(f"{folder}/data.npz", Path(out), max_epochs=1, seed=variant, force=True)


def selecting(folder: str, out: str, variant: int = 0) -> None:
    pipeline.select(Path(folder) / "run", Path(out), keep=KEPT[variant], force=True)


def exporting(folder: str, out: str, variant: int = 0) -> None:
    pipeline.export(Path(folder) / f"m-{variant}", "imagefolder", Path(out), force=True)


WORKS: dict[str, Callable[..., None]] = {"scoring": scoring, "rescoring": rescoring, "selecting": selecting, "exporting": exporting}


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, without what a clock or a meter wrote."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (".lock", ".owner", "live.json") and not unfinished(path):
            data = path.read_bytes()
            if path.name in ("manifest.json", "run.json"):
                try:
                    document = json.loads(data)
                    for name in ("timings", "seconds", "energy_kwh", "energy_method", "parent", storage.SEAL):
                        document.pop(name, None)
                    data = json.dumps(document, sort_keys=True).encode()
                except (ValueError, AttributeError):
                    pass  # what was spoiled is compared as it is
            found[path.relative_to(folder).as_posix()] = data
    return found


def unfinished(path: Path) -> bool:
    """Whether a name says that a process had not finished with it: the next command sweeps it away."""
    return storage._UNFINISHED.fullmatch(path.name) is not None


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> str:
    return ", ".join(sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))[:5])


def the_old_run_is_lost(out: Path, old: dict[str, bytes]) -> list[str]:
    """What is wrong with the run that was to be replaced: its parts lie at the side, or still where they were."""
    held = [content(place) if place.exists() else {} for place in (out / REPLACED, out)]
    gone = [name for name, data in old.items() if all(found.get(name) != data for found in held)]
    return [f"of the run that was to be replaced is lost: {', '.join(gone[:5])}"] if gone else []


def problems_of(work: str, folder: Path, out: Path, allowed: list[dict[str, bytes]]) -> list[str]:
    """What is wrong with what stands at `out` after a crash: it must be one of the `allowed` states; a run may also be unfinished."""
    if work in ("scoring", "rescoring"):
        if not (out / "run.json").exists():
            return [] if work == "scoring" else the_old_run_is_lost(out, allowed[0])
        try:
            problems = pipeline.verify(out)
        except ClpruneError as error:
            problems = [str(error)]
        if problems:
            return problems
        for name in ("checkpoint", REPLACED):  # may be there still when the end came just before they were removed
            shutil.rmtree(out / name, ignore_errors=True)
    elif not out.exists():
        WORKS[work](str(folder), str(folder / "other"))  # the next command in that place puts back what was set aside
        shutil.rmtree(folder / "other")
        if not out.exists():
            return ["what was there before is lost"]
    found = content(out)
    return [] if found in allowed else [f"neither the old nor the new state: {differences(found, allowed[-1])}"]


def repeated(work: str, folder: Path, out: Path, expected: dict[str, bytes], variant: int = 0) -> list[str]:
    """What is wrong after the same command was given again."""
    # in a process like that of what it is compared with: in this one threads may round otherwise, on some processors
    if code := in_child(WORKS[work], str(folder), str(out), variant):
        return [f"the repeat ended with exit code {code}"]
    problems = [] if (now := content(out)) == expected else [f"the repeat differs in {differences(now, expected)}"]
    left = [path.name for path in (*out.parent.iterdir(), *out.rglob("*")) if unfinished(path)]
    return problems + ([f"left behind {left}"] if left else [])


def in_child(target: Callable[..., None], *arguments: Any) -> int:
    """The exit code of a process that did it."""
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


# ---- kill -9 at random moments


def _kills(work: str, count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """Kill `work` at random moments, each time over what the last one left, until `count` processes were killed at work; every fifth is followed by a repeat."""
    prepared(folder)
    variants = 1 if work == "scoring" else 2
    for variant in range(variants):
        assert in_child(WORKS[work], str(folder), str(folder / f"whole-{variant}"), variant) == 0
    allowed, failures, killed = [content(folder / f"whole-{variant}") for variant in range(variants)], [], 0
    at = time.perf_counter()
    in_child(WORKS[work], str(folder), str(folder / "timed"))
    usual = time.perf_counter() - at
    for number in itertools.count():
        if killed == count:
            return killed, failures
        out, variant = folder / f"out-{number % 7}", number % variants
        process = CONTEXT.Process(target=WORKS[work], args=(str(folder), str(out), variant))
        process.start()
        process.join(float(rng.uniform(0, usual)))
        if process.is_alive():
            process.kill()  # also where it has just ended
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if process.exitcode not in (0, -signal.SIGKILL):
            failures.append(f"kill {number}: the process ended with {process.exitcode}")
        if out.exists():
            failures += [f"kill {number}: {problem}" for problem in problems_of(work, folder, out, allowed)]
        if number % 5 == 4:
            failures += [f"kill {number}: {problem}" for problem in repeated(work, folder, out, allowed[variant], variant)]
            if work == "scoring":
                shutil.rmtree(out)
    raise AssertionError


def kills_of_score(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    return _kills("scoring", count, rng, folder)


def kills_of_select(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    return _kills("selecting", count, rng, folder)


def kills_of_export(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    return _kills("exporting", count, rng, folder)


# ---- every single step


def watch_calls(before: Callable[[str, tuple[Any, ...]], None], after: Callable[[str, tuple[Any, ...]], None]) -> None:
    """From now on `before` and `after` are called around each call that changes the file system (or syncs it), also where it fails."""

    def watched(real: Any, name: str, changes: Callable[..., bool]) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if not changes(*arguments, **options):
                return real(*arguments, **options)
            before(name, arguments)
            try:
                return real(*arguments, **options)
            finally:
                after(name, arguments)

        return call

    for name in ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir", "link", "symlink"):
        setattr(os, name, watched(getattr(os, name), name, lambda *_, **__: True))
    os.open = watched(os.open, "open", lambda _, flags, *__, **___: bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))
    opened = watched(io.open, "open", lambda _, mode="r", *__, **___: isinstance(mode, str) and bool(set(mode) & set("wxa+")))
    builtins.open = io.open = opened  # type: ignore[assignment]
    storage._exchange = watched(storage._exchange, "exchange", lambda *_: True)


def dying_at(work: str, folder: str, out: str, step: int, after: bool, counter: Any = None, variant: int = 0) -> None:
    """Do `work` and die at the `step`-th call that changes the file system, before or after it; `counter` is told how many there were."""
    done = 0

    def begun(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        done += 1
        if done == step and not after:
            os._exit(137)

    def ended(name: str, arguments: tuple[Any, ...]) -> None:
        if done == step:
            os._exit(137)

    watch_calls(begun, ended)
    WORKS[work](folder, out, variant)
    if counter is not None:
        counter.value = done


def crash_points(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """Every call that changes the file system (or `count` of them at random) in a score, and in a score, a select and an export over older ones; before and after it."""
    prepared(folder)
    failures: list[str] = []
    old, new, points = {}, {}, []
    for work in WORKS:
        out, counter = folder / f"whole-{work}", CONTEXT.Value("i", 0)
        if work != "scoring":
            WORKS[work](str(folder), str(folder / f"old-{work}"), 1)
            old[work] = content(folder / f"old-{work}")
            shutil.copytree(folder / f"old-{work}", out)
        in_child(dying_at, work, str(folder), str(out), -1, False, counter)
        new[work] = content(out)
        points += [(work, step, after) for step in range(1, counter.value + 1) for after in (False, True)]
    for number, at in enumerate(rng.permutation(len(points))[:count].tolist()):
        work, step, after = points[at]
        out, place = folder / "crashed", f"{work}, step {step}, {'after' if after else 'before'}"
        for left in (
            out,
            *folder.glob(".crashed.*"),
        ):  # what an earlier try of another work left is swept by the next of its kind, which may not come
            shutil.rmtree(left, ignore_errors=True)
        if work in old:
            shutil.copytree(folder / f"old-{work}", out)
        code = in_child(dying_at, work, str(folder), str(out), step, after)
        if code != 137:
            failures.append(f"{place}: the process ended with {code}")
        allowed = [state[work] for state in (old, new) if work in state]
        failures += [f"{place}: {problem}" for problem in problems_of(work, folder, out, allowed)]
        if number % 9 == 0:
            failures += [f"{place}: {problem}" for problem in repeated(work, folder, out, new[work])]
    return min(count, len(points)), failures


# ---- the power goes


class Disk:
    """What a folder would hold if the power went: it knows which contents and which folder entries were synced. Files and folders have numbers of our own."""

    def __init__(self, root: Path) -> None:
        self.root, self._numbers, self._next = root, dict[int, int](), itertools.count(1)
        self.entries: dict[int, dict[str, int]] = {}  # folder -> name -> what is there now
        self.contents: dict[int, bytes] = {}
        self.links: dict[int, str] = {}
        self.look()
        self.synced_entries = {number: dict(names) for number, names in self.entries.items()}
        self.synced_contents = dict(self.contents)

    def look(self) -> None:
        """Take in what is there now; numbers of what is gone are not used again, though the system may."""
        self.entries, seen = {}, {}
        contents: dict[int, bytes] = {}

        def number_of(status: os.stat_result) -> int:
            found = seen[status.st_ino] = self._numbers.get(status.st_ino) or seen.get(status.st_ino) or next(self._next)
            return found

        def below(path: str, number: int) -> None:
            names = self.entries[number] = {}
            for entry in os.scandir(path):
                status = entry.stat(follow_symlinks=False)
                names[entry.name] = at = number_of(status)
                if stat.S_ISDIR(status.st_mode):
                    below(entry.path, at)
                elif stat.S_ISLNK(status.st_mode):
                    self.links[at] = os.readlink(entry.path)
                else:
                    with real_open(entry.path, "rb") as file:
                        data = file.read()
                    contents[at] = data if (old := self.contents.get(at)) != data or old is None else old

        self.top = number_of(os.stat(self.root))
        below(str(self.root), self.top)
        self.contents, self._numbers = contents, seen

    def synced(self, descriptor: int) -> None:
        """What was given to fsync is safe from now on."""
        number = self._numbers.get(os.fstat(descriptor).st_ino)
        if number in self.entries:
            self.synced_entries[number] = dict(self.entries[number])
        elif number in self.contents:
            self.synced_contents[number] = self.contents[number]

    def state(self) -> dict[str, Any]:
        return {
            "top": self.top,
            "now": (dict(self.entries), dict(self.contents)),
            "synced": (dict(self.synced_entries), dict(self.synced_contents)),
            "links": dict(self.links),
        }


real_open = io.open


def recorded_disk(work: str, folder: str, out: str, pipe: Any) -> None:
    """Do `work` and send what the disk was like before each call that changes it, and at the end."""
    disk, states = Disk(Path(out).parent), list[tuple[str, dict[str, Any]]]()

    def begun(name: str, arguments: tuple[Any, ...]) -> None:
        disk.look()
        states.append((name, disk.state()))

    def ended(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "fsync":
            disk.synced(arguments[0])

    watch_calls(begun, ended)
    WORKS[work](folder, out)
    disk.look()
    pipe.send([*states, ("the end", disk.state())])


def after_power_loss(state: dict[str, Any], mode: str, rng: np.random.Generator, place: Path) -> None:
    """Write to `place` what is found when the power comes back.

    lost: only what was synced; a file whose content was not is empty. zeroed: all names are there, contents that were not synced are zeros. mixed: of every name and
    every content either what was synced or what was there, at random, contents also cut.
    """
    (now_entries, now), (synced_entries, synced) = state["now"], state["synced"]

    def names_in(number: int) -> dict[str, int]:
        before, after = synced_entries.get(number, {}), now_entries.get(number, {})
        if mode != "mixed":
            return before if mode == "lost" else after
        chosen = {name: (before if rng.random() < 0.5 else after).get(name) for name in sorted(before.keys() | after.keys())}
        return {name: at for name, at in chosen.items() if at is not None}

    def content_of(number: int) -> bytes:
        was, there = synced.get(number), now.get(number, b"")
        if mode == "lost" or number not in now:
            return was or b""
        if was == there:
            return there
        ways = [bytes(len(there))] if mode == "zeroed" else [there, was or b"", bytes(len(there)), there[: int(rng.integers(len(there) + 1))]]
        return ways[int(rng.integers(len(ways)))]

    def build(number: int, path: Path) -> None:
        path.mkdir(exist_ok=True)
        for name, at in names_in(number).items():
            if at in now_entries or at in synced_entries:
                build(at, path / name)
            elif at in state["links"]:
                (path / name).symlink_to(state["links"][at])
            else:
                (path / name).write_bytes(content_of(at))

    build(state["top"], place)


MODES = ("lost", "zeroed", "mixed")


def power_loss(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """The power goes before every call that changes the file system (or `count` states at random), in three ways: the old state or the new one, never a mix; what was said to be done is done."""
    prepared(folder)
    failures: list[str] = []
    old, new, points = {}, {}, []
    for work in WORKS:
        disk = folder / f"disk-{work}"
        disk.mkdir()
        if work != "scoring":
            WORKS[work](str(folder), str(disk / "out"), 1)
            old[work] = content(disk / "out")
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=recorded_disk, args=(work, str(folder), str(disk / "out"), sender))
        process.start()
        sender.close()
        states = receiver.recv()
        process.join()
        new[work] = content(disk / "out")
        points += [(work, step, name, state, mode) for step, (name, state) in enumerate(states, 1) for mode in MODES]
    chosen = rng.permutation(len(points))[:count].tolist()
    for number, at in enumerate(chosen):
        work, step, name, state, mode = points[at]
        place, where = folder / "after", f"{work}, step {step} ({name}), {mode}"
        shutil.rmtree(place, ignore_errors=True)
        after_power_loss(state, mode, rng, place)
        allowed = [new[work]] if name == "the end" else [states[work] for states in (old, new) if work in states]
        problems = problems_of(work, folder, place / "out", allowed)
        if name == "the end" and not (place / "out").exists():
            problems.append("what was said to be done is lost")
        if number % 9 == 0 or problems:
            problems += repeated(work, folder, place / "out", new[work])
        failures += [f"{where}: {problem}" for problem in problems]
    return len(chosen), failures


# ---- resumes


def scoring_until(folder: str, out: str, exact: bool, threads: int, step: int, counter: Any) -> None:
    """A score that kills itself at the given training step (never where it is 0); `counter` is told how many there were."""
    import torch

    torch.set_num_threads(threads)
    real, done = torch.optim.SGD.step, 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal done
        done += 1
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    torch.optim.SGD.step = counted  # type: ignore[method-assign]
    pipeline.score(f"{folder}/data.npz", Path(out), max_epochs=3, batch_size=24, exact=exact)
    counter.value = done


def resumes(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """Kill a score at a random training step, some twice, and go on: every file must have the bytes of an unbroken run, with and without --exact, with one thread and two."""
    prepared(folder)
    ways, whole, failures = [(exact, threads) for exact in (True, False) for threads in (1, 2)], {}, []
    steps = CONTEXT.Value("i", 0)
    for exact, threads in ways:
        out = folder / f"whole-{exact}-{threads}"
        in_child(scoring_until, str(folder), str(out), exact, threads, 0, steps)
        whole[exact, threads] = content(out)
    n_steps = steps.value
    for number in range(count):
        exact, threads = ways[number % len(ways)]
        out = folder / "resumed"
        shutil.rmtree(out, ignore_errors=True)
        where = f"resume {number} ({'exact' if exact else 'fast'}, {threads} threads)"
        for last in (n_steps, n_steps // 2)[: 1 + number % 2]:
            step = int(rng.integers(1, last + 1))
            where += f", killed at step {step}"
            code = in_child(scoring_until, str(folder), str(out), exact, threads, step, steps)
            if code not in (0, -signal.SIGKILL) or (out / "run.json").exists() != (code == 0):
                failures.append(f"{where}: the process ended with {code}")
        if (code := in_child(scoring_until, str(folder), str(out), exact, threads, 0, steps)) != 0:
            failures.append(f"{where}: the resumed run ended with {code}")
        elif (found := content(out)) != whole[exact, threads]:
            failures.append(f"{where}: other bytes in {differences(found, whole[exact, threads])}")
    return count, failures
