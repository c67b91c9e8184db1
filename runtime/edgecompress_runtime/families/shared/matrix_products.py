"""BATCH_MATMUL of int8, where both matrices are computed: each is arranged in scratch memory as a family's block reads
it, and read many times. A family's kernel is the reference's (kernels/matmul.py) bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.arranged_convolution import BANK_BYTES
from edgecompress_runtime.families.shared.scaling import Scaling, scaling
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.families.shared.words import moved
from edgecompress_runtime.kernels.arithmetic import i32, product_ratio, quantize_multiplier
from edgecompress_runtime.kernels.matmul import matrix_geometry
from edgecompress_runtime.llvm.typed_numba import Tuple, Words
from edgecompress_runtime.options import BatchMatmulOptions
from edgecompress_runtime.plan import Tensor


@dataclass(frozen=True, eq=False)
class MatrixBlocks:
    """A family's part in a product of matrices; functions for Numba, inlined.

    rows, columns: of a block. left(source, strip, depth, stride, zeros): rows of the left matrix as the block reads
    them, and what their zero point takes part in; depth: of the matrix, and what it is filled up to; stride: bytes from
    row to row and from value to value. right(source, memory, columns, depth, strides, zeros): the same for all columns
    of the right matrix; memory: a bank for them, and int32 for each. block(rows, weights, column, depth, record,
    target, bounds): requantized and stored; rows, weights: what `left` and `right` gave; column: the first; record: the
    numbers of `Scaling`; target: where the first goes, and bytes from row to row.
    """

    rows: int
    columns: int
    left: Callable[..., Any]
    right: Callable[..., Any]
    block: Callable[..., Any]


def matrix_products(name: str, module: str, blocks: MatrixBlocks) -> Callable[..., None]:
    """The kernel of a family, to be imported as `name` from `module`."""
    left, right, block = blocks.left, blocks.right, blocks.block
    block_rows, block_columns = blocks.rows, blocks.columns

    def kernel(tensors: Tuple, scratch: Tuple, sizes: Words, strides: Tuple, zeros: Words, padded: Words) -> None:
        """tensors: a, b, record, y. scratch: strip, bank, terms of columns. sizes, strides: of
        `kernels.matmul.batch_matmul`. zeros: of a and b. padded: depth in scratch memory, columns in the bank."""
        a, b, record, y = tensors
        strip, bank, terms = scratch
        n0, n1, n2, rows, columns, depth = sizes
        a_strides, b_strides = strides
        deep, part = (depth, padded[0]), padded[1]
        # a single row is computed several times
        each = block_rows if rows >= block_rows else i32(1)
        a_step, y_step = (a_strides[3], columns) if rows >= block_rows else (i32(0), i32(0))
        for i in range(n0):
            for j in range(n1):
                for k in range(n2):
                    a_matrix = moved(a, i32(i * a_strides[0] + j * a_strides[1] + k * a_strides[2]))
                    b_matrix = moved(b, i32(i * b_strides[0] + j * b_strides[1] + k * b_strides[2]))
                    target = moved(y, i32(((i * n1 + j) * n2 + k) * rows * columns))
                    for start in range(i32(0), columns, part):
                        first = min(start, i32(columns - part))
                        source = moved(b_matrix, i32(first * b_strides[3]))
                        weights = right(source, (bank, terms), part, deep, (b_strides[3], b_strides[4]), zeros)
                        for number in range(i32(i32(rows + each - 1) // each)):
                            r = min(i32(number * each), i32(rows - each))  # the last ones again, if need be
                            place = moved(a_matrix, i32(r * a_strides[3]))
                            pair = left(place, strip, deep, (a_step, a_strides[4]), zeros)
                            line = moved(target, i32(r * columns + first))
                            for group in range(i32(i32(part + block_columns - 1) // block_columns)):
                                o = min(i32(group * block_columns), i32(part - block_columns))
                                block(pair, weights, o, padded[0], record, (moved(line, o), y_step))

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel


@dataclass(frozen=True)
class MatrixArrangement:
    """How a family's kernel wants its operands. element: bytes of a value in scratch memory; aligned: what the depth
    is filled up to there."""

    kernel: Callable[..., None]
    blocks: MatrixBlocks
    element: int
    aligned: int
    record: Callable[[Scaling], np.ndarray]

    def __call__(
        self, inputs: Sequence[Any], outputs: Sequence[Tensor], options: BatchMatmulOptions
    ) -> list[Step] | None:
        """None for float, and fewer columns than a block has."""
        a, b, (y,) = inputs[0], inputs[1], outputs
        if not a.is_int8 or y.size == 0:
            return None
        sizes, strides = matrix_geometry(a, b, y, options)
        _, columns, depth = sizes[3:]
        if columns < self.blocks.columns or depth == 0:
            return None
        multiplier, shift = quantize_multiplier(product_ratio(a, b, y))
        largest = np.array([255 * 255 * depth])
        scales = scaling(np.zeros(1, np.int64), largest, np.array([multiplier]), np.array([shift]), y.zero)
        if scales is None:
            return None
        padded, each = -(-depth // self.aligned) * self.aligned, self.blocks.columns
        part = min(columns, max(BANK_BYTES // (padded * self.element) // each, 1) * each)
        bank = Scratch(-(-part // each) * each * padded * self.element)
        scratch = Scratch(self.blocks.rows * padded * self.element), bank, Scratch(4 * part, np.int32)
        tensors = a, b, self.record(scales), y
        return [Step(self.kernel, (tensors, scratch, sizes, strides, (a.zero, b.zero), (padded, part)))]
