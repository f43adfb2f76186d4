"""The sample that comes with clprune: `fashion-mnist-sample`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from clprune.datatypes import Source
from clprune.errors import DataError
from clprune.families import source
from clprune.sources._table import source_of_table

NAME = "fashion-mnist-sample"


def sample_folder() -> Path:
    """Where the sample lies: inside the installed package, else at the top of the checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "data" / NAME, package.parent / "data" / NAME):
        if (folder / "train.parquet").is_file():
            return folder
    raise DataError(f"the embedded data set {NAME} is missing from this installation. Install clprune again.")


@source(claims=lambda locator: locator == NAME)
def embedded(locator: str, *, strict: bool = False) -> Source:
    """12,000 training and 2,000 test images of Fashion-MNIST with planted wrong labels and near-duplicates."""
    folder = sample_folder()
    train, test = (pq.read_table(folder / f"{split}.parquet") for split in ("train", "test"))
    opened = source_of_table(train, locator, folder, strict=strict)
    return replace(opened, load_test=lambda: source_of_table(test, locator, folder, strict=strict, class_names=opened.class_names, is_test=True))
