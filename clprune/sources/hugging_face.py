"""A Hugging Face data set: `hf:NAME_OR_FOLDER[:SPLIT]`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from clprune.datatypes import Source
from clprune.errors import DataError, MissingExtraError, UsageError
from clprune.families import source
from clprune.sources._table import TEST_SPLITS, source_of_table


def _adapts(dataset: Any) -> Source | None:
    """A Source over an open `datasets.Dataset`."""
    import sys

    library = sys.modules.get("datasets")  # whoever holds such a data set has imported it
    if library is None or not isinstance(dataset, library.Dataset):
        return None
    return _open(dataset, "this Hugging Face data set", False)


@source(claims=lambda locator: locator.startswith("hf:"), adapts=_adapts)
def hugging_face(locator: str, *, strict: bool = False) -> Source:
    """A saved data set (`save_to_disk`), a folder or a name that `load_dataset` takes. Columns are found by their type.

    Ids are the column `id` or `sample_id`, else row numbers.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "hf: data") from error
    name, _, split = locator.removeprefix("hf:").partition(":")
    folder = Path(name)
    try:
        if folder.is_dir() and any((folder / marker).exists() for marker in ("state.json", "dataset_dict.json")):
            loaded = datasets.load_from_disk(str(folder))
        else:
            loaded = datasets.load_dataset(name)
    except Exception as error:
        raise DataError(f"{locator} cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0]}).") from error
    test = None
    if isinstance(loaded, dict):
        chosen = split or ("train" if "train" in loaded else next(iter(loaded)))
        if chosen not in loaded:
            raise UsageError(f"{locator}: there is no split '{chosen}' (there are: {', '.join(loaded)}).")
        test = next((loaded[part] for part in TEST_SPLITS if part in loaded and part != chosen), None)
        loaded = loaded[chosen]
    train = _open(loaded, locator, strict)
    if test is None:
        return train
    return replace(train, load_test=lambda: _open(test, locator, strict, train.class_names))


def _open(data: Any, locator: str, strict: bool, class_names: tuple[str, ...] | None = None) -> Source:
    import datasets

    features = data.features
    image = next((name for name, kind in features.items() if isinstance(kind, datasets.Image)), None)
    label = next((name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)), "label" if "label" in features else None)
    text = next((name for name in ("text", "sentence", "content") if name in features), None)
    if label is None or (image is None and text is None):
        raise DataError(f"{locator} has columns {', '.join(features)}; an Image or text column and a ClassLabel or `label` column are needed.")
    ids = next((name for name in ("id", "sample_id") if name in features), None)
    used = {(image or text): "image" if image else "text", label: "label"} | ({ids: "id"} if ids else {})
    if image:
        data = data.cast_column(image, datasets.Image(decode=False))
    table = data.select_columns(list(used)).with_format("arrow")[:]
    table = table.rename_columns([used[name] for name in table.column_names]).replace_schema_metadata(None)
    names = tuple(features[label].names) if isinstance(features[label], datasets.ClassLabel) else None
    return source_of_table(table, locator, Path("."), strict=strict, class_names=class_names or names, is_test=class_names is not None)
