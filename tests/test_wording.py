"""Sentences with counts and differences: no "1 seeds", no "-0.00", wherever people read them."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_shapes
from typer.testing import CliRunner

from clprune.cells import number
from clprune.cli import app
from clprune.errors import GuardError
from clprune.evaluation import _comparison

PACKAGE = Path(__file__).parents[1] / "clprune"
ONE_OF_MANY = r"(?<![\d.,:/-])1 (?:proxy |short |test |training )?(?:epochs|seeds|trainings|samples|classes|labels|answers|files|bytes|steps|pairs|near-duplicates|questions)\b"
OF_ZERO = r"-0(?:\.0+)?(?![\d.])"


def test_one_is_no_plural_in_what_a_run_of_one_epoch_and_one_seed_prints(tmp_path: Path) -> None:
    (x, y), (x_test, y_test) = draw_shapes(200, 0, 2), draw_shapes(60, 1, 2)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    folder = tmp_path / "p"
    commands = [
        ["plan", tmp_path / "d.npz", "--max-epochs", 1],
        ["prune", tmp_path / "d.npz", "--keep", "0.5", "--max-epochs", 1, "--out", folder],
        ["select", folder / "run", "--keep", "1", "--min-per-class", 0, "--out", tmp_path / "one"],
        ["export", tmp_path / "one", "--to", "indices", tmp_path / "indices"],
        ["evaluate", folder / "manifest", "--seeds", 1, "--epochs", 1],
        ["savings", folder / "manifest"],
        ["report", folder / "manifest", "--out", tmp_path / "page.html"],
    ]
    said = [CliRunner().invoke(app, [str(part) for part in command]) for command in commands]
    assert all(done.exit_code in (0, 4) or isinstance(done.exception, GuardError) for done in said)
    text = "\n".join(f"{done.output}{done.exception}" for done in said) + (tmp_path / "page.html").read_text()
    text += json.dumps(json.loads((folder / "manifest" / "evaluation.json").read_text())["comparison"])
    assert "1 epoch" in text and "1 seed" in text and "1 sample" in text
    assert not re.findall(ONE_OF_MANY, text)


def test_no_difference_is_formatted_without_the_helper() -> None:
    """A signed format of a float may show "-0.00"; `wording.points` and `unsigned_zero` do not."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            spec = ast.unparse(node.format_spec) if isinstance(node, ast.FormattedValue) and node.format_spec else ""
            if "+" in spec and "z" not in spec:
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


@pytest.mark.parametrize("difference", [-1e-9, -0.00004, 0.0, -0.0])
def test_what_rounds_to_zero_has_no_minus(difference: float) -> None:

    runs = [{"accuracy": 0.5 + difference, "samples": 1}, {"accuracy": 0.5 + difference, "samples": 1}]
    told = _comparison({"pruned": {"runs": runs}, "random": {"runs": [{"accuracy": 0.5}] * 2}}, 10**9)["sentence"]
    assert not re.findall(OF_ZERO, told) and not re.findall(OF_ZERO, number(100 * difference, "+.1f")["text"])
