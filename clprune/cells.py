"""Cells and tables of the page, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clprune.wording import unsigned_zero

Cell = Mapping[str, Any]


def table(name: str, caption: str, headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> dict[str, Any]:
    return {"name": name, "caption": caption, "headers": headers, "rows": rows}


def cell(text: str, kind: str = "", value: float | None = None) -> dict[str, Any]:
    return {"text": text, "kind": kind, "value": value}


def count(value: int | None) -> dict[str, Any]:
    return {"text": "not measured" if value is None else f"{value:,}", "kind": "number" if value is not None else "number absent", "value": value}


def number(value: float | None, form: str) -> dict[str, Any]:
    """A figure to sort by; None says that nothing was measured."""
    if value is None:
        return {"text": "not measured", "kind": "number absent", "value": None}
    return {"text": readable(value) if form == "savings" else unsigned_zero(value, form), "kind": "number", "value": float(value)}


def readable(value: float) -> str:
    """A figure for a table: no more digits than can be read, and none of them an exponent."""
    if not np.isfinite(value):
        return "infinite"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 1 else np.format_float_positional(value, precision=3, fractional=False, trim="-")


def rounded(value: float) -> str:
    """A number above 0 within a sentence: two digits, and all before the point.

    >>> rounded(1.26), rounded(120.6), rounded(0.00004)
    ('1.3', '121', '0.00004')
    """
    return f"{value:,.0f}" if value >= 9.95 else np.format_float_positional(value, precision=2, fractional=False, trim="-")


def times100(value: float | None) -> float | None:
    return None if value is None else 100 * value


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def data_name(locator: str) -> str:
    """The last part of a locator: what people call the data."""
    return locator.rstrip("/").replace("\\", "/").rpartition("/")[2] or locator


def percent(mean: float, deviation: float | None) -> str:
    return f"{100 * mean:.2f} %" + ("" if deviation is None else f" ± {100 * deviation:.2f}")


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(0.0073), duration(16.9), duration(600)
    ('0.0073 s', '17 s', '10.0 min')
    """
    return f"{rounded(seconds)} s" if seconds < 120 else f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
