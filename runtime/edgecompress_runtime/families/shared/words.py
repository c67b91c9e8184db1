"""Pointers, words and products in Numba code, as LLVM has them on every CPU."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from edgecompress_runtime.llvm.rounded_product import SYMBOL
from edgecompress_runtime.llvm.typed_numba import llvm_code
from edgecompress_runtime.llvm.word_pairs import SYMBOL as WORD_PAIR

BYTE, HALF, WORD, LONG = (ir.IntType(n) for n in (8, 16, 32, 64))
# Numba's
N = types.int32
PAIR, FOUR = types.UniTuple(N, 2), types.UniTuple(N, 4)
INT8_POINTER, INT32_POINTER = types.CPointer(types.int8), types.CPointer(N)
PLACE = types.Tuple([INT8_POINTER, N])  # an address, and how many bytes on the next one like it lies
RECORD = types.Tuple([INT32_POINTER, N])  # records of channels, and the number of one of them


def load(builder: ir.IRBuilder, pointer: ir.Value, offset: ir.Value | int, type_: ir.Type, align: int = 4) -> ir.Value:
    """A value of `type_`, `offset` bytes behind `pointer`."""
    value = builder.load(address(builder, pointer, offset, type_), typ=type_)
    value.align = align
    return value


def load_pair(builder: ir.IRBuilder, pointer: ir.Value, offset: int) -> tuple[ir.Value, ir.Value]:
    """Two words from an address that is a multiple of 4, in this order among other loads of pairs."""
    kind = ir.LiteralStructType([WORD, WORD])
    pair = builder.call(
        function(builder, WORD_PAIR, kind, BYTE.as_pointer()), [address(builder, pointer, offset, BYTE)]
    )
    return builder.extract_value(pair, 0), builder.extract_value(pair, 1)


def pinned(builder: ir.IRBuilder, values: list[ir.Value]) -> list[ir.Value]:
    """int32 values, which volatile loads that follow have to wait for: keeps LLVM's scheduler from loading more
    than there are registers. An empty piece of assembly: no instruction."""
    kind = ir.LiteralStructType([WORD] * len(values)) if len(values) > 1 else WORD
    constraints = ",".join(["=r"] * len(values) + [str(i) for i in range(len(values))])
    result = builder.asm(ir.FunctionType(kind, [WORD] * len(values)), "", constraints, values, side_effect=True)
    return [builder.extract_value(result, i) for i in range(len(values))] if len(values) > 1 else [result]


def kept(builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    """An address in a register of its own: keeps LLVM from adding up its parts once more for each use. An empty piece
    of assembly, as `pinned`."""
    kind = ir.FunctionType(pointer.type, [pointer.type])
    return builder.asm(kind, "", "=r,0", [pointer], side_effect=True)


def store(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, offset: ir.Value | int, align: int = 4) -> None:
    """Stores a value at an address `offset` bytes behind `pointer` that is a multiple of `align`."""
    builder.store(value, address(builder, pointer, offset, value.type)).align = align


def address(builder: ir.IRBuilder, pointer: ir.Value, offset: ir.Value | int, type_: ir.Type) -> ir.Value:
    """A pointer to `type_`, `offset` bytes behind `pointer`."""
    offset = WORD(offset) if isinstance(offset, int) else offset
    return builder.bitcast(
        builder.gep(builder.bitcast(pointer, BYTE.as_pointer()), [offset], source_etype=BYTE), type_.as_pointer()
    )


def function(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Type) -> ir.Function:
    """An LLVM intrinsic, declared in the module once."""
    found = builder.module.globals.get(name)
    return found or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


@llvm_code(INT8_POINTER(INT8_POINTER, N))
def moved(b: ir.IRBuilder, pointer: ir.Value, offset: ir.Value) -> ir.Value:
    """An int8 pointer, `offset` bytes on."""
    return b.gep(pointer, [offset])


@llvm_code(N(INT8_POINTER, N))
def word_at(b: ir.IRBuilder, pointer: ir.Value, offset: ir.Value) -> ir.Value:
    """The int32 at an address that is a multiple of 4, `offset` bytes behind an int8 pointer."""
    return load(b, pointer, offset, WORD)


@llvm_code(types.void(INT8_POINTER, N, N))
def store_word(b: ir.IRBuilder, pointer: ir.Value, offset: ir.Value, value: ir.Value) -> None:
    """An int32 to an address that is a multiple of 4, `offset` bytes behind an int8 pointer."""
    store(b, value, pointer, offset)


@llvm_code(types.void(INT8_POINTER, N, N))
def store_half(b: ir.IRBuilder, pointer: ir.Value, offset: ir.Value, value: ir.Value) -> None:
    """The low 16 bits of an int32, `offset` bytes behind an int8 pointer."""
    store(b, b.trunc(value, HALF), pointer, offset, 2)


@llvm_code(N(N, N))
def shifted_right(b: ir.IRBuilder, value: ir.Value, count: ir.Value) -> ir.Value:
    """value >> count in 32 bits; Numba's own operator works in 64."""
    return b.ashr(value, count)


@llvm_code(N(N, N, N))
def rounded_high_product(b: ir.IRBuilder, x: ir.Value, y: ir.Value, addend: ir.Value) -> ir.Value:
    """The upper 32 bits of (x * y + 2**31), plus an addend; modulo 2**32 (rounded_product.py)."""
    return b.call(function(b, SYMBOL, WORD, WORD, WORD, WORD), [x, y, addend])
