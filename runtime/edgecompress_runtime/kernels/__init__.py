"""The runtime's kernels: `KERNELS` maps a TFLite builtin operator to the function that prepares its calls."""

from edgecompress_runtime.kernels import (  # noqa: F401 (each fills its rows of the table)
    binary,
    comparison,
    convolution,
    early_exit,
    int8_table,
    int16_elementwise,
    int16_functions,
    int16_matmul,
    matmul,
    movement,
    pooling,
    quantize,
    reduction,
    resize,
    softmax,
    transpose_convolution,
    unary,
)
from edgecompress_runtime.kernels.registry import KERNELS, Call, Raw

__all__ = ["KERNELS", "Call", "Raw"]
