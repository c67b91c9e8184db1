"""Mixed precision, where it is faster."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from edgecompress.recipe import Train

NAMES = {None: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
GAIN = 1.1  # by which bfloat16 must be faster on a CPU
TRIALS = 3


def choose(settings: Train, device: torch.device, module: nn.Module, loss: Callable[[nn.Module], Tensor]) -> str:
    """ "float32", "bfloat16" or "float16".

    On a CPU bfloat16 is only taken when asked for and measured faster on a copy of the module: without the
    instructions (AVX512_BF16, AMX) it is emulated.
    """
    if settings.precision == "float32" or (settings.precision == "auto" and device.type == "cpu"):
        return "float32"
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    trial = copy.deepcopy(module)
    seconds = {name: _seconds(trial, loss, name) for name in ("float32", "bfloat16")}
    return "bfloat16" if seconds["bfloat16"] * GAIN < seconds["float32"] else "float32"


def autocast(name: str, device: torch.device) -> AbstractContextManager[None]:
    """Within it, layers compute in the named type."""
    dtype = DTYPES[name]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def _seconds(module: nn.Module, loss: Callable[[nn.Module], Tensor], name: str) -> float:
    """The fastest step; the first one warms up."""
    taken = []
    for _ in range(TRIALS + 1):
        start = time.perf_counter()
        with autocast(name, torch.device("cpu")):
            value = loss(module)
        value.backward()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])
