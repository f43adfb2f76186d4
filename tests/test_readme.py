"""What the README shows is so."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

from clprune import families

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_commands_it_shows_exist_with_their_options() -> None:
    shown = re.findall(r"^\.venv/bin/clprune (\w+)(.*?)(?:#|$)", README, flags=re.M)
    assert len(shown) >= 6
    for verb, rest in shown:
        told = subprocess.run([sys.executable, "-m", "clprune", verb, "--help"], capture_output=True, text=True, env={"COLUMNS": "200", "PATH": ""})
        assert told.returncode == 0, verb
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in told.stdout, (verb, option)


def test_the_make_targets_it_shows_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_it_names_every_score_and_strategy_and_form() -> None:
    for family in ("scores", "strategies", "exporters"):
        for name in families.names(family):
            assert re.search(rf"\b{name}\b", README), name


def test_its_tables_are_those_of_the_stored_results() -> None:
    readme = runpy.run_path(str(ROOT / "examples" / "benchmarks" / "readme.py"))
    assert readme["filled"](README) == README, "run python examples/benchmarks/readme.py"
