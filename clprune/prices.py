"""Prices and factors that are assumed where the user gives none: each with its date, source and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Default:
    """One assumed constant."""

    value: float
    unit: str
    date: str
    source: str
    trust: str


DEFAULTS = {
    "label_price": Default(
        0.012, "USD per label of one worker", "2026-03", "AWS SageMaker Ground Truth public workforce, lowest allowed task price", "high"
    ),
    "labelers_per_item": Default(3, "workers per sample", "2026-03", "usual setting on public workforces (3 to 5)", "medium"),
    "storage_price": Default(0.023, "USD per GB and month", "2026-05", "Amazon S3 Standard, us-east, first 50 TB", "high"),
    "carbon": Default(475.0, "g CO2e per kWh", "2019", "world average, IEA 2019 (the fallback of codecarbon)", "high, old"),
    "pue": Default(
        1.0, "facility energy over machine energy", "2026-10", "codecarbon's default; the industry's average is 1.58 (Uptime Institute, 2023)", "high"
    ),
}
