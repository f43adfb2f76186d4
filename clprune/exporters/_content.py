"""The encoded content of a sample, whatever its source; shared by the exporters."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from clprune.datatypes import Source


def encoded(source: Source, index: int) -> tuple[bytes, str]:
    """Bytes and suffix of a sample: the original bytes where there are some, else PNG (images) or UTF-8 (text)."""
    if source.read_bytes is not None:
        return source.read_bytes(index)
    if source.paths is not None:
        return source.paths[index].read_bytes(), source.paths[index].suffix.lower()
    value: Any = source.read_input(index)
    if isinstance(value, str):
        return value.encode(), ".txt"
    from PIL import Image

    if isinstance(value, np.ndarray):
        value = Image.fromarray(value.squeeze(-1) if value.ndim == 3 and value.shape[2] == 1 else value)
    buffer = io.BytesIO()
    value.save(buffer, "PNG")
    return buffer.getvalue(), ".png"


def hugging_face_features(source: Source) -> dict[str, Any]:
    """The schema metadata by which Hugging Face `datasets` knows images and class names in a Parquet file."""
    value = {"text": {"dtype": "string", "_type": "Value"}} if source.kind == "text" else {"image": {"_type": "Image"}}
    features = {"id": {"dtype": "string", "_type": "Value"}} | value | {"label": {"names": list(source.class_names), "_type": "ClassLabel"}}
    return {"info": {"features": features}}
