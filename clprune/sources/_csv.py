"""In which encoding a file of text is written, and what stands between the columns of a CSV file; shared by those that read one."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

HEAD = 1 << 16  # bytes that are looked at: the first row must end in them; csv takes fields of up to 131,072 letters
SEPARATORS = (",", ";", "\t", "|")  # spreadsheets write the second where a comma stands in numbers
TOLD = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)  # a first line that some programs write for Excel, which does not show it
MARKS = (  # at the beginning of a file; those of UTF-32 begin with those of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def head_of(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def encoding_of(head: bytes) -> str:
    """By the mark at the beginning of a file, or the zero that UTF-16 has beside a first letter of ASCII; else UTF-8.

    >>> encoding_of("path;label".encode("utf-16-be"))
    'utf-16-be'
    """
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    zeros = [byte == 0 for byte in head[:2]]
    return "utf-16-le" if zeros == [False, True] else "utf-16-be" if zeros == [True, False] else "utf-8"


def separator_of(head: str, fits: Callable[[set[str]], bool]) -> tuple[str, int]:
    """The first of SEPARATORS at which the first row that is not empty falls into columns that fit, a comma where none does, and 0; or the one that a first line `sep=;` tells, and 1: that line is no row.

    >>> separator_of("a, b;label", lambda columns: "label" in columns)
    (';', 0)
    >>> separator_of("sep=;\\na, b;label", lambda columns: "label" in columns)
    (';', 1)
    """
    if told := TOLD.match(head):
        return told[1], 1
    for separator in SEPARATORS:
        rows = csv.reader(io.StringIO(head, newline=""), delimiter=separator)
        if fits(set(next((row for row in rows if row), ()))):
            return separator, 0
    return SEPARATORS[0], 0


def line_of_other_encoding(path: Path) -> int | None:
    """The first line of a file that is not UTF-8, counted from 1; None where all of it is."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return None
