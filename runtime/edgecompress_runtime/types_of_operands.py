"""Type rules: which elements, scales and zero points the operands and results of an operator have.

Kernels read a result's scale as they read an operand's, and are compiled for the elements that they find. A rule takes
operands and results, and raises MisfitError naming the first tensor that the operator's kernels can't be given, or
whatever Python raises over operands that are missing. `operators.RECORDS` says which operator has which rule.

A tensor is *stored* where its elements are int8, or int16 with a scale: real = scale * (stored - zero point).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgecompress_runtime.errors import MisfitError
from edgecompress_runtime.plan import Tensor

Inputs = Sequence[Any]  # of Tensor, None where an optional one is absent
Outputs = Sequence[Tensor]
Rule = Callable[[Inputs, Outputs], None]
MOVED_ONLY = (np.float16,)  # no kernel computes with them
REAL_CONSTANTS = (np.float16, np.float32)
WIDEST = 2.0**47  # biases of int64: TFLite scales sums of 48 bits (common.cc MultiplyByQuantizedMultiplier)


def need(condition: bool, tensor: Tensor, expected: str) -> None:
    """Raises MisfitError, which says what the tensor is and what was expected, unless the condition holds."""
    if not condition:
        scales = f"{tensor.scale.size} scales" if tensor.scale.size != 1 else f"scale {tensor.scale[0]:.6g}"
        zero = f", zero point {tensor.zero}" if tensor.zero_point.size == 1 else ""
        raise MisfitError(f"expected {tensor.name[:60]!r} to be {expected}, found {tensor.dtype} with {scales}{zero}")


def is_stored(tensor: Tensor) -> bool:
    """Whether the tensor holds integers that stand for real numbers."""
    return tensor.is_int8 or tensor.is_int16


def zero_points(tensor: Tensor) -> None:
    """Those of int8 are among its values; that of int16 activations is 0."""
    if tensor.is_int8:
        need(not (np.abs(tensor.zero_point + 0.5) > 128).any(), tensor, "int8 with a zero point from -128 to 127")
    if tensor.is_int16:
        need(tensor.scale.size == 1 and not tensor.zero_point.any(), tensor, "int16 with one scale and zero point 0")


def stored(*tensors: Tensor) -> None:
    """All int8, or all int16, with a scale each."""
    first = tensors[0].dtype
    for tensor in tensors:
        need(is_stored(tensor) and tensor.dtype == first and tensor.scale.size == 1, tensor, f"{first} with one scale")


def real(tensor: Tensor) -> None:
    """float32, or a constant that is expanded to float32 when the kernel is prepared."""
    constant = tensor.data is not None and (tensor.dtype in REAL_CONSTANTS or tensor.scale.size > 0)
    need(tensor.dtype == np.float32 or constant, tensor, "float32")


def float32(*tensors: Tensor) -> None:
    """What kernels read and write as it is."""
    for tensor in tensors:
        need(tensor.dtype == np.float32, tensor, "float32")


def alike(*tensors: Tensor) -> None:
    """Elements of one type which stand for the same numbers."""
    first = tensors[0]
    for tensor in tensors[1:]:
        need(tensor.dtype == first.dtype, tensor, f"{first.dtype} as {first.name[:60]!r} is")
        if is_stored(first):
            same = np.array_equal(tensor.scale, first.scale) and np.array_equal(tensor.zero_point, first.zero_point)
            need(same, tensor, f"of the scale and zero point of {first.name[:60]!r}")


def numbers(*tensors: Tensor) -> None:
    """Elements that kernels compute with, of one type."""
    for tensor in tensors:
        need(tensor.dtype not in MOVED_ONLY, tensor, "of a type that kernels compute with")
    alike(*tensors)


def truth(*tensors: Tensor) -> None:
    """bool."""
    for tensor in tensors:
        need(tensor.dtype == bool, tensor, "bool")


# ---- the rules ----


def moved(inputs: Inputs, outputs: Outputs) -> None:
    """Elements of the first operand become the results."""
    alike(inputs[0], *outputs)


def joined(inputs: Inputs, outputs: Outputs) -> None:
    """Elements of all operands become the result."""
    alike(*inputs, *outputs)


def parts(inputs: Inputs, outputs: Outputs) -> None:
    """SPLIT has its axis first, SPLIT_V its operand."""
    alike(inputs[1 if len(inputs) == 2 else 0], *outputs)


def padded(inputs: Inputs, outputs: Outputs) -> None:
    """x and y, and with PADV2 the value; zero is y's zero point."""
    alike(inputs[0], *outputs, *inputs[2:])
    if is_stored(inputs[0]):
        stored(inputs[0])


def chosen(inputs: Inputs, outputs: Outputs) -> None:
    """A condition, and two operands of which the result is made."""
    truth(inputs[0])
    alike(*inputs[1:], *outputs)


def gathered(inputs: Inputs, outputs: Outputs) -> None:
    """x, indices, and y, of x's elements."""
    alike(inputs[0], *outputs)
    need(inputs[1].dtype in (np.int32, np.int64), inputs[1], "int32 or int64")


def averaged(inputs: Inputs, outputs: Outputs) -> None:
    """x and y of the same numbers: stored, with one scale, or float32."""
    alike(inputs[0], *outputs)
    if is_stored(inputs[0]):
        stored(inputs[0])
    else:
        float32(inputs[0])


def pointwise(inputs: Inputs, outputs: Outputs) -> None:
    """y is a function of x: both stored, each with its scale, or both float32."""
    if is_stored(inputs[0]):
        stored(inputs[0], *outputs)
    else:
        float32(inputs[0], *outputs)


def signed(inputs: Inputs, outputs: Outputs) -> None:
    """As `pointwise`, or both integers of one type."""
    if np.issubdtype(inputs[0].dtype, np.integer) and not is_stored(inputs[0]):
        alike(inputs[0], *outputs)
    else:
        pointwise(inputs, outputs)


def negated(inputs: Inputs, outputs: Outputs) -> None:
    """bool x and y."""
    truth(inputs[0], *outputs)


def looked_up(inputs: Inputs, outputs: Outputs) -> None:
    """int8 x and y, and entries that are quantized as y."""
    x, entries, (y,) = *inputs, outputs
    for tensor in (x, entries, y):
        need(tensor.is_int8, tensor, "int8")
    alike(entries, y)


def probabilities(scale: float, zero: int) -> Rule:
    """As `pointwise`; int8 y has the scale and zero point that its kernel gives it, and int16 y the scale 2**-15."""

    def rule(inputs: Inputs, outputs: Outputs) -> None:
        pointwise(inputs, outputs)
        (y,) = outputs
        if y.is_int8:
            need(
                y.scale[0] == np.float32(scale) and y.zero == zero, y, f"int8 with scale {scale} and zero point {zero}"
            )
        if y.is_int16:
            need(y.scale[0] == np.float32(2**-15), y, "int16 with scale 2**-15")

    return rule


def left(inputs: Inputs, outputs: Outputs) -> None:
    """Probabilities, float32 or as SOFTMAX writes them, and bool y; `operators.check_plan` looks at the rest."""
    probabilities(1 / 256, -128)(inputs[:1], inputs[:1])
    truth(*outputs)


def arithmetic(inputs: Inputs, outputs: Outputs) -> None:
    """a, b and y: stored, each with its scale, or real, or integers of one type."""
    a, b, (y,) = *inputs, outputs
    if is_stored(a):
        stored(a, b, y)
    elif y.dtype == np.float32:
        real(a)
        real(b)
    else:
        numbers(a, b, y)
        need(np.issubdtype(y.dtype, np.integer), y, "of numbers")


def extremes(inputs: Inputs, outputs: Outputs) -> None:
    """a, b and y of the same numbers."""
    if outputs[0].dtype == np.float32:
        real(inputs[0])
        real(inputs[1])
    else:
        numbers(*inputs, *outputs)


def fractions(inputs: Inputs, outputs: Outputs) -> None:
    """Two real operands, and float32 y."""
    for tensor in inputs:
        real(tensor)
    float32(*outputs)


def sloped(inputs: Inputs, outputs: Outputs) -> None:
    """x, slope and y: stored, each with its scale, or real."""
    if is_stored(inputs[0]):
        stored(*inputs, *outputs)
    else:
        float32(inputs[0], *outputs)
        real(inputs[1])


def compared(inputs: Inputs, outputs: Outputs) -> None:
    """Two operands of the same numbers, and bool y."""
    numbers(*inputs)
    truth(*outputs)


def logic(inputs: Inputs, outputs: Outputs) -> None:
    """bool."""
    truth(*inputs, *outputs)


def summed(inputs: Inputs, outputs: Outputs) -> None:
    """x and y: stored, each with its scale, or real."""
    if is_stored(inputs[0]):
        stored(inputs[0], *outputs)
    else:
        real(inputs[0])
        float32(*outputs)


def picked(inputs: Inputs, outputs: Outputs) -> None:
    """x and y of the same numbers, which are compared."""
    numbers(inputs[0], *outputs)


def accumulated(inputs: Inputs, outputs: Outputs) -> None:
    """x and y of one type, float32 or integers without a scale."""
    alike(inputs[0], *outputs)
    plain = inputs[0].dtype == np.float32 or inputs[0].dtype in (np.int32, np.int64)
    need(plain, inputs[0], "float32, int32 or int64")


def placed(inputs: Inputs, outputs: Outputs) -> None:
    """x of numbers that can be compared, y of places."""
    numbers(inputs[0])
    need(outputs[0].dtype in (np.int32, np.int64), outputs[0], "int32 or int64")


def quantized(inputs: Inputs, outputs: Outputs) -> None:
    """x float32 or stored, y stored, each with its own scale."""
    stored(*outputs)
    if is_stored(inputs[0]):
        stored(inputs[0])
    else:
        float32(inputs[0])


def dequantized(inputs: Inputs, outputs: Outputs) -> None:
    """x stored, or a constant, and float32 y."""
    float32(*outputs)
    if is_stored(inputs[0]) and inputs[0].data is None:
        stored(inputs[0])
    else:
        real(inputs[0])


def converted(inputs: Inputs, outputs: Outputs) -> None:
    """Any two types of numbers."""
    numbers(inputs[0])
    numbers(*outputs)


def products(inputs: Inputs, outputs: Outputs) -> None:
    """Two operands and y: stored, each with its scale, or real."""
    if is_stored(inputs[0]):
        stored(*inputs, *outputs)
    else:
        fractions(inputs, outputs)


def layer(axis: int, x: int = 0, weights: int = 1, bias: int = 2, *, centred: bool = True) -> Rule:
    """A layer with weights: x and y stored, int8 weights, bias of integers; or all of them real.

    axis: of the weights' output channels. x, weights, bias: places among the inputs; a bias is optional. centred:
    whether the kernel takes the weights' zero point for 0.
    """

    def rule(inputs: Inputs, outputs: Outputs) -> None:
        source, w, added = inputs[x], inputs[weights], inputs[bias] if len(inputs) > bias else None
        if not is_stored(source):
            for tensor in (source, w) if added is None else (source, w, added):
                real(tensor)
            float32(*outputs)
            return
        stored(source, *outputs)
        along = w.scale.size <= 1 or w.axis == axis
        need(w.is_int8 and w.scale.size > 0 and along, w, f"int8 with scales along axis {axis}")
        if centred or source.is_int16 or w.scale.size > 1:
            need(not w.zero_point.any(), w, "int8 with zero points of 0")
        if added is not None:
            wanted = np.int32 if source.is_int8 else np.int64
            need(added.data is not None and added.dtype == wanted, added, f"a constant of {wanted.__name__}")
            need(bool((np.abs(np.asarray(added.data, np.float64)) < WIDEST).all()), added, "of at most 48 bits")

    return rule
