"""How a member of a family is declared and found: the folder is the registry.

A member is the function in `clprune/<folder>/<name>.py` that has the file's name and wears the family's decorator. Adding one
is adding one file. `find` imports only the file asked for; `names` imports nothing.

    scores      (signals...) -> (N,)                           @score("p_label", high_means="easy")
    strategies  (needs..., n_keep, rng) -> (K,) positions      @strategy("difficulty", "labels")
    indicators  (records...) -> (T,)                           @indicator("gradient_sq")
    sources     (locator, *, strict) -> Source                 @source(claims=lambda locator: ...); may take on_progress too
    proxies     (n_classes, input_shape) -> torch.nn.Module    @proxy, or @proxy(takes="text")
    exporters   (manifest, source, destination) -> dict        @exporter, or @exporter(resumes=True, takes_unlabelled=True)

A choice is written the same in Python, on the command line and in the manifest: `stratified(n_strata=50)`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import math
import pkgutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from clprune.datatypes import HighMeans
from clprune.errors import UsageError

KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text in quotes", NoneType: "None"}  # what an option may be
FAMILIES = ("sources", "proxies", "indicators", "scores", "strategies", "exporters")


def _declare(function: Callable[..., Any], **facts: Any) -> Callable[..., Any]:
    function.member_facts = facts  # type: ignore[attr-defined]
    return function


def score(*signals: str, high_means: HighMeans) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a score: the signals (E, N) it is given, in this order, and what a high value means."""
    return lambda function: _declare(function, needs=signals, high_means=high_means)


def strategy(*needs: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a strategy: which of `difficulty`, `labels`, `vectors`, `suspicion`, `suggested_label`, `duplicate_of`, `value:NAME` it is given."""
    return lambda function: _declare(function, needs=needs)


def indicator(*records: str, decides: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare an indicator: the records it is given; `decides` if its curve votes on the end of the critical period."""
    return lambda function: _declare(function, needs=records, decides=decides)


def source(*, claims: Callable[[str], bool], adapts: Callable[[Any, str], Any] | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a source: `claims(locator)` says whether a DATA argument is meant for it.

    `adapts(dataset, like)` gives a Source over a data set that is open already, None where it is of another kind; `like` is the locator of the same data, whose options count, or "".
    """
    return lambda function: _declare(function, claims=claims, adapts=adapts)


def proxy(function: Callable[..., Any] | None = None, *, takes: str = "image") -> Callable[..., Any]:
    """Declare a proxy: `(n_classes, input_shape) -> torch.nn.Module` to logits (B, n_classes).

    It takes images (B, C, H, W), or with `takes="text"` hashed n-grams (B, L) of int32.
    """
    if function is None:
        return lambda member: _declare(member, takes=takes)
    return _declare(function, takes=takes)


def exporter(function: Callable[..., Any] | None = None, *, resumes: bool = False, takes_unlabelled: bool = False) -> Callable[..., Any]:
    """Declare an exporter: `(manifest, source, destination, **options) -> report`, writing only inside `destination`.

    One that `resumes` may find there what it wrote before it was cut short, and goes on. Without `takes_unlabelled` every kept sample must have a label.
    """
    if function is None:
        return lambda member: _declare(member, resumes=resumes, takes_unlabelled=takes_unlabelled)
    return _declare(function, resumes=resumes, takes_unlabelled=takes_unlabelled)


def names(family: str) -> list[str]:
    """Sorted names of a family's members, from the files alone."""
    folder = Path(__file__).parent / family
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_"))


def find(family: str, name: str) -> Callable[..., Any]:
    """The member `name` of `family`. Raises UsageError that lists what there is."""
    if name not in names(family):
        raise UsageError(f"there is no '{name}' among the {family} (there are: {', '.join(names(family))}).")
    member = getattr(importlib.import_module(f"clprune.{family}.{name}"), name)
    assert hasattr(member, "member_facts"), f"clprune/{family}/{name}.py: the function '{name}' does not wear the family's decorator"
    return member


def members(family: str) -> dict[str, Callable[..., Any]]:
    """All members of a family by name; imports each file."""
    return {name: find(family, name) for name in names(family)}


def facts(member: Callable[..., Any]) -> dict[str, Any]:
    """What the decorator was told: `needs`, `high_means`, `claims`, ..."""
    return member.member_facts  # type: ignore[attr-defined]


def adapted(dataset: Any, *, like: str = "") -> Any:
    """A Source over a data set object that the user has open, with the options of the locator `like` that it was scored under. Raises UsageError where no source knows its kind."""
    for member in members("sources").values():
        adapts = facts(member)["adapts"]
        if adapts is not None and (source := adapts(dataset, like)) is not None:
            return source
    raise UsageError(f"a {type(dataset).__name__} is no data set that clprune reads: a map-style one with __len__ and __getitem__ is needed.")


def parse_choice(text: str) -> tuple[str, dict[str, Any]]:
    """Split `stratified(n_strata=50)` into its name and its options, which are Python literals.

    >>> parse_choice("stratified(n_strata=50, cutoff=0.1)")
    ('stratified', {'n_strata': 50, 'cutoff': 0.1})
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, {}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.args:
            return tree.func.id, {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):  # the last three: an unhashable key, and text too deep to parse
        pass
    raise UsageError(f"cannot read the choice {text!r}; write a name, or a name with options such as 'stratified(n_strata=50)'.")


def choose(family: str, text: str) -> tuple[Callable[..., Any], dict[str, Any], str]:
    """Find the member that a choice names; returns it, its options, and the choice with every option spelled out.

    Raises UsageError for an unknown name or option, and for a value of another kind than the option's annotation says.
    """
    name, options = parse_choice(text)
    member = find(family, name)
    allowed = {p.name: p.default for p in inspect.signature(member).parameters.values() if p.kind is p.KEYWORD_ONLY}
    if unknown := sorted(set(options) - set(allowed)):
        raise UsageError(f"'{name}' has no option {', '.join(unknown)} (it has: {', '.join(allowed) or 'none'}).")
    hints = get_type_hints(member) if options else {}
    for key, value in options.items():
        _require_kind(name, key, value, hints[key])
    complete = allowed | options
    spelled = ", ".join(f"{key}={value!r}" for key, value in complete.items())
    return member, options, f"{name}({spelled})" if complete else name


def require_range(name: str, low: float, high: float = math.inf, **options: float | None) -> None:
    """Raise UsageError where one of the options that `name` was given lies outside `low` to `high`; None, an option left open, does not.

    >>> require_range("window", 0, 1, skip=0.1)
    """
    for key, value in options.items():
        if value is not None and not low <= value <= high:
            raise UsageError(f"{name} was given {key}={value!r}. Give {key} {f'of at least {low}' if high == math.inf else f'from {low} to {high}'}.")


def require_one_of(name: str, words: Sequence[str], **options: str) -> None:
    """Raise UsageError where one of the options that `name` was given is none of `words`."""
    for key, value in options.items():
        if value not in words:
            raise UsageError(f"{name} was given {key}={value!r}. Give {key} as one of {', '.join(map(repr, words))}.")


def _require_kind(name: str, key: str, value: Any, hint: Any) -> None:
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if not any(kind not in KINDS or _is_of(value, kind) for kind in kinds):
        raise UsageError(f"{name} was given {key}={value!r}. Give {key} as {' or '.join(KINDS[kind] for kind in kinds)}.")


def _is_of(value: Any, kind: type) -> bool:
    """Whether a literal is of a kind: True is no number, a whole number is one, and a number is finite."""
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return abs(value) <= sys.float_info.max
    return type(value) is kind
