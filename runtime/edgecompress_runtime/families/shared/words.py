"""Pointers, words and products in Numba code, as LLVM has them on every CPU."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from llvmlite.ir import instructions
from numba import types
from numba.extending import intrinsic

from edgecompress_runtime.llvm.rounded_product import SYMBOL

BYTE, HALF, WORD, LONG = (ir.IntType(n) for n in (8, 16, 32, 64))
INT8_POINTER, INT32_POINTER = types.CPointer(types.int8), types.CPointer(types.int32)


def load(builder: ir.IRBuilder, pointer: ir.Value, offset: ir.Value | int, type_: ir.Type, align: int = 4) -> ir.Value:
    """A value of `type_`, `offset` bytes behind `pointer`."""
    value = builder.load(address(builder, pointer, offset, type_), typ=type_)
    value.align = align
    return value


class _VolatileLoad(instructions.LoadInstr):
    """llvmlite writes no volatile loads."""

    def descr(self, buf: list[str]) -> None:
        plain: list[str] = []
        super().descr(plain)
        buf.append("".join(plain).replace("load ", "load volatile ", 1))


def load_pair(builder: ir.IRBuilder, pointer: ir.Value, offset: int) -> tuple[ir.Value, ir.Value]:
    """Two words from an address that is a multiple of 4: the only way to have Arm's LDRD for certain."""
    pair = _VolatileLoad(builder.block, address(builder, pointer, offset, LONG), typ=LONG)
    pair.align = 4
    builder._insert(pair)
    return builder.trunc(pair, WORD), builder.trunc(builder.lshr(pair, LONG(32)), WORD)


def pinned(builder: ir.IRBuilder, values: list[ir.Value]) -> list[ir.Value]:
    """int32 values, which volatile loads that follow have to wait for: keeps LLVM's scheduler from loading more
    than there are registers. An empty piece of assembly: no instruction."""
    kind = ir.LiteralStructType([WORD] * len(values)) if len(values) > 1 else WORD
    constraints = ",".join(["=r"] * len(values) + [str(i) for i in range(len(values))])
    result = builder.asm(ir.FunctionType(kind, [WORD] * len(values)), "", constraints, values, side_effect=True)
    return [builder.extract_value(result, i) for i in range(len(values))] if len(values) > 1 else [result]


def store(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, offset: ir.Value | int, align: int = 4) -> None:
    builder.store(value, address(builder, pointer, offset, value.type)).align = align


def address(builder: ir.IRBuilder, pointer: ir.Value, offset: ir.Value | int, type_: ir.Type) -> ir.Value:
    offset = WORD(offset) if isinstance(offset, int) else offset
    return builder.bitcast(
        builder.gep(builder.bitcast(pointer, BYTE.as_pointer()), [offset], source_etype=BYTE), type_.as_pointer()
    )


def function(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Type) -> ir.Function:
    """An LLVM intrinsic, declared in the module once."""
    found = builder.module.globals.get(name)
    return found or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


@intrinsic
def moved(typingctx, pointer, offset):
    """An int8 pointer, `offset` bytes on."""

    def generate(context, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return INT8_POINTER(INT8_POINTER, types.int32), generate


@intrinsic
def word_at(typingctx, pointer, offset):
    """The int32 at an address that is a multiple of 4, `offset` bytes behind an int8 pointer."""

    def generate(context, builder, signature, args):
        return load(builder, *args, WORD)

    return types.int32(INT8_POINTER, types.int32), generate


@intrinsic
def store_word(typingctx, pointer, offset, value):
    """An int32 to an address that is a multiple of 4, `offset` bytes behind an int8 pointer."""

    def generate(context, builder, signature, args):
        store(builder, args[2], args[0], args[1])
        return context.get_dummy_value()

    return types.void(INT8_POINTER, types.int32, types.int32), generate


@intrinsic
def store_half(typingctx, pointer, offset, value):
    """The low 16 bits of an int32, `offset` bytes behind an int8 pointer."""

    def generate(context, builder, signature, args):
        store(builder, builder.trunc(args[2], HALF), args[0], args[1], 2)
        return context.get_dummy_value()

    return types.void(INT8_POINTER, types.int32, types.int32), generate


@intrinsic
def shifted_right(typingctx, value, count):
    """value >> count in 32 bits; Numba's own operator works in 64."""

    def generate(context, builder, signature, args):
        return builder.ashr(*args)

    return types.int32(types.int32, types.int32), generate


@intrinsic
def high_product(typingctx, a, b):
    """The upper 32 bits of the 64-bit product of two int32."""

    def generate(context, builder, signature, args):
        return upper_half(builder, *args)

    return types.int32(types.int32, types.int32), generate


@intrinsic
def rounded_high_product(typingctx, a, b, addend):
    """The upper 32 bits of (a * b + 2**31), plus an addend; modulo 2**32 (rounded_product.py)."""

    def generate(context, builder, signature, args):
        return builder.call(function(builder, SYMBOL, WORD, WORD, WORD, WORD), args)

    return types.int32(types.int32, types.int32, types.int32), generate


def upper_half(builder: ir.IRBuilder, a: Any, b: Any) -> ir.Value:
    product = builder.mul(builder.sext(a, LONG), builder.sext(b, LONG))
    return builder.trunc(builder.lshr(product, LONG(32)), WORD)
