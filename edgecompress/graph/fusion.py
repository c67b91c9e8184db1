"""Which nodes run as one operator on a device: a layer with its bias and its activation.

The values inside such a group never exist at run time, so they are not quantized, and both
emitters and the quantizer must agree on the grouping: it is decided here alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

BIASED = {"MatMul"}  # takes its bias from an Add that follows; Conv and Gemm carry their own
ACTIVATED = {"Conv", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div"}
CLIPS = {(0.0, 6.0): "Relu6", (-1.0, 1.0): "ReluN1To1"}


@dataclass(frozen=True)
class Layer:
    """node [-> bias_add] [-> activation]; `output` is the only value that exists at run time."""

    node: ir.Node
    bias_add: ir.Node | None
    activation: ir.Node | None
    activation_kind: str | None  # "Relu", "Relu6", "ReluN1To1" or None

    @property
    def last(self) -> ir.Node:
        """The node whose outputs exist at run time."""
        return self.activation or self.bias_add or self.node

    @property
    def output(self) -> ir.Value:
        """The first output of the last node."""
        return self.last.outputs[0]

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """One to three nodes, in the order in which they run."""
        return tuple(n for n in (self.node, self.bias_add, self.activation) if n is not None)

    @property
    def bias(self) -> ir.Value | None:
        """float32 [output channels] initializer, or None."""
        if self.bias_add is not None:
            return next(v for v in self.bias_add.inputs if v is not None and v.const_value is not None)
        if self.node.op_type in {"Conv", "ConvTranspose", "Gemm"} and len(self.node.inputs) > 2:
            return self.node.inputs[2]
        return None


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer, or None when the value is computed (or absent)."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def activation_kind(node: ir.Node) -> str | None:
    """ "Relu", "Relu6" or "ReluN1To1" when a TFLite operator can absorb the node, else None."""
    if node.op_type == "Relu":
        return "Relu"
    if node.op_type == "Clip":
        bounds = [constant(v) for v in node.inputs[1:3]]
        low = None if len(bounds) < 1 or bounds[0] is None else float(bounds[0])
        high = None if len(bounds) < 2 or bounds[1] is None else float(bounds[1])
        if low == 0.0 and high is None and (len(node.inputs) < 3 or node.inputs[2] is None):
            return "Relu"
        if low is not None and high is not None:
            return CLIPS.get((low, high))
    return None


def layers(graph: ir.Graph) -> list[Layer]:
    """Every node of the graph exactly once, in order, grouped; unfusable nodes alone."""
    taken: set[ir.Node] = set()
    result = []
    for node in graph:
        if node in taken:
            continue
        bias_add = activation = kind = None
        last = node
        if node.op_type in BIASED and constant(node.inputs[1]) is not None:
            follower = _only_consumer(last)
            if follower is not None and follower.op_type == "Add" and _is_bias(follower, node):
                bias_add = last = follower
        if node.op_type in ACTIVATED and not _is_batched(node):
            follower = _only_consumer(last)
            if follower is not None and (kind := activation_kind(follower)) is not None:
                activation = last = follower
        taken.update(n for n in (node, bias_add, activation) if n is not None)
        result.append(Layer(node, bias_add, activation, kind))
    return result


def _is_batched(node: ir.Node) -> bool:
    """A MatMul of two computed values: BATCH_MATMUL has no fused activation."""
    return node.op_type == "MatMul" and constant(node.inputs[1]) is None


def _only_consumer(node: ir.Node) -> ir.Node | None:
    if len(node.outputs) != 1 or node.outputs[0].is_graph_output():
        return None
    uses = tuple(node.outputs[0].uses())
    return uses[0].node if len(uses) == 1 else None


def _is_bias(add: ir.Node, matmul: ir.Node) -> bool:
    weight = constant(matmul.inputs[1])
    if weight is None or weight.ndim != 2:
        return False
    bias = next((constant(v) for v in add.inputs if v is not matmul.outputs[0]), None)
    return bias is not None and bias.shape == (weight.shape[1],) and bias.dtype == np.float32
