"""Prices and factors that are assumed where the user gives none: each with its date, source and how far it can be trusted."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clprune.datatypes import SavingsLine
from clprune.errors import UsageError


@dataclass(frozen=True)
class Default:
    """One assumed constant."""

    value: float
    unit: str
    date: str
    source: str
    trust: str


DEFAULTS = {
    "label_price": Default(0.012, "USD per label", "2026-03", "AWS SageMaker Ground Truth public workforce, lowest allowed task price", "high"),
    "labelers_per_item": Default(3, "workers per sample", "2026-03", "usual setting on public workforces (3 to 5)", "medium"),
    "storage_price": Default(0.023, "USD per GB and month", "2026-05", "Amazon S3 Standard, us-east, first 50 TB", "high"),
    "carbon": Default(475.0, "g CO2e per kWh", "2019", "world average, IEA 2019 (the fallback of codecarbon)", "high, old"),
    "pue": Default(
        1.0, "facility energy over machine energy", "2026-10", "codecarbon's default; the industry's average is 1.58 (Uptime Institute, 2023)", "high"
    ),
}


@dataclass(frozen=True)
class Fee:
    """A platform's fee a sample, by tiers: (up to so many samples, USD a sample)."""

    tiers: tuple[tuple[float, float], ...]
    date: str
    source: str


UNITS = {name: default.unit for name, default in DEFAULTS.items()} | {"gpu_price": "USD per hour", "label_fee": "USD per sample"}
FEES = {
    "ground-truth": Fee(
        ((50_000, 0.08), (1_000_000, 0.04), (math.inf, 0.02)),
        "2026-03",
        "AWS SageMaker Ground Truth fee a sample, by tiers (as quoted, not seen at AWS)",
    )
}


def price_used(line: SavingsLine | Mapping[str, Any]) -> str:
    """The price or factor that a line of savings rests on, with its unit, source and date; empty where it rests on none.

    >>> price_used({"price": 475.0, "price_unit": "g CO2e per kWh", "price_source": "world average", "price_date": "2019"})
    '475 g CO2e per kWh, world average, 2019'
    """
    told = line if isinstance(line, Mapping) else asdict(line)
    if told["price"] is None:
        return ""
    unit, date = (f"{before}{text}" if text else "" for before, text in ((" ", told.get("price_unit")), (", ", told["price_date"])))
    return f"{told['price']:g}{unit}, {told['price_source']}{date}"


def read_prices(path: Path) -> dict[str, dict[str, Any]]:
    """Prices of your own from a TOML file: `label_price = 0.05`, or a table with `value`, `date` and `source`; for `gpu_price` too. A flag goes before the file.

    Raises UsageError that names the file and the entry that cannot be used.
    """
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"the prices in {path} cannot be read ({error}). Write lines such as label_price = 0.05.") from None
    known, found = (*DEFAULTS, "gpu_price"), {}
    for name, entry in document.items():
        table = entry if isinstance(entry, dict) else {"value": entry}
        value = table.get("value")
        if name not in known:
            raise UsageError(f"{path}: there is no price '{name}' (there are: {', '.join(known)}).")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf or set(table) - {"value", "date", "source"}:
            raise UsageError(f"{path}: {name} is {entry!r}; give a number of at least 0, or a table with value, date and source.")
        found[name] = {"value": float(value), "date": str(table.get("date", "")) or None, "source": str(table.get("source", path.name))}
    return found


def read_tiers(text: str) -> tuple[tuple[float, float], ...]:
    """Tiers of a fee: of a name in FEES, or written out; empty for "none". Raises UsageError for anything else.

    >>> read_tiers("50000:0.08,inf:0.02")
    ((50000.0, 0.08), (inf, 0.02))
    """
    if text == "none":
        return ()
    if text in FEES:
        return FEES[text].tiers
    try:
        tiers = tuple((float(limit), float(price)) for limit, _, price in (part.partition(":") for part in text.split(",")))
    except ValueError:
        tiers = ()
    limits, prices = [limit for limit, _ in tiers], [price for _, price in tiers]
    rising = bool(limits) and limits == sorted(set(limits)) and limits[0] > 0 and limits[-1] == math.inf
    if not rising or not all(0 <= price < math.inf for price in prices):
        raise UsageError(f"label_fee is {text!r}; give none, {', '.join(FEES)}, or rising tiers that end with inf, such as 50000:0.08,inf:0.02.")
    return tiers


def fee_for(n_samples: int, tiers: tuple[tuple[float, float], ...]) -> float:
    """USD for so many samples, each tier's price for the samples within it.

    >>> fee_for(60_000, ((50_000, 0.08), (math.inf, 0.04)))
    4400.0
    """
    total, lower = 0.0, 0.0
    for limit, price in tiers:
        total += max(0.0, min(n_samples, limit) - lower) * price
        lower = limit
    return total
