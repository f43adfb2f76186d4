"""A Hugging Face data set: `hf:NAME_OR_FOLDER[:SPLIT][?streaming=1&id=COLUMN&label=COLUMN]`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clprune.datatypes import Source
from clprune.errors import DataError, MissingExtraError, UsageError
from clprune.families import source
from clprune.sources._common import (
    TEST_SPLITS,
    TRAIN_SPLITS,
    integer_labels,
    options_of,
    require_classes,
    require_ids,
    require_range,
    row_ids,
    shown,
    split_among,
    text_of,
)
from clprune.sources._table import source_of_table

OPTIONS = ("streaming", "id", "label")


def _adapts(dataset: Any, like: str) -> Source | None:
    """A Source over an open `datasets.Dataset`, by the columns that the locator `like` names where it is one of this kind."""
    import sys

    library = sys.modules.get("datasets")  # whoever holds such a data set has imported it
    if library is None or not isinstance(dataset, (library.Dataset, library.IterableDataset)):
        return None
    options = options_of(like.partition("?")[2], OPTIONS, like) if like.startswith("hf:") else {}
    return _open(dataset, "this Hugging Face data set", False, id_column=options.get("id"), label_column=options.get("label"), any_inputs=True)


@source(claims=lambda locator: locator.startswith("hf:"), adapts=_adapts)
def hugging_face(locator: str, *, strict: bool = False) -> Source:
    """A saved data set (`save_to_disk`), a folder or a name that `load_dataset` takes. Columns are found by their type.

    Labels are the column that `?label=` names, else `label` or `labels`, else the only ClassLabel column. A test split is numbered by the names of its classes.
    Ids are the column that `?id=` names, else `id` or `sample_id`, else row numbers. With `?streaming=1` the data set is read once from start to end
    into a temporary file, and the id column must be there: the rows of a stream have no numbers that stay.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "hf: data") from error
    place, _, query = locator.removeprefix("hf:").partition("?")
    options = options_of(query, OPTIONS, locator)
    name, _, split = place.partition(":")
    folder, streaming = Path(name), options.get("streaming") == "1"
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()  # they would be drawn into logs, and with --quiet
    try:
        if folder.is_dir() and any((folder / marker).exists() for marker in ("state.json", "dataset_dict.json")):
            loaded = datasets.load_from_disk(str(folder))
        else:
            loaded = datasets.load_dataset(name, streaming=streaming)
        if streaming and not isinstance(loaded, dict) and not isinstance(loaded, datasets.IterableDataset):
            loaded = loaded.to_iterable_dataset()
    except Exception as error:
        raise DataError(f"{locator} cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0]}).") from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    test = None
    if isinstance(loaded, dict):
        chosen = split or split_among(loaded, TRAIN_SPLITS) or next(iter(loaded))
        if chosen not in loaded:
            raise UsageError(f"{locator}: there is no split '{chosen}' (there are: {', '.join(loaded)}).")
        held_out = split_among([part for part in loaded if part != chosen], TEST_SPLITS)
        test = loaded[held_out] if held_out else None
        loaded = loaded[chosen]
    elif split and split != str(loaded.split or ""):
        raise UsageError(f"{locator}: {name} is one data set without splits, so there is no '{split}'. Leave :{split} out.")
    train = _open(loaded, locator, strict, id_column=options.get("id"), label_column=options.get("label"))
    if test is None:
        return train
    return replace(
        train, load_test=lambda: _open(test, locator, strict, train.class_names, id_column=options.get("id"), label_column=options.get("label"))
    )


def _open(
    data: Any,
    locator: str,
    strict: bool,
    class_names: tuple[str, ...] | None = None,
    *,
    id_column: str | None = None,
    label_column: str | None = None,
    any_inputs: bool = False,
) -> Source:
    import datasets

    features = data.features or {}
    image = next((name for name, kind in features.items() if isinstance(kind, datasets.Image)), None)
    label = _label_column(features, label_column, locator)
    text = next((name for name in ("text", "sentence", "content") if name in features), None)
    others = any_inputs and image is None and text is None and not isinstance(data, datasets.IterableDataset)
    if label is None or (image is None and text is None and not others):
        raise DataError(f"{locator} has columns {', '.join(features)}; an Image or text column and a ClassLabel or `label` column are needed.")
    if id_column is not None and id_column not in features:
        raise UsageError(f"{locator}: there is no column '{id_column}' for the ids (there are: {', '.join(features)}).")
    ids = id_column or next((name for name in ("id", "sample_id") if name in features), None)
    if others:
        return _of_other_inputs(data, label, ids, locator)
    streamed = isinstance(data, datasets.IterableDataset)
    if streamed and ids is None:
        raise DataError(
            f"{locator} is streamed, and no column says which sample is which: the rows of a stream have no numbers that stay. Please name a column of "
            f"unique ids, `?streaming=1&id=COLUMN` (columns: {', '.join(features)}), or add one, or load the data set without streaming."
        )
    used = {(image or text): "image" if image else "text", label: "label"} | ({ids: "id"} if ids else {})
    files = [] if streamed else [held["filename"] for held in data.cache_files]
    if image:
        data = data.cast_column(image, datasets.Image(decode=False))
    data = data.select_columns(list(used)).with_format("arrow")
    table = _spooled(data) if streamed else data[:]
    table = table.rename_columns([used[name] for name in table.column_names]).replace_schema_metadata(None)
    names = tuple(features[label].names) if isinstance(features[label], datasets.ClassLabel) else None
    if names and class_names and names != class_names:  # the splits number their classes differently, the names are what they share
        table = table.set_column(table.column_names.index("label"), "label", _names_of(table["label"], names, locator))
    return source_of_table(table, locator, Path("."), strict=strict, class_names=class_names or names, is_test=class_names is not None, files=files)


def _of_other_inputs(data: Any, label: str, ids: str | None, locator: str) -> Source:
    """Ids and labels of rows that hold neither an image nor a text (tokens, vectors), as of a training that was the user's own; an input is all else of its row, and has no size."""
    import datasets

    used = [label, *([ids] if ids else [])]
    table, kind = data.select_columns(used).with_format("arrow")[:], data.features[label]
    labels, found = integer_labels(table[label].to_pylist(), locator)
    names = tuple(kind.names) if isinstance(kind, datasets.ClassLabel) else found
    return Source(
        locator=locator,
        sample_ids=require_ids([text_of(i) for i in table[ids].to_pylist()] if ids else row_ids(len(table)), locator),
        labels=labels,
        class_names=names,
        sample_bytes=np.zeros(len(table), dtype=np.int64),
        read_input=lambda index: {name: value for name, value in data[int(index)].items() if name not in used},
        kind="array",
        facts={"notes": require_classes(labels, names, locator)},
    )


def _label_column(features: Any, asked: str | None, locator: str) -> str | None:
    """The column of labels, None where no column looks like one. Raises UsageError where the one asked for is not there, DataError where several could be meant."""
    import datasets

    if asked is not None and asked not in features:
        raise UsageError(f"{locator}: there is no column '{asked}' for the labels (there are: {', '.join(features)}).")
    of_classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    usual = [name for name in ("label", "labels") if name in of_classes]
    if asked is not None or usual or len(of_classes) == 1:
        return asked or (usual or of_classes)[0]
    if of_classes:
        raise DataError(f"{locator}: several columns hold classes ({shown(of_classes)}). Name one: ?label={of_classes[0]}.")
    return next((name for name in ("label", "labels") if name in features), None)


def _names_of(numbers: pa.ChunkedArray, names: tuple[str, ...], locator: str) -> pa.ChunkedArray:
    """The names of classes by their numbers, null where a sample has no class. Raises LabelError for other numbers."""
    held = np.array([-1 if value is None else value for value in numbers.to_pylist()], dtype=np.int64)
    require_range(held, names, f"{locator}, test part")
    return pa.chunked_array([pa.array([names[c] if c >= 0 else None for c in held.tolist()], pa.string())])


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
