"""A gate: which blocks of a value's channels are zero, known before the value is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, inline
from edgecompress_runtime.plan import Tensor


@dataclass(frozen=True, eq=False)
class Gate:
    """In the channels of block b, `block` of them, a value is zero where element b of `tensor`, int8, is `closed`."""

    tensor: Tensor | np.ndarray
    block: int
    closed: int

    def operand(self, channels: int) -> tuple[Any, ...]:
        """For a kernel: bytes, blocks, channels of a block, the byte that closes one."""
        return self.tensor, channels // self.block, self.block, self.closed


def always_open(channels: int) -> Gate:
    """All channels as one block that nothing closes."""
    return Gate(np.ones(1, np.int8), channels, 0)


@inline
def open_blocks(gate: Tuple, blocks: Pointer) -> Word:
    """Lists the first channels of open blocks, and returns how many there are. gate: of `Gate.operand`."""
    values, number, size, closed = gate
    count = i32(0)
    for b in range(number):
        if values[b] != closed:
            blocks[count] = i32(b * size)
            count = i32(count + 1)
    return count
