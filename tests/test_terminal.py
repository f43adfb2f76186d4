"""What is shown while a run goes on."""

import os
import subprocess
import sys

import pytest

from clprune import cells
from clprune.terminal import number, plain_table, show

CODE = """
import time
from clprune.terminal import ProgressView
with ProgressView(quiet=False) as view:
    curves = {"training_accuracy": [0.1, 0.5, 0.9], "retention": [float("nan"), 0.2, 0.8], "layer_rotation": [0.0, 0.1, 0.2]}
    view({"stage": "train", "done": 1, "total": 9, "curves": curves, "deciding": ["retention"], "waiting_for": "the ranking of samples"})
    time.sleep(0.3)
"""


def test_a_terminal_shows_the_deciding_curves_and_what_the_rule_waits_for() -> None:
    ours, theirs = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "60"}
    with subprocess.Popen([sys.executable, "-c", CODE], stderr=theirs, env=environment) as child:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # the other end is closed
            pass
        assert child.wait() == 0
    os.close(ours)
    text = shown.decode()
    assert "the period's end waits for: the ranking of samples" in text
    assert "retention  ▁█ 0.800" in text and "training_accuracy ▁▅█ 0.900" in text and "layer_rotation" not in text


def test_without_a_terminal_there_are_no_curves() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.stderr == "train 1/9\n" and done.stdout == ""


@pytest.mark.parametrize(
    ("value", "text"), [(12.0, "12"), (-1234.5, "-1,234.50"), (0.123456, "0.123"), (0.0000123456, "0.0000123"), (float("inf"), "infinite")]
)
def test_a_figure_reads_alike_in_the_terminal_and_on_the_page(value: float, text: str) -> None:
    assert number(value) == cells.number(value, "savings")["text"] == text
    assert number(None) == "-"


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show({}, False, "hf:dog:train [b]x[/b]", plain_table("hf:cat:train", ("id",), [(":bug: [red]x",)]))
    assert [line.strip() for line in capsys.readouterr().out.splitlines()][:2] == ["hf:dog:train [b]x[/b]", "hf:cat:train"]
