"""TABLE: any function of one int8 value, as the 256 results that it has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.annotations import Quantization, quantization
from edgecompress.graph.fusion import Layer
from edgecompress.graph.nodes import argument
from edgecompress.graph.provenance import origin
from edgecompress.lowering.context import Context

STORED = np.arange(-128, 128, dtype=np.int32)


def table(function: Callable[[np.ndarray], np.ndarray], x: Quantization, y: Quantization) -> np.ndarray:
    """int8 [256]: what y stores where x stores -128, -127, ..., rounded to the nearest, halves away from zero.

    As LiteRT fills its tables (common.h, LUTPopulate): in float32, but for the function, which is computed in float64
    and rounded, so that it is the same on every machine.
    """
    real = x.scale[0] * (STORED - np.int32(x.zero_point[0])).astype(np.float32)
    with np.errstate(all="ignore"):
        scaled = function(real.astype(np.float64)).astype(np.float32) * (np.float32(1) / y.scale[0])
        whole = np.trunc(scaled)
        rounded = np.where(np.abs(scaled - whole) >= 0.5, whole + np.sign(scaled), whole).astype(np.float32)
    return np.clip(np.nan_to_num(rounded) + np.float32(y.zero_point[0]), -128, 127).astype(np.int8)


def write_table(ctx: Context, layer: Layer, function: Callable[[np.ndarray], np.ndarray]) -> None:
    """The layer's node, which computes on int8, as a TABLE: y[i] = table[x[i] + 128]."""
    x, y = argument(layer.node, 0), layer.output
    qx, qy = quantization(x), quantization(y)
    if qx is None or qy is None:
        name, kind = origin(layer.node)
        raise UnsupportedModelError(f"node {name!r}: {kind} on int8 values without scales")
    form = ctx.form(x)
    entries = ctx.constant(table(function, qx, qy), qy, f"{y.name}/table")
    ctx.op("TABLE", [ctx.get(x, form, True), entries], [ctx.new(y, form, True)])
