"""Record a Lightning training, stop it when the critical period has ended, and write what to keep.

python examples/lightning_loop.py

# 0.6 minutes on two threads of one CPU core: 4 epochs; 3 of 4 deciding indicators have come close to their level (at epoch: memorization_rate 2.2,
# noise_scale 1.2, ranking_stability 2.2); kept 6000 of 12000, 1150 labels suspected wrong (by the dynamics alone: no features were given)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import clprune
from clprune.integrations.lightning import CriticalPeriodCallback


class Classifier(L.LightningModule):
    """A training step like any other, but that a batch has the rows of its samples as third part."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 49, 10))

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        x, y, _ = batch
        return F.cross_entropy(self.model(x.float() / 255), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main(max_epochs: int = 30, n_samples: int = 12_000) -> float:
    """Train, record, select; returns the share that is kept."""
    source = clprune.open_source("fashion-mnist-sample")
    images = np.stack([np.asarray(source.read_input(row)) for row in range(n_samples)])
    train_set = TensorDataset(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(source.labels[:n_samples]))
    L.seed_everything(0, verbose=False)

    recorder = clprune.Recorder(train_set, n_classes=10)
    trainer = L.Trainer(max_epochs=max_epochs, callbacks=[CriticalPeriodCallback(recorder)], accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(Classifier(), DataLoader(recorder.indexed(train_set), batch_size=128, shuffle=True))

    with tempfile.TemporaryDirectory() as folder:
        run = clprune.save_run(recorder, train_set, Path(folder) / "run")
        manifest = clprune.select(run.folder, Path(folder) / "subset", keep="0.5")
        print(
            f"{len(recorder.epochs)} epochs; {run.document['clp']['reason']}; kept {manifest.n_kept} of {n_samples}, {run.document['suspects']['n']} labels suspected wrong"
        )
        return manifest.n_kept / n_samples


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
