"""Per-sample quantities and last-layer gradient records, taken from logits and features of a training forward pass.

Nothing here runs the model again. With softmax cross-entropy and a last linear layer W h + c, the gradient of sample i with respect
to [W, c] is r_i h~_i^T, where r_i = softmax(z_i) - onehot(y_i) and h~_i = [h_i, 1]; all gradient quantities below are exact
for that layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

SIGNALS = ("loss", "p_label", "margin", "error_l2", "entropy", "correct", "predicted")
FEATURE_SIGNALS = ("grad_norm",)  # these need features too
LOSS_SIGNALS = ("loss",)  # all that a loss alone gives
BATCH_RECORDS = ("batch_size", "fisher_trace", "sample_gradient_sq", "batch_gradient_sq", "mean_cosine", "min_cosine")
LEAST = torch.finfo(torch.float32).min  # in the place of the logarithm of 0: a class that a loop has masked with -inf adds nothing to the entropy
CHUNKS = 4  # a batch is cut into so many parts, whose gradients at the same weights are compared

_UPPER = tuple(torch.triu_indices(CHUNKS, CHUNKS, offset=1))


@dataclass(frozen=True)
class BatchRecords:
    """What some batches say: per-sample signals in the order of `names_of_signals`, and a row of BATCH_RECORDS a batch."""

    samples: Float[Tensor, "n_signals M"]
    batches: Float[Tensor, "S n_records"]


def names_of_signals(with_features: bool) -> tuple[str, ...]:
    return SIGNALS + FEATURE_SIGNALS if with_features else SIGNALS


@torch.no_grad()
def observe_batches(logits: Float[Tensor, "M C"], labels: Int[Tensor, "M"], features: Float[Tensor, "M D"] | None, sizes: list[int]) -> BatchRecords:
    """Signals of consecutive batches of the given sizes (M in all), on the device of the logits, in float32.

    loss            cross-entropy, nats
    p_label         softmax probability of the label
    margin          logit of the label minus the largest other logit
    error_l2        ||softmax - onehot||_2, in [0, sqrt(2)]
    entropy         of the softmax, nats
    correct         1 where the largest logit is the label's, else 0
    predicted       class of the largest logit
    grad_norm       norm of the last layer's gradient of this sample's loss (needs features)

    Several batches at once cost hardly more than one: small operations are dominated by their number. The gradient records of a batch rest on
    its largest part that CHUNKS divides, which `batch_size` counts; they are NaN without features.
    """
    scores = logits.float()
    column = labels.unsqueeze(1)
    log_p = torch.log_softmax(scores, dim=1)
    p = log_p.exp()
    log_p_label = log_p.gather(1, column).squeeze(1)
    p_label = log_p_label.exp()
    of_others = p.scatter(1, column, 0.0)  # 1 - p_label from these: the difference itself is rounding where a sample is learned
    doubt = of_others.sum(1, keepdim=True)
    residual = of_others.scatter(1, column, -doubt)
    error_sq = (residual * residual).sum(1)
    predicted = scores.argmax(1)
    others = scores.scatter(1, column, float("-inf")).amax(1)
    margin = scores.gather(1, column).squeeze(1) - others
    rows = [-log_p_label, p_label, margin, error_sq.sqrt(), -(p * log_p.clamp_min(LEAST)).sum(1), (predicted == labels).float(), predicted.float()]
    if features is None:
        return BatchRecords(torch.stack(rows), _without_gradients(scores, sizes))
    hidden = torch.cat([features.float(), scores.new_ones((len(labels), 1))], dim=1)
    hidden_sq = (hidden * hidden).sum(1)
    gradient_sq = error_sq * hidden_sq
    rows.append(gradient_sq.sqrt())
    fisher = (2 * doubt.squeeze(1) - error_sq) * hidden_sq  # 1 - |p|^2 = 2 (1 - p_label) - |p - y|^2, without the rounding of a difference to 1
    per_chunk = [size // CHUNKS for size in sizes]
    if len(set(sizes)) == 1 and sizes[0] % CHUNKS == 0:  # the usual case, in a few operations for all batches
        shape = (len(sizes) * CHUNKS, per_chunk[0], -1)
        parts = (residual.view(shape).transpose(1, 2) @ hidden.view(shape)).view(len(sizes), CHUNKS, -1)  # sums of gradients, (S, CHUNKS, P)
        fisher_means, gradient_means = fisher.view(len(sizes), -1).mean(1), gradient_sq.view(len(sizes), -1).mean(1)
    else:
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        whole = [slice(start, start + CHUNKS * size) for start, size in zip(starts, per_chunk, strict=True)]
        parts = torch.stack([_chunk_sums(residual[part], hidden[part]) for part in whole])
        fisher_means, gradient_means = (torch.stack([values[part].mean() for part in whole]) for values in (fisher, gradient_sq))
    counted = [CHUNKS * size for size in per_chunk]
    mean = parts.sum(1) / torch.tensor(counted, device=parts.device, dtype=parts.dtype).unsqueeze(1)
    gram = parts @ parts.transpose(1, 2)
    length = gram.diagonal(dim1=1, dim2=2).clamp_min(1e-30).sqrt()
    pairs = (gram / (length.unsqueeze(1) * length.unsqueeze(2)))[:, _UPPER[0], _UPPER[1]]
    gradients = torch.stack([fisher_means, gradient_means, (mean * mean).sum(1), pairs.mean(1), pairs.amin(1)])
    if 0 in per_chunk:
        gradients[:, [k for k, size in enumerate(per_chunk) if not size]] = float("nan")
    return BatchRecords(torch.stack(rows), _with_sizes(counted, gradients))


@torch.no_grad()
def observe_losses(losses: Float[Tensor, "M"], sizes: list[int]) -> BatchRecords:
    """The signal `loss` of consecutive batches whose task has one loss a sample and no logits; all gradient records are NaN."""
    values = losses.float()
    return BatchRecords(values.unsqueeze(0), _without_gradients(values, sizes))


def _with_sizes(sizes: list[int], gradients: Float[Tensor, "R S"]) -> Float[Tensor, "S n_records"]:
    return torch.cat([torch.tensor(sizes, device=gradients.device, dtype=gradients.dtype).unsqueeze(0), gradients]).T


def _without_gradients(values: Float[Tensor, "M ..."], sizes: list[int]) -> Float[Tensor, "S n_records"]:
    return _with_sizes(sizes, values.new_full((len(BATCH_RECORDS) - 1, len(sizes)), float("nan")))


def _chunk_sums(residual: Float[Tensor, "n C"], hidden: Float[Tensor, "n H"]) -> Float[Tensor, "CHUNKS P"]:
    """Sums of the gradients of CHUNKS equal parts of a batch."""
    n = len(residual) // CHUNKS
    return (residual.view(CHUNKS, n, residual.shape[1]).transpose(1, 2) @ hidden.view(CHUNKS, n, hidden.shape[1])).flatten(1)


def nearest_by_cosine(vectors: Float[np.ndarray, "M D"], n_queries: int, k: int) -> Int[np.ndarray, "Q k"]:
    """Positions of the `k` nearest others, by cosine, of the first `n_queries` vectors, in no particular order. For probes of a few thousand."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similarity = unit[:n_queries] @ unit.T
    similarity[np.arange(n_queries), np.arange(n_queries)] = -np.inf
    return torch.from_numpy(similarity).topk(k, dim=1, sorted=False).indices.numpy()


def network_fisher(model: nn.Module, inputs: Float[Tensor, "B ..."], generator: torch.Generator) -> float:
    """An unbiased estimate of tr F of all trainable weights: B |gradient of the mean loss|^2 with labels drawn from the model's own prediction.

    One forward and one backward pass, in evaluation mode (no statistics of normalisation layers change); gradients that the model holds are left alone.
    F = mean_i E_{y ~ p_i} |grad log p_i(y)|^2 (Achille et al., 2019, arXiv:1711.08856). One draw of 256 samples has a relative spread of about a seventh.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    was_training = model.training
    model.eval()
    try:
        logits = model(inputs).float()
        drawn = torch.multinomial(torch.softmax(logits.detach().cpu(), 1), 1, generator=generator).squeeze(1).to(logits.device)
        gradients = torch.autograd.grad(F.cross_entropy(logits, drawn), weights, allow_unused=True)
    finally:
        model.train(was_training)
    return float(len(inputs) * sum((g.float() ** 2).sum() for g in gradients if g is not None))
