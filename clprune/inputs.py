"""Open the data that a DATA argument names, and give the inputs as one array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from clprune.datatypes import Source
from clprune.storage import cache_folder


def open_data(data: str, strict: bool, on_progress: Callable[[dict[str, Any]], None] | None = None) -> Source:
    from clprune.sources import open_source

    return open_source(
        data, strict=strict, on_progress=(lambda done, total: on_progress({"stage": "list", "done": done, "total": total})) if on_progress else None
    )


def inputs_of(source: Source, image_size: int | None, on_progress: Callable[[int, int], None] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """Images (N, H, W, C), decoded into the cache where they are files, or texts (N, L), and the rule that brought them to one size."""
    from clprune.decoding import load_images
    from clprune.texts import load_texts

    return (
        load_texts(source)
        if source.kind == "text"
        else load_images(source, side=image_size, cache=cache_folder() / "images", on_progress=on_progress)
    )


def held_out_inputs(test: Source, rule: dict[str, Any]) -> np.ndarray:
    """The inputs of a test split, brought to the form that `rule` brought the training split to."""
    from clprune.texts import load_texts

    return load_texts(test, width=rule["width"])[0] if test.kind == "text" else inputs_of(test, rule["size"][0] if rule["resized"] else None)[0]


def trainable(proxy: str, source: Source) -> str:
    """The proxy of a run, or the usual one where the run came from a training that was not ours."""
    from clprune.proxies import proxy_for

    return proxy_for(source.kind, "small_cnn") if proxy in ("own loop", "logged") else proxy
