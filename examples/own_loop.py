"""Record your own PyTorch loop, stop when the critical period has ended, and keep half of the samples.

python examples/own_loop.py

# 0.6 minutes on two CPU cores that had other work: 4 epochs; 2 of 3 deciding indicators have come close to their level (at epoch: memorization_rate 2.2,
# ranking_stability 2.2); kept 6000 of 12000, of which 76% were right in the last epoch
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import clprune
from clprune.score_table import score_table
from clprune.selection import budget_for, select


def main(max_epochs: int = 30, n_samples: int = 12_000) -> float:
    """Train, record, select; returns the share of the kept samples that the model has right at the end."""
    source = clprune.open_source("fashion-mnist-sample")
    images = np.stack([np.asarray(source.read_input(row)) for row in range(n_samples)])
    train_set = TensorDataset(torch.from_numpy(images).float().unsqueeze(1) / 255, torch.from_numpy(source.labels[:n_samples]))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 49, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    recorder = clprune.Recorder(train_set, n_classes=10)
    for _ in range(max_epochs):
        for x, y, index in DataLoader(recorder.indexed(train_set), batch_size=128, shuffle=True):
            logits = model(x)
            F.cross_entropy(logits, y).backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.observe(index, logits, y)
        if recorder.end_epoch():
            break

    period = recorder.critical_period()
    table, _ = score_table(recorder.trajectory(), period)
    selection = select(table, budget_for(0.5, n_samples), strategy="hardest(score='dual')")
    right = recorder.trajectory().signal("correct")[-1][selection.kept_indices].mean()
    print(
        f"{len(recorder.epochs)} epochs; {period.reason}; kept {len(selection.kept_ids)} of {n_samples}, of which {right:.0%} were right in the last epoch"
    )
    return float(right)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
