"""The list of layers in a report: how the weights of each are stored, and how noisy its output is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import onnx_ir as ir

from edgecompress.evaluate.file_count import FileCount
from edgecompress.graph.annotations import activation_bits, codebook, is_integer, quantization, sparsity
from edgecompress.graph.few_bits import BITS as FEW_BITS
from edgecompress.graph.few_bits import narrowest
from edgecompress.graph.fusion import Layer as FusedLayer
from edgecompress.graph.fusion import constant
from edgecompress.graph.fusion import layers as fused_layers
from edgecompress.graph.provenance import origin, own_operator
from edgecompress.record.report import Histogram, Layer
from edgecompress.report.entropy import entropy
from edgecompress.report.float_parts import operations_of

FLOAT_BITS = 32
BINS = 48
BITS = {ir.DataType.INT8: 8, ir.DataType.INT16: 16, ir.DataType.FLOAT16: 16}


class Diagnosis(Protocol):
    """What is known about the error of one layer."""

    @property
    def snr_db(self) -> float:
        """Float against quantized output, in decibels."""

    @property
    def cause(self) -> str:
        """The probable reason of a low signal-to-noise ratio."""


def report_layers(
    model: ir.Model, diagnoses: Mapping[str, Diagnosis], original: ir.Model, counts: Mapping[str, FileCount]
) -> list[Layer]:
    """Layers with weights or with a diagnosis (by output name), worst signal-to-noise ratio first.

    original: the normalised model before anything was done to it. counts: of the files, by format.
    """
    before = {layer.node.name: constant(_weight(layer)) for layer in fused_layers(original.graph)}
    result = []
    for layer in fused_layers(model.graph):
        known = diagnoses.get(layer.output.name or "")
        weight = _weight(layer)
        if known is None and weight is None:
            continue
        encoding, bits = _encoding(layer, weight)
        result.append(
            Layer(
                name=origin(layer.node)[0],
                op=own_operator(layer.node),
                encoding=_as_in_files(encoding, layer, counts),
                bits_per_weight=bits,
                snr_db=None if known is None or not math.isfinite(known.snr_db) else round(known.snr_db, 2),
                weights=None if weight is None else _array(weight).size,
                sparsity=None if weight is None else _zeros(weight),
                sparsity_asked=None if (pruned := sparsity(weight)) is None else pruned.asked,
                histogram=None if weight is None else _histogram(before.get(layer.node.name), weight),
                cause="" if known is None else known.cause,
            )
        )
    return sorted(result, key=lambda layer: math.inf if layer.snr_db is None else layer.snr_db)


def _weight(layer: FusedLayer) -> ir.Value | None:
    """The largest constant of rank 2 and more: what the layer multiplies with."""
    sizes: dict[ir.Value, int] = {}
    for value in layer.node.inputs:
        if value is None or value.const_value is None or value.dtype != ir.DataType.FLOAT:
            continue
        if len(value.const_value.shape) > 1:
            sizes[value] = value.const_value.size
    return max(sizes, key=lambda value: sizes[value], default=None)


def _array(weight: ir.Value) -> np.ndarray:
    array = constant(weight)
    assert array is not None  # _weight takes constants alone
    return array


def _zeros(weight: ir.Value) -> float:
    """Share of zeros in the weight as it is stored."""
    array, q = _array(weight), quantization(weight)
    stored = array if q is None else q.quantize(array)
    return round(1 - np.count_nonzero(stored) / stored.size, 4)


def _histogram(before: np.ndarray | None, weight: ir.Value) -> Histogram | None:
    after, q = _array(weight), quantization(weight)
    if q is not None:
        after = q.dequantize(q.quantize(after))
    both = [a[np.isfinite(a)] for a in (before, after) if a is not None and a.size]
    if not all(a.size for a in both):
        return None
    low, high = min(float(a.min()) for a in both), max(float(a.max()) for a in both)
    if low == high:
        low, high = low - 0.5, high + 0.5
    bins = _bins(low, high)
    counted = [np.histogram(a, bins, (low, high))[0].tolist() for a in both]
    return Histogram(low=low, high=high, before=counted[0] if len(counted) == 2 else None, after=counted[-1])


def _bins(low: float, high: float) -> int:
    """How many bins a histogram has: BINS, or 1 where float32 has too few numbers between low and high."""
    edges = np.linspace(low, high, BINS + 1, dtype=np.float32)
    return BINS if (edges[1:] > edges[:-1]).all() else 1


def _encoding(layer: FusedLayer, weight: ir.Value | None) -> tuple[str, float | None]:
    q, book = quantization(weight), codebook(weight)
    if weight is None:
        return _activations(layer), None
    clusters, bits = "", float(FLOAT_BITS if q is None else BITS[q.dtype])
    if book is not None and (book.scale is None or book.axis is None):  # else of more values than a codebook holds
        clusters, bits = f", {len(book.centroids)} values", round(entropy(book.indices), 2)
    if q is None:
        return _activations(layer) + clusters, bits
    if q.block is not None:
        length = _array(weight).shape[1 - (q.axis or 0)]
        return f"int4 in blocks of {min(q.block, length)} weights", float(FEW_BITS["int4"])
    name = q.dtype.name.lower()
    if q.dtype == ir.DataType.INT8 and (kind := narrowest(stored := q.quantize(_array(weight)))) != "int8":
        name, clusters, bits = kind, "", round(entropy(stored), 2)
    if q.dtype == ir.DataType.FLOAT16:
        return f"{name} weights{clusters}", bits
    scales = "per-tensor" if q.axis is None else "per-channel"
    rest = {8: "", 16: ", int16 activations", None: " weights"}[activation_bits(layer.node)]
    return f"{name} {scales}{rest}{clusters}", bits


def _as_in_files(encoding: str, layer: FusedLayer, counts: Mapping[str, FileCount]) -> str:
    """What was decided of the layer, unless files compute it in float all the same."""
    found = {format: operations_of(layer, count) for format, count in counts.items()}
    found = {format: operations for format, operations in found.items() if operations}
    floats = [f for f, operations in found.items() if any(o.computes == "float32" for o in operations)]
    if not is_integer(layer.node) or not floats:
        return encoding
    if len(floats) < len(found):
        return f"{encoding}; float32 in .{', .'.join(floats)}"
    stores = {o.stores for operations in found.values() for o in operations}
    return "float32" if stores & {"float32", None} else f"{encoding} weights"


def _activations(layer: FusedLayer) -> str:
    bits = activation_bits(layer.node)
    return "float32" if bits is None else f"int{bits}"
