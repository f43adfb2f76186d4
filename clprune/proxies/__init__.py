"""Small models that are trained for a short while: one file a proxy."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clprune import families
from clprune.errors import UsageError

if TYPE_CHECKING:
    from torch import nn


DEFAULTS = {"image": "small_cnn", "text": "text_bag"}


def proxy_for(kind: str, choice: str) -> str:
    """The proxy to use for data of a kind: `choice`, or the default of texts where `choice` is that of images.

    Raises UsageError where a member takes another kind of input; `module:function` and torchvision's are taken at their word.
    """
    kind = "text" if kind == "text" else "image"
    choice = DEFAULTS[kind] if choice == DEFAULTS["image"] else choice
    if ":" not in choice and (takes := families.facts(families.choose("proxies", choice)[0])["takes"]) != kind:
        raise UsageError(f"proxy '{choice}' takes {takes}s, but the data are {kind}s. Leave --proxy out, or name one that takes {kind}s.")
    return choice


def build_proxy(choice: str, n_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """A new model for `choice`: a member's name, `torchvision:MODEL`, or `module:function` of the user's `(n_classes, input_shape)`.

    Raises UsageError where there is no such model, where making it fails, or it is not a torch module.
    """
    module_name, colon, function = choice.partition(":")
    if not colon:
        member, options, _ = families.choose("proxies", choice)
        return member(n_classes, input_shape, **options)
    if module_name == "torchvision":
        return families.find("proxies", "torchvision")(n_classes, input_shape, model=function)
    factory = import_from_user(module_name, function, "proxy")
    try:
        model = factory(n_classes, input_shape)
    except Exception as error:  # whatever the user's code raises
        raise UsageError(
            f"proxy '{choice}' failed when called with ({n_classes}, {input_shape}): {type(error).__name__}: {error}. "
            "It must take (n_classes, input_shape) and return a torch.nn.Module."
        ) from error
    if not hasattr(model, "named_modules"):
        raise UsageError(
            f"proxy '{choice}' returned a {type(model).__name__}; it must return a torch.nn.Module that maps (B, C, H, W) to (B, {n_classes})."
        )
    return model


def code_of(choice: str) -> str | None:
    """A digest of the file that holds a `module:function` of the user's, so that what was trained before the file was changed is not taken for the same; None for other proxies."""
    module_name, _, function = choice.partition(":")
    if not function or module_name == "torchvision":
        return None
    import_from_user(module_name, function, "proxy")
    file = getattr(sys.modules[module_name], "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file and Path(file).is_file() else None


def import_from_user(module_name: str, function: str, what: str) -> Any:
    """A function of the user's own module, looked up from the current folder too."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module_name), function)
    except Exception as error:  # not found, or whatever the user's module raises
        raise UsageError(
            f"{what} '{module_name}:{function}' cannot be imported ({type(error).__name__}: {error}). Run from the folder that holds {module_name}.py, or set PYTHONPATH."
        ) from error
