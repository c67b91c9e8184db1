"""Clustering of a model, layer after layer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgecompress.compress.cluster.layer import Bits, ClusteredWeights, Price, cluster_weights
from edgecompress.compress.quantize import matrices, operators
from edgecompress.compress.quantize.dynamic import LARGEST_HALF
from edgecompress.compress.quantize.layer_inputs import Calibrator, Walk
from edgecompress.compress.quantize.moments import Moments, unknown
from edgecompress.compress.quantize.noise import decibels
from edgecompress.compress.quantize.weight_scales import BIAS_LIMITS, LIMIT, quantize_bias
from edgecompress.graph.annotations import (
    Codebook,
    Quantization,
    codebook,
    has_few_bits,
    quantization,
    set_codebook,
    set_quantization,
)
from edgecompress.graph.fusion import Layer, constant, layers
from edgecompress_runtime.pack import encode_smallest


@dataclass(frozen=True)
class ClusteredLayer:
    """One clustered layer.

    name: of its node (or first output). weights: how many. centroids: how many are in use.
    entropy: bits a weight at least. bytes: in a .pack, see weight_bytes.
    snr_db: of its outputs, as predicted from calibration data, on inputs from clustered layers; without data,
    of its weights.
    """

    name: str
    weights: int
    centroids: int
    entropy: float
    bytes: int
    snr_db: float


@dataclass(frozen=True)
class Network:
    """A model with clustered weights: annotated with codebooks, biases made up for."""

    model: ir.Model = field(repr=False)
    layers: tuple[ClusteredLayer, ...]

    @property
    def bytes(self) -> int:
        """Bytes that all clustered weights take."""
        return sum(layer.bytes for layer in self.layers)


def cluster_layers(
    model: ir.Model, how: Bits | Price, calibrator: Calibrator | None, *, per_channel: bool | None
) -> Network:
    """A clone with all its layers' weights clustered in order, each seeing what the ones before make. Weights of few
    bits stay as they are: they have few values already.

    calibrator: None without data; then all inputs count the same. per_channel: None for int8 weights alone. These have
    scales beside them, but float weights of many scales are many different numbers, which no codebook holds.
    """
    clone = model.clone()
    walk = None if calibrator is None else calibrator.walk(clone)
    found = []
    for layer in layers(clone.graph):
        value = operators.weight(layer)
        if value is not None and not has_few_bits(value):
            found.append(_cluster_layer(layer, value, how, walk, per_channel))
    return Network(clone, tuple(found))


def weight_count(model: ir.Model) -> int:
    """Number of weights that clustering would cluster."""
    values = [operators.weight(layer) for layer in layers(model.graph)]
    arrays = [constant(value) for value in values if value is not None and not has_few_bits(value)]
    return sum(array.size for array in arrays if array is not None)


def clustered_bytes(model: ir.Model) -> int:
    """Bytes that all clustered weights take in a .pack."""
    return sum(weight_bytes(v) for v in model.graph.initializers.values() if codebook(v) is not None)


def _cluster_layer(
    layer: Layer, value: ir.Value, how: Bits | Price, walk: Walk | None, per_channel: bool | None
) -> ClusteredLayer:
    weight, q = np.asarray(constant(value)), quantization(value)
    matrix = matrices.to_matrix(layer.node, weight).astype(np.float64)
    if walk is None:
        moments = unknown(matrix, layer.node.attributes.get_int("group", 1))
    else:
        moments = walk.moments(layer, *matrix.shape)
    integers = q is not None and q.dtype == ir.DataType.INT8
    axis = q.axis if q is not None and integers else operators.weight_axis(layer.node)
    channels = axis is not None and (integers if per_channel is None else per_channel)
    found = cluster_weights(matrix, moments, how, per_channel=channels, whole=integers, least=_least_spread(layer))
    _record(layer, value, found, axis if integers or channels else None, integers)
    if walk is not None and layer.bias is not None:
        _shift_bias(layer, value, moments)
    return _report(layer, value, found, moments)


def _least_spread(layer: Layer) -> np.ndarray:
    """Of a channel's weights, [channels] or 0: with less, its bias would not fit in half of what sums hold."""
    bias, source = layer.bias, quantization(layer.node.inputs[0])
    if bias is None or quantization(bias) is None or source is None:
        return np.zeros(1)
    return np.abs(np.asarray(constant(bias), np.float64)) / (float(source.scale[0]) * BIAS_LIMITS[source.dtype]) * LIMIT


def _record(layer: Layer, value: ir.Value, found: ClusteredWeights, axis: int | None, integers: bool) -> None:
    """Puts the clustered weight into the model: its values, codebook, and quantization."""
    shape = np.asarray(constant(value)).shape
    indices = matrices.from_matrix(layer.node, found.indices, shape)
    scale = found.centroids.scale.astype(np.float32)
    scale = scale if axis is not None else scale[:1]
    if integers:
        book = Codebook(found.centroids.values.astype(np.int8), indices)
        q = Quantization(scale, np.zeros(len(scale), np.int32), axis, ir.DataType.INT8, narrow_range=True)
        array = q.dequantize(book.values())
        set_quantization(value, q)
        source = quantization(layer.node.inputs[0])
        if layer.bias is not None and source is not None and quantization(layer.bias) is not None:
            set_quantization(layer.bias, quantize_bias(q, source))
    else:
        book = Codebook(found.centroids.values.astype(np.float32), indices, scale, axis)
        array = book.values()
        if np.abs(array).max(initial=0.0) > LARGEST_HALF:
            set_quantization(value, None)
    value.const_value = ir.tensor(array, name=value.name)
    set_codebook(value, book)


def weight_bytes(value: ir.Value) -> int:
    """What a clustered weight takes in a .pack, whose codecs are tried, with its scales if it is int8."""
    book, q, array = codebook(value), quantization(value), np.asarray(constant(value))
    if book is not None and book.scale is None and q is not None:
        return encode_smallest(book.centroids[book.indices]).size + 4 * len(q.scale)
    return encode_smallest(array if q is None else q.quantize(array)).size


def _shift_bias(layer: Layer, value: ir.Value, moments: Moments) -> None:
    """The bias that keeps each output channel's mean, with the weights as they are now."""
    bias = layer.bias
    assert bias is not None
    matrix = matrices.to_matrix(layer.node, np.asarray(constant(value))).astype(np.float64)
    bias.const_value = ir.tensor(moments.bias(matrix), name=bias.name)


def _report(layer: Layer, value: ir.Value, found: ClusteredWeights, moments: Moments) -> ClusteredLayer:
    counts = np.bincount(found.indices.ravel())
    share = counts[counts > 0] / found.indices.size
    return ClusteredLayer(
        name=str(layer.node.name or layer.output.name),
        weights=found.indices.size,
        centroids=len(found.centroids.values),
        entropy=float(-(share * np.log2(share)).sum()),
        bytes=weight_bytes(value),
        snr_db=decibels(float(moments.energy.sum()), float(moments.noise(found.matrix).sum())),
    )
