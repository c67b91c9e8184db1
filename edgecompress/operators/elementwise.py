"""Arithmetic, and functions of one variable: any layout will do, so they take the one that their operands lie in."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import Quantization, must_be_integer
from edgecompress.graph.channel_axes import ChannelAxes, shape
from edgecompress.graph.channel_rules import broadcast, elementwise
from edgecompress.graph.fusion import Layer, constant
from edgecompress.graph.intervals import Interval, Known, bound_of, rising, times
from edgecompress.graph.nodes import argument, arguments, integer, number, optional_parameter, text
from edgecompress.lowering import forms
from edgecompress.lowering.context import ACTIVATIONS, Context
from edgecompress.lowering.operands import operand
from edgecompress.lowering.parts import Parts
from edgecompress.operators.checks import constant_inputs
from edgecompress.operators.example import Example
from edgecompress.operators.record import (
    FIXED,
    SAME,
    TABLE_WHERE_NEEDED,
    Bounds,
    Function,
    Integer,
    Lowering,
    Operator,
    Sum,
    TorchBuilder,
    TorchFunction,
    Weights,
    always,
    register,
)

TINY = 1e-6  # in place of 0, which has no logarithm
FUSES_ACTIVATION = {"ADD", "SUB", "MUL", "DIV"}


def fixed_output(scale: float, zero_point: int, int16: Callable[[ir.Node], bool] = always) -> Integer:
    """An output that always has this scale and zero point in int8."""
    q = Quantization(np.array([scale], np.float32), np.array([zero_point], np.int32))
    return Integer(FIXED, fixed=q, int16=int16)


# ---- TFLite ----


def binary(kind: str) -> Lowering:
    """One builtin operator of two operands; Min and Max take any number of them in ONNX."""

    def lower(ctx: Context, layer: Layer) -> None:
        int8, y = ctx.layer_int8(layer), layer.output
        rank, values = len(shape(y)), arguments(layer.node)
        form = ctx.common_form(values, rank)
        operands = [operand(ctx, v, form, rank, int8) for v in values]
        options = {"fusedActivationFunction": ACTIVATIONS[layer.activation_kind]} if kind in FUSES_ACTIVATION else {}
        target = ctx.new(y, form, int8)
        if kind in ("ADD", "SUB") and ctx.tensor(target).dtype == ir.DataType.INT16:
            options["potScaleInt16"] = False  # scales of any size
        if len(operands) == 1:
            ctx.reshape(operands[0], target)
            return
        running = operands[0]
        for i, other in enumerate(operands[1:], 2):
            dims = np.broadcast_shapes(ctx.tensor(running).shape, ctx.tensor(other).shape)
            result = target if i == len(operands) else ctx.like(target, f"{y.name}/{i}", dims)
            running = ctx.op(kind, [running, other], [result], **options)

    return lower


def unary(kind: str) -> Lowering:
    """One builtin operator of one operand, without options."""

    def lower(ctx: Context, layer: Layer) -> None:
        x, int8 = argument(layer.node, 0), ctx.layer_int8(layer)
        form = ctx.form(x)
        ctx.op(kind, [ctx.get(x, form, int8)], [ctx.new(layer.output, form, int8)])

    return lower


def _lower_leaky_relu(ctx: Context, layer: Layer) -> None:
    _write_leaky_relu(ctx, layer, number(layer.node, "alpha", 0.01))


def _write_leaky_relu(ctx: Context, layer: Layer, alpha: float) -> None:
    x, int8 = argument(layer.node, 0), ctx.layer_int8(layer)
    form = ctx.form(x)
    ctx.op("LEAKY_RELU", [ctx.get(x, form, int8)], [ctx.new(layer.output, form, int8)], alpha=alpha)


def _lower_gelu(ctx: Context, layer: Layer) -> None:
    x, int8 = argument(layer.node, 0), ctx.layer_int8(layer)
    form = ctx.form(x)
    tanh = text(layer.node, "approximate", "none") == "tanh"
    ctx.op("GELU", [ctx.get(x, form, int8)], [ctx.new(layer.output, form, int8)], approximate=tanh)


def _lower_prelu(ctx: Context, layer: Layer) -> None:
    """The slope loses the batch axis. A single slope is LEAKY_RELU: tflite-runtime 2.14 gets PRELU's wrong (NaN)."""
    x, slope = argument(layer.node, 0), argument(layer.node, 1)
    array = ctx.array(slope)
    if array is not None and array.size == 1:
        _write_leaky_relu(ctx, layer, float(array.ravel()[0]))
        return
    int8, form, rank = ctx.layer_int8(layer), ctx.form(x), len(shape(x))
    alpha = ctx.get(slope, forms.operand_form(form, rank, len(shape(slope))), int8)
    tensor = ctx.tensor(alpha)
    if tensor.data is not None and rank > 1:
        alpha = ctx.constant(tensor.data.reshape(tensor.shape[1:]), tensor.quantization, tensor.name)
    ctx.op("PRELU", [ctx.get(x, form, int8), alpha], [ctx.new(layer.output, form, int8)])


def _lower_clip(ctx: Context, layer: Layer) -> None:
    """In int8 the output's own range clips: requantizing is enough."""
    x, y, int8 = argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    form = ctx.form(x)
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    low, high = optional_parameter(layer.node, 1), optional_parameter(layer.node, 2)
    named: dict[tuple[float | None, float | None], str] = {
        (0.0, 6.0): "RELU6",
        (-1.0, 1.0): "RELU_N1_TO_1",
        (0.0, None): "RELU",
    }
    kind = named.get((None if low is None else float(low), None if high is None else float(high)))
    if int8:
        ctx.op("QUANTIZE", [source], [target])
    elif kind is not None:
        ctx.op(kind, [source], [target])
    else:
        steps = [(k, b) for k, b in (("MAXIMUM", low), ("MINIMUM", high)) if b is not None]
        for i, (step, bound) in enumerate(steps):
            result = target if i == len(steps) - 1 else ctx.like(target, f"{y.name}/{step}", ctx.tensor(target).shape)
            source = ctx.op(step, [source, ctx.constant(bound.reshape(()))], [result])
        if not steps:
            ctx.reshape(source, target)


def _lower_identity(ctx: Context, layer: Layer) -> None:
    """A point where the quantizer changes scale; in float nothing happens."""
    x, int8 = argument(layer.node, 0), ctx.layer_int8(layer)
    form = ctx.form(x)
    source = ctx.get(x, form, int8)
    if int8:
        ctx.op("QUANTIZE", [source], [ctx.new(layer.output, form, True)])
    else:
        ctx.bind(layer.output, source, form, False)


# ---- with other operators ----


def _hard_sigmoid_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """max(0, min(1, alpha x + beta))"""
    scaled = op.Mul(argument(node, 0), number(node, "alpha", 0.2))
    return [op.Clip(op.Add(scaled, number(node, "beta", 0.5)), 0.0, 1.0)]


def _reciprocal_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return [op.Div(1.0, argument(node, 0))]


def _elu_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """TFLite's ELU has alpha 1 only: max(x, 0) + alpha * (exp(min(x, 0)) - 1)."""
    alpha = number(node, "alpha", 1.0)
    if alpha == 1.0:
        return None
    x = argument(node, 0)
    return [op.Add(op.Relu(x), op.Mul(op.Elu(op.Min(x, 0.0)), alpha))]


def _erf_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: absolute error at most 1.5e-7."""
    x = argument(node, 0)
    size = op.Abs(x)
    t = op.Div(1.0, op.Add(op.Mul(size, 0.3275911), 1.0))
    poly = op.Mul(t, 1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        poly = op.Mul(op.Add(poly, coefficient), t)
    positive = op.Sub(1.0, op.Mul(poly, op.Exp(op.Neg(op.Mul(x, x)))))
    return [op.Where(op.Less(x, 0.0), op.Neg(positive), positive)]


def _softplus_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), which can't overflow."""
    x = argument(node, 0)
    return [op.Add(op.Relu(x), op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), 1.0)))]


def _divide_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """a / b = a * (1 / b): a product has an int8 kernel, and a reciprocal is a table."""
    a, b = arguments(node)
    return [op.Mul(a, op.Reciprocal(b))] if a.dtype == ir.DataType.FLOAT else None


def _modulo_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """With the sign of the dividend: of floats |a| - |b| floor(|a| / |b|), of integers a - b trunc(a / b)."""
    a, b = arguments(node)
    if not integer(node, "fmod", 0):
        return None
    if a.dtype != ir.DataType.FLOAT:
        return [op.Sub(a, op.Mul(b, op.Div(a, b)))]
    size, step = op.Abs(a), op.Abs(b)
    rest = op.Sub(size, op.Mul(step, op.Floor(op.Div(size, step))))
    rest = op.Where(op.Less(rest, 0.0), op.Add(rest, step), rest)
    return [op.Where(op.Less(a, 0.0), op.Neg(rest), rest)]


def _is_power_table(node: ir.Node) -> bool:
    exponent = optional_parameter(node, 1)
    return must_be_integer(node) and exponent is not None and exponent.size == 1


def _power(node: ir.Node, x: np.ndarray) -> np.ndarray:
    exponent = optional_parameter(node, 1)
    return x ** (1.0 if exponent is None else float(exponent.reshape(())))


def _power_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """|a|^b = exp(b log |a|), of an exponent that is computed: a base below 0 has no real power of any such number."""
    base, exponent = argument(node, 0), argument(node, 1)
    if base.dtype != ir.DataType.FLOAT or exponent.dtype != ir.DataType.FLOAT or constant(exponent) is not None:
        return None
    known = constant(base)
    log = np.log(np.maximum(np.abs(known), TINY)) if known is not None else op.Log(op.Max(op.Abs(base), TINY))
    return [op.Exp(op.Mul(exponent, log))]


def _prelu_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """TFLite's slope is a constant of one sample: else max(x, 0) + slope * min(x, 0)."""
    if _has_kernel(node):
        return None
    x, slope = argument(node, 0), argument(node, 1)
    return [op.Add(op.Relu(x), op.Mul(slope, op.Min(x, 0.0)))]


def _has_kernel(node: ir.Node) -> bool:
    slope = optional_parameter(node, 1)
    return slope is not None and (slope.ndim < len(shape(argument(node, 0))) or len(slope) == 1 or slope.size == 1)


# ---- channels and bounds ----


def _first_input(node: ir.Node, axes: ChannelAxes) -> None:
    broadcast(argument(node, 0), node.outputs[0], axes)


def _gate(least: float, function: Callable[[float], float]) -> Bounds:
    """x times something between 0 and 1 that rises with x: falls to `least`, then rises."""

    def bound(node: ir.Node, known: Known) -> Interval:
        x = bound_of(known, 0)
        value = np.vectorize(function, otypes=[np.float64])
        at = [value(np.clip(side, -1e30, 1e30)) for side in (x.low, x.high)]
        constant_ = x.low == x.high
        low = np.where(constant_ | (x.low >= 0), np.minimum(*at), least)
        return Interval(low, np.where(constant_, at[1], np.maximum(np.maximum(*at), 0)))

    return bound


def _add_bounds(node: ir.Node, known: Known) -> Interval:
    a, b = bound_of(known, 0), bound_of(known, 1)
    return Interval(a.low + b.low, a.high + b.high)


def _subtract_bounds(node: ir.Node, known: Known) -> Interval:
    a, b = bound_of(known, 0), bound_of(known, 1)
    return Interval(a.low - b.high, a.high - b.low)


def _multiply_bounds(node: ir.Node, known: Known) -> Interval:
    a, b = bound_of(known, 0), bound_of(known, 1)
    products = [times(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return Interval(np.minimum.reduce(products), np.maximum.reduce(products))


def _sigmoid(node: ir.Node, x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _clip(node: ir.Node, x: np.ndarray) -> np.ndarray:
    low, high = optional_parameter(node, 1), optional_parameter(node, 2)
    return np.clip(x, -np.inf if low is None else float(low), np.inf if high is None else float(high))


def _hard_sigmoid(node: ir.Node, x: np.ndarray) -> np.ndarray:
    return np.clip(number(node, "alpha", 0.2) * x + number(node, "beta", 0.5), 0, 1)


def _leaky(node: ir.Node, x: np.ndarray) -> np.ndarray:
    slope = number(node, "alpha", 0.01)
    return np.where(x >= 0, x, slope * x) if slope >= 0 else np.full_like(x, np.nan)


# ---- torch ----


def plain(name: str, module: str = "torch") -> TorchBuilder:
    """A function of torch of that name, which takes the node's inputs as they are."""

    def build(node: ir.Node) -> TorchFunction:
        found: TorchFunction = getattr(importlib.import_module(module), name)
        return found

    return build


def _identity_torch(node: ir.Node) -> TorchFunction:
    return lambda x: x


def _chain_torch(name: str) -> TorchBuilder:
    """A function of two tensors, over any number of them from the left."""

    def build(node: ir.Node) -> TorchFunction:
        import torch

        pair = getattr(torch, name)
        return lambda *xs: functools.reduce(pair, xs)

    return build


def _divide_torch(node: ir.Node) -> TorchFunction:
    """Whole numbers are divided towards zero."""
    import torch

    return lambda a, b: a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _modulo_torch(node: ir.Node) -> TorchFunction:
    import torch

    return torch.fmod if integer(node, "fmod", 0) else torch.remainder


def _prelu_torch(node: ir.Node) -> TorchFunction:
    import torch

    return lambda x, slope: torch.where(x >= 0, x, slope * x)


def _clip_torch(node: ir.Node) -> TorchFunction:
    import torch

    low, high = (None if (a := optional_parameter(node, i)) is None else a.item() for i in (1, 2))
    return lambda x, *bounds: torch.clamp(x, low, high)


def _elu_torch(node: ir.Node) -> TorchFunction:
    from torch.nn import functional as F

    alpha = number(node, "alpha", 1.0)
    return lambda x: F.elu(x, alpha)


def _gelu_torch(node: ir.Node) -> TorchFunction:
    from torch.nn import functional as F

    return functools.partial(F.gelu, approximate=text(node, "approximate", "none"))


def _hard_sigmoid_torch(node: ir.Node) -> TorchFunction:
    import torch

    alpha, beta = number(node, "alpha", 0.2), number(node, "beta", 0.5)
    return lambda x: torch.clamp(x * alpha + beta, 0.0, 1.0)


def _leaky_relu_torch(node: ir.Node) -> TorchFunction:
    from torch.nn import functional as F

    alpha = number(node, "alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


# ---- the records ----

OPERANDS = Weights(by_place=True, least=2)  # scalar factors and addends belong to the formula
TWO = {"x": (1, 4, 6, 5), "z": (1, 4, 6, 5)}


def function(name: str, **fields: Any) -> Operator:
    """A record of an operator that is a function of one variable."""
    given = {"channels": elementwise, "layout": "free", "examples": (Example(f"y = {name}(x)"),), **fields}
    return Operator(name, **given)


register(
    # two operands
    Operator(
        "Add",
        examples=(Example("y = Add(x, z)", TWO), Example("y = Add(x, c)", weights={"c": (4, 1, 1)})),
        channels=elementwise,
        bounds=_add_bounds,
        torch=plain("add"),
        weights=OPERANDS,
        integer=Integer(data=None, sum=Sum("total"), int16=always),
        tflite=binary("ADD"),
        layout="free",
    ),
    Operator(
        "Sub",
        examples=(Example("y = Sub(x, z)", TWO), Example("y = Sub(c, x)", weights={"c": (4, 1, 1)})),
        channels=elementwise,
        bounds=_subtract_bounds,
        torch=plain("sub"),
        weights=OPERANDS,
        integer=Integer(data=None, sum=Sum("total"), int16=always),
        tflite=binary("SUB"),
        layout="free",
    ),
    Operator(
        "Mul",
        examples=(Example("y = Mul(x, z)", TWO), Example("y = Mul(x, c)", weights={"c": (4, 1, 1)})),
        channels=elementwise,
        bounds=_multiply_bounds,
        torch=plain("mul"),
        weights=OPERANDS,
        integer=Integer(data=None, sum=Sum("product"), int16=always),
        tflite=binary("MUL"),
        layout="free",
    ),
    Operator(
        "Div",
        examples=(Example("e = Exp(z) y = Div(x, e)", TWO),),
        channels=elementwise,
        integer_parts=_divide_parts,
        torch=_divide_torch,
        weights=OPERANDS,
        tflite=binary("DIV"),
        layout="free",
    ),
    Operator(
        "Pow",
        examples=(
            Example("a = Abs(x) y = Pow(a, e)", constants={"e": np.float32(1.7)}),
            Example("a = Abs(x) b = Add(a, e) t = Tanh(z) y = Pow(b, t)", TWO, constants={"e": np.float32(0.5)}),
        ),
        channels=elementwise,
        torch=plain("pow"),
        integer_parts=_power_parts,
        integer=Integer(accepts=_is_power_table),
        tflite=binary("POW"),
        function=Function(_power),
        layout="free",
    ),
    Operator(
        "Mod",
        examples=(Example("e = Exp(z) y = Mod<fmod=1>(x, e)", TWO),),
        parts=_modulo_parts,
        torch=_modulo_torch,
        tflite=binary("FLOOR_MOD"),
        layout="free",
    ),
    Operator(
        "Max",
        examples=(Example("y = Max(x, z)", TWO),),
        channels=elementwise,
        torch=_chain_torch("maximum"),
        integer=Integer(SAME, data=None, accepts=lambda node: len(node.inputs) == 2, int16=always),
        tflite=binary("MAXIMUM"),
        layout="free",
    ),
    Operator(
        "Min",
        examples=(Example("y = Min(x, z)", TWO),),
        channels=elementwise,
        torch=_chain_torch("minimum"),
        integer=Integer(SAME, data=None, accepts=lambda node: len(node.inputs) == 2, int16=always),
        tflite=binary("MINIMUM"),
        layout="free",
    ),
    Operator(
        "PRelu",
        examples=(
            Example("y = PRelu(x, c)", weights={"c": (4, 1, 1)}),
            Example("y = PRelu(x, c)", weights={"c": (1,)}),
            Example("y = PRelu(x, c)", {"x": (3, 4, 5)}, {"c": (3, 4, 5)}),
            Example("y = PRelu(x, z)", {"x": (1, 4, 5), "z": (1, 4, 1)}),
        ),
        parts=_prelu_parts,
        integer_parts=_prelu_parts,
        channels=elementwise,
        homogeneous=True,
        torch=_prelu_torch,
        weights=Weights(learned=(1,)),
        integer=Integer(data=(0, 1), accepts=_has_kernel),
        tflite=_lower_prelu,
        layout="free",
    ),
    # functions of one variable
    function("Abs", torch=plain("abs"), integer=Integer(), tflite=unary("ABS"), homogeneous=False),
    Operator(
        "Clip",
        examples=(
            Example("y = Clip(x, a, b)", constants={"a": np.float32(-0.5), "b": np.float32(0.7)}),
            Example("y = Clip(x, a, b)", constants={"a": np.float32(0), "b": np.float32(6)}),
            Example("y = Clip(x, a)", constants={"a": np.float32(-0.5)}),
        ),
        accepts=constant_inputs(1, 2),
        channels=_first_input,
        torch=_clip_torch,
        integer=Integer(sum=Sum("sum", whole=False)),
        tflite=_lower_clip,
        layout="free",
        function=Function(_clip, rises=True),
    ),
    function(
        "Elu",
        examples=(Example("y = Elu(x)"), Example("y = Elu<alpha=0.5>(x)")),
        parts=_elu_parts,
        integer_parts=_elu_parts,
        torch=_elu_torch,
        integer=Integer(),
        tflite=unary("ELU"),
    ),
    function(
        "Erf",
        parts=_erf_parts,
        torch=plain("erf"),
        integer=TABLE_WHERE_NEEDED,
        function=Function(lambda node, x: np.vectorize(math.erf, otypes=[np.float64])(x), rises=True),
    ),
    function(
        "Exp",
        torch=plain("exp"),
        integer=Integer(),
        tflite=unary("EXP"),
        function=Function(lambda node, x: np.exp(x), rises=True),
    ),
    function(
        "Gelu",
        examples=(Example("y = Gelu(x)"), Example('y = Gelu<approximate="tanh">(x)')),
        bounds=_gate(-0.1701, lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
        torch=_gelu_torch,
        integer=Integer(flat_below=-3.5),  # 0.0008 from 0
        tflite=_lower_gelu,
    ),
    function(
        "HardSigmoid",
        parts=_hard_sigmoid_parts,
        integer_parts=_hard_sigmoid_parts,
        bounds=rising(_hard_sigmoid),
        torch=_hard_sigmoid_torch,
    ),
    function(
        "HardSwish",
        bounds=_gate(-0.376, lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0)),
        torch=plain("hardswish", "torch.nn.functional"),
        integer=Integer(),
        tflite=unary("HARD_SWISH"),
    ),
    function(
        "Identity",
        torch=_identity_torch,
        integer=Integer(sum=Sum("sum"), int16=always),
        tflite=_lower_identity,
        function=Function(lambda node, x: x, rises=True),
    ),
    function(
        "LeakyRelu",
        homogeneous=True,
        torch=_leaky_relu_torch,
        integer=Integer(int16=always),
        tflite=_lower_leaky_relu,
        function=Function(_leaky, rises=True),
    ),
    function(
        "Log",
        examples=(Example("a = Abs(x) e = Add(a, c) y = Log(e)", constants={"c": np.float32(0.5)}),),
        torch=plain("log"),
        integer=TABLE_WHERE_NEEDED,
        tflite=unary("LOG"),
        function=Function(lambda node, x: np.log(np.maximum(x, 0))),
    ),
    function(
        "Neg",
        torch=plain("neg"),
        integer=TABLE_WHERE_NEEDED,
        tflite=unary("NEG"),
        function=Function(lambda node, x: -x),
    ),
    function(
        "Reciprocal",
        examples=(Example("a = Abs(x) e = Add(a, c) y = Reciprocal(e)", constants={"c": np.float32(0.5)}),),
        parts=_reciprocal_parts,
        torch=plain("reciprocal"),
        integer=TABLE_WHERE_NEEDED,
        function=Function(lambda node, x: 1 / x),
    ),
    function(
        "Relu",
        homogeneous=True,
        torch=plain("relu"),
        integer=Integer(sum=Sum("sum"), int16=always),
        tflite=unary("RELU"),
        function=Function(lambda node, x: np.maximum(x, 0), rises=True),
    ),
    function(
        "Sigmoid",
        torch=plain("sigmoid"),
        integer=fixed_output(1 / 256, -128),
        tflite=unary("LOGISTIC"),
        function=Function(_sigmoid, rises=True),
        ranks=True,
    ),
    function("Softplus", parts=_softplus_parts, function=Function(lambda node, x: np.logaddexp(x, 0), rises=True)),
    function("Softsign", function=Function(lambda node, x: x / (1 + np.abs(x)), rises=True)),
    function(
        "Sqrt",
        examples=(Example("a = Abs(x) y = Sqrt(a)"),),
        torch=plain("sqrt"),
        integer=TABLE_WHERE_NEEDED,
        tflite=unary("SQRT"),
        function=Function(lambda node, x: np.sqrt(np.maximum(x, 0))),
    ),
    function(
        "Tanh",
        torch=plain("tanh"),
        integer=fixed_output(1 / 128, 0),
        tflite=unary("TANH"),
        function=Function(lambda node, x: np.tanh(x), rises=True),
    ),
)
