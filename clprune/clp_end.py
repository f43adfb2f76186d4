"""Run the user's command once, when the critical period of a run has ended."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from clprune.errors import UsageError
from clprune.storage import SCHEMA_VERSION, write_json

MARK = "clp-end.json"  # in the run folder: the command was started


def words_of(command: str) -> list[str]:
    """The command's words as a shell would split them; nothing is expanded. Raises UsageError for an open quote or no words."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--on-clp-end {command!r} cannot be split into words ({error}). Quote it as in a shell.") from error
    if not words:
        raise UsageError("--on-clp-end is empty. Give a command, or leave the option out.")
    return words


def run_once(command: str, run: Path, end_epoch: int) -> str | None:
    """Run `command` without a shell and wait for it; returns what went wrong, None where all is well or it was run before.

    It finds the run folder in CLPRUNE_RUN and the epochs done at the end in CLPRUNE_END_EPOCH; what it prints goes to stderr. The mark is
    written before it starts: interrupted in the middle, it is not started a second time.
    """
    if (run / MARK).exists():
        return None
    words = words_of(command)
    write_json(run / MARK, {"schema_version": SCHEMA_VERSION, "kind": "clp-end", "command": command, "end_epoch": end_epoch})
    environment = os.environ | {"CLPRUNE_RUN": str(run.absolute()), "CLPRUNE_END_EPOCH": str(end_epoch)}
    sys.stderr.flush()
    try:
        done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, stdout=2, check=False)
    except (OSError, ValueError) as error:
        return f"--on-clp-end: {words[0]} could not be started ({error}); the run itself is complete."
    return f"--on-clp-end: {words[0]} ended with exit code {done.returncode}; the run itself is complete." if done.returncode else None
