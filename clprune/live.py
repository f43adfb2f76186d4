"""The live file of a run, `live.json`: what has happened so far, for whoever watches.

It is rewritten in one step after every epoch. No digest covers it and no step reads it: a run is the same with or without it.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clprune.errors import DataError, IntegrityError
from clprune.storage import SCHEMA_VERSION, read_json, write_json

FILE = "live.json"
STATES = ("running", "ended", "stopped")  # in the critical period; the period is over, the run goes on; the run is finished
NOTHING_YET: Mapping[str, Any] = {
    "epochs_done": 0,
    "state": "running",
    "in_critical_period": True,
    "fired_epoch": None,
    "border_epoch": None,
    "waiting_for": "the first epochs",
    "curves": {},
    "curve_epochs": [],
}


def write_live(folder: Path, facts: Mapping[str, Any]) -> None:
    """Replace `folder/live.json`: `facts` and whose they are (process, host, time). NaN in curves becomes null. Raises StorageError."""
    curves = {name: [value if value is not None and math.isfinite(value) else None for value in values] for name, values in facts["curves"].items()}
    who = {"pid": os.getpid(), "process_started": _process(os.getpid())[1], "host": socket.gethostname(), "updated": time.time()}
    write_json(folder / FILE, {**NOTHING_YET, **facts, "curves": curves, "schema_version": SCHEMA_VERSION, "kind": "live", **who}, sealed=False)


def announce(folder: Path, *, goes_on: bool, **facts: Any) -> None:
    """Show at once that a run starts, or goes on: then what is known of it stays in view."""
    known: Mapping[str, Any] = {}
    if goes_on:
        try:
            known = read_live(folder)
        except DataError:
            pass  # written by an older clprune: the next epoch makes it whole
    write_live(folder, {**NOTHING_YET, **known, "resumable": True, **facts})


def conclude(folder: Path) -> None:
    """Note that the run is finished; nothing where it has no readable live file."""
    try:
        write_live(folder, read_live(folder) | {"state": "stopped"})
    except DataError:
        pass


def read_live(folder: Path) -> dict[str, Any]:
    """The live file, checked so far that every curve can be drawn. Raises DataError where it is missing, broken or newer than this clprune."""
    document = {**NOTHING_YET, "max_epochs": None, "title": folder.name, **read_json(folder / FILE, what="live file", sealed=False)}
    times, curves = document["curve_epochs"], document["curves"]
    good = (
        document.get("kind") == "live" and document["state"] in STATES and isinstance(document["title"], str) and _is_number(document["epochs_done"])
    )
    good = good and isinstance(times, list) and all(map(_is_number, times)) and isinstance(curves, dict) and _is_number(document.get("updated"))
    good = good and all(document[key] is None or _is_number(document[key]) for key in ("fired_epoch", "border_epoch", "max_epochs"))
    if not good or not all(_is_curve(values, len(times)) for values in curves.values()):
        raise IntegrityError(f"{folder / FILE} is not a live file of clprune. It is written again after the next epoch.")
    return document


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_curve(values: object, n_points: int) -> bool:
    return isinstance(values, list) and len(values) == n_points and all(value is None or _is_number(value) for value in values)


def is_alive(document: Mapping[str, Any]) -> bool | None:
    """Whether the process that wrote a live file still runs; None where it ran on another machine, which cannot be asked."""
    if document.get("host") != socket.gethostname() or not isinstance(document.get("pid"), int):
        return None
    there, started = _process(document["pid"])
    return there and (started is None or document.get("process_started") in (None, started))  # else the number went to another process


def _process(pid: int) -> tuple[bool, int | None]:
    """Whether a process runs, and when it started in clock ticks since boot (None where the system does not tell).

    A process that has ended but was not collected by its parent does not run: a container without an init leaves such behind.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0] not in "ZX", int(fields[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return False, None
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False, None
    except OSError:
        pass  # it belongs to somebody else
    return True, None
