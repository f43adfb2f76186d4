"""Signals and last-layer records against explicit gradients and plain arithmetic."""

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F

from clprune.signals import BATCH_RECORDS, CHUNKS, names_of_signals, nearest_by_cosine, network_fisher, observe_batches


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
    assert float(observe_batches(logits, labels, hidden, [len(labels)]).batches[0, 1]) == pytest.approx(total / 8, rel=1e-4)


def test_without_features_gradient_records_are_missing_not_zero() -> None:
    logits, labels, _, _ = batch(8)
    record = observe_batches(logits, labels, None, [len(labels)])
    assert len(record.samples) == len(names_of_signals(with_features=False))
    assert torch.isnan(record.batches[0, 1:]).all()


@pytest.mark.parametrize("sizes", [[8, 8, 8], [9, 8, 7], [3, 21]])
def test_batches_taken_together_say_what_each_says_alone(sizes: list[int]) -> None:
    logits, labels, hidden, _ = batch(24)
    together = observe_batches(logits, labels, hidden, sizes)
    alone = [observe_batches(z, y, h, [len(y)]) for z, y, h in zip(logits.split(sizes), labels.split(sizes), hidden.split(sizes), strict=True)]
    torch.testing.assert_close(together.samples, torch.cat([record.samples for record in alone], dim=1))
    torch.testing.assert_close(together.batches, torch.cat([record.batches for record in alone]), equal_nan=True)


def test_the_networks_fisher_trace_is_right_on_average_and_leaves_the_model_alone() -> None:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    inputs, generator = torch.randn(16, 4), torch.Generator().manual_seed(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = np.mean([network_fisher(model, inputs, generator) for _ in range(1500)])
    model.eval()
    p, expected = torch.softmax(model(inputs), 1), 0.0
    for i in range(16):  # the definition: every sample, every label, weighed by the model's own probability
        for c in range(3):
            gradients = torch.autograd.grad(F.cross_entropy(model(inputs[i : i + 1]), torch.tensor([c])), list(model.parameters()))
            expected += float(p[i, c].detach() * sum((g**2).sum() for g in gradients)) / 16
    assert found == pytest.approx(expected, rel=0.05)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_nearest_by_cosine_is_what_sorting_finds() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    found = nearest_by_cosine(vectors, 12, 4)
    for row in range(12):
        cosine = [np.dot(vectors[row], v) / np.linalg.norm(v) for v in vectors]
        cosine[row] = -np.inf
        assert set(found[row]) == set(np.argsort(cosine)[-4:])


def test_errors_of_learned_samples_are_not_rounded_away() -> None:
    logits = torch.stack([torch.tensor([0.0, -margin, -margin - 1]) for margin in (2, 6, 9, 12, 15)])
    record = observe_batches(logits, torch.zeros(5, dtype=torch.long), torch.ones(5, 8), [5])
    rest = torch.softmax(logits.double(), dim=1)[:, 1:].numpy()
    expected = np.sqrt((rest**2).sum(axis=1) + rest.sum(axis=1) ** 2)
    found = dict(zip(names_of_signals(with_features=True), record.samples.numpy(), strict=True))
    np.testing.assert_allclose(found["error_l2"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["grad_norm"], 3 * expected, rtol=1e-5)


@pytest.mark.parametrize("margin", [-20, 0, 2, 8, 12, 16, 20, 30])
def test_the_fisher_trace_of_learned_samples_is_not_rounded_away(margin: int) -> None:
    rng, labels = torch.Generator().manual_seed(0), torch.arange(128) % 10
    logits = torch.randn(128, 10, generator=rng) + margin * F.one_hot(labels, 10)
    hidden = torch.randn(128, 64, generator=rng)
    found = float(observe_batches(logits, labels, hidden, [128]).batches[0, BATCH_RECORDS.index("fisher_trace")])
    p = torch.softmax(logits.double(), dim=1)
    pairs = p.unsqueeze(1) * p.unsqueeze(2)  # 1 - |p|^2 is the sum of p_a p_b over different classes: no difference is taken
    spread = (pairs * (1 - torch.eye(10))).sum((1, 2))
    assert found == pytest.approx(float((spread * (hidden.double().square().sum(1) + 1)).mean()), rel=1e-5)
