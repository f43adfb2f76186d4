"""Every error that a user can cause, with the exit code that the command line gives it.

    ClpruneError                    1   unexpected, or the environment failed
    ├── UsageError                  2   an argument is wrong
    ├── DataError                   3   the data is bad, or not the data that was scored
    │   ├── LabelError                  labels missing, out of range, one class only
    │   ├── MissingSignalError          a score needs a signal that was not recorded
    │   ├── FingerprintError            another data set than the one in the manifest
    │   ├── SchemaError                 a file written by a newer clprune
    │   └── IntegrityError              a digest does not match
    ├── GuardError                  4   a guard said no
    ├── MissingExtraError           5   an optional library is not installed
    ├── StorageError                1   no space, no permission, a folder in use
    ├── TrainingError               1   the loss is no longer a number
    └── DistributedError            1   the processes of one command lost each other

A message says what was wrong, what was seen, and what to do.
"""

from collections.abc import Mapping
from typing import Any


class ClpruneError(Exception):
    """Base of all errors that clprune raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(ClpruneError, ValueError):
    """An argument is outside its range or names nothing that exists."""

    exit_code = 2


class DataError(ClpruneError):
    """The data cannot be read, or is not what it should be."""

    exit_code = 3


class LabelError(DataError):
    """Labels are missing, out of range, not whole numbers, or of one class only."""


class MissingSignalError(DataError, KeyError):
    """A score needs a signal that the trajectory does not hold."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class FingerprintError(DataError):
    """The data set at hand is not the one that the run or manifest was made from."""


class SchemaError(DataError):
    """A file has a schema version that this clprune does not read."""


class IntegrityError(DataError):
    """A stored file does not have the digest that was written down for it."""


class GuardError(ClpruneError):
    """A guard said no: the result would break a promise (an empty class, worse than random, ...). `found` is the document of what was measured before, where something was."""

    exit_code = 4

    def __init__(self, message: str, found: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.found = found


class MissingExtraError(ClpruneError, ImportError):
    """An optional library is missing; the message holds the pip line."""

    exit_code = 5

    def __init__(self, library: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {library}, which is not installed. Run: pip install {library}")


class StorageError(ClpruneError):
    """Writing failed (no space, no permission), or the folder is in use by another process."""


class TrainingError(ClpruneError):
    """Training broke down: the loss is not a finite number."""


class DistributedError(ClpruneError):
    """The processes of one command lost each other, or disagree."""
