"""Energy used by a stretch of work, by codecarbon's offline tracker: no network, and never 0 where nothing was measured."""

from __future__ import annotations

import logging
import time
import warnings
from types import TracebackType
from typing import Any


class EnergyMeter:
    """`with EnergyMeter() as meter: ...` then `meter.kwh` (None: not measured), `meter.method` and `meter.seconds`."""

    def __init__(self) -> None:
        self.kwh: float | None = None
        self.method = "not measured"
        self.seconds = 0.0
        self._tracker: Any = None

    def __enter__(self) -> EnergyMeter:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its dependencies
                from codecarbon import OfflineEmissionsTracker

                logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
                # The country sets the carbon, which is computed elsewhere; the energy does not depend on it.
                self._tracker = OfflineEmissionsTracker(
                    country_iso_code="USA", save_to_file=False, log_level="critical", measure_power_secs=15, allow_multiple_runs=True
                )
                self._tracker.start()
        except Exception:  # a meter must never stop the work it measures
            self._tracker = None
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self._started
        if self._tracker is None:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._tracker.stop()
            data = self._tracker.final_emissions_data
            if data is not None and data.energy_consumed > 0:
                self.kwh = float(data.energy_consumed)
                self.method = f"codecarbon {data.codecarbon_version}, {data.tracking_mode}: {data.cpu_model or 'CPU'}" + (
                    f", {data.gpu_model}" if data.gpu_model else ""
                )
        except Exception:
            self.kwh = None
