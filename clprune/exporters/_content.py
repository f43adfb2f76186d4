"""The encoded content of a sample, whatever its source; shared by the exporters."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import numpy as np

from clprune.datatypes import Source
from clprune.decoding import ORIENTATION, SUFFIXES, suffix_of
from clprune.errors import ClpruneError, DataError

AS_PNG = ("1", "L", "LA", "I", "I;16", "I;16B", "P", "RGB", "RGBA")  # modes of PIL that PNG holds


def encoded(source: Source, index: int) -> tuple[bytes, str]:
    """Bytes and suffix of a sample: the original bytes where there are some, else PNG (images; TIFF where pixels are floats) or UTF-8 (text). Raises DataError that names a sample which cannot be read any more."""
    try:
        return _encoded(source, index)
    except OSError as error:
        if isinstance(error, ClpruneError) or error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"{source.locator}: '{source.sample_ids[index]}' is kept, but cannot be read any more ({error}). Restore it, or score again without it."
        ) from error


def _encoded(source: Source, index: int) -> tuple[bytes, str]:
    if source.read_bytes is not None or source.paths is not None:
        content, suffix = source.read_bytes(index) if source.read_bytes is not None else _of_file(source.paths[index])  # type: ignore[index]
        if source.kind == "text" or suffix.lower() in SUFFIXES:
            return content, suffix
        if (found := suffix_of(content)) != ".bin":  # else the data set makes an image of what the file holds
            return content, found
    value: Any = source.read_input(index)
    if isinstance(value, str):
        return value.encode(), ".txt"
    from PIL import Image

    if isinstance(value, np.ndarray):
        value = Image.fromarray(value.squeeze(-1) if value.ndim == 3 and value.shape[2] == 1 else value)
    buffer = io.BytesIO()
    if value.mode == "F":
        value.save(buffer, "TIFF")
        return buffer.getvalue(), ".tif"
    shown = Image.Exif()
    if ORIENTATION in (held := value.getexif()):
        shown[ORIENTATION] = held[ORIENTATION]
    if value.mode not in AS_PNG:
        value = value.convert("RGBA" if value.mode in ("PA", "La", "RGBa") else "RGB")
    value.save(buffer, "PNG", **({"exif": shown} if len(shown) else {}))
    return buffer.getvalue(), ".png"


def _of_file(path: Path) -> tuple[bytes, str]:
    return path.read_bytes(), path.suffix.lower()


def hugging_face_features(source: Source) -> dict[str, Any]:
    """The schema metadata by which Hugging Face `datasets` knows images and class names in a Parquet file."""
    value = {"text": {"dtype": "string", "_type": "Value"}} if source.kind == "text" else {"image": {"_type": "Image"}}
    features = {"id": {"dtype": "string", "_type": "Value"}} | value | {"label": {"names": list(source.class_names), "_type": "ClassLabel"}}
    return {"info": {"features": features}}
