"""Batch normalisation over the batch of all processes, so that a training on many of them has the statistics of one process.

torch's own synchronised layer needs a GPU and counts padding; this one works on any device and leaves padding out. What a layer costs is two small messages a
step: 2 C + 1 numbers of each process on the way forward, 2 C on the way back.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clprune.distributed import stack_over_processes, sum_over_processes


class GlobalBatchNorm(_BatchNorm):
    """A batch normalisation layer whose mean and variance are those of the first `n_real` rows of every process; evaluation mode is torch's own."""

    n_real = 0  # rows of the batch at hand that count; set before each forward pass

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        if not self.training:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(input, mean, variance, self.weight, self.bias, mean is None, 0.0, self.eps)
        normal, mean, variance, count = _Normalised.apply(input, self.n_real, self.eps)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
                self.running_var.lerp_((variance * count / (count - 1).clamp_min(1)).to(self.running_var.dtype), share)
        if self.affine:
            shape = (1, -1) + (1,) * (input.ndim - 2)
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) in float32, and the mean, variance and count they rest on, in float64."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n_real: int, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        over = [0, *range(2, x.ndim)]
        shape = (1, -1) + (1,) * (x.ndim - 2)
        real = x[:n_real].float()
        count = real.numel() // x.shape[1]
        mean = real.mean(over) if count else real.new_zeros(x.shape[1])
        squares = (real - mean.view(shape)).square().sum(over)
        held = stack_over_processes(torch.cat([mean, squares, mean.new_tensor([count])]).double())
        means, squares, counts = held[:, : x.shape[1]], held[:, x.shape[1] : -1], held[:, -1:]
        total = counts.sum()
        mean_all = (means * counts).sum(0) / total  # the same order of summation in every process, hence the same bits
        variance = (squares + counts * (means - mean_all).square()).sum(0) / total
        scale = (variance + eps).rsqrt().float()
        normal = (x.float() - mean_all.float().view(shape)) * scale.view(shape)
        ctx.save_for_backward(normal, scale)
        ctx.n_real, ctx.total, ctx.dtype = n_real, total, x.dtype
        ctx.mark_non_differentiable(mean_all, variance, total)
        return normal, mean_all, variance, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        normal, scale = ctx.saved_tensors
        gradient = gradients[0].float()
        over = [0, *range(2, normal.ndim)]
        shape = (1, -1) + (1,) * (normal.ndim - 2)
        sums = sum_over_processes(torch.cat([gradient.sum(over), (gradient * normal).sum(over)]).double()) / ctx.total
        first, second = sums.float().chunk(2)
        inward = (gradient - first.view(shape) - normal * second.view(shape)) * scale.view(shape)
        inward[ctx.n_real :] = 0  # padding has no part in the statistics and none in the loss
        return inward.to(ctx.dtype), None, None


def over_all_processes(model: nn.Module) -> nn.Module:
    """The model with every batch normalisation layer replaced by one over all processes; weights, buffers and their names stay."""
    if isinstance(model, _BatchNorm) and not isinstance(model, GlobalBatchNorm):
        layer = GlobalBatchNorm(model.num_features, model.eps, model.momentum, model.affine, model.track_running_stats)
        for name, value in [*model.named_parameters(recurse=False), *model.named_buffers(recurse=False)]:
            setattr(layer, name, value)
        return layer.train(model.training)
    for name, child in model.named_children():
        setattr(model, name, over_all_processes(child))
    return model


def count_real(model: nn.Module, n_real: int) -> None:
    """Tell the layers of `over_all_processes` how many rows of the next batch are not padding."""
    for layer in model.modules():
        if isinstance(layer, GlobalBatchNorm):
            layer.n_real = n_real
