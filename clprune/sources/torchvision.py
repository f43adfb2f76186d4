"""A data set of torchvision by name: `torchvision:CIFAR10?root=DIR`, with `&download=1` to fetch it."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from clprune.datatypes import Source
from clprune.errors import DataError, UsageError
from clprune.families import source
from clprune.sources._common import options_of
from clprune.sources.python_dataset import source_of_dataset


@source(claims=lambda locator: locator.startswith("torchvision:"))
def torchvision(locator: str, *, strict: bool = False) -> Source:
    """The training part, and the test part where the class has one (`train=False`, `split="test"`, or `split="val"` where that is the only other one). Nothing is downloaded unless asked for."""
    from torchvision import datasets

    name, _, query = locator.removeprefix("torchvision:").partition("?")
    options = options_of(query, ("root", "download"), locator)
    if not hasattr(datasets, name) or not inspect.isclass(getattr(datasets, name)):
        raise UsageError(f"torchvision.datasets has no '{name}'. Write it as there, for example torchvision:CIFAR10?root=DIR.")
    kind = getattr(datasets, name)
    train = source_of_dataset(_build(kind, options, locator, train=True, split="train"), locator)

    def load_test() -> Source:
        try:
            test = _build(kind, options, locator, train=False, split="test")
        except DataError as error:
            if not str(error.__cause__).startswith("Unknown value 'test' for argument split"):  # as torchvision says it of ImageNet, Places365, ...
                raise
            test = _build(kind, options, locator, train=False, split="val")
        return source_of_dataset(test, locator, part_of=train)

    has_test = {"train", "split"} & set(inspect.signature(kind).parameters)
    return replace(train, load_test=load_test if has_test else None)


def _build(kind: Any, options: dict[str, str], locator: str, *, train: bool, split: str) -> Any:
    parameters = inspect.signature(kind).parameters
    given: dict[str, Any] = {"root": options.get("root", ".")}
    if "download" in parameters:
        given["download"] = options.get("download") == "1"
    if "train" in parameters:
        given["train"] = train
    elif "split" in parameters:
        given["split"] = split
    try:
        return kind(**given)
    except TypeError as error:
        raise UsageError(
            f"{locator}: this class takes other arguments than root and a split ({str(error).splitlines()[0]}). Make it in a function of your own, module:function."
        ) from error
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(f"{locator} cannot be opened ({str(error).splitlines()[0]}). Check root=, or add &download=1.") from error
