"""Scales: symmetric int8 for weights, int32 at input scale * weight scale for biases, asymmetric int8 for ranges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import INTEGER_RANGE, Codebook, Quantization, codebook, set_codebook
from edgecompress.graph.few_bits import LARGEST, WeightType, scales
from edgecompress.graph.fusion import constant

LIMIT = LARGEST["int8"]  # narrow range: -127..127, so that a product of two int8 never needs a 17th bit
# of a layer with such activations: leaves the other half of int32, or of what int16 kernels can scale, to the products
BIAS_LIMITS = {ir.DataType.INT8: 2.0**30, ir.DataType.INT16: 2.0**46}
BIAS_TYPES = {ir.DataType.INT8: ir.DataType.INT32, ir.DataType.INT16: ir.DataType.INT64}
INT16_ROOM = 2.0  # times the largest value of the calibration data: other data saturates less often, for one bit
FEW = 64  # numbers of a row that tell nearly always whether it lies on a grid
OFF_GRID = 1e-3  # of a step: float32's error is a tenth of it, and no rounding can be seen
SMALLEST_RATIO = 2.0**-24  # of the largest scale: what is below can't be seen beside the other channels


def quantize_weight(
    weight: np.ndarray,
    axis: int | None,
    *,
    bias: np.ndarray | None = None,
    source: Quantization | None = None,
    kind: WeightType = "int8",
) -> Quantization:
    """Symmetric narrow-range int8 scales for a float weight, per channel along `axis` or one (None).

    The largest magnitude is 127 steps; other kinds have the scales that `graph/few_bits.py` gives. Scales are widened
    where the bias (float [channels]) of a layer whose input is stored as `source` would not fit in half of what its
    sums hold, and where a channel is all but zero.
    """
    scale = scales(kind, weight, axis)
    if bias is not None and source is not None:
        needed = np.abs(bias.astype(np.float64)) / (float(source.scale[0]) * BIAS_LIMITS[source.dtype])
        scale = np.maximum(scale, needed if axis is not None else needed.max(initial=0.0))
    scale = np.maximum(scale, scale.max() * SMALLEST_RATIO)
    scale[scale == 0] = 1.0
    scale = np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
    return Quantization(scale, np.zeros(len(scale), np.int32), axis, ir.DataType.INT8, True, kind)


def keep_grid(weight: np.ndarray, q: Quantization) -> Quantization:
    """Scales of which a channel's weights are whole multiples, where there are such scales.

    Those are the scales of a model that came quantized, whatever was folded into the channel since. q: the ordinary
    scales, which stay where there are none, or where they are wider because the bias needs it. weight: float, of any
    shape.
    """
    rows = np.moveaxis(weight, q.axis, 0) if q.axis is not None else weight
    rows = rows.reshape(len(q.scale), -1).astype(np.float64)
    largest, scale = np.abs(rows).max(axis=1), q.scale.copy()
    left = np.flatnonzero(largest > 0)
    for steps in range(LIMIT, 0, -1):
        step = largest / steps
        on = left[_are_multiples(rows[left, :FEW], step[left])]
        on = on[_are_multiples(rows[on], step[on])]
        scale[on] = np.maximum(step[on], scale[on])
        left = np.setdiff1d(left, on)
        if not len(left):
            break
    return replace(q, scale=scale)


def _are_multiples(rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """bool [rows]: whether all numbers of a row are whole multiples of the row's step."""
    multiples = rows / steps[:, None]
    return np.abs(multiples - np.rint(multiples)).max(axis=1, initial=0.0) < OFF_GRID


def keep_clusters(value: ir.Value, q: Quantization) -> Quantization:
    """Scales and a Codebook of integers for a float weight that came with a Codebook of floats.

    The scales are in proportion to the channels' own, or all the same for a codebook that has one scale, so that each
    centroid is one integer in all channels. Where a channel needs a larger scale than its centroids, the clusters are
    given up, since it then has more values.
    """
    book = codebook(value)
    if book is None or book.scale is None:
        return q
    del value.meta["codebook"]
    scale = np.abs(book.scale) * np.abs(book.centroids).max() / LIMIT
    scale = np.maximum(scale, np.float64(scale.max()) * SMALLEST_RATIO).astype(np.float32)
    if book.axis is None:
        scale = np.broadcast_to(scale, q.scale.shape).copy()
    if book.axis not in (None, q.axis) or (q.scale > scale * (1 + 1e-5)).any():
        return q
    kept = replace(q, scale=scale)
    stored = kept.quantize(np.asarray(constant(value)))
    centroids = np.unique(stored)
    set_codebook(value, Codebook(centroids, np.searchsorted(centroids, stored).astype(np.uint8)))
    return kept


def quantize_bias(weight: Quantization, source: Quantization) -> Quantization:
    """int32, or int64 beside int16 activations, at the input's scale * weight scale, along one axis like the weight's
    channels."""
    scale = (source.scale[0] * weight.scale).astype(np.float32)
    axis = None if weight.axis is None else 0
    return Quantization(scale, np.zeros(len(scale), np.int32), axis, BIAS_TYPES[source.dtype])


def quantize_range(low: float, high: float, bits: int = 8) -> Quantization:
    """For real numbers in low..high: asymmetric int8, extended to zero, which is represented exactly; or symmetric
    int16 with room for larger ones."""
    low, high = min(low, 0.0), max(high, 0.0)
    if bits == 16:
        return _symmetric_int16(max(-low, high))
    scale = np.float32((high - low) / 255)
    if not scale > np.finfo(np.float32).tiny:
        scale = np.float32(1.0)  # all zero (or too small for float32 to scale)
    zero_point = int(np.clip(np.rint(-128 - low / float(scale)), -128, 127))
    return Quantization(np.array([scale], np.float32), np.array([zero_point], np.int32))


def _symmetric_int16(largest: float) -> Quantization:
    scale = np.float32(INT16_ROOM * largest / INTEGER_RANGE[ir.DataType.INT16][1])
    if not scale > np.finfo(np.float32).tiny:  # all zero; ADD takes no scales that are 2^14 apart
        scale = np.float32(1 / INTEGER_RANGE[ir.DataType.INT16][1])
    return Quantization(np.array([scale], np.float32), np.zeros(1, np.int32), None, ir.DataType.INT16)
