"""Vectors in LLVM's intermediate representation: of any size, and of 16 bytes, as Helium and NEON have them."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from edgecompress_runtime.families.shared.words import BYTE, WORD, function, store

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


def splat(b: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """The value in every lane."""
    kind = ir.VectorType(value.type, lanes)
    first = b.insert_element(ir.Constant(kind, ir.Undefined), value, WORD(0))
    return b.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.VectorType(WORD, lanes)([0] * lanes))


def store_part(b: ir.IRBuilder, v: ir.Value, start: int, count: int, pointer: ir.Value, offset: ir.Value) -> None:
    """`count` bytes of v, a vector of bytes, from `start` on."""
    for size in (64, 32, 16, 8, 4, 2, 1):
        if count >= size:
            part = v
            if size < v.type.count:
                part = b.shuffle_vector(v, v, ir.VectorType(WORD, size)(list(range(start, start + size))))
            store(b, part, pointer, offset, 1)
            start, count, offset = start + size, count - size, b.add(offset, offset.type(size))
