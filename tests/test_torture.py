"""Each row of tests/torture.py with a small count."""

from pathlib import Path

import numpy as np
import pytest
from torture import ROWS


@pytest.mark.parametrize("name", ROWS)
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    row, _, few = ROWS[name]
    tried, failures = row(few, np.random.default_rng(1), tmp_path)
    assert tried > 0 and failures == []
