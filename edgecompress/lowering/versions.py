"""Operator versions: the lowest that has the kernel an operator needs, so that old runtimes load the file.

Source: TensorFlow Lite's operator versioning rules (op_version.cc) and the runtime release that first
had each version (runtime_version.cc).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import onnx_ir as ir

from edgecompress.lowering.tensors import Tensor

Inputs = Sequence[Tensor | None]
INT8, FLOAT = ir.DataType.INT8, ir.DataType.FLOAT


def _tensor(tensors: Inputs, position: int) -> Tensor:
    """One that the operator always has."""
    tensor = tensors[position]
    if tensor is None:
        raise ValueError(f"tensor {position} is left out")
    return tensor


def _rank(inputs: Inputs) -> int:
    return max((len(t.shape) for t in inputs if t is not None), default=0)


def _broadcasts(inputs: Inputs) -> bool:
    return len({t.shape for t in inputs if t is not None}) > 1


def _hybrid(inputs: Inputs) -> bool:
    return _tensor(inputs, 0).dtype == FLOAT and _tensor(inputs, 1).dtype == INT8


def _conv(inputs: Inputs, _outputs: Inputs, _options: Any) -> int:
    if _tensor(inputs, 0).shape[-1] != _tensor(inputs, 1).shape[-1]:
        return 6  # grouped
    if _hybrid(inputs):
        return 5 if _tensor(inputs, 1).per_channel else 2
    return 3 if _tensor(inputs, 0).dtype == INT8 else 1


def _depthwise(inputs: Inputs, _outputs: Inputs, options: Any) -> int:
    if _hybrid(inputs):
        return 6 if _tensor(inputs, 1).per_channel else 4
    if _tensor(inputs, 0).dtype == INT8:
        return 3
    return 2 if (options.dilationHFactor, options.dilationWFactor) != (1, 1) else 1


def _fully_connected(inputs: Inputs, _outputs: Inputs, options: Any) -> int:
    if _tensor(inputs, 1).dtype == ir.DataType.INT4:
        return 10
    if _hybrid(inputs):
        return 12 if _tensor(inputs, 1).per_channel else 5 if options.keepNumDims else 3
    if options.keepNumDims:
        return 5
    return 4 if _tensor(inputs, 0).dtype == INT8 else 1


def _mul(inputs: Inputs, outputs: Inputs, _options: Any) -> int:
    if _tensor(inputs, 0).dtype == ir.DataType.INT64:
        return 5
    if _tensor(inputs, 0).dtype != INT8:
        return 1
    a, b, y = (_scale(t) for t in (_tensor(inputs, 0), _tensor(inputs, 1), _tensor(outputs, 0)))
    return 3 if a * b / y >= 1 else 2


def _scale(tensor: Tensor) -> float:
    if tensor.quantization is None:
        raise ValueError(f"{tensor.name!r} is int8 without a scale")
    return float(tensor.quantization.scale[0])


def _add_sub(inputs: Inputs, _outputs: Inputs, _options: Any) -> int:
    return 4 if _tensor(inputs, 0).dtype == ir.DataType.INT64 else 2 if _tensor(inputs, 0).dtype == INT8 else 1


def _sub(inputs: Inputs, outputs: Inputs, options: Any) -> int:
    return 3 if _broadcasts(inputs) and _rank(inputs) > 4 else _add_sub(inputs, outputs, options)


def _dequantize(inputs: Inputs, _outputs: Inputs, _options: Any) -> int:
    if _tensor(inputs, 0).dtype == ir.DataType.FLOAT16:
        return 3
    return 5 if _tensor(inputs, 0).per_channel else 2


def _transpose(inputs: Inputs, _outputs: Inputs, _options: Any) -> int:
    rank = len(_tensor(inputs, 0).shape)
    return 6 if rank > 5 else 4 if rank > 4 else _by_type(2, 1, boolean=3)(inputs, _outputs, _options)


def _by_type(int8: int, other: int = 1, *, boolean: int | None = None, operand: int = 0) -> Callable[..., int]:
    def version(inputs: Inputs, _outputs: Inputs, _options: Any) -> int:
        dtype = _tensor(inputs, operand).dtype
        return int8 if dtype == INT8 else boolean if boolean and dtype == ir.DataType.BOOL else other

    return version


def _by_rank(above_four: int, int8: int = 2, *, boolean: int | None = None) -> Callable[..., int]:
    plain = _by_type(int8, 1, boolean=boolean)

    def version(inputs: Inputs, outputs: Inputs, options: Any) -> int:
        return above_four if len(_tensor(inputs, 0).shape) > 4 else plain(inputs, outputs, options)

    return version


def _resize_bilinear(inputs: Inputs, _outputs: Inputs, options: Any) -> int:
    return 3 if options.halfPixelCenters else 2 if _tensor(inputs, 0).dtype == INT8 else 1


def _resize_nearest(inputs: Inputs, _outputs: Inputs, options: Any) -> int:
    return 3 if options.halfPixelCenters or options.alignCorners else 2 if _tensor(inputs, 0).dtype == INT8 else 1


def _min_max(inputs: Inputs, outputs: Inputs, options: Any) -> int:
    return 3 if _broadcasts(inputs) and _rank(inputs) > 4 else _by_type(2)(inputs, outputs, options)


VERSIONS: dict[str, Callable[..., int]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "EMBEDDING_LOOKUP": lambda inputs, _o, _p: 4,
    "TRANSPOSE_CONV": lambda inputs, _o, _p: 3 if len(inputs) == 4 else 2 if _tensor(inputs, 1).dtype == INT8 else 1,
    "MUL": _mul,
    "ADD": _add_sub,
    "SUB": _sub,
    "DIV": lambda inputs, _o, _p: 2 if _broadcasts(inputs) and _rank(inputs) > 4 else 1,
    "DEQUANTIZE": _dequantize,
    "TRANSPOSE": _transpose,
    "RESIZE_BILINEAR": _resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
    "MAXIMUM": _min_max,
    "MINIMUM": _min_max,
    "STRIDED_SLICE": _by_rank(4, boolean=3),
    "SLICE": _by_rank(5),
    "PAD": _by_rank(4),
    "PADV2": _by_rank(4),
    "TILE": _by_type(3),
    "GATHER": _by_type(2, boolean=3),
    "SPLIT": lambda inputs, _o, _p: 2 if _tensor(inputs, 1).dtype == INT8 else 1,
    "BROADCAST_TO": _by_type(3, 2),
    "REVERSE_V2": _by_type(3),
    "CAST": _by_type(3),
    **{
        kind: _by_type(2)
        for kind in (
            "ABS", "RELU", "RELU6", "MAX_POOL_2D", "AVERAGE_POOL_2D", "SOFTMAX", "MEAN", "MIRROR_PAD", "REDUCE_MAX",
            "TANH", "LOGISTIC", "EQUAL", "LESS", "GREATER",
            "BATCH_MATMUL", "CONCATENATION", "ARG_MAX", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SPLIT_V", "SUM",
            "LOG_SOFTMAX", "EXP", "GELU",
        )
    },
}  # fmt: skip

# those that have kernels for quantized int16; the others move it as version 1 does
INT16_VERSIONS = {
    "CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 7, "TRANSPOSE_CONV": 3, "ADD": 3, "SUB": 5, "MUL": 4,
    "AVERAGE_POOL_2D": 3, "MAX_POOL_2D": 3, "TRANSPOSE": 5, "SPLIT": 4, "SLICE": 4, "DEQUANTIZE": 3, "QUANTIZE": 2,
    "RELU": 3, "MAXIMUM": 4, "MINIMUM": 4, "TANH": 3, "LOGISTIC": 3, "LEAKY_RELU": 2, "BATCH_MATMUL": 3, "PAD": 3,
    "PADV2": 3, "CONCATENATION": 3, "SOFTMAX": 3, "MEAN": 3, "BROADCAST_TO": 3,
}  # fmt: skip

# (operator, version) -> first TensorFlow Lite release with it; everything else we emit was in 2.3.0
RUNTIMES: dict[tuple[str, int], str] = {
    ("CONV_2D", 5): "2.4.0",
    ("CONV_2D", 6): "2.9.0",
    ("BROADCAST_TO", 2): "2.5.0",
    ("BROADCAST_TO", 3): "2.5.0",
    ("ADD", 4): "2.6.0",
    ("SUB", 4): "2.4.0",
    ("MUL", 5): "2.6.0",
    ("CAST", 3): "2.8.0",
    ("DEPTH_TO_SPACE", 2): "2.5.0",
    ("PAD", 4): "2.6.0",
    ("PADV2", 4): "2.6.0",
    ("TILE", 3): "2.8.0",
    ("SLICE", 5): "2.5.0",
    ("DEQUANTIZE", 5): "2.7.0",
    ("EXP", 2): "2.12.0",
    ("GELU", 1): "2.9.0",
    ("GELU", 2): "2.9.0",
    ("RELU_0_TO_1", 1): "2.10.0",
    ("RELU", 3): "2.5.0",
    ("ADD", 3): "2.4.0",
    ("SUB", 5): "2.4.0",
    ("BATCH_MATMUL", 3): "2.4.0",
    ("PAD", 3): "2.4.0",
    ("PADV2", 3): "2.4.0",
    ("TRANSPOSE", 5): "2.4.0",
    ("SLICE", 4): "2.4.0",
    ("MEAN", 3): "2.4.0",
    ("ABS", 2): "2.4.0",
    ("TRANSPOSE", 6): "2.16.0",
    ("FULLY_CONNECTED", 10): "2.11.0",
    ("FULLY_CONNECTED", 12): "2.17.0",
    ("EMBEDDING_LOOKUP", 4): "2.18.0",
}
OLDEST = "2.3.0"


def operator_version(kind: str, inputs: Inputs, outputs: Inputs, options: object | None) -> int:
    """Version of builtin operator `kind` for these tensors."""
    rule = VERSIONS.get(kind)
    version = rule(inputs, outputs, options) if rule else 1
    if any(t is not None and t.dtype == ir.DataType.INT16 and t.quantization for t in (*inputs, *outputs)):
        return max(version, INT16_VERSIONS.get(kind, 1))
    return version


def minimum_runtime(codes: Iterable[tuple[str, int]]) -> str:
    """The oldest TensorFlow Lite release that has all of these (operator, version) pairs."""
    needed = [RUNTIMES.get(code, OLDEST) for code in codes]
    return max([OLDEST, *needed], key=lambda text: tuple(map(int, text.split("."))))
