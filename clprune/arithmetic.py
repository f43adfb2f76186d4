"""Which numbers a forward pass is computed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


def number_format(device: torch.device, *, exact: bool = False) -> torch.dtype:
    """What a forward pass computes in: bfloat16 where the device multiplies it in hardware, float32 elsewhere and where `exact`.

    A processor without such instructions is eleven times slower in bfloat16 than in float32 (AMD Zen 3); with them it is 2.5 times faster.
    """
    if exact:
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type != "cpu":
        return torch.bfloat16
    able: Mapping[str, Any] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # an early torch cannot tell
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def name_of_numbers(device: torch.device, *, exact: bool = False) -> str:
    """What `number_format` says, for a record: bfloat16 or float32."""
    return str(number_format(device, exact=exact)).removeprefix("torch.")


@contextmanager
def in_full() -> Iterator[None]:
    """float32 products of all 24 bits, also where a GPU would round their factors to the 11 of TF32, as convolutions do by default."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=torch.backends.cudnn.deterministic, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
