"""What code is generated from: kernel calls with their scratch memory and what they may write over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecompress_runtime.kernels.registry import Call
from edgecompress_runtime.llvm.cross import Function
from edgecompress_runtime.plan import Tensor


@dataclass(frozen=True, eq=False)
class Scratch:
    """An argument: the address of `size` bytes that the kernel may use while it runs. dtype: of what it sees there."""

    size: int
    dtype: Any = np.int8


@dataclass(frozen=True, eq=False)
class Part:
    """An argument: the address of a tensor, `start` bytes on."""

    tensor: Tensor
    start: int


@dataclass(frozen=True, eq=False)
class Step(Call):
    """One kernel call.

    arguments: tensors, scratch memory, constants and numbers, and tuples of these. overlap: inputs that the output may
    be written over, with the bytes in front of the input's start at which the output has to begin at the latest (0: in
    place). helpers: functions that the kernel calls. saved: bytes of flash that its coded weights take less than plain
    ones. skips: whether it leaves out weights that are zero.
    """

    arguments: tuple[Any, ...]
    overlap: Mapping[Tensor, int] = field(default_factory=dict)
    helpers: tuple[Function, ...] = ()
    saved: int = 0
    skips: bool = False
