"""Can each row of torture.py fail? One mechanism at a time is broken in a copy of the tree, and the row that watches over it must turn red.

    python tests/torture_breaks.py            # about ten minutes; --only ROW for one; exit code 1 where a row stays green

What is broken is a piece of source text that must be there exactly once, so that this list cannot silently fall behind the code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from torture import ROWS

ROOT = Path(__file__).parents[1]
IN_PLACE = (
    "storage.py",
    "    destination = destination.absolute()\n    with _explained(destination):\n        sweep(destination.parent)\n",
    """    destination = destination.absolute()
    if resume_key is None:
        if force:
            shutil.rmtree(destination, ignore_errors=True)
        destination.mkdir(parents=True)
        yield destination
        return
    with _explained(destination):
        sweep(destination.parent)
""",
)
SLOWLY = (
    *IN_PLACE[:2],
    IN_PLACE[2].replace("        yield", '        __import__("time").sleep(0.3)\n        yield'),
)  # long enough for a random moment to fall into it
NO_MOMENTUM = ("trajectory.py", 'state.optimizer.state[parameter]["momentum_buffer"] = buffer', "del buffer")
UNCHECKED = ("storage.py", 'elif digest_of_file(path) != expected["sha256"]:', "elif False:")
BREAKS: dict[str, tuple[str, int, tuple[str, str, str]]] = {  # row: what is broken, how many are tried, file with old and new text
    "kills_of_score": ("a resumed run starts without momentum", 40, NO_MOMENTUM),
    "kills_of_select": ("manifests are filled in their place", 30, SLOWLY),
    "kills_of_export": ("exports are filled in their place", 30, SLOWLY),
    "crash_points": ("folders are filled in their place", 20, IN_PLACE),
    "power_loss": ("files are not synced", 60, ("storage.py", "                file.flush()\n                os.fsync(file.fileno())\n", "")),
    "corrupted": ("digests are not compared", 60, UNCHECKED),
    "full_disk": ("what failed is left lying", 10, ("storage.py", "            if done or resume_key is None:\n", "            if done:\n")),
    "races": ("the lock is not taken", 3, ("storage.py", "lock.acquire(timeout=0)", "pass")),
    "resumes": ("a resumed run starts without momentum", 4, NO_MOMENTUM),
    "exactly_once": ("padding counts", 100, ("distributed.py", "real = np.arange(n_each) < len(mine)", "real = np.ones(n_each, dtype=bool)")),
    "hostile_images": ("broken images are not noticed when they are listed", 60, ("sources/_common.py", "    except Exception as error:  # PIL raises", "    except ZeroDivisionError as error:  # PIL raises")),
    "hostile_names": (
        "ids become file names as they are",
        100,
        ("exporters/imagefolder.py", "_free(_inner_name(str(source.sample_ids[row]), suffix, source, row), folder, taken)", "str(source.sample_ids[row]) + suffix"),
    ),
    "labels_and_numbers": ("a share of more than everything is taken", 1_000, ("selection.py", "    if not 0 < fraction <= 1:", "    if not 0 < fraction:")),
    "steps_at_random": ("folders are filled in their place", 300, IN_PLACE),
    "old_data": ("version 1 is not read", 1_000, ("storage.py", "if not OLDEST_SCHEMA_VERSION <= version", "if not OLDEST_SCHEMA_VERSION < version")),
}  # fmt: skip


def turns_red(row: str, count: int, broken: tuple[str, str, str]) -> tuple[bool, str]:
    """Whether the row fails in a copy of the tree with that text replaced, and the last that it said."""
    name, old, new = broken
    with tempfile.TemporaryDirectory() as folder:
        for part in ("clprune", "tests", "data"):
            shutil.copytree(ROOT / part, Path(folder) / part, ignore=shutil.ignore_patterns("__pycache__"))
        path = Path(folder) / "clprune" / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} holds {text.count(old)} times what should be broken for {row}: {old!r}"
        path.write_text(text.replace(old, new))
        command = [sys.executable, f"{folder}/tests/torture.py", "--only", row, "--share", str(count / ROWS[row][1])]
        done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": folder}, capture_output=True, text=True)
        said = (done.stdout + done.stderr).strip().splitlines()
        told = [
            number for number, line in enumerate(said) if line.startswith(f"{row} ") and "failed   0" not in line
        ]  # not a row that could not run at all
        return done.returncode != 0 and bool(told), "\n        ".join(said[told[0] : told[0] + 3] if told else said[-3:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(BREAKS), action="append")
    green = []
    for row in parser.parse_args().only or BREAKS:
        what, count, broken = BREAKS[row]
        at = time.perf_counter()
        red, said = turns_red(row, count, broken)
        print(f"{row:20} {'red' if red else 'STAYS GREEN'}, {time.perf_counter() - at:5.1f} s: {what}\n        {said}", flush=True)
        green += [] if red else [row]
    return int(bool(green))


if __name__ == "__main__":
    assert set(BREAKS) == set(ROWS), "each row needs something that breaks it"
    raise SystemExit(main())
