"""Numbers of 2, 4 and 8 bits that no device computes on: the same values as float32 and int32, rounded alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.graph.nodes import argument, integer
from edgecompress.ingest.passes.wide_integers import WIDE
from edgecompress.lowering.parts import Parts, Rule, written_in_parts

FLOAT, INT32, INT64 = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Grid:
    """The numbers of a small float type: `bits` of mantissa behind the leading one, powers of two from `least` on, and
    numbers below 2^least in steps of those above.

    beyond: what becomes of numbers that are too large without saturation. is_even: whether the largest one is, to which
    halves are rounded. has_nan: else NaN becomes 0.
    """

    bits: int
    least: int
    largest: float
    beyond: str = "nan"
    is_even: bool = False
    has_nan: bool = True

    @property
    def steps(self) -> np.ndarray:
        """The distance between neighbours, for each power of two."""
        exponents = np.arange(self.least, int(np.log2(self.largest)) + 1)
        return np.float32(2) ** (exponents - self.bits).astype(np.float32)


# https://onnx.ai/onnx/technical/float8.html and float4.html
GRIDS = {
    ir.DataType.FLOAT8E4M3FN: Grid(3, -6, 448.0, is_even=True),
    ir.DataType.FLOAT8E4M3FNUZ: Grid(3, -7, 240.0),
    ir.DataType.FLOAT8E5M2: Grid(2, -14, 57344.0, beyond="infinity"),
    ir.DataType.FLOAT8E5M2FNUZ: Grid(2, -15, 57344.0),
    ir.DataType.FLOAT4E2M1: Grid(1, 0, 6.0, beyond="largest", has_nan=False),
}
RANGES = {
    ir.DataType.INT4: (-8, 7), ir.DataType.UINT4: (0, 15), ir.DataType.INT2: (-2, 1), ir.DataType.UINT2: (0, 3),
}  # fmt: skip
NARROW = {**dict.fromkeys((*GRIDS, ir.DataType.FLOAT8E8M0), FLOAT), **dict.fromkeys(RANGES, INT32)}


class NarrowTypes(ir.passes.InPlacePass):
    """1. Cast and CastLike to a type of NARROW round to its numbers.
    2. BitShift, which ONNX Runtime lacks for signed integers, is a product or a quotient.
    3. Inputs, constants, values and outputs of NARROW are float32 and int32.

    They are taken for numbers of that type wherever they come from: inputs are not rounded.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        nodes = {node for node in model.graph if rule_of(node) is not None}
        values = (*model.graph.inputs, *model.graph.initializers.values(), *(v for n in model.graph for v in n.outputs))
        modified = bool(nodes) or any(v.dtype in NARROW for v in values)
        if nodes:
            written_in_parts(model, rule_of)
        for value in (
            *model.graph.inputs,
            *model.graph.initializers.values(),
            *(v for node in model.graph for v in node.outputs),
        ):
            _widen(value)
        return ir.passes.PassResult(model, modified)


def _widen(value: ir.Value) -> None:
    wide = NARROW.get(value.dtype or FLOAT)
    if wide is None:
        return
    if value.const_value is not None:
        value.const_value = ir.tensor(value.const_value.numpy().astype(wide.numpy()), name=value.name)
    value.type = ir.TensorType(wide)


def rule_of(node: ir.Node) -> Rule | None:
    """How a node is written without types of NARROW; None where it can stay."""
    if node.domain != "":
        return None
    if node.op_type == "BitShift":
        return _bit_shift if argument(node, 0).dtype in {*WIDE, INT32, INT64} else None
    target = _target(node)
    if node.op_type == "CastLike" and target is not None and target not in NARROW:
        return lambda op, node: [op.Cast(argument(node, 0), to=int(target))]
    return _cast if target in {*GRIDS, *RANGES} else None


def _target(node: ir.Node) -> ir.DataType | None:
    """The type that Cast and CastLike make."""
    if node.op_type == "Cast":
        return ir.DataType(integer(node, "to"))
    return argument(node, 1).dtype if node.op_type == "CastLike" else None


def _cast(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x, target = argument(node, 0), _target(node)
    assert target is not None
    if target in GRIDS:
        is_saturated = bool(integer(node, "saturate", 1))
        return [on_grid(op, op.Cast(x, to=int(FLOAT)), GRIDS[target], is_saturated=is_saturated)]
    low, high = RANGES[target]
    number = op.Cast(x, to=int(INT32))
    half, size = np.int32(-low), np.int32(high - low + 1)
    if low == 0:
        return [op.Mod(number, np.asarray(size))]
    return [op.Sub(op.Mod(op.Add(number, np.asarray(half)), np.asarray(size)), np.asarray(half))]


def on_grid(op: Parts, x: ir.Value, grid: Grid, *, is_saturated: bool = True) -> ir.Value:
    """float32 x, rounded to the nearest number of the grid; halves go to the even one.

    The step is that of the power of two below |x|. A logarithm that is off by a rounding does no harm: next to a power
    of two, its own step and the one below round alike.
    """
    size = op.Abs(x)
    bounded = op.Where(op.Less(size, grid.largest), size, grid.largest)  # NaN as well
    power = op.Floor(op.Mul(op.Log(op.Max(bounded, 2.0**grid.least)), float(1 / np.log(2))))
    place = op.Max(op.Min(op.Sub(power, float(grid.least)), float(len(grid.steps) - 1)), 0.0)
    step = op.Gather(grid.steps, op.Cast(place, to=int(INT32)))
    rounded = op.Mul(op.Round(op.Div(bounded, step)), step)
    result = op.Where(op.Less(x, 0.0), op.Neg(rounded), rounded)
    if not is_saturated and grid.beyond != "largest":
        edge = grid.largest + float(grid.steps[-1]) / 2  # what is nearer to the next number
        infinity = op.Mul(op.Mul(x, LARGEST), LARGEST)
        other = infinity if grid.beyond == "infinity" else op.Sub(infinity, infinity)
        is_beyond = op.Greater(size, edge) if grid.is_even else op.Not(op.Less(size, edge))
        result = op.Where(is_beyond, other, result)
    return op.Where(op.IsNaN(x), x if grid.has_nan else 0.0, result)


def _bit_shift(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """x 2^n, of which the lowest bits stay; or x / 2^n, rounded down. All bits go where n is negative or too large."""
    x, n = argument(node, 0), argument(node, 1)
    dtype = x.dtype
    assert dtype is not None
    bits = 8 * dtype.numpy().itemsize
    n = op.Cast(n, to=int(INT64))
    is_whole = op.Or(op.Less(n, 0), op.Less(bits - 1, n))
    shift = op.Where(is_whole, bits, n)

    def power(exponent: ir.Value, most: int) -> ir.Value:
        """2^exponent of x's type, for exponents up to `most`, and 0 behind."""
        powers = np.array([*(2**k for k in range(most + 1)), 0], np.uint64).astype(np.int64)
        return op.Cast(op.Gather(powers, exponent), to=int(dtype))

    if node.attributes.get_string("direction") == "LEFT":
        return [op.Mul(x, power(shift, bits - 1))]
    for _ in range(2):  # 2^(bits - 1) is no number of a signed type
        step = op.Min(shift, bits // 2)
        divisor = power(step, bits // 2)
        x = op.Div(op.Sub(x, op.Mod(x, divisor)), divisor)
        shift = op.Sub(shift, step)
    return [x]
