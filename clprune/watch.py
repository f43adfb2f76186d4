"""A page on this machine that follows runs while they go on.

It only reads: `live.json` of each run folder, or what a finished run has stored. The page is one file without any address in it; it asks for
`/data` every second and draws. Only this machine reaches it, and a web site that makes its own name point here is refused by the Host header.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from clprune import families
from clprune.critical_period import read_curves
from clprune.errors import ClpruneError, UsageError
from clprune.live import FILE, NOTHING_YET, is_alive, read_live
from clprune.run import read_run
from clprune.wording import counted

ADDRESS = "127.0.0.1"
MOST_POINTS = 500  # of a curve on the page: more cannot be told apart, and they are sent every second
_OWN_NAMES = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)


def serve(runs: Sequence[Path], *, port: int = 0, on_ready: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C; `on_ready` is told its address. Port 0 takes a free one. Raises UsageError where the port is taken."""
    try:
        server = _Server((ADDRESS, port), _Handler)
    except OSError as error:
        raise UsageError(f"cannot listen on port {port} ({error.strerror}). Choose another --port, or 0 for a free one.") from error
    server.watcher = Watcher(runs)
    with server:
        on_ready(f"http://{ADDRESS}:{server.server_address[1]}/")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            pass  # how watching ends; the runs do not notice


# ---- what is shown


class Watcher:
    """Looks at run folders; remembers the last readable state of each, so that a file in the middle of a change takes nothing from view."""

    def __init__(self, runs: Sequence[Path]) -> None:
        self.runs = tuple(runs)
        self._last: dict[Path, dict[str, Any]] = {}
        self._about = {name: _about(name, member) for name, member in families.members("indicators").items()}

    def look(self) -> dict[str, Any]:
        """All runs as they are now: what `/data` answers."""
        return {"runs": [self.look_at(run) for run in self.runs], "indicators": self._about}

    def look_at(self, run: Path) -> dict[str, Any]:
        """One run in words and curves. Nothing that lies in its folder makes this fail."""
        folder = _run_folder(run)
        try:
            seen = _finished(folder) if (folder / "run.json").exists() else _going_on(folder)
            json.dumps(seen, allow_nan=False)
        except (ClpruneError, OSError, ValueError, KeyError, TypeError) as error:
            seen = self._last.get(run) or dict(NOTHING_YET) | {"status": "unreadable", "words": f"Cannot be read just now: {error}"}
        self._last[run] = seen
        return {"name": str(run)} | seen | _thinned(seen["curve_epochs"], seen["curves"])


def _run_folder(given: Path) -> Path:
    """`given`, or the run inside what `clprune prune` wrote."""
    holds_none = not any((given / name).exists() for name in ("run.json", FILE))
    return given / "run" if holds_none and (given / "run").is_dir() else given


def _going_on(folder: Path) -> dict[str, Any]:
    """State of a run that has no run.json (yet), from its live file."""
    if not (folder / FILE).exists():
        return dict(NOTHING_YET) | {"status": "waiting", "words": "Waiting for the first epoch.", "waiting_for": ""}
    document = read_live(folder)
    seen = {key: document[key] for key in ("title", "epochs_done", "max_epochs", "curves", "curve_epochs", "border_epoch")}
    seen |= {"end_epoch": document["fired_epoch"], "age_seconds": max(0.0, time.time() - document["updated"])}
    seen["waiting_for"] = str(document["waiting_for"] or "") if document["in_critical_period"] else ""
    if document["state"] == "stopped":
        return seen | {"status": "finished", "words": _phase(seen, finished=True), "waiting_for": ""}
    if is_alive(document) is False:
        gone = "Interrupted; the same command goes on" if document.get("resumable") else "Its process has gone: finished or interrupted"
        return seen | {"status": "interrupted", "words": f"{gone}. {_phase(seen)}"}
    return seen | {"status": document["state"], "words": _phase(seen)}


def _finished(folder: Path) -> dict[str, Any]:
    """State of a finished run, from what every run stores."""
    document = read_run(folder).document
    trained = document["epochs_run"] > 0  # else no sample has a label, and there are no curves
    times, curves = read_curves(folder / "trajectory" / "curves.csv") if trained else (np.empty(0), {})
    clp = document["clp"]
    seen = {
        "title": str(document["source"]),
        "epochs_done": document["epochs_run"],
        "max_epochs": None,
        "end_epoch": clp["end_epoch"] if clp["settled"] else None,
        "border_epoch": clp["border_epoch"],
        "waiting_for": "",
        "curve_epochs": times.tolist(),
        "curves": {name: [value if math.isfinite(value) else None for value in values.tolist()] for name, values in curves.items()},
    }
    words = _phase(seen, finished=True) if trained else "Finished; no sample has a label, so nothing was trained."
    return seen | {"status": "finished", "words": words}


def _phase(seen: Mapping[str, Any], *, finished: bool = False) -> str:
    """Where the run is, for people. The border counts as passed once an epoch has gone by since the Fisher trace was largest."""
    done, end, border = seen["epochs_done"], seen["end_epoch"], seen["border_epoch"]
    if end is not None:
        return f"The critical period ended after epoch {end}."
    if finished:
        return f"Finished after {counted(done, 'epoch')}; the end of the critical period was not established."
    if done == 0:
        return "Before the end of the first epoch."
    if border is None:
        return "In the critical period."
    if border > done - 1:
        return "In the critical period, memorization phase so far."
    return f"In the critical period, forgetting phase since epoch {border:.1f}."


def _thinned(times: list[float], curves: Mapping[str, list[float | None]]) -> dict[str, Any]:
    """At most about MOST_POINTS points of each curve, evenly, the last one always."""
    step = max(1, -(-len(times) // MOST_POINTS))
    first = (len(times) - 1) % step if times else 0
    taken = {name: values for name, values in curves.items() if any(value is not None for value in values)}  # not what only some runs record
    return {"curve_epochs": times[first::step], "curves": {name: values[first::step] for name, values in taken.items()}}


def _about(name: str, member: Callable[..., Any]) -> dict[str, Any]:
    """An indicator in a sentence (its file's first line, less the paper), and whether it votes."""
    sentence = (sys.modules[member.__module__].__doc__ or name).strip().splitlines()[0]
    return {"about": re.sub(r" \([^()]*arXiv[^()]*\)", "", sentence), "decides": bool(families.facts(member)["decides"])}


# ---- how it is served


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    watcher: Watcher


class _Handler(BaseHTTPRequestHandler):
    """GET / and GET /data, for this machine only."""

    server: _Server
    timeout = 20  # seconds a silent connection may hold its thread

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not _OWN_NAMES.fullmatch(hosts[0].strip()):
            self._answer(403, "text/plain", b"this page is for 127.0.0.1 and localhost only\n")
        elif self.path == "/":
            page = _page()
            self._answer(200, "text/html", page, policy=_policy(page.decode()))
        elif self.path == "/data":
            self._answer(200, "application/json", json.dumps(self.server.watcher.look(), allow_nan=False).encode())
        else:
            self._answer(404, "text/plain", b"there are / and /data\n")

    def _refuse(self) -> None:
        self._answer(405, "text/plain", b"GET only\n")

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse

    def _answer(self, status: int, kind: str, body: bytes, *, policy: str = "default-src 'none'") -> None:
        self.send_response(status)
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), "Cache-Control": "no-store"}
        headers |= {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Content-Security-Policy": policy}
        headers |= {"Cross-Origin-Resource-Policy": "same-origin"} | ({"Allow": "GET"} if status == 405 else {})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "clprune"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: a line a second helps nobody."""


def _page() -> bytes:
    return Path(__file__).with_name("watch.html").read_bytes()


def _policy(page: str) -> str:
    """Only the page's own script and style may run, and it may ask only where it came from."""
    parts = ["default-src 'none'", "connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    for tag in ("script", "style"):
        content = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        parts.append(f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'")
    return "; ".join(parts)
