"""Numba's decorators with types, and LLVM instructions as functions for Numba code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.typing import Signature
from numba.extending import intrinsic

# What functions for Numba take and return. mypy knows nothing of pointers, and i32 and int are one type to Numba.
Pointer = Any
Word = Any  # int32
Float = Any  # float32
Words = Any  # a tuple of int32
Tuple = Any  # a tuple of these

Function = Callable[..., Any]


def inline(function: Function) -> Function:
    """For use in Numba code, which its body becomes part of before Numba gives types."""
    made: Function = njit(inline="always")(function)
    return made


def llvm_code(signature: Signature) -> Callable[[Function], Function]:
    """Makes a function for Numba code of one that writes LLVM instructions: (builder, values...) -> the result.

    signature: of the function in Numba code. Tuples are taken and returned as Python's; a function that returns nothing
    returns None.
    """

    def decorated(write: Function) -> Function:
        def generate(context: Any, builder: ir.IRBuilder, signature: Signature, values: Sequence[ir.Value]) -> ir.Value:
            made = write(builder, *(_unpacked(builder, *pair) for pair in zip(signature.args, values)))
            return _packed(context, builder, signature.return_type, made)

        def definition(typingctx: Any, *arguments: Any) -> Any:
            return signature, generate

        names = "typingctx", *(f"a{i}" for i in range(len(signature.args)))
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        definition.__dict__["__signature__"] = inspect.Signature(parameters)  # Numba counts them
        definition.__name__ = definition.__qualname__ = write.__name__
        definition.__module__, definition.__doc__ = write.__module__, write.__doc__
        made: Function = intrinsic(definition)
        return made

    return decorated


def leaves(values: Sequence[Any]) -> Iterator[Any]:
    """What nested tuples hold, in order."""
    for value in values:
        if isinstance(value, tuple):
            yield from leaves(value)
        else:
            yield value


def _is_tuple(kind: types.Type) -> bool:
    return isinstance(kind, types.BaseTuple)


def _unpacked(builder: ir.IRBuilder, kind: Any, value: ir.Value) -> Any:
    if not _is_tuple(kind):
        return value
    return tuple(_unpacked(builder, part, builder.extract_value(value, i)) for i, part in enumerate(kind))


def _packed(context: Any, builder: ir.IRBuilder, kind: Any, value: Any) -> Any:
    if kind == types.void:
        return context.get_dummy_value()
    if not _is_tuple(kind):
        return value
    return context.make_tuple(builder, kind, [_packed(context, builder, *pair) for pair in zip(kind, value)])
