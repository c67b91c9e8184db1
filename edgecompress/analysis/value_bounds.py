"""Bounds of every value of a canonical model that hold for all finite inputs, channel by channel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.graph.intervals import Interval, rising, unknown
from edgecompress.operators import record_of
from edgecompress.operators.record import Bounds

Values = dict[ir.Value, Interval]
LARGE = 1 << 16  # elements above which a constant is not copied as float64


def intervals(model: ir.Model, most: Mapping[str, float] | None = None) -> Values:
    """Bounds of all values that are numbers, by interval arithmetic; (-inf, inf) where nothing is known. most: of the
    magnitude of values, by name, where that is assumed; the bounds then hold for inputs for which it holds."""
    most = most or {}
    found: Values = {}
    for value in model.graph.initializers.values():
        array = constant(value)
        if array is not None and array.dtype.kind in "fiu":
            exact = array if array.dtype == np.float32 and array.size > LARGE else array.astype(np.float64)
            found[value] = Interval(exact, exact)
    for value in model.graph.inputs:
        found[value] = _within(unknown(value), most.get(str(value.name), np.inf))
    with np.errstate(all="ignore"):
        for node in model.graph:
            known = [None if v is None else found.get(v) for v in node.inputs]
            bound = _bounds(node)
            for value in node.outputs:
                if value.shape is None or not value.name:
                    continue
                interval = unknown(value)
                if bound is not None and known[0] is not None and len(node.outputs) == 1:
                    interval = _without_nan(bound(node, known))
                found[value] = _within(interval, most.get(str(value.name), np.inf))
    return found


def _bounds(node: ir.Node) -> Bounds | None:
    record = record_of(node)
    if record.bounds is None and record.function is not None and record.function.rises:
        return rising(record.function.compute)
    return record.bounds


def _within(x: Interval, most: float) -> Interval:
    return Interval(np.maximum(x.low, -most), np.minimum(x.high, most))


def _without_nan(x: Interval) -> Interval:
    """What infinity - infinity left unknown."""
    return Interval(np.where(np.isnan(x.low), -np.inf, x.low), np.where(np.isnan(x.high), np.inf, x.high))
