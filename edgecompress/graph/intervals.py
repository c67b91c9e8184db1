"""Bounds of every value of a canonical model that hold for all finite inputs, channel by channel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import shape
from edgecompress.graph.fusion import constant

UNIT = 2.0**-24  # relative error of one float32 operation
TERMS = 2**14  # of a sum, at most
LARGEST = 2**24  # elements of a bound that is written out position by position; above it nothing is known


@dataclass(frozen=True)
class Interval:
    """low <= value <= high; float64, of the value's rank, broadcast along dimensions of 1."""

    low: np.ndarray
    high: np.ndarray


Values = dict[ir.Value, Interval]
Bound = Callable[[ir.Node, list[Interval | None]], Interval]
BOUNDS: dict[str, Bound] = {}


def intervals(model: ir.Model) -> Values:
    """Bounds of all float values, by interval arithmetic; (-inf, inf) where nothing is known."""
    found: Values = {}
    for value in model.graph.initializers.values():
        array = constant(value)
        if array.dtype.kind == "f":
            found[value] = Interval(array.astype(np.float64), array.astype(np.float64))
    for value in model.graph.inputs:
        found[value] = unknown(value)
    with np.errstate(all="ignore"):
        for node in model.graph:
            known = [None if v is None else found.get(v) for v in node.inputs]
            bound = BOUNDS.get(node.op_type)
            for value in node.outputs:
                if value.shape is None or not value.name:
                    continue
                interval = unknown(value)
                if bound is not None and known[0] is not None and len(node.outputs) == 1:
                    interval = _without_nan(bound(node, known))
                found[value] = interval
    return found


def unknown(value: ir.Value) -> Interval:
    form = (1,) * len(shape(value))
    return Interval(np.full(form, -np.inf), np.full(form, np.inf))


def _without_nan(x: Interval) -> Interval:
    """What infinity - infinity left unknown."""
    return Interval(np.where(np.isnan(x.low), -np.inf, x.low), np.where(np.isnan(x.high), np.inf, x.high))


def along(interval: Interval, axis: int, size: int) -> Interval:
    """[size]: bounds of each position along an axis, over all others."""
    others = tuple(i for i in range(interval.low.ndim) if i != axis)
    low, high = interval.low.min(others), interval.high.max(others)
    return Interval(np.broadcast_to(low, size), np.broadcast_to(high, size))


def _rising(function: Callable[[ir.Node, np.ndarray], np.ndarray]) -> Bound:
    return lambda node, known: Interval(function(node, known[0].low), function(node, known[0].high))


def _sigmoid(node: ir.Node, x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _clip(node: ir.Node, x: np.ndarray) -> np.ndarray:
    low, high = (constant(v) if v is not None else None for v in (*node.inputs[1:3], None, None)[:2])
    return np.clip(x, -np.inf if low is None else float(low), np.inf if high is None else float(high))


def _hard_sigmoid(node: ir.Node, x: np.ndarray) -> np.ndarray:
    return np.clip(node.attributes.get_float("alpha", 0.2) * x + node.attributes.get_float("beta", 0.5), 0, 1)


def _leaky(node: ir.Node, x: np.ndarray) -> np.ndarray:
    slope = node.attributes.get_float("alpha", 0.01)
    return np.where(x >= 0, x, slope * x) if slope >= 0 else np.full_like(x, np.nan)


RISING: dict[str, Callable[[ir.Node, np.ndarray], np.ndarray]] = {
    "Clip": _clip,
    "Exp": lambda node, x: np.exp(x),
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda node, x: x,
    "LeakyRelu": _leaky,
    "Relu": lambda node, x: np.maximum(x, 0),
    "Sigmoid": _sigmoid,
    "Tanh": lambda node, x: np.tanh(x),
}
BOUNDS.update({op_type: _rising(f) for op_type, f in RISING.items()})


def _gate(least: float, function: Callable[[float], float]) -> Bound:
    """x times something between 0 and 1 that rises with x: falls to `least`, then rises."""

    def bound(node: ir.Node, known: list[Interval | None]) -> Interval:
        x = known[0]
        value = np.vectorize(function, otypes=[np.float64])
        at = [value(np.clip(side, -1e30, 1e30)) for side in (x.low, x.high)]
        constant_ = x.low == x.high
        low = np.where(constant_ | (x.low >= 0), np.minimum(*at), least)
        return Interval(low, np.where(constant_, at[1], np.maximum(np.maximum(*at), 0)))

    return bound


BOUNDS["HardSwish"] = _gate(-0.376, lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0))
BOUNDS["Gelu"] = _gate(-0.1701, lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))


def _bound(*op_types: str) -> Callable[[Bound], Bound]:
    def enter(function: Bound) -> Bound:
        BOUNDS.update(dict.fromkeys(op_types, function))
        return function

    return enter


@_bound("Add")
def add(node: ir.Node, known: list[Interval | None]) -> Interval:
    a, b = known
    return Interval(a.low + b.low, a.high + b.high)


@_bound("Sub")
def subtract(node: ir.Node, known: list[Interval | None]) -> Interval:
    a, b = known
    return Interval(a.low - b.high, a.high - b.low)


@_bound("Mul")
def multiply(node: ir.Node, known: list[Interval | None]) -> Interval:
    a, b = known
    products = [_times(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return Interval(np.minimum.reduce(products), np.maximum.reduce(products))


def _times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """0 times infinity is 0: bounds are of finite values."""
    return np.where((a == 0) | (b == 0), 0.0, a * b)


@_bound("BatchNormalization")
def batch_normalization(node: ir.Node, known: list[Interval | None]) -> Interval:
    gamma, beta, mean, variance = (k.low.reshape(-1, *(1,) * (known[0].low.ndim - 2)) for k in known[1:5])
    scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    sides = [_times(x, scale) + (beta - mean * scale) for x in (known[0].low, known[0].high)]
    return Interval(np.minimum(*sides), np.maximum(*sides))


@_bound("GlobalAveragePool", "GlobalMaxPool", "Resize")
def same(node: ir.Node, known: list[Interval | None]) -> Interval:
    x, y = known[0], node.outputs[0]
    over = tuple(range(2, len(shape(y))))
    return Interval(x.low.min(over, keepdims=True), x.high.max(over, keepdims=True))


@_bound("AveragePool", "MaxPool")
def pool(node: ir.Node, known: list[Interval | None]) -> Interval:
    x = same(node, known)
    counted = node.op_type == "AveragePool" and node.attributes.get_int("count_include_pad", 0)
    return _or_zero(x) if counted and padded(node) else x


def padded(node: ir.Node) -> bool:
    """Whether zeros around the image are computed with."""
    return any(node.attributes.get_ints("pads") or ()) or bool(node.attributes.get_int("ceil_mode", 0))


def _or_zero(x: Interval) -> Interval:
    return Interval(np.minimum(x.low, 0), np.maximum(x.high, 0))


@_bound("Pad")
def pad(node: ir.Node, known: list[Interval | None]) -> Interval:
    before, after = constant(node.inputs[1]).reshape(2, -1)
    x, rank = known[0], known[0].low.ndim
    if any(before[:2]) or any(after[:2]):
        return unknown(node.outputs[0])
    over = tuple(range(2, rank))
    x = Interval(x.low.min(over, keepdims=True), x.high.max(over, keepdims=True))
    if node.attributes.get_string("mode", "constant") != "constant":
        return x
    filler = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    value = 0.0 if filler is None else float(filler)
    return Interval(np.minimum(x.low, value), np.maximum(x.high, value))


@_bound("Concat")
def concat(node: ir.Node, known: list[Interval | None]) -> Interval:
    axis = node.attributes.get_int("axis")
    if any(k is None for k in known) or not _fits(node.outputs[0]):
        return unknown(node.outputs[0])
    sides = []
    for side in ("low", "high"):
        parts = [np.broadcast_to(getattr(k, side), shape(v)) for k, v in zip(known, node.inputs)]
        sides.append(np.concatenate(parts, axis))
    return Interval(*sides)


@_bound("Reshape")
def reshape(node: ir.Node, known: list[Interval | None]) -> Interval:
    x, y = node.inputs[0], node.outputs[0]
    if not _fits(y):
        return unknown(y)
    return Interval(*(np.broadcast_to(side, shape(x)).reshape(shape(y)) for side in (known[0].low, known[0].high)))


@_bound("Transpose")
def transpose(node: ir.Node, known: list[Interval | None]) -> Interval:
    order = node.attributes.get_ints("perm")
    return Interval(known[0].low.transpose(order), known[0].high.transpose(order))


@_bound("ReduceMean")
def mean(node: ir.Node, known: list[Interval | None]) -> Interval:
    axes, keep = tuple(constant(node.inputs[1]).tolist()), bool(node.attributes.get_int("keepdims", 1))
    return Interval(known[0].low.min(axes, keepdims=keep), known[0].high.max(axes, keepdims=keep))


def _fits(value: ir.Value) -> bool:
    return math.prod(shape(value)) <= LARGEST


@_bound("Conv")
def convolution(node: ir.Node, known: list[Interval | None]) -> Interval:
    """Each channel of the input anywhere in its interval (or zero, where there are pads), at each tap on its own."""
    x, weight, bias = known[0], known[1].low, known[2]
    channels, groups = shape(node.inputs[0])[1], node.attributes.get_int("group", 1)
    line = along(_or_zero(x) if padded(node) else x, 1, channels)
    taps = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    up, down = np.maximum(taps, 0).sum(-1), np.minimum(taps, 0).sum(-1)
    return _sums(up, down, line, groups, bias, (1, -1, *(1,) * (x.low.ndim - 2)))


@_bound("Gemm")
def gemm(node: ir.Node, known: list[Interval | None]) -> Interval:
    weight, bias = known[1].low, known[2]
    line = along(known[0], 1, weight.shape[1])
    return _sums(np.maximum(weight, 0)[None], np.minimum(weight, 0)[None], line, 1, bias, (1, -1))


def _sums(
    up: np.ndarray, down: np.ndarray, line: Interval, groups: int, bias: Interval, form: tuple[int, ...]
) -> Interval:
    """[groups, out, in] positive and negative weights -> the least and the largest sums, as computed in float32: an
    error of at most terms * UNIT * sum |w x| on either side (N. Higham, Accuracy and Stability, equation 3.5)."""
    low, high = line.low.reshape(groups, 1, -1), line.high.reshape(groups, 1, -1)
    least = (_times(up, low) + _times(down, high)).sum(-1).reshape(-1)
    largest = (_times(up, high) + _times(down, low)).sum(-1).reshape(-1)
    sizes = _times(up - down, np.maximum(np.abs(low), np.abs(high))).sum(-1).reshape(-1)
    error = TERMS * UNIT * np.where(np.isfinite(sizes), sizes, 0.0)
    return Interval((least - error + bias.low).reshape(form), (largest + error + bias.high).reshape(form))
