"""Vectors of 16 bytes in LLVM's intermediate representation, as Helium and NEON have them."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from edgecompress_runtime.families.shared.words import BYTE, WORD, function

FOUR_BYTES = ir.VectorType(BYTE, 4)
BYTES, LANES = ir.VectorType(BYTE, 16), ir.VectorType(WORD, 4)


def vector(builder: ir.IRBuilder, values: Sequence[ir.Value]) -> ir.Value:
    """int32 values as lanes."""
    result = ir.Constant(LANES, ir.Undefined)
    for lane, value in enumerate(values):
        result = builder.insert_element(result, value, WORD(lane))
    return result


def clamped(b: ir.IRBuilder, lanes: ir.Value, bounds: Sequence[ir.Value]) -> ir.Value:
    """Four lanes, none less than the first bound or more than the second."""
    for name, bound in zip(("llvm.smax.v4i32", "llvm.smin.v4i32"), bounds):
        lanes = b.call(function(b, name, LANES, LANES, LANES), [lanes, vector(b, [bound] * 4)])
    return lanes
