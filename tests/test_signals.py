"""Signals and last-layer records against explicit gradients and plain arithmetic."""

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F

from clprune.signals import BATCH_RECORDS, CHUNKS, names_of_signals, observe_batches


def batch(n: int, c: int = 5, d: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.nn.Linear]:
    torch.manual_seed(n)
    head, hidden = torch.nn.Linear(d, c).double(), torch.randn(n, d, dtype=torch.float64)
    return head(hidden), torch.randint(0, c, (n,)), hidden, head


def test_signals_are_the_plain_ones() -> None:
    logits, labels, hidden, _ = batch(23)
    record = observe_batches(logits, labels, hidden, [len(labels)])
    for row, name in enumerate(names_of_signals(with_features=False)):
        expected = [reference.signals(z, y)[name] for z, y in zip(logits.tolist(), labels.tolist(), strict=True)]
        np.testing.assert_allclose(record.samples[row].numpy(), expected, rtol=1e-4, atol=1e-5)


def explicit_gradients(head: torch.nn.Linear, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(n, P) gradients of each sample's loss with respect to weight and bias, by autograd."""
    rows = []
    for h, y in zip(hidden, labels, strict=True):
        head.zero_grad()
        F.cross_entropy(head(h[None]), y[None]).backward()
        assert head.weight.grad is not None and head.bias.grad is not None
        rows.append(torch.cat([head.weight.grad, head.bias.grad[:, None]], dim=1).flatten().clone())
    return torch.stack(rows)


@pytest.mark.parametrize("n", [5, 23, 32])
def test_closed_forms_equal_explicit_gradients(n: int) -> None:
    logits, labels, hidden, head = batch(n)
    record = observe_batches(logits, labels, hidden, [len(labels)])
    found = dict(zip(BATCH_RECORDS, record.batches[0].tolist(), strict=True))
    g = explicit_gradients(head, hidden, labels)
    size = n // CHUNKS
    np.testing.assert_allclose(record.samples[-1].numpy(), g.norm(dim=1).numpy(), rtol=1e-4)
    assert found["sample_gradient_sq"] == pytest.approx(float((g[: CHUNKS * size] ** 2).sum(1).mean()), rel=1e-4)
    assert found["batch_gradient_sq"] == pytest.approx(float((g[: CHUNKS * size].mean(0) ** 2).sum()), rel=1e-3)
    parts = torch.stack([g[k * size : (k + 1) * size].mean(0) for k in range(CHUNKS)])
    cosines = [float(torch.cosine_similarity(parts[i], parts[j], dim=0)) for i in range(CHUNKS) for j in range(i)]
    assert found["mean_cosine"] == pytest.approx(np.mean(cosines), abs=1e-4)
    assert found["min_cosine"] == pytest.approx(min(cosines), abs=1e-4)


def test_fisher_trace_is_the_expectation_over_the_models_own_labels() -> None:
    logits, labels, hidden, head = batch(8)
    p = torch.softmax(logits, dim=1).detach()
    total = 0.0
    for i in range(8):
        for c in range(5):
            total += float(p[i, c] * (explicit_gradients(head, hidden[i : i + 1], torch.tensor([c])) ** 2).sum())
    assert float(observe_batches(logits, labels, hidden, [len(labels)]).batches[0, 2]) == pytest.approx(total / 8, rel=1e-4)


def test_without_features_gradient_records_are_missing_not_zero() -> None:
    logits, labels, _, _ = batch(8)
    record = observe_batches(logits, labels, None, [len(labels)])
    assert len(record.samples) == len(names_of_signals(with_features=False))
    assert torch.isnan(record.batches[0, 2:]).all()


@pytest.mark.parametrize("sizes", [[8, 8, 8], [9, 8, 7], [3, 21]])
def test_batches_taken_together_say_what_each_says_alone(sizes: list[int]) -> None:
    logits, labels, hidden, _ = batch(24)
    together = observe_batches(logits, labels, hidden, sizes)
    alone = [observe_batches(z, y, h, [len(y)]) for z, y, h in zip(logits.split(sizes), labels.split(sizes), hidden.split(sizes), strict=True)]
    torch.testing.assert_close(together.samples, torch.cat([record.samples for record in alone], dim=1))
    torch.testing.assert_close(together.batches, torch.cat([record.batches for record in alone]), equal_nan=True)
