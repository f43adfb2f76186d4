"""The example programs, in a short form."""

import runpy
import warnings
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_loop_of_ones_own_records_and_selects(capsys) -> None:  # type: ignore[no-untyped-def]
    right = runpy.run_path(str(EXAMPLES / "own_loop.py"))["main"](max_epochs=1, n_samples=600)
    assert 0 <= right <= 1 and "kept 300 of 600" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["lightning_loop", "transformers_trainer"])
def test_the_loops_of_other_libraries_record_and_select(name: str, capsys) -> None:  # type: ignore[no-untyped-def]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries themselves
        assert runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](max_epochs=1, n_samples=600) == 0.5
    assert "kept 300 of 600" in capsys.readouterr().out


def test_the_report_of_an_invented_run_is_measured() -> None:
    result = runpy.run_path(str(EXAMPLES / "benchmarks" / "report_scale.py"))["measured"](2000)
    assert result["pictures"] > 24 and 0 < result["page_bytes"] < 3_000_000 and result["peak_bytes"] < 2e9
