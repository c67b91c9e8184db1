"""Weights and biases of layers as constant TFLite tensors, stored as their annotations say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import Quantization, quantization
from edgecompress.graph.fusion import Layer, constant
from edgecompress.lowering.context import Context


def filter_tensor(
    ctx: Context, weight: ir.Value, order: Sequence[int], axis: int, int8: bool, strides: Sequence[int] | None = None
) -> int:
    """Constant filter [O, I, kh, kw] in TFLite order; `axis` is the TFLite dimension of the output channels.

    An int8 filter in a float layer makes it a hybrid one: LiteRT quantizes the input as it runs. strides: of a
    transposed one [O, kh, kw, I] that becomes [sh sw O, kh / sh, kw / sw, I], turned around.
    """
    array, q = constant(weight), quantization(weight)
    assert array is not None
    if array.ndim == 3:
        array = array[:, :, None, :]
    array = array if q is None or q.dtype == ir.DataType.FLOAT16 else q.quantize(array)
    stored = array.transpose(order)
    if strides is not None:
        stored, q = _phases(stored, strides), _repeated(q, strides[0] * strides[1])
    if q is None:
        return ctx.constant(stored, name=weight.name or "")
    if q.dtype == ir.DataType.FLOAT16:
        return ctx.half(np.ascontiguousarray(stored), weight.name or "")
    return ctx.constant(stored, q, weight.name or "", axis)


def _phases(filters: np.ndarray, strides: Sequence[int]) -> np.ndarray:
    """[O, taps sh, taps sw, I] -> [sh sw O, taps, taps, I], the last tap first."""
    (sh, sw), (o, kh, kw, i) = strides, filters.shape
    split = filters.reshape(o, kh // sh, sh, kw // sw, sw, i)[:, ::-1, :, ::-1]
    return split.transpose(2, 4, 0, 1, 3, 5).reshape(sh * sw * o, kh // sh, kw // sw, i)


def _repeated(q: Quantization | None, times: int) -> Quantization | None:
    """Of channels that are there so many times."""
    if q is None or q.scale.size == 1:
        return q
    return replace(q, scale=np.tile(q.scale, times), zero_point=np.tile(q.zero_point, times))


def expanded(ctx: Context, filters: int, int8: bool) -> int:
    """The filter as float where the operator has no hybrid kernel: int8 in the file, DEQUANTIZE once at load."""
    tensor = ctx.tensor(filters)
    if int8 or tensor.dtype != ir.DataType.INT8:
        return filters
    target = ctx.temporary(f"{tensor.name}/float", tensor.shape, ir.DataType.FLOAT)
    return ctx.op("DEQUANTIZE", [filters], [target])


def bias_tensor(ctx: Context, layer: Layer, int8: bool, times: int = 1) -> int:
    """float32 or, in an int8 layer, int32 constant [times channels]; ingest gives every Conv and Gemm a bias."""
    bias = layer.bias
    q, array = quantization(bias), constant(bias)
    if bias is None or array is None:
        raise ValueError(f"{layer.node.op_type} {layer.node.name!r} has no constant bias")
    if int8 and q is not None:
        return ctx.constant(np.tile(q.quantize(array), times), _repeated(q, times), bias.name or "")
    array = np.tile(array, times)
    if q is not None and q.dtype == ir.DataType.FLOAT16:
        return ctx.half(array, bias.name or "")
    return ctx.constant(array, name=bias.name or "")


def weight_matrix(ctx: Context, weight: ir.Value, matrix: np.ndarray, q: Quantization | None) -> int:
    """Constant [out, in]."""
    name = weight.name or ""
    if q is None:
        return ctx.constant(matrix, name=name)
    if q.dtype == ir.DataType.FLOAT16:
        return ctx.half(np.ascontiguousarray(matrix), name)
    return ctx.constant(q.quantize(matrix), q, name, 0)
