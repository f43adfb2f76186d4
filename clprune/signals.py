"""Per-sample quantities and last-layer gradient records, taken from logits and features of a training forward pass.

Nothing here runs the model again. With softmax cross-entropy and a last linear layer W h + c, the gradient of sample i with respect
to [W, c] is r_i h~_i^T, where r_i = softmax(z_i) - onehot(y_i) and h~_i = [h_i, 1]; all gradient quantities below are exact
for that layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SIGNALS = ("loss", "p_label", "margin", "error_l2", "entropy", "correct", "predicted")
FEATURE_SIGNALS = ("grad_norm",)  # these need features too
BATCH_RECORDS = ("batch_size", "batch_loss", "fisher_trace", "sample_gradient_sq", "batch_gradient_sq", "mean_cosine", "min_cosine")
CHUNKS = 4  # a batch is cut into so many parts, whose gradients at the same weights are compared

_UPPER = tuple(torch.triu_indices(CHUNKS, CHUNKS, offset=1))


@dataclass(frozen=True)
class BatchRecord:
    """What one batch says: per-sample signals in the order of `names_of_signals`, and numbers in the order of BATCH_RECORDS."""

    samples: Float[Tensor, "n_signals B"]
    batch: Float[Tensor, "n_records"]


def names_of_signals(with_features: bool) -> tuple[str, ...]:
    return SIGNALS + FEATURE_SIGNALS if with_features else SIGNALS


@torch.no_grad()
def observe_batch(logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"], features: Float[Tensor, "B D"] | None) -> BatchRecord:
    """Signals of one batch, on the device of the logits, in float32.

    loss            cross-entropy, nats
    p_label         softmax probability of the label
    margin          logit of the label minus the largest other logit
    error_l2        ||softmax - onehot||_2, in [0, sqrt(2)]
    entropy         of the softmax, nats
    correct         1 where the largest logit is the label's, else 0
    predicted       class of the largest logit
    grad_norm       norm of the last layer's gradient of this sample's loss (needs features)
    """
    scores = logits.detach().float()
    column = labels.unsqueeze(1)
    log_p = torch.log_softmax(scores, dim=1)
    p = log_p.exp()
    log_p_label = log_p.gather(1, column).squeeze(1)
    p_label = log_p_label.exp()
    p_sq = (p * p).sum(1)
    error_sq = (p_sq - 2 * p_label + 1).clamp_min(0)
    predicted = scores.argmax(1)
    others = scores.scatter(1, column, float("-inf")).amax(1)
    margin = scores.gather(1, column).squeeze(1) - others
    rows = [-log_p_label, p_label, margin, error_sq.sqrt(), -(p * log_p).sum(1), (predicted == labels).float(), predicted.float()]
    n = len(labels)
    n = len(labels)
    if features is None:
        record = torch.stack([scores.new_tensor(float(n)), -log_p_label.mean(), *scores.new_full((len(BATCH_RECORDS) - 2,), float("nan"))])
        return BatchRecord(torch.stack(rows), record)
    hidden = torch.cat([features.detach().float(), scores.new_ones((n, 1))], dim=1)
    hidden_sq = (hidden * hidden).sum(1)
    gradient_sq = error_sq * hidden_sq
    rows.append(gradient_sq.sqrt())
    residual = p.scatter_add(1, column, p.new_full((n, 1), -1.0))
    per_chunk = n // CHUNKS
    cut = per_chunk * CHUNKS
    parts = residual[:cut].view(CHUNKS, per_chunk, -1).transpose(1, 2) @ hidden[:cut].view(CHUNKS, per_chunk, -1)  # (CHUNKS, C, D + 1)
    whole = (parts.sum(0) + residual[cut:].T @ hidden[cut:]) / n
    flat = parts.flatten(1)
    gram = flat @ flat.T
    length = gram.diagonal().clamp_min(1e-30).sqrt()
    cosines = gram / (length.unsqueeze(0) * length.unsqueeze(1))
    pairs = cosines[_UPPER]
    fisher = ((1 - p_sq) * hidden_sq).mean()
    mean_cosine, min_cosine = (pairs.mean(), pairs.amin()) if per_chunk else scores.new_full((2,), float("nan"))
    record = torch.stack(
        [scores.new_tensor(float(n)), -log_p_label.mean(), fisher, gradient_sq.mean(), (whole * whole).sum(), mean_cosine, min_cosine]
    )
    return BatchRecord(torch.stack(rows), record)
