"""The table from a plan's operator to the function that chooses its kernel and computes its arguments.

A kernel is a plain Python function of flat arrays and integers (and tuples of them) that allocates nothing:
compiled by Numba for this machine, or lowered for another one with its integers as literals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.operators import RECORDS
from edgecompress_runtime.plan import Tensor
from edgecompress_runtime.shapes import Inputs, Outputs


@dataclass(frozen=True, eq=False)
class Raw:
    """A tensor as integers of its elements' size from number `start` on, for kernels that move them without reading
    them."""

    tensor: Tensor
    start: int = 0


# A tensor (or Raw) stands for its flat array, an array is a prepared constant, numbers are of 32 bits.
Argument = Tensor | Raw | np.ndarray | int | float | tuple["Argument", ...]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a kernel; arguments: each an Argument, or of a type that a family of kernels adds."""

    kernel: Callable[..., None]
    arguments: tuple[Any, ...]


# calls in order, for options of the type that the operator's record has
Prepare = Callable[[Inputs, Outputs, Any], list[Call]]
KERNELS: dict[str, Prepare] = {}
_INT16: dict[str, Prepare] = {}  # those for int16 activations


def prepares(*kinds: str, of_any_type: bool = False) -> Callable[[Prepare], Prepare]:
    """Register the preparation of operators. What it trips over in a malformed one (a missing scale, say) becomes an
    UnsupportedOperatorError, and so do int16 activations, unless `prepares_int16` knows the kind or the function's
    kernels are of_any_type. Raises LookupError for a kind that `operators.RECORDS` does not have."""
    for kind in kinds:
        if kind not in RECORDS:
            raise LookupError(f"{kind} has no record: add one, with its options and its shape rule, to operators.py")

    def register(function: Prepare) -> Prepare:
        KERNELS.update({kind: _guarded(kind, function) for kind in kinds})
        if of_any_type:
            _INT16.update(dict.fromkeys(kinds, function))
        return function

    return register


def prepares_int16(*kinds: str) -> Callable[[Prepare], Prepare]:
    """Register the preparation of operators that read or write int16 activations."""

    def register(function: Prepare) -> Prepare:
        _INT16.update(dict.fromkeys(kinds, function))
        return function

    return register


def has_int16(inputs: Inputs, outputs: Outputs) -> bool:
    """Whether an operand or a result is an int16 activation."""
    return any(tensor is not None and tensor.is_int16 for tensor in (*inputs, *outputs))


def _guarded(kind: str, function: Prepare) -> Prepare:
    def prepare(inputs: Inputs, outputs: Outputs, options: Any) -> list[Call]:
        chosen = function
        if has_int16(inputs, outputs):
            if kind not in _INT16:
                raise UnsupportedOperatorError(f"{kind} of int16")
            chosen = _INT16[kind]
        try:
            return chosen(inputs, outputs, options)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:120]
            raise UnsupportedOperatorError(f"{kind}: malformed operator ({reason})") from error

    return prepare


def call(kernel: Callable[..., None], *arguments: Argument) -> Call:
    """Raises OverflowError for an integer that no int32 holds."""
    for number in _integers(arguments):
        if not -(2**31) <= number < 2**31:
            raise OverflowError(f"{number} does not fit into int32")
    return Call(kernel, arguments)


def _integers(arguments: tuple[Argument, ...]) -> Iterator[int]:
    for argument in arguments:
        if isinstance(argument, tuple):
            yield from _integers(argument)
        elif isinstance(argument, int):
            yield argument
