"""The row of torture.py that takes steps at random: score, select, export, crash, corrupt, verify, and again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from torture_crashes import WORKS, content, dying_at, in_child, prepared

from clprune import pipeline
from clprune.errors import ClpruneError

STEPS = 50  # of one machine
WAYS = ("flip", "cut", "empty", "delete")


def machine_over(folder: Path, told: dict[str, int]) -> type[RuleBasedStateMachine]:
    """A machine that works in `folder` on three places (a run, a manifest, an export) and counts its steps in `told`.

    It knows of each place what must stand there: nothing, the outcome of a command, something half done, or something that was spoiled.
    """
    prepared(folder)
    right: dict[tuple[str, int], dict[str, bytes]] = {}
    for work in ("rescoring", "selecting", "exporting"):
        for variant in (0, 1):
            out = folder / f"right-{work}-{variant}"
            WORKS[work](str(folder), str(out), variant)
            right[work, variant] = content(out)
    works = st.sampled_from(["rescoring", "selecting", "exporting"])

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.place = folder / "places"
            shutil.rmtree(self.place, ignore_errors=True)
            self.place.mkdir()
            self.stands: dict[str, int | None] = {}  # work -> the variant that stands there; None: half done (a run only)
            self.spoiled: dict[str, str] = {}  # work -> the file

        def out(self, work: str) -> Path:
            return self.place / work

        def seen(self, work: str) -> dict[str, bytes] | None:
            out = self.out(work)
            return content(out) if out.exists() and (work != "rescoring" or (out / "run.json").exists()) else None

        def count(self) -> None:
            told["steps"] += 1

        @rule(work=works, variant=st.integers(0, 1))
        def do(self, work: str, variant: int) -> None:
            """A command goes over whatever is there, also over what was spoiled."""
            self.count()
            WORKS[work](str(folder), str(self.out(work)), variant)
            assert self.seen(work) == right[work, variant], f"{work} over {self.stands.get(work)}, {self.spoiled.get(work)}"
            assert [path.name for path in self.place.iterdir() if path.name.startswith(f".{work}.")] == []
            self.stands[work] = variant
            self.spoiled.pop(work, None)

        @rule(work=works, variant=st.integers(0, 1), step=st.integers(1, 40), after=st.booleans())
        def crash(self, work: str, variant: int, step: int, after: bool) -> None:
            """A command dies on the way: the old state or the new one stands there; of a run perhaps none."""
            self.count()
            code = in_child(dying_at, work, str(folder), str(self.out(work)), step, after, None, variant)
            assert code in (0, 137), code
            found, old = self.seen(work), self.stands.get(work)
            if work == "rescoring" and found is None:
                self.stands[work] = None
                self.spoiled.pop(work, None)
            elif found == right[work, variant]:
                self.stands[work] = variant
                self.spoiled.pop(work, None)
            elif work in self.spoiled:
                pass  # the spoiled one stands there still
            elif old is not None and found != right[work, old]:
                raise AssertionError(f"{work} died at step {step}: neither the old state nor the new one")
            elif old is None:
                assert found is None, f"{work} died at step {step} and left half of it"

        @rule(work=works, way=st.sampled_from(WAYS), which=st.integers(0, 1000), at=st.integers(0, 10**9))
        def spoil(self, work: str, way: str, which: int, at: int) -> None:
            """Something happens to a file: `verify` names it."""
            if self.stands.get(work) is None or work in self.spoiled:
                return
            self.count()
            out = self.out(work)
            files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in (".lock", ".owner", "live.json")]
            path = files[which % len(files)]
            data = bytearray(path.read_bytes())
            if way == "delete":
                path.unlink()
            elif way == "empty" or not data:
                path.write_bytes(b"")
            elif way == "cut":
                path.write_bytes(data[: at % len(data)])
            else:
                data[at % len(data)] ^= 1 << at % 8
                path.write_bytes(data)
            problems = self.problems(work)
            if path.name == "run.json" and way == "delete":
                self.stands[work] = None  # then it is no run
            elif content(out) != right[work, self.stands[work]]:  # type: ignore[index]
                assert any(path.name in text for text in problems), f"{way} of {path.name}: {problems}"
                self.spoiled[work] = path.name

        def problems(self, work: str) -> list[str]:
            try:
                return pipeline.verify(self.out(work))
            except ClpruneError as error:
                return [str(error)]

        @rule(work=works)
        def verify(self, work: str) -> None:
            """Nothing is wrong unless something was spoiled or is half done."""
            self.count()
            if self.stands.get(work) is None:
                assert self.problems(work) != [] or work == "rescoring"
            else:
                problems = self.problems(work)
                assert bool(problems) == (work in self.spoiled), problems

        @precondition(lambda self: self.stands.get("rescoring") is not None)
        @rule(keep=st.sampled_from(["0.5", "0.2"]))
        def select_from_the_run(self, keep: str) -> None:
            """A run is selected from, or refused where what is needed of it was spoiled."""
            self.count()
            try:
                manifest = pipeline.select(self.out("rescoring"), self.place / "chosen", keep=keep, force=True)
            except ClpruneError as error:
                assert "rescoring" in self.spoiled, error
            else:
                assert manifest.n_kept == round(float(keep) * 120) and pipeline.verify(manifest.folder) == []

    return Machine


def steps_at_random(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """`count` steps or a few more, in machines of at most STEPS."""
    told, failures = {"steps": 0}, list[str]()
    machine = machine_over(folder, told)
    options: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}
    while told["steps"] < count and len(failures) < 5:
        before = told["steps"]
        examples = max(1, min(20, (count - before) // STEPS))
        try:
            run_state_machine_as_test(
                machine, settings=settings(max_examples=examples, stateful_step_count=min(STEPS, count), derandomize=False, **options)
            )
        except Exception as error:
            notes = " ".join(str(error).split()) or type(error).__name__
            failures.append(f"after {told['steps']} steps: {type(error).__name__}: {notes[:500]}")
    return told["steps"], failures
