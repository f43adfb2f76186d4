"""Meters of one house: what each room used adds up to no more than the house did."""

import subprocess
import sys
import time

import pytest

from clprune import energy
from clprune.energy import EnergyMeter, command_started, metered, step_began, step_so_far


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_rooms_add_up_to_no_more_than_the_house() -> None:
    rooms = []
    with EnergyMeter() as house:
        for _ in range(3):
            with EnergyMeter() as room:
                busy(0.3)
            rooms.append(room)
        busy(0.2)
    used = [room.kwh for room in rooms]
    assert house.kwh is not None and None not in used
    assert 0.5 * house.kwh < sum(one for one in used if one is not None) < house.kwh
    assert sum(room.seconds for room in rooms) < house.seconds
    assert house.method.startswith("codecarbon") and energy._house.tracker is None  # it stops with the last meter


def test_a_meter_can_be_read_while_it_runs() -> None:
    with EnergyMeter() as meter:
        busy(0.2)
        meter.read()
        first = (meter.seconds, meter.kwh)
        busy(0.2)
    assert 0.2 <= first[0] < meter.seconds and first[1] is not None and meter.kwh is not None and 0 < first[1] < meter.kwh


def test_a_stretch_that_is_shorter_than_the_tracker_looks_is_measured_too() -> None:
    with EnergyMeter():
        rooms = [EnergyMeter() for _ in range(8)]
        for room in rooms:
            with room:
                busy(0.001)
    assert all(room.kwh is not None and room.kwh > 0 for room in rooms)
    assert all(room.seconds < energy.SHORTEST for room in rooms)  # the wait is not counted


def test_the_first_step_of_a_command_is_charged_with_the_start_of_its_process() -> None:
    now = time.perf_counter()
    command_started()
    began = step_began()
    assert began < now - 0.5  # this process has run for longer than that
    assert step_began() >= now  # the second step begins when it begins


def test_a_step_knows_what_it_took_so_far_and_nobody_else_does() -> None:
    @metered
    def outer() -> list[EnergyMeter | None]:
        before = step_so_far()
        inner()
        return [before, step_so_far()]

    @metered
    def inner() -> None:
        seen.append(step_so_far())

    @metered
    def failing() -> None:
        raise ValueError("no")

    seen: list[EnergyMeter | None] = []
    before, after = outer()
    assert before is after is not None and seen[0] is not before and seen[0] is not None
    with pytest.raises(ValueError, match="no"):
        failing()
    assert step_so_far() is None and energy._house.n_open == 0


def test_a_process_is_not_taken_to_be_older_than_it_is() -> None:
    code = "import time; from clprune.energy import _age; print(_age(), time.perf_counter())"  # on Linux both clocks go on evenly
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    age, now = map(float, done.stdout.split())
    assert -0.02 < (now - began) - age < 0.5  # starting a process takes some hundredths; the kernel counts hundredths
