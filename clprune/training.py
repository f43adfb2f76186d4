"""The one training loop: the proxy run, every arm of an evaluation and the benchmarks go through `train`.

The data lie on the device as uint8, or in the host's memory where they would fill too much of it; one gather picks a batch, crops and flips it. Every sample is seen once an epoch (batch sizes
differ by at most one). Order and augmentation of an epoch depend on (seed, epoch) only, so a run goes on after any epoch.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from clprune import distributed
from clprune.arithmetic import in_full, number_format
from clprune.batch_norm import count_real
from clprune.captured import CapturedStep, Outputs
from clprune.errors import TrainingError, UsageError

Observe = Callable[[Tensor, Tensor, Tensor, Tensor | None], None]
Draw = Callable[
    [int, float], tuple[np.ndarray, np.ndarray | None]
]  # (epoch, share of the training that is done) -> its rows, and loss weights (N,) or None

PREDICTED_AT_ONCE = 512  # rows of a forward pass without training
FINISHING_SAMPLES = 51_200  # that a watched model is trained on after the critical period, 400 batches of 128
FINISHING_SHARE = 5  # or this part of its steps so far, where that is more


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are the proxy run's: a constant rate after a short warm-up, whose length no constant depends on."""

    batch_size: int = 128
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    warmup_samples: int = 6_400  # in samples, not steps: the pace in samples should not depend on the batch size
    schedule: Literal["constant", "cosine"] = "constant"
    copies: int = 1  # augmented views of each sample an epoch (k in the paper), in so many passes
    flip: bool = True
    crop_padding: int | None = None  # pixels; None: an eighth of the side
    exact: bool = False  # float32, contiguous layout, deterministic algorithms, instead of channels_last and `number_format`


@dataclass(frozen=True)
class DeviceData:
    """Images and labels where the training happens; statistics of the pixels by channel."""

    pixels: UInt8[Tensor, "N*H*W C"]
    labels: Int[Tensor, "N"]
    shape: tuple[int, int, int]  # H, W, C
    mean: Float[Tensor, "C"]
    std: Float[Tensor, "C"]
    resident: bool = True  # else the pixels lie in the host's memory (or file), and a batch at a time goes to the device

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as a model sees it."""
        height, width, channels = self.shape
        return channels, height, width

    def batch(
        self, rows: Int[Tensor, "B"], *, shifts: Int[Tensor, "B 2"] | None, flips: Tensor | None, dtype: torch.dtype
    ) -> Float[Tensor, "B C H W"]:
        """Normalised images in channels_last memory; shifted with mirrored borders and flipped where asked, in the same gather. `rows` of data that are not resident may lie on the host."""
        height, width, channels = self.shape
        device, pixels = self.device, self.pixels
        if not self.resident:
            pixels = pixels.view(-1, height * width * channels).index_select(0, rows.cpu()).to(device, non_blocking=True).view(-1, channels)
            rows = torch.arange(len(rows), device=device)
        y = torch.arange(height, device=device).expand(len(rows), -1)
        x = torch.arange(width, device=device).expand(len(rows), -1)
        if shifts is not None:
            y = _mirrored(y + shifts[:, :1], height)
            x = _mirrored(x + shifts[:, 1:], width)
        if flips is not None:
            x = torch.where(flips.unsqueeze(1), width - 1 - x, x)
        at = ((rows.unsqueeze(1) * height + y) * width).unsqueeze(2) + x.unsqueeze(1)
        picked = pixels.index_select(0, at.flatten()).view(len(rows), height, width, channels).permute(0, 3, 1, 2)
        return ((picked.float() - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)).to(dtype)

    @property
    def device(self) -> torch.device:
        return self.labels.device


@dataclass(frozen=True)
class TokenData:
    """Hashed n-grams and labels where the training happens, in the place of DeviceData: augmentation does nothing to a text."""

    tokens: Int[Tensor, "N L"]
    labels: Int[Tensor, "N"]
    shape: tuple[int, ...] = (0,)  # no sides to shift along
    resident: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(L,)"""
        return tuple(self.tokens.shape[1:])

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def batch(self, rows: Int[Tensor, "B"], *, shifts: Tensor | None, flips: Tensor | None, dtype: torch.dtype) -> Int[Tensor, "B L"]:
        return self.tokens.index_select(0, rows if self.resident else rows.cpu()).to(self.device, non_blocking=True)


def _drawn_shifts(shape: tuple[int, ...], most: int | None, n: int, draws: np.random.Generator) -> Int[np.ndarray, "B 2"] | None:
    """How far each of `n` images of this shape is moved down and right: by at most `most` pixels (an eighth of the side), and no further than mirroring reaches. None where that is nowhere."""
    down, right = (max(0, min(side // 8 if most is None else most, side - 1)) for side in (*shape, 0)[:2])
    if down == right:
        return draws.integers(-down, down + 1, (n, 2)) if down else None
    return draws.integers((-down, -right), (down + 1, right + 1), (n, 2))


def _mirrored(at: Tensor, size: int) -> Tensor:
    """Positions outside 0..size-1 mirrored back in, the border pixel not repeated."""
    at = at.abs()
    return torch.where(at >= size, 2 * (size - 1) - at, at)


def pixel_statistics(images: UInt8[np.ndarray, "N H W C"], order: Int[np.ndarray, "M"] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation by channel, in 0..255, of at most 5,000 images spread over `order` (all rows), added up in that order: that of the ids gives the same bits however the rows lie."""
    rows = np.arange(len(images)) if order is None else order
    some = np.asarray(images[rows[:: max(1, len(rows) // 5000)]], dtype=np.float32)
    return some.mean(axis=(0, 1, 2)), some.std(axis=(0, 1, 2)) + 1e-3


def to_device(
    images: UInt8[np.ndarray, "N H W C"] | Int[np.ndarray, "N L"],
    labels: Int[np.ndarray, "N"],
    device: torch.device,
    *,
    statistics: tuple[np.ndarray, np.ndarray] | None = None,
    resident: bool | None = None,
) -> DeviceData | TokenData:
    """Put images, or texts as hashed n-grams, on the device; a memory map stays one on the CPU.

    `statistics` are those of the training set for test images. Not `resident` (default: what would take more than half of the free memory of a GPU) leaves them in the host's memory.
    """
    resident = _fits(images.nbytes, device) if resident is None else resident
    place = device if resident else torch.device("cpu")
    if images.ndim == 2:
        return TokenData(_tensor_over(images).to(place), torch.from_numpy(labels.astype(np.int64)).to(device), resident=resident)
    mean, std = statistics or pixel_statistics(images)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    flat = images.reshape(-1, shape[2])
    if not flat.flags.writeable:
        flat = flat.view()
        if not isinstance(images, np.memmap):
            flat = flat.copy()
    pixels = _tensor_over(flat).to(place)
    targets = torch.from_numpy(labels.astype(np.int64)).to(device)
    middle, spread = (torch.as_tensor(value, device=device, dtype=torch.float32) for value in (mean, std))
    return DeviceData(pixels, targets, shape, middle, spread, resident)


def _fits(n_bytes: int, device: torch.device) -> bool:
    """Whether so much may lie on the device for good: half of what is free stays for the training."""
    return device.type != "cuda" or n_bytes <= torch.cuda.mem_get_info(device)[0] / 2


def _tensor_over(array: np.ndarray) -> Tensor:
    """A tensor on the array's memory, without a copy also where that is read-only (nothing here writes to it)."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(np.asarray(array))


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one. Raises UsageError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{name}' is not available here ({str(error).splitlines()[0]}). Use --device auto or cpu.") from error
    return device


def prepare_model(model: nn.Module, device: torch.device, recipe: Recipe) -> nn.Module:
    """Move a model to the device, in the memory layout of the recipe."""
    model = model.to(device)
    return model if recipe.exact else model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class FeatureTap:
    """Catches the input of a model's last linear layer during its forward pass: `features` (B, D), or None without such a layer.

    With `layer` it is the output of the module of that name instead, averaged over all but samples and channels. Raises UsageError where there is none.
    """

    def __init__(self, model: nn.Module, layer: str | None = None) -> None:
        self.features: Tensor | None = None
        modules = dict(model.named_modules())
        linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        self.layer, self._handle = layer or (linear[-1] if linear else None), None
        if layer is not None and (layer not in modules or not layer):
            raise UsageError(f"the proxy has no layer {layer!r}. It has: {', '.join(name for name in modules if name)}.")
        if layer is not None:
            self._handle = modules[layer].register_forward_hook(self._catch_output)
        elif self.layer is not None:
            self._handle = modules[self.layer].register_forward_pre_hook(self._catch, with_kwargs=True)

    def _catch(self, module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        given = inputs[0] if inputs else next(iter(named.values()))
        self.features = given if given.ndim == 2 else None

    def _catch_output(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if not isinstance(output, Tensor):
            raise UsageError(f"layer {self.layer!r} gives a {type(output).__name__}; features are taken from one that gives a tensor.")
        self.features = output.flatten(2).mean(dim=2) if output.ndim > 2 else output

    def close(self) -> None:
        if self._handle is not None:
            self._handle.remove()


@dataclass
class TrainingState:
    """Everything that a run needs to go on after an epoch."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    epochs_done: int = 0
    steps_done: int = 0


@dataclass(frozen=True)
class TrainingRun:
    """What a training did."""

    epochs: int
    steps: int
    samples_seen: int
    seconds: float
    stopped_early: bool
    recipe: dict[str, Any]


def new_state(model: nn.Module, device: torch.device, recipe: Recipe) -> TrainingState:
    model = prepare_model(model, device, recipe)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]  # biases and normalisation are not decayed
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True if device.type == "cuda" else None
    )
    return TrainingState(model, optimizer)


def rate_at(samples_seen: int, progress: float, recipe: Recipe) -> float:
    """Learning rate: linear warm-up, then constant, or half a cosine down to 0 where `progress` (share of the training that is done) is 1."""
    warm = min(1.0, (samples_seen + recipe.batch_size) / recipe.warmup_samples) if recipe.warmup_samples else 1.0
    if recipe.schedule == "cosine":
        return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return recipe.learning_rate * warm


def finishing_steps(steps_done: int, batch_size: int) -> int:
    """How many steps a watched model is trained on after the critical period, its rate falling to zero.

    At the end of the period it is good for ranking what it learned from, and a poor judge of anything else: with 1,000 and 4,000 labels of 15,000 images it guesses 69 and 82 % right on Fashion-MNIST, 54 and
    57 % on CIFAR-10; with 400 batches of 128 more 84, 87, 56 and 69 %, and twice as many add one point or less.
    """
    return max(-(-FINISHING_SAMPLES // batch_size), steps_done // FINISHING_SHARE)


def epoch_rows(rows: Int[np.ndarray, "K"], epoch: int, seed: int, batch_size: int, *, copies: int = 1) -> list[np.ndarray]:
    """The batches of an epoch: `copies` passes over all rows, in orders drawn from (seed, epoch), sizes differing by at most one within a pass."""
    rng, n_batches = np.random.default_rng((seed, epoch, 1)), math.ceil(len(rows) / batch_size)
    return [batch for _ in range(copies) for batch in np.array_split(rng.permutation(rows), n_batches)]


def train(
    state: TrainingState,
    data: DeviceData | TokenData,
    recipe: Recipe,
    *,
    n_epochs: int,
    seed: int,
    rows: Int[np.ndarray, "K"] | Draw | None = None,
    n_steps: int | None = None,
    observe: Observe | None = None,
    end_epoch: Callable[[TrainingState], bool] | None = None,
    later: Recipe | None = None,
    weights: Float[np.ndarray, "N"] | None = None,
    together: bool = False,
    captured: bool | None = None,
) -> TrainingRun:
    """Train on `rows` (all by default; a function draws those of each epoch) until `n_epochs` or `n_steps` (then epochs do not count), or until `end_epoch` says True.

    With `later` a True of `end_epoch` does not stop the training but switches to that recipe (same optimizer, `batch_size` and `learning_rate` of its own):
    less augmentation, another weight decay, label smoothing or rate from the end of the critical period on. `observe(rows, logits, labels, features)`
    is called after each forward pass of an epoch's first view of the samples, with tensors on the device; `weights` (N,) multiply each sample's loss.

    With `together` the processes of torchrun share every batch: batches, augmentation, rate and (with `batch_norm.over_all_processes`) normalisation are those of one
    process, gradients are summed, `observe` is called in process 0 with the whole batch, and after every epoch the visits of all samples are counted. All processes
    get the same weights; they differ from one process's by rounding. Raises TrainingError when the loss is no longer finite.

    With `captured` (None: where the model says `capturable`) a GPU that holds the data replays each step as one graph (`captured.py`): the same numbers, for models that look at no value on the host.
    """
    model, optimizer, device = state.model, state.optimizer, data.device
    chosen = np.arange(len(data)) if rows is None or callable(rows) else np.asarray(rows)
    loss_weights = None if weights is None else torch.as_tensor(weights, dtype=torch.float32, device=device)
    tap, numbers = FeatureTap(model) if observe is not None else None, number_format(device, exact=recipe.exact)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if recipe.exact and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic
    # On a GPU some layers have no deterministic backward pass: torch warns of them by name.
    torch.use_deterministic_algorithms(recipe.exact, warn_only=device.type == "cuda")
    started, first_step, first_epoch, seen, stop = time.perf_counter(), state.steps_done, state.epochs_done, 0, False
    first_recipe, steps_left = recipe, math.inf if n_steps is None else n_steps - state.steps_done

    def step(at: Tensor, here: Tensor | None, shifts: Tensor | None, flips: Tensor | None, weight: Tensor | None) -> Outputs:
        """Forward and backward pass; logits, labels, loss and features."""
        shifts, flips = (None if drawn is None else drawn.to(device, non_blocking=True) for drawn in (shifts, flips))
        images = data.batch(at if here is None else here, shifts=shifts, flips=flips, dtype=numbers)
        labels = data.labels.index_select(0, at)
        with torch.autocast(device.type, torch.bfloat16, enabled=numbers is torch.bfloat16):
            logits = model(images)
        if not isinstance(logits, Tensor):
            raise UsageError(
                f"the model gives a {type(logits).__name__} while it trains. It must give logits (B, C) alone, as it does when it is evaluated."
            )
        losses = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=recipe.label_smoothing)
        weighted = losses if weight is None else losses * weight
        loss = weighted.sum() / n_whole if together else weighted.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return logits.detach(), labels, loss.detach(), None if tap is None or tap.features is None else tap.features.detach()

    places, replayed = ExitStack(), None
    model.train()
    try:
        if recipe.exact:
            places.enter_context(in_full())
        if replays(model, data, captured) and not together:
            replayed = CapturedStep(step, list(model.parameters()), device)
            places.enter_context(replayed.stream())
        while not stop and steps_left > 0 and (n_steps is not None or state.epochs_done < n_epochs):
            draws = np.random.default_rng((seed, state.epochs_done, 2))
            if callable(rows):
                chosen, drawn = rows(state.epochs_done, state.epochs_done / n_epochs if n_steps is None else state.steps_done / n_steps)
                loss_weights = None if drawn is None else torch.as_tensor(drawn, dtype=torch.float32, device=device)
            loss_sum = torch.zeros((), device=device)
            # Dropout differs between processes, and is the same after an interruption.
            torch.manual_seed(int(np.random.SeedSequence((seed, state.epochs_done, distributed.rank() if together else 0)).generate_state(1)[0]))
            if together:
                visits, expected = np.zeros(len(data), dtype=np.int32), np.zeros(len(data), dtype=np.int32)
            batches = epoch_rows(chosen, state.epochs_done, seed, recipe.batch_size, copies=recipe.copies)
            for number, batch_rows in enumerate(batches[: int(min(steps_left, len(batches)))]):
                drawn_shifts = _drawn_shifts(data.shape, recipe.crop_padding, len(batch_rows), draws)
                drawn_flips = draws.random(len(batch_rows)) < 0.5 if recipe.flip else None
                part: slice | np.ndarray = slice(None)
                if together:  # what was drawn for the whole batch is cut, so that no draw depends on the number of processes
                    part, real = distributed.shard_rows(np.arange(len(batch_rows)), distributed.rank(), distributed.world_size())
                    count_real(model, int(real.sum()))
                    np.add.at(visits, batch_rows[part][real], 1)
                    np.add.at(expected, batch_rows, 1)
                here = torch.from_numpy(batch_rows[part])
                at = here.to(device, non_blocking=True)
                shifts, flips = (None if drawn is None else torch.from_numpy(drawn[part]) for drawn in (drawn_shifts, drawn_flips))
                weight, n_whole = None if loss_weights is None else loss_weights.index_select(0, at), len(batch_rows)
                if together:
                    counted = torch.from_numpy(real).to(device, non_blocking=True)
                    weight = counted if weight is None else weight * counted
                progress = (state.epochs_done + number / len(batches)) / n_epochs if n_steps is None else state.steps_done / n_steps
                for group in optimizer.param_groups:
                    group["lr"] = rate_at(state.steps_done * recipe.batch_size, progress, recipe)
                logits, labels, loss, features = (replayed or step)(at, None if data.resident else here, shifts, flips, weight)
                if together:
                    distributed.sum_gradients(model.parameters())
                optimizer.step()
                if observe is not None and number * recipe.copies < len(batches):
                    if together:
                        _observe_whole(observe, data, batch_rows, logits, features)
                    else:
                        observe(at, logits, labels, features)
                loss_sum += loss
                state.steps_done += 1
                seen += len(batch_rows)
            steps_left -= len(batches)
            if together:
                distributed.require_visits(visits, expected)
                loss_sum = distributed.sum_over_processes(loss_sum)
            if not torch.isfinite(loss_sum):
                raise distributed.everywhere(
                    TrainingError(
                        f"the loss is no longer a finite number in epoch {state.epochs_done} (learning rate {recipe.learning_rate:g}). "
                        "Lower the learning rate, or look for broken inputs."
                    )
                )
            state.epochs_done += 1
            ended = end_epoch is not None and end_epoch(state)
            if ended and later is not None:
                recipe = replace(later, warmup_samples=0)  # it was warmed up before
                optimizer.param_groups[0]["weight_decay"] = recipe.weight_decay
                if replayed is not None:
                    replayed.forget()
            stop = ended and later is None
    finally:
        places.close()
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        if tap is not None:
            tap.close()
    return TrainingRun(
        state.epochs_done - first_epoch,
        state.steps_done - first_step,
        seen,
        time.perf_counter() - started,
        stop and state.epochs_done < n_epochs,
        asdict(first_recipe),
    )


def replays(model: nn.Module, data: DeviceData | TokenData, captured: bool | None) -> bool:
    """Whether the steps of a training are replayed (`captured` of `train`)."""
    return data.device.type == "cuda" and data.resident and bool(getattr(model, "capturable", False) if captured is None else captured)


def _observe_whole(observe: Observe, data: DeviceData | TokenData, rows: Int[np.ndarray, "B"], logits: Tensor, features: Tensor | None) -> None:
    """Call `observe` in process 0 with the batch of all processes, as one process would have seen it."""
    whole = distributed.batch_to_first(len(rows), [logits] if features is None else [logits, features])
    if whole is not None:
        at = torch.from_numpy(rows).to(data.device)
        observe(at, whole[0], data.labels.index_select(0, at), whole[1] if len(whole) > 1 else None)


@torch.no_grad()
def predict(
    model: nn.Module,
    data: DeviceData | TokenData,
    *,
    rows: Int[np.ndarray, "M"] | None = None,
    batch_size: int = PREDICTED_AT_ONCE,
    exact: bool = False,
    layer: str | None = None,
) -> tuple[Float[np.ndarray, "N C"], Float[np.ndarray, "N D"] | None]:
    """Logits and features (see FeatureTap) of `rows` (all by default) in that order, in evaluation mode, without augmentation."""
    device, numbers = data.device, number_format(data.device, exact=exact)
    tap, was_training = FeatureTap(model, layer), model.training
    model.eval()
    logits, features = [], []
    try:
        chosen = torch.arange(len(data)) if rows is None else torch.from_numpy(np.asarray(rows))
        for part in chosen.split(batch_size):
            images = data.batch(part.to(device) if data.resident else part, shifts=None, flips=None, dtype=numbers)
            with in_full() if exact else nullcontext(), torch.autocast(device.type, torch.bfloat16, enabled=numbers is torch.bfloat16):
                logits.append(model(images).float().cpu())
            if tap.features is not None:
                features.append(tap.features.float().cpu())
    finally:
        tap.close()
        model.train(was_training)
    return torch.cat(logits).numpy(), torch.cat(features).numpy() if features else None


def seed_everything(seed: int) -> None:
    """Seed torch's global generator, which initialises the weights. Everything else draws from its own generator."""
    torch.manual_seed(seed)
