"""One command on many processes: torch.distributed behind a thin shim, and nothing at all where torchrun did not start it.

`torchrun --nproc-per-node 2 -m clprune score DATA --out RUN` starts W processes of the same command. Each of them reads the data; process 0 records, decides and
writes, the others write nothing. A step takes part through `joined()`; what only one process may do goes through `on_first`, what all do in the same way through
`alike`, and the parts of it that need not be done twice through `share_out`.

A process that dies ends all others: each holds an open connection to its neighbour, which the system closes when that one is gone, whatever the others are
busy with (seen 0.2 s after a SIGKILL). What was committed stays, and the same command goes on from there.

A program that merely runs under torchrun (a training of your own, with a recorder in it) is left alone: only the command line, or `enable()`, switches this on.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from clprune.errors import ClpruneError, DataError, DistributedError, UsageError

if TYPE_CHECKING:  # the command line looks here before it knows whether it will need torch or numpy
    import numpy as np
    import torch
    from jaxtyping import Bool, Int
    from torch import Tensor, nn

S = TypeVar("S")
T = TypeVar("T")

STEP_TIMEOUT = timedelta(seconds=120)  # between two steps of a training: a machine that is cut off closes no connection
PATIENCE = timedelta(days=7)  # while process 0 does what only one can do, such as looking for neighbours
_RESTART = "Start the same command again: it goes on from what was finished."

_enabled = False
_team: _Team | None = None
_sharing = False


# ---- who is here


def enable() -> None:
    """Let steps share their work with the processes that torchrun started beside this one."""
    global _enabled
    _enabled = True


def world_size() -> int:
    """Number of processes that share a step; 1 where torchrun did not start this one. Raises UsageError for variables that make no sense."""
    return _from_environment("WORLD_SIZE", 1) if _enabled and "RANK" in os.environ else 1


def rank() -> int:
    """Number of this process, from 0."""
    return _from_environment("RANK", 0) if world_size() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that decides and writes."""
    return rank() == 0


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise UsageError(f"the variable {name} is {text!r}, but should be a whole number. Start with torchrun, or unset RANK and WORLD_SIZE.")
    return int(text)


# ---- cutting work


def shard_rows(rows: Int[np.ndarray, "n"], rank: int, world: int) -> tuple[Int[np.ndarray, "m"], Bool[np.ndarray, "m"]]:
    """The part of `rows` that process `rank` of `world` takes, ceil(n / world) of them, and which of these count.

    Every process gets the same number of rows, so that all of them do the same collective operations; where `world` does not divide n the last row of some
    is padding (a copy of the first row, flagged False). Over all processes every row counts exactly once. Row i goes to process i % world.

    >>> import numpy as np
    >>> shard_rows(np.array([7, 8, 9]), 1, 2)
    (array([8, 7]), array([ True, False]))
    """
    import numpy as np

    n_each = -(-len(rows) // world)
    mine = rows[rank::world]
    real = np.arange(n_each) < len(mine)
    return np.concatenate([mine, np.repeat(rows[:1], n_each - len(mine))]), real


# ---- joining and leaving


@dataclass
class _Team:
    """The groups of processes, and the thread that watches the neighbour."""

    patient: Any  # gloo, for waiting on process 0
    watch: Any  # gloo, for the connection to the neighbour
    wire: str  # where tensors lie for the collectives of a training: "cuda" with NCCL, else "cpu"
    leaving: bool = False
    watcher: threading.Thread | None = None

    def start_watching(self) -> None:
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def _watch(self) -> None:
        import torch
        import torch.distributed as dist

        neighbour = (rank() + 1) % world_size()
        try:
            dist.recv(torch.zeros(1), src=neighbour, group=self.watch)
        except RuntimeError:
            time.sleep(1)  # perhaps this process is about to say the same as the one that has gone, or more
            if not self.leaving:
                print(
                    f"clprune: process {neighbour} of {world_size()} has gone, so process {rank()} ends too. {_RESTART}", file=sys.stderr, flush=True
                )
                os._exit(1)  # the main thread may be anywhere, also waiting for the process that has gone

    def leave(self) -> None:
        """Say goodbye: every process comes here."""
        import torch
        import torch.distributed as dist

        dist.barrier(group=self.patient)
        self.leaving = True
        dist.send(torch.ones(1), dst=(rank() - 1) % world_size(), group=self.watch)
        if self.watcher is not None:
            self.watcher.join()
        dist.destroy_process_group()


@contextmanager
def joined() -> Iterator[None]:
    """Take part in a step with all processes; without torchrun, or inside another `joined`, nothing. An error in one of them ends all."""
    global _team
    if world_size() == 1 or _team is not None:
        yield
        return
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    import torch
    import torch.distributed as dist

    here, local = _from_environment("LOCAL_WORLD_SIZE", world_size()), _from_environment("LOCAL_RANK", rank())
    nccl = torch.cuda.is_available() and torch.cuda.device_count() >= here  # NCCL refuses two processes on one GPU
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    with _explained():
        dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=STEP_TIMEOUT)
        patient, watch = (dist.new_group(backend="gloo", timeout=PATIENCE) for _ in range(2))
    team = _Team(patient, watch, "cuda" if nccl else "cpu")
    team.start_watching()
    _team = team
    try:
        yield
    except BaseException as error:
        if getattr(error, "everywhere", False):
            team.leave()
        team.leaving = True
        raise
    else:
        with _explained():
            team.leave()
    finally:
        _team = None


@contextmanager
def _explained() -> Iterator[None]:
    """A failed collective operation in plain words."""
    try:
        yield
    except RuntimeError as error:
        if _team is not None and _team.watcher is not None:
            _team.watcher.join(5)  # where a process has gone it says so and ends this one
        raise DistributedError(
            f"process {rank()} of {world_size()} lost the others ({str(error).splitlines()[0]}). Look at what they said before. {_RESTART}"
        ) from error


def everywhere(error: ClpruneError) -> ClpruneError:
    """Mark an error that every process raises at the same place: then they part in order, and only process 0 says it."""
    error.everywhere = world_size() > 1  # type: ignore[attr-defined]
    return error


# ---- waiting for process 0


def on_first(act: Callable[[], T]) -> T:
    """What `act()` gives in process 0, in every process; only process 0 calls it. An error of clprune's in it is raised everywhere."""
    if _team is None:
        return act()
    import torch.distributed as dist

    told: list[Any] = [None]
    if is_first():
        try:
            told = [(act(), None)]
        except ClpruneError as error:
            everywhere(error)
            with _explained():
                dist.broadcast_object_list([(None, (error.exit_code, str(error)))], src=0, group=_team.patient)
            raise
    with _explained():
        dist.broadcast_object_list(told, src=0, group=_team.patient)
    result, failed = told[0]
    if failed is not None:
        stopped = ClpruneError(f"process 0 stopped: {failed[1]}")
        stopped.exit_code = failed[0]
        raise everywhere(stopped)
    return result  # type: ignore[no-any-return]


def gather_values(value: T) -> list[T]:
    """The value of every process, in their order, in every process. For small things."""
    if _team is None:
        return [value]
    import torch.distributed as dist

    held: list[Any] = [None] * world_size()
    with _explained():
        dist.all_gather_object(held, value, group=_team.patient)
    return held


@contextmanager
def sharing() -> Iterator[None]:
    """Inside, `share_out` gives each process a part of the work: for what every process does in the same way from the same data."""
    global _sharing
    before, _sharing = _sharing, _team is not None
    try:
        yield
    finally:
        _sharing = before


def shares() -> bool:
    """Whether `share_out` gives this process a part only."""
    return _sharing


def share_out(items: Sequence[S], work: Callable[[S], T]) -> list[T]:
    """`[work(item) for item in items]` in every process. Inside `sharing` each process works on every W-th item only, and all of them must come here with the same ones."""
    if not _sharing:
        return [work(item) for item in items]
    held = gather_values([work(item) for item in items[rank() :: world_size()]])
    return [held[number % world_size()][number // world_size()] for number in range(len(items))]


def alike(act: Callable[[], T]) -> T:
    """`act()` in every process. An error of clprune's in one or several of them is raised everywhere, that of the first of them."""
    failed: list[ClpruneError] = []
    try:
        value = act()
    except ClpruneError as error:
        failed.append(error)
    told = gather_values([(rank(), error.exit_code, str(error)) for error in failed])
    if not any(told):
        return value
    number, code, text = next(what[0] for what in told if what)
    if number == rank():
        raise everywhere(failed[0])
    stopped = ClpruneError(f"process {number} stopped: {text}")
    stopped.exit_code = code
    raise everywhere(stopped)


def require_same(value: str, what: str) -> None:
    """Raise DataError in every process unless all hold the same `value`."""
    if len(set(held := gather_values(value))) > 1:
        raise everywhere(DataError(f"the processes see different {what}: {', '.join(text[:12] for text in held)}. Give all machines the same data."))


def first_here(act: Callable[[], T]) -> T:
    """`act()` in every process, but in one a machine before the others: what it leaves in a cache is then not made twice."""
    if _team is None:
        return act()
    alone = _from_environment("LOCAL_RANK", rank()) == 0
    early = act() if alone else None
    gather_values(None)
    return early if alone else act()  # type: ignore[return-value]


# ---- in a training


def same_start(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give every process the weights, buffers and momentum of process 0."""
    assert _team is not None
    import torch
    import torch.distributed as dist

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    held = [number for number, p in enumerate(parameters) if optimizer.state.get(p, {}).get("momentum_buffer") is not None]
    gather_values(None)  # some may have taken long to read their data; from here on they keep pace
    held = on_first(lambda: held)
    for number in held:
        slot = optimizer.state[parameters[number]]
        if slot.get("momentum_buffer") is None:
            slot["momentum_buffer"] = torch.empty_like(parameters[number])
    momenta = [optimizer.state[parameters[number]]["momentum_buffer"] for number in held]
    with torch.no_grad(), _explained():
        for tensor in [*(value.data for value in model.state_dict().values()), *momenta]:
            sent = tensor.detach().to(_team.wire).contiguous()
            dist.broadcast(sent, src=0)
            tensor.copy_(sent)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the processes, in one message."""
    import torch

    gradients = [p.grad for p in parameters if p.grad is not None]
    total = sum_over_processes(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    for gradient, part in zip(gradients, total.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum over the processes, the same bits in each of them, where `values` lie."""
    assert _team is not None
    import torch.distributed as dist

    sent = values.detach().to(_team.wire).contiguous()
    with _explained():
        dist.all_reduce(sent)
    return sent.to(values.device)


def stack_over_processes(values: Tensor) -> Tensor:
    """(W, ...): the values (...) of every process, in their order, in every process."""
    assert _team is not None
    import torch
    import torch.distributed as dist

    sent = values.detach().to(_team.wire).contiguous()
    held = [torch.empty_like(sent) for _ in range(world_size())]
    with _explained():
        dist.all_gather(held, sent)
    return torch.stack(held).to(values.device)


def batch_to_first(n: int, parts: list[Tensor]) -> list[Tensor] | None:
    """Put a batch of `n` rows that `shard_rows` cut together again: each of `parts` (m, ...) as (n, ...) in process 0, None in the others.

    One message a batch; it holds the bytes as they are, so that process 0 sees the very numbers. With logits (C) and features (D) in bf16 that is 2 (C + D) bytes a
    sample, 276 for ten classes and the small CNN. Labels and rows need not travel: every process knows the whole batch.
    """
    assert _team is not None
    import torch
    import torch.distributed as dist

    flat = [part.detach().reshape(len(part), -1).contiguous().view(torch.uint8) for part in parts]
    sent = torch.cat(flat, dim=1).to(_team.wire)
    held = [torch.empty_like(sent) for _ in range(world_size())] if is_first() else None
    with _explained():
        dist.gather(sent, held, dst=0)
    if held is None:
        return None
    whole = torch.stack(held, dim=1).reshape(-1, sent.shape[1])[:n].to(parts[0].device)  # row i came from process i % W
    columns = whole.split([part.shape[1] for part in flat], dim=1)
    return [column.contiguous().view(part.dtype).view(n, *part.shape[1:]) for column, part in zip(columns, parts, strict=True)]


def rows_to_first(rows: np.ndarray, sizes: list[int]) -> np.ndarray | None:
    """Blocks of rows that processes hold in turn (block b in process b % W, sizes known to all), in one array in process 0, None in the others."""
    assert _team is not None
    import numpy as np
    import torch
    import torch.distributed as dist

    if not is_first():
        sent = torch.from_numpy(np.ascontiguousarray(rows).reshape(-1).view(np.uint8))
        if len(rows):
            with _explained():
                dist.send(sent, dst=0, group=_team.patient)
        return None
    whole = np.empty((sum(sizes), *rows.shape[1:]), dtype=rows.dtype)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for source in range(world_size()):
        blocks = range(source, len(sizes), world_size())
        held = rows
        if source and (n_held := sum(sizes[b] for b in blocks)):
            held = np.empty((n_held, *rows.shape[1:]), dtype=rows.dtype)
            with _explained():
                dist.recv(torch.from_numpy(held.reshape(-1).view(np.uint8)), src=source, group=_team.patient)
        at = 0
        for block in blocks:
            whole[starts[block] : starts[block + 1]] = held[at : at + sizes[block]]
            at += sizes[block]
    return whole


def require_visits(visits: Int[np.ndarray, "N"], expected: Int[np.ndarray, "N"]) -> None:
    """Raise DistributedError, naming rows, unless the processes together visited each row as often as expected."""
    import numpy as np
    import torch

    total = sum_over_processes(torch.from_numpy(visits)).numpy()
    if len(wrong := np.flatnonzero(total != expected)):
        seen = ", ".join(f"row {row}: {total[row]} instead of {expected[row]}" for row in wrong[:10])
        raise everywhere(DistributedError(f"{len(wrong)} samples were not visited as often as they should ({seen}). Please report this."))
