"""A Hugging Face data set: `hf:NAME_OR_FOLDER[:SPLIT][?streaming=1&id=COLUMN]`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from clprune.datatypes import Source
from clprune.errors import DataError, MissingExtraError, UsageError
from clprune.families import source
from clprune.sources._table import TEST_SPLITS, source_of_table


def _adapts(dataset: Any) -> Source | None:
    """A Source over an open `datasets.Dataset`."""
    import sys

    library = sys.modules.get("datasets")  # whoever holds such a data set has imported it
    if library is None or not isinstance(dataset, (library.Dataset, library.IterableDataset)):
        return None
    return _open(dataset, "this Hugging Face data set", False)


@source(claims=lambda locator: locator.startswith("hf:"), adapts=_adapts)
def hugging_face(locator: str, *, strict: bool = False) -> Source:
    """A saved data set (`save_to_disk`), a folder or a name that `load_dataset` takes. Columns are found by their type.

    Ids are the column that `?id=` names, else `id` or `sample_id`, else row numbers. With `?streaming=1` the data set is read once from start to end
    into a temporary file, and the id column must be there: the rows of a stream have no numbers that stay.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "hf: data") from error
    place, _, query = locator.removeprefix("hf:").partition("?")
    options = dict(part.partition("=")[::2] for part in query.split("&") if part)
    name, _, split = place.partition(":")
    folder, id_column, streaming = Path(name), options.get("id"), options.get("streaming") == "1"
    try:
        if folder.is_dir() and any((folder / marker).exists() for marker in ("state.json", "dataset_dict.json")):
            loaded = datasets.load_from_disk(str(folder))
        else:
            loaded = datasets.load_dataset(name, streaming=streaming)
        if streaming and not isinstance(loaded, dict) and not isinstance(loaded, datasets.IterableDataset):
            loaded = loaded.to_iterable_dataset()
    except Exception as error:
        raise DataError(f"{locator} cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0]}).") from error
    test = None
    if isinstance(loaded, dict):
        chosen = split or ("train" if "train" in loaded else next(iter(loaded)))
        if chosen not in loaded:
            raise UsageError(f"{locator}: there is no split '{chosen}' (there are: {', '.join(loaded)}).")
        test = next((loaded[part] for part in TEST_SPLITS if part in loaded and part != chosen), None)
        loaded = loaded[chosen]
    train = _open(loaded, locator, strict, id_column=id_column)
    if test is None:
        return train
    return replace(train, load_test=lambda: _open(test, locator, strict, train.class_names, id_column=id_column))


def _open(data: Any, locator: str, strict: bool, class_names: tuple[str, ...] | None = None, *, id_column: str | None = None) -> Source:
    import datasets

    features = data.features or {}
    image = next((name for name, kind in features.items() if isinstance(kind, datasets.Image)), None)
    label = next((name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)), "label" if "label" in features else None)
    text = next((name for name in ("text", "sentence", "content") if name in features), None)
    if label is None or (image is None and text is None):
        raise DataError(f"{locator} has columns {', '.join(features)}; an Image or text column and a ClassLabel or `label` column are needed.")
    if id_column is not None and id_column not in features:
        raise UsageError(f"{locator}: there is no column '{id_column}' for the ids (there are: {', '.join(features)}).")
    ids = id_column or next((name for name in ("id", "sample_id") if name in features), None)
    streamed = isinstance(data, datasets.IterableDataset)
    if streamed and ids is None:
        raise DataError(
            f"{locator} is streamed, and no column says which sample is which: the rows of a stream have no numbers that stay. Please name a column of "
            f"unique ids, `?streaming=1&id=COLUMN` (columns: {', '.join(features)}), or add one, or load the data set without streaming."
        )
    used = {(image or text): "image" if image else "text", label: "label"} | ({ids: "id"} if ids else {})
    if image:
        data = data.cast_column(image, datasets.Image(decode=False))
    data = data.select_columns(list(used)).with_format("arrow")
    table = _spooled(data) if streamed else data[:]
    table = table.rename_columns([used[name] for name in table.column_names]).replace_schema_metadata(None)
    names = tuple(features[label].names) if isinstance(features[label], datasets.ClassLabel) else None
    return source_of_table(table, locator, Path("."), strict=strict, class_names=class_names or names, is_test=class_names is not None)


def _spooled(stream: Any) -> pa.Table:
    """A stream's rows as a table that is memory-mapped from a temporary file, which is gone when nobody holds the table."""
    with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
        writer = None
        for batch in stream.iter(batch_size=1000):
            writer = writer or pa.ipc.new_file(file, batch.schema)
            writer.write_table(batch)
        if writer is None:
            return pa.table({name: [] for name in stream.column_names})
        writer.close()
        file.flush()
        return pa.ipc.open_file(pa.memory_map(file.name)).read_all()
