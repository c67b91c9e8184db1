"""Weights and biases of layers as constant TFLite tensors, stored as their annotations say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import Quantization, quantization
from edgecompress.graph.fusion import Layer, constant
from edgecompress.lowering.context import Context


def filter_tensor(ctx: Context, weight: ir.Value, order: Sequence[int], axis: int, int8: bool) -> int:
    """Constant filter [O, I, kh, kw] in TFLite order; `axis` is the TFLite dimension of the output channels.

    An int8 filter in a float layer makes it a hybrid one: LiteRT quantizes the input as it runs.
    """
    array, q = constant(weight), quantization(weight)
    assert array is not None
    if array.ndim == 3:
        array = array[:, :, None, :]
    if q is None:
        return ctx.constant(array.transpose(order), name=weight.name or "")
    if q.dtype == ir.DataType.FLOAT16:
        return ctx.half(np.ascontiguousarray(array.transpose(order)), weight.name or "")
    return ctx.constant(q.quantize(array).transpose(order), q, weight.name or "", axis)


def expanded(ctx: Context, filters: int, int8: bool) -> int:
    """The filter as float where the operator has no hybrid kernel: int8 in the file, DEQUANTIZE once at load."""
    tensor = ctx.tensor(filters)
    if int8 or tensor.dtype != ir.DataType.INT8:
        return filters
    target = ctx.temporary(f"{tensor.name}/float", tensor.shape, ir.DataType.FLOAT)
    return ctx.op("DEQUANTIZE", [filters], [target])


def bias_tensor(ctx: Context, layer: Layer, int8: bool) -> int:
    """float32 or, in an int8 layer, int32 constant [channels]; ingest gives every Conv and Gemm a bias."""
    bias = layer.bias
    q, array = quantization(bias), constant(bias)
    if bias is None or array is None:
        raise ValueError(f"{layer.node.op_type} {layer.node.name!r} has no constant bias")
    if int8 and q is not None:
        return ctx.constant(q.quantize(array), q, bias.name or "")
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
