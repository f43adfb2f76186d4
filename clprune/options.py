"""The options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clprune.datatypes import LARGEST_SEED

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no messages.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Say what it would take; write nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Seed of all randomness.")]
Proxy = Annotated[str, typer.Option("--proxy", help="small_cnn, resnet18, torchvision:NAME, or module:function.")]
MaxEpochs = Annotated[int, typer.Option("--max-epochs", min=1, help="Stop here at the latest.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, ...")]
Exact = Annotated[bool, typer.Option("--exact", help="float32 and deterministic algorithms: slower, same on every run.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Samples a step of the proxy run.")]
LearningRate = Annotated[float | None, typer.Option("--learning-rate", min=0.0, help="Of the proxy run; 0.05 per 128 samples of a batch by default.")]
WholeNetwork = Annotated[bool, typer.Option("--whole-network", help="Also record the Fisher trace of all weights: one backward pass an epoch.")]
ImageSize = Annotated[int | None, typer.Option("--image-size", min=8, help="Side in pixels that images are brought to.")]
EmbeddingsFile = Annotated[
    Path | None, typer.Option("--embeddings", metavar="FILE.npy", help="Features (samples, width) of your own, in the order of the data.")
]
Layer = Annotated[
    str | None,
    typer.Option("--layer", metavar="NAME", help="The proxy's module whose output are the features; by default what goes into its last layer."),
]
Test = Annotated[str | None, typer.Option("--test", metavar="DATA", help="Other test data than the test part of the data.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse data with unreadable inputs instead of leaving those out.")]
Keep = Annotated[str, typer.Option("--keep", help="Share to keep in (0, 1], a whole number of samples, or auto: the smallest safe share.")]
Strategy = Annotated[
    str | None, typer.Option("--strategy", help="A strategy, with options if wanted: 'stratified(n_strata=50)'; or auto: the best on these data.")
]
Tolerance = Annotated[float, typer.Option("--tolerance", help="With --keep auto: points of accuracy that may be lost.")]
Confidence = Annotated[float, typer.Option("--confidence", help="With --keep auto: how surely no more is lost.")]
Trials = Annotated[int, typer.Option("--trials", min=1, help="With auto: short trainings to decide by.")]
TrialEpochs = Annotated[
    int | None, typer.Option("--trial-epochs", min=1, help="With auto: length of each of them; by default 30, or as many as 1,500 batches are.")
]
MinPerClass = Annotated[int, typer.Option("--min-per-class", min=0, help="Samples of each class that are kept in any case.")]
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Folder with a subfolder a class, FILE.npz, FILE.parquet, .csv or .jsonl, hf:NAME, wds:SHARDS, torchvision:NAME, module:function, or fashion-mnist-sample.",
    ),
]
