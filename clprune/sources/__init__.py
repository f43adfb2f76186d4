"""Where data comes from: one file a source."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from clprune import families
from clprune.datatypes import Source
from clprune.errors import UsageError

FORMS = (
    "fashion-mnist-sample, a folder with one subfolder per class, FILE.npz of images or of logged logits or losses, DIR/x_train.npy, "
    "FILE.parquet / .csv / .jsonl, hf:NAME_OR_FOLDER[:SPLIT], wds:SHARDS, torchvision:NAME?root=DIR, or module:function"
)


def open_source(locator: Any, *, strict: bool = False, on_progress: Callable[[int, int], None] | None = None) -> Source:
    """Open the data set that a DATA argument names, or look at one that you have open (map-style, of torch or Hugging Face).

    Unreadable inputs are left out and listed in `skipped`; `strict` refuses them. `on_progress(done, total)` counts files that were looked at, where there are many.

    Raises UsageError for a locator of no known form, DataError or LabelError for data that cannot be used.
    """
    if not isinstance(locator, str):
        return families.adapted(locator)
    for member in families.members("sources").values():
        if families.facts(member)["claims"](locator):
            looks = "on_progress" in inspect.signature(member).parameters
            return member(locator, strict=strict, **({"on_progress": on_progress} if looks else {}))
    raise UsageError(f"'{locator}' is not a form of data that clprune reads, or does not exist. Give one of: {FORMS}.")
