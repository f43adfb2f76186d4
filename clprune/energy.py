"""Seconds and energy of a stretch of work; energy by codecarbon's offline tracker: no network, and never 0 where nothing was measured.

One tracker runs while any meter is open, and the meters read it, as those of several rooms would read the meter of the house: the first start of a tracker takes
seconds in which nothing is measured, so a tracker for each training would miss a good part of a short run. A step of the command line is charged with all of its
process: the start of Python, the import of torch and the opening of the data are a part of what it costs.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

SHORTEST = 0.06  # seconds: codecarbon does not look again within 0.05 s of its last look, so a shorter stretch would seem to have used nothing
P = ParamSpec("P")
R = TypeVar("R")


class _Output:
    """An output of codecarbon that keeps the last totals it was told: its public way to read a tracker that goes on."""

    def __init__(self) -> None:
        self.total: Any = None

    def out(self, total: Any, delta: Any) -> None:
        self.total = total

    live_out = out

    def task_out(self, *told: Any) -> None:
        """Tasks are not used."""

    def exit(self) -> None:
        """Nothing is held open."""


class _House:
    """The tracker that the open meters of this process share; it stops with the last of them."""

    def __init__(self) -> None:
        self.lock, self.n_open = threading.Lock(), 0
        self.tracker: Any = None
        self.output = _Output()

    def enter(self) -> None:
        with self.lock:
            self.n_open += 1
            if self.n_open > 1:
                return
            self.output = _Output()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of its dependencies
                    from codecarbon import OfflineEmissionsTracker

                    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
                    # The country sets the carbon, which is computed elsewhere; the energy does not depend on it.
                    self.tracker = OfflineEmissionsTracker(
                        country_iso_code="USA", save_to_file=False, log_level="critical", measure_power_secs=15, allow_multiple_runs=True,
                        output_handlers=[self.output],
                    )  # fmt: skip
                    self.tracker.start()
            except Exception:  # a meter must never stop the work it measures
                self.tracker = None

    def leave(self) -> None:
        with self.lock:
            self.n_open -= 1
            if self.n_open == 0 and self.tracker is not None:
                self._quietly(self.tracker.stop)
                self.tracker = None

    def read(self) -> tuple[float | None, str]:
        """kWh since the tracker started (None: not measured), and by what."""
        with self.lock:
            if self.tracker is not None:
                self._quietly(self.tracker.flush)
            total = self.output.total
        if self.tracker is None or total is None:
            return None, "not measured"
        gpu = f", {total.gpu_model}" if total.gpu_model else ""
        return float(total.energy_consumed), f"codecarbon {total.codecarbon_version}, {total.tracking_mode}: {total.cpu_model or 'CPU'}{gpu}"

    @staticmethod
    def _quietly(act: Callable[[], Any]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                act()
        except Exception:  # as above
            return


_house = _House()
_steps: list[EnergyMeter] = []  # the meters of the steps that are going on, the innermost last
_command_began: list[float] = []  # when the process of this command began, until a step has been charged with it


class EnergyMeter:
    """`with EnergyMeter() as meter: ...` then `meter.kwh` (None: not measured), `meter.method` and `meter.seconds`; `meter.read()` brings them up to date inside."""

    def __init__(self, *, began: float | None = None) -> None:
        self.kwh: float | None = None
        self.method = "not measured"
        self.seconds = 0.0
        self._began = began

    def __enter__(self) -> EnergyMeter:
        _house.enter()
        fresh = _house.n_open == 1  # then the tracker began with this meter
        self._zero = 0.0 if fresh else _house.read()[0]
        self._entered = time.perf_counter()
        self._started = self._entered if self._began is None else self._began
        return self

    def read(self) -> None:
        """Seconds and kWh so far; of a stretch shorter than SHORTEST the kWh are those of SHORTEST, which is waited for."""
        self.seconds = time.perf_counter() - self._started
        if _house.tracker is not None:
            time.sleep(max(0.0, self._entered + SHORTEST - time.perf_counter()))
        now, by = _house.read()
        used = 0.0 if now is None or self._zero is None else now - self._zero
        self.kwh, self.method = (used, by) if used > 0 else (None, "not measured")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.read()
        _house.leave()


def command_started() -> None:
    """Note when this process began: the first step that runs in it is charged from then on."""
    _command_began[:] = [time.perf_counter() - max(0.0, _age())]


def _age() -> float:
    """Seconds since this process began; 0 where the system does not tell."""
    try:  # Linux: both count from the boot; psutil adds the moment of the boot, which is known to the second only
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        pass
    try:
        import psutil  # comes with codecarbon

        return float(time.time() - psutil.Process().create_time())
    except Exception:
        return 0.0


def step_began() -> float:
    """When the step that begins now began by `time.perf_counter`: with the process of the command where no step has been charged with that yet."""
    return _command_began.pop() if _command_began else time.perf_counter()


def metered(step: Callable[P, R]) -> Callable[P, R]:
    """A step of the pipeline whose seconds and energy `step_so_far` knows while it runs."""

    @functools.wraps(step)
    def run(*arguments: P.args, **options: P.kwargs) -> R:
        with EnergyMeter(began=step_began()) as meter:
            _steps.append(meter)
            try:
                return step(*arguments, **options)
            finally:
                _steps.remove(meter)

    return run


def step_so_far() -> EnergyMeter | None:
    """The meter of the innermost step that is going on, up to date; None outside of steps."""
    if not _steps:
        return None
    _steps[-1].read()
    return _steps[-1]
