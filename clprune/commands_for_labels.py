"""`clprune labels ...`: what happens to the answers of a labelling round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clprune import options as option
from clprune import terminal

labels = typer.Typer(no_args_is_help=True, help="Labels that a manifest asked for.")


@labels.callback()
def _group() -> None:
    """A group also while it has one command."""


@labels.command()
def add(
    manifest: Annotated[Path, typer.Argument(metavar="M", help="The manifest folder that asked for them.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=".csv or .jsonl with sample_id and label, or Label Studio's .json.")],
    new_classes: Annotated[bool, typer.Option("--new-classes", help="Allow classes that the data do not have yet.")] = False,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """Add the answers to a labelling round: all of them, or none where a row is wrong. Then: clprune score DATA --answers M."""
    from clprune.labels import add_answers

    told = add_answers(manifest, files, new_classes=new_classes)
    terminal.show(told, as_json, terminal.answers_line(told))
