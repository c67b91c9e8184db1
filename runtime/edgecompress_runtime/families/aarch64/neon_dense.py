"""FULLY_CONNECTED with NEON: a row by four channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit, types
from numba.extending import intrinsic

from edgecompress_runtime.families.aarch64.neon import blank, copy, scaled_once, totals
from edgecompress_runtime.families.aarch64.neon_blocks import block_sums
from edgecompress_runtime.families.cortex_m.helium_blocks import FOUR_BYTES, LANES, clamped, vector
from edgecompress_runtime.families.shared.arranged_dense import dense
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    INT32_POINTER,
    WORD,
    address,
    load,
    moved,
    store,
)
from edgecompress_runtime.kernels.arithmetic import i32


@njit(inline="always")
def row(x, scratch, depth):
    """Followed by zeros where its last vector is not full."""
    if depth % i32(16) == 0:
        return x
    copy(x, scratch, depth)
    blank(moved(scratch, depth), i32(i32(16) - depth % i32(16)), i32(0))
    return scratch


def block_of(has_dot: bool) -> Callable[..., Any]:
    @intrinsic
    def dot_1x4_stored(typingctx, x, w, depth, records, record, target, up, low, high):
        """depth: a multiple of 16."""

        def generate(context, b, signature, args):
            x, w, depth, records, record, target, up, low, high = args
            records = address(b, records, b.mul(record, WORD(4)), BYTE)
            bias, multiplier, term, down = (load(b, records, 16 * k, LANES) for k in range(4))
            (sums,) = block_sums(b, has_dot, [x], w, b.udiv(depth, WORD(16)))
            acc = b.shl(b.add(totals(b, sums), bias), vector(b, [up] * 4))
            y = scaled_once(b, acc, multiplier, term, down)
            store(b, b.trunc(clamped(b, y, low, high), FOUR_BYTES), target, 0, 1)
            return context.get_dummy_value()

        return types.void(
            INT8_POINTER, INT8_POINTER, types.int32, INT32_POINTER, types.int32, INT8_POINTER, *[types.int32] * 3
        ), generate

    @njit(inline="always")
    def block(row, weights, padded, records, group, target, up, low, high):
        dot_1x4_stored(row, weights, padded, records, i32(group * 16), target, up, low, high)

    return block


neon_dense = dense("neon_dense", __name__, row, block_of(False))
neon_dot_dense = dense("neon_dot_dense", __name__, row, block_of(True))
