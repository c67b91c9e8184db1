"""The record of an ONNX operator, which holds everything known about it, and the registry of all records.

Every field but the name and the examples has a default that is safe: an operator of which nothing else is said can
be read and written to ONNX, stays in float, costs nothing, and keeps its channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import Quantization, must_be_integer, only_in_onnx
from edgecompress.graph.batch_axes import Growth
from edgecompress.graph.channel_axes import ChannelAxes
from edgecompress.graph.channel_rules import fix_all
from edgecompress.graph.fusion import Layer
from edgecompress.graph.intervals import Interval, Known
from edgecompress.lowering.context import Context
from edgecompress.lowering.parts import Rule as Parts
from edgecompress.operators.example import Example

if TYPE_CHECKING:
    from torch import Tensor

Accepts = Callable[[ir.Node], "str | None"]  # why a node can't be converted, or None
Channels = Callable[[ir.Node, ChannelAxes], None]
Bounds = Callable[[ir.Node, Known], Interval]
Lowering = Callable[[Context, Layer], None]
TorchFunction = Callable[..., "Tensor | Sequence[Tensor]"]
TorchBuilder = Callable[[ir.Node], TorchFunction]
# (node, another batch size) -> constants at positions of its inputs (None: none), or None where no other can be had
Batch = Callable[[ir.Node, Growth], "dict[int, np.ndarray | None] | None"]
# (value, axis) -> bool for each position along it: whether it is kept
Kept = Callable[[ir.Value, int], np.ndarray]
# puts another constant at a position of a node's inputs
Renew = Callable[[ir.Node, int, np.ndarray], None]
Change = Callable[[ir.Node, Kept, Renew], None]

FREE, SAME, FIXED = "free", "same parameters", "fixed output"


def any_node(node: ir.Node) -> str | None:
    """Nothing is refused."""
    return None


def any_batch(node: ir.Node, growth: Growth) -> dict[int, np.ndarray | None]:
    """No constant says how many samples there are."""
    return {}


def always(node: ir.Node) -> bool:
    """True for every node."""
    return True


def never(node: ir.Node) -> bool:
    """False for every node."""
    return False


def no_macs(node: ir.Node) -> int:
    """Nothing is multiplied and added up."""
    return 0


@dataclass(frozen=True)
class Function:
    """A function of one variable, applied to each element.

    compute: (node, x) -> y of x's shape and dtype, which may be float32 or float64. rises: whether y never falls
    where x grows, so that bounds of x give bounds of y.
    """

    compute: Callable[[ir.Node, np.ndarray], np.ndarray]
    rises: bool = False


@dataclass(frozen=True)
class Sum:
    """What an int8 kernel adds up before it scales the result to its output.

    unit: what one step of the sum is worth: "product" (of the input's scale and the weight's or the other operand's),
        "total" (of the larger of two scales, shifted up), "mean" (of the input's scale over the number of summands) or
        "sum" (of the input's scale).
    axis: of the output, along which steps differ; None: one for all.
    whole: False where the result may also be a bound, which is no multiple of a step.
    """

    unit: Literal["product", "total", "mean", "sum"]
    axis: int | None = None
    whole: bool = True


UNIT_INT16 = Quantization(np.array([2.0**-15], np.float32), np.zeros(1, np.int32), None, ir.DataType.INT16)


@dataclass(frozen=True)
class Integer:
    """How an operator computes on int8. The constraints are those of the TFLite 8-bit quantization specification
    (https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec).

    output: FREE (own scale), SAME (one scale for the data inputs and all outputs) or FIXED (`fixed`).
    data: indices of the inputs that are real numbers to quantize; None means all.
    weight: index of the input with int8 weights, when constant; weight_axis: its output-channel axis.
    passive: moves numbers and computes nothing, so alone between float operators it stays float.
    accepts: whether this very node has an int8 kernel. frees: whether its output is FREE all the same.
    computes: with SAME, whether the output has numbers that the input does not have.
    sum: what the kernel adds up; None: it looks its results up, or moves them, and rounds to the nearest.
    int16: whether this very node also has a kernel for int16 activations with zero point 0, int8 weights and int64
        biases (TFLite's 16x8 scheme), in TFLite and in TensorFlow Lite Micro.
    flat_below: inputs below which the output is nearer to a constant than int8 can show: ranges end there.
    """

    output: str = FREE
    data: tuple[int, ...] | None = (0,)
    fixed: Quantization | None = None
    weight: int | None = None
    weight_axis: int = 0
    passive: bool = False
    accepts: Callable[[ir.Node], bool] = always
    frees: Callable[[ir.Node], bool] = never
    computes: bool = False
    sum: Sum | None = None
    int16: Callable[[ir.Node], bool] = never
    flat_below: float = -math.inf

    def fixed_at(self, bits: int) -> Quantization | None:
        """The output's quantization where the operator fixes it: at 16 bits, -1..1 for all of them."""
        return self.fixed if bits == 8 or self.fixed is None else UNIT_INT16


# of a function that has a float kernel: a table where nothing may stay float
TABLE_WHERE_NEEDED = Integer(accepts=must_be_integer)
# of two numbers that are compared: one scale for both costs more than it gains where floats may stay
COMPARED_WHERE_NEEDED = Integer(SAME, data=(0, 1), accepts=must_be_integer)


@dataclass(frozen=True)
class MatrixInput:
    """A weight that is multiplied with: the position of the input, its axes of output and of input channels."""

    position: int
    out: int
    into: int


@dataclass(frozen=True)
class View:
    """How one operator is a matrix product.

    matrix: (node, weight) -> [output channels, inputs of one output], the channels of a group together.
    windows: (node, x [n, ...]) -> view [n, positions..., groups, parts of the inputs of one output...].
    channels_last: whether the output's channels are its last axis, else they are axis 1.
    """

    matrix: Callable[[ir.Node, np.ndarray], np.ndarray]
    windows: Callable[[ir.Node, np.ndarray], np.ndarray]
    channels_last: bool


@dataclass(frozen=True)
class Weights:
    """Which constants an operator's node has learned, if they are float32 arrays.

    learned: positions of inputs that training may change. by_place: whether any input may be one that it has learned,
    or a constant of a formula: its place in the graph says which. least: elements that such a constant has at least:
    scalar factors belong to the formula. matrices: those that make or read channels. view: the layer as a matrix
    product, for clustering. stored: those that a node in float may have as int8, if `stores` says so of this very node;
    its parts hand their quantization on. stored_axis: along which these have scales; None: one for all.
    """

    learned: tuple[int, ...] = ()
    by_place: bool = False
    least: int = 1
    matrices: tuple[MatrixInput, ...] = ()
    view: View | None = None
    stored: tuple[int, ...] = ()
    stored_axis: int | None = None
    stores: Callable[[ir.Node], bool] = always


@dataclass(frozen=True)
class Operator:
    """One operator of the ONNX standard in canonical models.

    name: `op_type`. examples: small networks that the tests run through everything.
    accepts: why a node can't be converted, or None. only_in_training: conversion folds it; it stays in models that are
        to be trained.
    parts: writes a node with other operators, for whoever lacks this one; it may return None for nodes that it leaves
        as they are. Default: the function body in the ONNX standard, if it has one. integer_parts: the same
        with parts that all have int8 kernels, for nodes that have none, written before quantization: always where the
        operator computes on int8 in other forms (`integer`), else for targets that compute on nothing but integers.
    channels: couples positions along the axes of the node's values (pruning). bounds: of the output from those of the
        inputs; default: from a rising `function`, else unknown. homogeneous: f(s x) = s f(x) for s > 0 of each channel.
    batch: which constants another batch size changes. change: parameters that say how long an axis is, after some of
        its positions have gone.
    torch: a function of the node's inputs, for training; default: from its parts. weights: what the node has learned.
    integer: how it computes on int8; default: it stays float, or is a table where it has a `function`.
    tflite: writes a layer as TFLite operators; default: a table on int8, its parts in float. layout: "free" when it
        works in any order of axes, "channels" when it works on images with channels last, else "none".
    macs: multiply-accumulates of a node. function: what it computes, if that is a function of one variable.
    ranks: squashes or ranks its input, so that errors are measured in front of it.
    """

    name: str
    examples: tuple[Example, ...] = ()
    accepts: Accepts = any_node
    only_in_training: bool = False
    parts: Parts | None = None
    integer_parts: Parts | None = None
    channels: Channels = fix_all
    bounds: Bounds | None = None
    homogeneous: bool = False
    batch: Batch = any_batch
    change: Change | None = None
    torch: TorchBuilder | None = None
    weights: Weights = field(default_factory=Weights)
    integer: Integer | None = None
    tflite: Lowering | None = None
    layout: Literal["free", "channels", "none"] = "none"
    macs: Callable[[ir.Node], int] = no_macs
    function: Function | None = None
    ranks: bool = False

    @property
    def int8(self) -> Integer | None:
        """How it computes on int8, `integer` or as a table of its function's results; None: it stays float."""
        is_table = self.integer is None and self.tflite is None and self.function is not None
        return Integer() if is_table else self.integer


_OPERATORS: dict[str, Operator] = {}
OPERATORS: Mapping[str, Operator] = _OPERATORS


def register(*records: Operator) -> None:
    """Adds records to OPERATORS. Raises ValueError for a name that has one already."""
    for record in records:
        if record.name in _OPERATORS:
            raise ValueError(f"operator {record.name} has two records: keep only one")
        _OPERATORS[record.name] = record


def record_of(node: ir.Node) -> Operator:
    """The record of the node's operator; for one without, and for a node that only ONNX can have, a record that has
    nothing but the defaults.
    """
    record = None if only_in_onnx(node) else _OPERATORS.get(node.op_type)
    return record or Operator(node.op_type)
