"""Record a transformers Trainer, stop it when the critical period has ended, and write what to keep.

python examples/transformers_trainer.py

# 1.5 minutes on two threads of one CPU core: 29 epochs (AdamW, whose ranking settles late); 2 of 4 deciding indicators have come close to their level (at epoch:
# memorization_rate 4.3, ranking_stability 26.4); kept 6000 of 12000, 65 labels suspected wrong
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments, set_seed

import clprune
from clprune.integrations.transformers import CriticalPeriodMixin


class RecordingTrainer(CriticalPeriodMixin, Trainer):
    """The Trainer, recording; everything else is as it was."""


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pixels, labels, and the row of each example."""
    pixels = torch.from_numpy(np.stack([np.asarray(row["image"], dtype=np.float32) for row in rows])).unsqueeze(1) / 255
    return {"pixel_values": pixels, "labels": torch.tensor([row["label"] for row in rows]), "index": torch.tensor([row["index"] for row in rows])}


def main(max_epochs: int = 30, n_samples: int = 12_000) -> float:
    """Train, record, select; returns the share that is kept."""
    source = clprune.open_source("fashion-mnist-sample")
    columns = {"image": [source.read_input(row) for row in range(n_samples)], "label": source.labels[:n_samples].tolist(), "index": range(n_samples)}
    features = Features({"image": Image(), "label": ClassLabel(names=list(source.class_names)), "index": Value("int64")})
    train_set = Dataset.from_dict(columns, features)
    set_seed(0)
    shape = {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [1, 1, 1], "layer_type": "basic"}
    model = ResNetForImageClassification(ResNetConfig(num_channels=1, num_labels=10, **shape))

    with tempfile.TemporaryDirectory() as folder:
        how = {"per_device_train_batch_size": 128, "learning_rate": 2e-3, "lr_scheduler_type": "constant", "remove_unused_columns": False}
        quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
        arguments = TrainingArguments(folder, num_train_epochs=max_epochs, use_cpu=True, **how, **quiet)
        recorder = clprune.Recorder(train_set, n_classes=10)
        RecordingTrainer(model=model, args=arguments, train_dataset=train_set, data_collator=collate, recorder=recorder).train()

        run = clprune.save_run(recorder, train_set, Path(folder) / "run")
        manifest = clprune.select(run.folder, Path(folder) / "subset", keep="0.5")
        print(
            f"{len(recorder.epochs)} epochs; {run.document['clp']['reason']}; kept {manifest.n_kept} of {n_samples}, {run.document['suspects']['n']} labels suspected wrong"
        )
        return manifest.n_kept / n_samples


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
