"""Rounds int8 weights column by column, so that each makes up for the errors of those before it.

E. Frantar et al., "GPTQ" (ICLR 2023), algorithm 1, with the outputs of the float model as what is wanted of the inputs
that the quantized layers in front give.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.quantize import matrices, operators
from edgecompress.compress.quantize.eliminate import eliminate
from edgecompress.compress.quantize.layer_inputs import SAMPLES, Calibrator
from edgecompress.compress.quantize.moments import Moments, inverse_factors
from edgecompress.evaluate.dataset import Dataset
from edgecompress.graph.annotations import Quantization, codebook, is_integer, quantization
from edgecompress.graph.few_bits import WeightType, nearest
from edgecompress.graph.fusion import Layer, constant, layers

DAMPING = 0.01  # of the mean input energy, at least
MOST_DAMPING = 20.0
MACS = 400_000_000_000  # of all runs of the model that the statistics take: about half a minute on two cores
MODELS = 2  # run at once: float and rounded
FEWEST = 16  # samples that statistics of a layer's inputs need


@dataclass(frozen=True)
class Rounded:
    """A layer's weights, whole multiples of their scales, and its bias, which keeps the outputs' means."""

    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None


def samples_for(model: ir.Model) -> int:
    """How many samples statistics of all layers can be taken of at acceptable cost; 0: too few."""
    count = MACS // max(MODELS * statistics(model).macs, 1)
    return 0 if count < FEWEST else min(count, SAMPLES)


def round_weights(
    reference: ir.Model, annotated: ir.Model, dataset: Dataset, stop: Callable[[], bool]
) -> dict[str, Rounded]:
    """By the names of the weights, all int8 weights of the annotated model, layer after layer, each with inputs from
    rounded ones. Weights that several layers share, such as the steps of a recurrent network, stay as they are, because
    a file would have to store them once for each.

    reference: the float model that it was annotated from. stop: says when time is over; nothing is returned then.
    """
    clone, found = annotated.clone(), dict[str, Rounded]()
    walk, readers = Calibrator(reference, dataset, seed=0).walk(clone), Counter(map(_content, layers(clone.graph)))
    for layer in layers(clone.graph):
        value = operators.weight(layer) if is_integer(layer.node) else None
        q = None if value is None else quantization(value)
        if value is None or q is None or q.dtype != ir.DataType.INT8 or codebook(value) is not None:
            continue
        if readers[_content(layer)] > 1:
            continue
        if stop():
            return {}
        weight = np.asarray(constant(value))
        matrix = matrices.to_matrix(layer.node, weight).astype(np.float64)
        moments = walk.moments(layer, *matrix.shape)
        scale, damping = np.broadcast_to(q.scale.astype(np.float64), len(matrix)), damping_for(moments, len(dataset))
        whole = round_columns(matrix, moments, scale, q.kind, damping)
        stored = matrices.from_matrix(layer.node, whole, weight.shape)
        bias = None if layer.bias is None else moments.bias(whole * q.scale.astype(np.float64)[:, None])
        found[str(value.name)] = Rounded(q.scale, q.dequantize(stored), bias)
        _put(layer, value, found[str(value.name)])
    return found


def _content(layer: Layer) -> bytes:
    """The same for layers with the same weights, of which annotated models have a copy for each."""
    array = constant(operators.weight(layer))
    return b"" if array is None else hashlib.blake2b(np.ascontiguousarray(array).tobytes()).digest()


def damping_for(moments: Moments, samples: int) -> float:
    """The share of the mean input energy that second moments from so few samples lack to be those of many.

    Weights could otherwise fit the noise of the samples, and be worse on all others. Moments shrunk towards alike and
    independent inputs by rho are these damped by rho / (1 - rho); rho is that of oracle approximating shrinkage (Chen
    et al., "Shrinkage algorithms for MMSE covariance estimation", 2010, equation 23, without its terms of 2 / k, as
    scikit-learn has it). Positions of one sample are much alike, and count as one.
    """
    k = moments.inputs.shape[1]
    squares = float(np.mean(np.square(moments.inputs).sum(axis=(1, 2))))
    energy = float(np.mean(np.square(np.trace(moments.inputs, axis1=1, axis2=2))))
    if k < 2 or not energy:
        return DAMPING
    wanted, apart = squares + energy, (samples + 1) * (squares - energy / k)
    return float(np.clip(wanted / (apart - wanted), DAMPING, MOST_DAMPING)) if apart > wanted else MOST_DAMPING


def round_columns(
    matrix: np.ndarray, moments: Moments, scale: np.ndarray, kind: WeightType = "int8", damping: float = DAMPING
) -> np.ndarray:
    """int8 [channels, k]: whole multiples of the channels' scales [channels] for the weights [channels, k], of a type.

    Weights that are zero have been pruned, and stay so. damping: of the moments, of the mean input energy.
    """
    step, pruned, result = scale[:, None], matrix == 0, np.empty(matrix.shape, np.int8)

    def rounded(current: np.ndarray, j: int) -> np.ndarray:
        whole = nearest(kind, current[:, j] / step[:, 0])
        if kind != "binary":
            whole[pruned[:, j]] = 0
        result[:, j] = whole
        return whole * step[:, 0]

    eliminate(moments.solution(damping, matrix), inverse_factors(moments.damped(damping)), rounded)
    return result


def with_rounded(annotated: ir.Model, weights: Mapping[str, Rounded]) -> ir.Model:
    """The annotated model, in place, with these weights where it stores them as int8 with the same scales."""
    for layer in layers(annotated.graph):
        value = operators.weight(layer) if is_integer(layer.node) else None
        found = None if value is None else weights.get(str(value.name))
        if value is not None and found is not None and _has_scale(quantization(value), found.scale):
            _put(layer, value, found)
    return annotated


def _has_scale(q: Quantization | None, scale: np.ndarray) -> bool:
    return q is not None and q.dtype == ir.DataType.INT8 and np.array_equal(q.scale, scale)


def _put(layer: Layer, value: ir.Value, found: Rounded) -> None:
    value.const_value = ir.tensor(found.weight, name=value.name)
    if layer.bias is not None and found.bias is not None:
        layer.bias.const_value = ir.tensor(found.bias, name=layer.bias.name)
