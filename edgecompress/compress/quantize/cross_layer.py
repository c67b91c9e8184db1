"""Cross-layer equalization: moves scale between the channels of neighbouring layers, exactly.

M. Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction" (ICCV 2019),
section 4.1: f(s x) = s f(x) for s > 0 and f = Relu and the like, so W2 f(W1 x + b1) is the same with channel
i of W1 and b1 divided by s_i and of W2 multiplied by it. Equation 11: s_i = sqrt(r1_i / r2_i) (there
(1 / r2_i) sqrt(r1_i r2_i)) makes both ranges sqrt(r1_i r2_i).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.operators import record_of

LAYERS = {"Conv", "Gemm"}
ROUNDS = 20
CONVERGED = 1e-3
LARGEST_SCALE = 1e3  # of one channel in one round: dead channels would run off


@dataclass(frozen=True)
class Pair:
    """Two layers with nothing but homogeneous operators between; `between` is what the first one makes."""

    first: ir.Node
    second: ir.Node
    between: ir.Value


def pairs(model: ir.Model) -> list[Pair]:
    """All pairs where every value between has one reader and is no output of the model."""
    found = []
    for node in model.graph:
        if node.op_type not in LAYERS or constant(node.inputs[1]) is None:
            continue
        value = last = node.outputs[0]
        while (follower := _only_reader(value)) is not None and record_of(follower).homogeneous:
            value = last = follower.outputs[0]
        is_layer = follower is not None and follower.op_type in LAYERS and follower.inputs[0] is last
        if follower is not None and is_layer and constant(follower.inputs[1]) is not None:
            found.append(Pair(node, follower, last))
    return found


def equalized(model: ir.Model, activation_ranges: Mapping[str, np.ndarray] | None = None) -> ir.Model:
    """A clone that computes the same with equalized channels.

    activation_ranges: {name of a value between two layers: largest magnitude [channels]}, which stand for r1
    then. With one scale for each output channel of the weights it costs nothing that channels of W1 differ in
    range, but it does that those of the activation do, which has one scale. Without: r1 is that of the
    weights, as published.
    """
    clone = model.clone()
    found = pairs(clone)
    ranges = {name: r.astype(np.float64) for name, r in (activation_ranges or {}).items()}
    for _ in range(ROUNDS if found else 0):
        changes = [_equalize_pair(pair, ranges) for pair in found]
        if max(changes) < CONVERGED:
            break
    return clone


def _equalize_pair(pair: Pair, ranges: dict[str, np.ndarray]) -> float:
    """Scales one pair; returns the largest |log s|."""
    w1, w2 = (np.asarray(constant(n.inputs[1])) for n in (pair.first, pair.second))
    between = str(pair.between.name)
    r1 = ranges.get(between)
    if r1 is None:
        r1 = _largest(w1.reshape(len(w1), -1), (1,))
    r2 = _largest(_by_input_channel(w2, pair.second), (1, 3)).ravel()
    if len(r1) != len(r2):
        return 0.0  # a Reshape between: channels don't line up
    alive = (r1 > 0) & (r2 > 0)
    s = np.ones(len(r1))
    s[alive] = np.clip(np.sqrt(r1[alive].astype(np.float64) / r2[alive]), 1 / LARGEST_SCALE, LARGEST_SCALE)
    s[alive] /= np.exp(np.log(s[alive]).mean()) if alive.any() else 1.0
    if between in ranges:
        ranges[between] = r1 / s
    _set(pair.first, 1, _rounded(np.divide, w1, s.reshape(-1, *[1] * (w1.ndim - 1))))
    bias = constant(pair.first.inputs[2]) if len(pair.first.inputs) > 2 else None
    if bias is not None:
        _set(pair.first, 2, _rounded(np.divide, bias, s))
    grouped = _rounded(np.multiply, _by_input_channel(w2, pair.second), s.reshape(_group(pair.second), 1, -1, 1))
    _set(pair.second, 1, grouped.reshape(w2.shape))
    return float(np.abs(np.log(s)).max())


def _largest(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The largest magnitude along axes, without an array of magnitudes."""
    return np.maximum(array.max(axis=axes), -array.min(axis=axes))


def _rounded(operation: np.ufunc, array: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """float32, computed as float64 without an array of these."""
    return operation(array, factors, out=np.empty(array.shape, np.float32), dtype=np.float64, casting="same_kind")


def _by_input_channel(weight: np.ndarray, node: ir.Node) -> np.ndarray:
    """[out, in / group, ...] -> [group, out / group, in / group, rest]: input channel on axes 0, 2."""
    group = _group(node)
    return weight.reshape(group, weight.shape[0] // group, weight.shape[1], -1)


def _group(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def _set(node: ir.Node, index: int, array: np.ndarray) -> None:
    value = node.inputs[index]
    assert value is not None
    value.const_value = ir.tensor(array, name=value.name)


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
