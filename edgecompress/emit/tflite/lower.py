"""Operators that TFLite lacks, written with ones that it has: onnx_ir.Model -> onnx_ir.Model.

Runs on a copy just before emission (the parts compute in float); for a target that needs every operator in
int8, `INTEGER_RULES` run before calibration. A rule is one function; the table `RULES` is the whole dispatch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgecompress.errors import UnsupportedModelError
from edgecompress.lowering.context import shape

MAX_STEPS = 512  # an unrolled step is a dozen operators


class Parts:
    """Collects the nodes that replace one node; `parts.Add(a, b)` appends an Add and returns its output."""

    def __init__(self, node: ir.Node) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self._prefix = node.name or node.outputs[0].name or node.op_type

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        def add(*inputs: ir.Value | np.ndarray | float, **attributes: object) -> ir.Value:
            return self.several(op_type, 1, *inputs, **attributes)[0]

        return add

    def several(
        self, op_type: str, count: int, *inputs: ir.Value | np.ndarray | float, **attributes: object
    ) -> Sequence[ir.Value]:
        """As an attribute call, for an operator with `count` outputs."""
        values = [v if isinstance(v, ir.Value) else self.constant(v) for v in inputs]
        name = f"{self._prefix}/{op_type}_{len(self.nodes)}"
        node = ir.node(op_type, values, attributes=attributes, num_outputs=count, name=name)
        for i, output in enumerate(node.outputs):
            output.name = name if count == 1 else f"{name}:{i}"
        self.nodes.append(node)
        return node.outputs

    def constant(self, array: np.ndarray | float) -> ir.Value:
        """Initializer; floats become float32, everything else int64."""
        array = np.asarray(array)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        name = f"{self._prefix}/constant_{len(self.initializers)}"
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.initializers.append(value)
        return value


# what replaces the node's outputs, or None when the node can stay
Rule = Callable[[Parts, ir.Node], Sequence[ir.Value] | None]


def lower(model: ir.Model, rules: Mapping[str, Rule] | None = None) -> ir.Model:
    """Apply the rules (default: all) to every node that has one, in place; shapes of the new values are inferred."""
    rules = RULES if rules is None else rules
    changed = False
    for node in list(model.graph):
        rule = rules.get(node.op_type)
        if rule is None:
            continue
        parts = Parts(node)
        results = rule(parts, node)
        if results is None:
            continue
        for value in parts.initializers:
            model.graph.register_initializer(value)
        used = [(old, new) for old, new in zip(node.outputs, results) if old.uses() or old.is_graph_output()]
        for old, new in used:
            new.name, new.shape, new.type = old.name, old.shape, old.type
            new.meta.update(old.meta)
        ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], parts.nodes, [old for old, _ in used], [new for _, new in used]
        )
        changed = True
    return ShapeInferencePass()(model).model if changed else model


def number(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)


def hard_sigmoid(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """max(0, min(1, alpha x + beta))"""
    scaled = op.Mul(node.inputs[0], number(node, "alpha", 0.2))
    return [op.Clip(op.Add(scaled, number(node, "beta", 0.5)), 0.0, 1.0)]


def reciprocal(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return [op.Div(1.0, node.inputs[0])]


def elu(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """TFLite's ELU has alpha 1 only: max(x, 0) + alpha * (exp(min(x, 0)) - 1)."""
    alpha = number(node, "alpha", 1.0)
    if alpha == 1.0:
        return None
    x = node.inputs[0]
    return [op.Add(op.Relu(x), op.Mul(op.Elu(op.Min(x, 0.0)), alpha))]


def conv_transpose(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """TFLite's TRANSPOSE_CONV has no groups: the same weights [I, O/g, ...] as one [I, O, ...] with zeros between."""
    groups = int(number(node, "group", 1))
    if groups == 1:
        return None
    grouped = node.inputs[1].const_value.numpy()
    inputs, outputs = grouped.shape[0] // groups, grouped.shape[1]
    dense = np.zeros((grouped.shape[0], outputs * groups, *grouped.shape[2:]), np.float32)
    for g in range(groups):
        rows = slice(g * inputs, (g + 1) * inputs)
        dense[rows, g * outputs : (g + 1) * outputs] = grouped[rows]
    attributes = {name: a.value for name, a in node.attributes.items() if name != "group"}
    return [op.ConvTranspose(node.inputs[0], dense, node.inputs[2], **attributes)]


def erf(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: absolute error at most 1.5e-7."""
    x = node.inputs[0]
    size = op.Abs(x)
    t = op.Div(1.0, op.Add(op.Mul(size, 0.3275911), 1.0))
    poly = op.Mul(t, 1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        poly = op.Mul(op.Add(poly, coefficient), t)
    positive = op.Sub(1.0, op.Mul(poly, op.Exp(op.Neg(op.Mul(x, x)))))
    return [op.Where(op.Less(x, 0.0), op.Neg(positive), positive)]


def normalised(op: Parts, x: ir.Value, axes: Sequence[int], epsilon: float) -> ir.Value:
    """(x - mean) / sqrt(variance + epsilon) over `axes`."""
    centred = op.Sub(x, op.ReduceMean(x, np.array(axes), keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), np.array(axes), keepdims=1)
    return op.Div(centred, op.Sqrt(op.Add(variance, epsilon)))


def layer_normalization(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x, rank = node.inputs[0], len(shape(node.inputs[0]))
    axes = list(range(int(number(node, "axis", -1)) % rank, rank))
    result = op.Mul(normalised(op, x, axes, number(node, "epsilon", 1e-5)), node.inputs[1])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = op.Add(result, node.inputs[2])
    return [result]


def instance_normalization(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x, scale, bias = node.inputs
    rank = len(shape(x))
    per_channel = [1, -1] + [1] * (rank - 2)
    scale, bias = (v.const_value.numpy().reshape(per_channel) for v in (scale, bias))
    centred = normalised(op, x, range(2, rank), number(node, "epsilon", 1e-5))
    return [op.Add(op.Mul(centred, scale), bias)]


def lstm(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Unrolled (ONNX LSTM: gates in the order i, o, f, c; default activations)."""
    if len(node.inputs) > 7 and node.inputs[7] is not None:
        raise UnsupportedModelError(f"node {node.name!r}: LSTM with peephole weights")

    def step(gates_x: ir.Value, state: list[ir.Value], recurrent: np.ndarray, _bias: np.ndarray) -> list[ir.Value]:
        hidden, cell = state
        gates = op.Add(gates_x, linear(op, hidden, recurrent))
        i, o, f, c = op.several("Split", 4, gates, axis=1, num_outputs=4)
        cell = op.Add(op.Mul(op.Sigmoid(f), cell), op.Mul(op.Sigmoid(i), op.Tanh(c)))
        return [op.Mul(op.Sigmoid(o), op.Tanh(cell)), cell]

    return unrolled(op, node, step, gates=4, states=2, split_bias=0)


def linear(op: Parts, x: ir.Value, weight: np.ndarray, bias: np.ndarray | None = None) -> ir.Value:
    """x W^T (+ b); computed here and now when x is constant, as the first state of a recurrent layer is."""
    if x.const_value is not None:
        return op.constant(x.const_value.numpy() @ weight.T + (0 if bias is None else bias))
    product = op.MatMul(x, np.ascontiguousarray(weight.T))
    return product if bias is None else op.Add(product, bias)


def gru(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Unrolled (ONNX GRU: gates in the order z, r, h; default activations)."""
    reset_after = int(number(node, "linear_before_reset", 0)) == 1

    def step(gates_x: ir.Value, state: list[ir.Value], recurrent: np.ndarray, bias: np.ndarray) -> list[ir.Value]:
        (hidden,) = state
        size = recurrent.shape[1]
        z_x, r_x, h_x = op.several("Split", 3, gates_x, axis=1, num_outputs=3)
        zr = op.Add(op.Concat(z_x, r_x, axis=1), linear(op, hidden, recurrent[: 2 * size]))
        z, r = op.several("Split", 2, op.Sigmoid(zr), axis=1, num_outputs=2)
        if reset_after:
            inner = op.Mul(r, linear(op, hidden, recurrent[2 * size :], bias))
        else:
            inner = linear(op, op.Mul(r, hidden), recurrent[2 * size :], bias)
        candidate = op.Tanh(op.Add(h_x, inner))
        return [op.Add(op.Mul(op.Sub(1.0, z), candidate), op.Mul(z, hidden))]

    return unrolled(op, node, step, gates=3, states=1, split_bias=1)


def unrolled(
    op: Parts, node: ir.Node, step: Callable, *, gates: int, states: int, split_bias: int
) -> Sequence[ir.Value]:
    """Y [T, D, B, H] and final states [D, B, H] each, one copy of `step` per time step and direction.

    split_bias: how many of the last gates get their recurrent bias inside `step` in place of up front.
    """
    x, weights, recurrents, hidden_size = node.inputs[0], *_weights(node)
    if node.attributes.get("activations") is not None and not _default_activations(node, gates):
        raise UnsupportedModelError(f"node {node.name!r}: {node.op_type} with activations of its own")
    if node.attributes.get("clip") is not None or number(node, "input_forget", 0) or number(node, "layout", 0):
        raise UnsupportedModelError(f"node {node.name!r}: {node.op_type} with clip, input_forget or layout=1")
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        raise UnsupportedModelError(f"node {node.name!r}: {node.op_type} with sequence lengths")
    steps, batch, _ = shape(x)
    if steps > MAX_STEPS:
        raise UnsupportedModelError(
            f"node {node.name!r}: {node.op_type} over {steps} steps; up to {MAX_STEPS} are unrolled. "
            "Pass a shorter --input-shape"
        )
    kind = node.attributes.get("direction")
    direction = "forward" if kind is None else kind.as_string()
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    bias = node.inputs[3] if len(node.inputs) > 3 else None
    none = np.zeros((len(backwards), 2 * gates * hidden_size), np.float32)
    biases = none if bias is None else bias.const_value.numpy()
    kept = (gates - split_bias) * hidden_size  # biases that can be added up front
    by_direction, finals = [], []
    for d, reverse in enumerate(backwards):
        input_bias, recurrent_bias = np.split(biases[d], 2)
        ahead = input_bias + np.concatenate([recurrent_bias[:kept], np.zeros_like(recurrent_bias[kept:])])
        projected = op.Add(op.MatMul(x, np.ascontiguousarray(weights[d].T)), ahead)
        rows = op.several("Split", steps, projected, axis=0, num_outputs=steps) if steps > 1 else [projected]
        state = [_initial(op, node, 5 + s, d, batch, hidden_size) for s in range(states)]
        outputs: list[ir.Value] = []
        for t in reversed(range(steps)) if reverse else range(steps):
            row = op.Reshape(rows[t], np.array([batch, gates * hidden_size]))
            state = step(row, state, recurrents[d], recurrent_bias[kept:])
            outputs.append(op.Reshape(state[0], np.array([1, 1, batch, hidden_size])))
        ordered = outputs[::-1] if reverse else outputs
        by_direction.append(op.Concat(*ordered, axis=0))
        finals.append([op.Reshape(s, np.array([1, batch, hidden_size])) for s in state])
    sequence = by_direction[0] if len(backwards) == 1 else op.Concat(*by_direction, axis=1)
    last = [f[0] if len(backwards) == 1 else op.Concat(*f, axis=0) for f in zip(*finals)]
    return [sequence, *last]


def _weights(node: ir.Node) -> tuple[np.ndarray, np.ndarray, int]:
    arrays = [None if v.const_value is None else v.const_value.numpy() for v in node.inputs[1:3]]
    if arrays[0] is None or arrays[1] is None:
        raise UnsupportedModelError(f"node {node.name!r}: {node.op_type} with computed weights")
    return arrays[0], arrays[1], arrays[1].shape[2]


def _default_activations(node: ir.Node, gates: int) -> bool:
    default = ["sigmoid", "tanh", "tanh"] if gates == 4 else ["sigmoid", "tanh"]
    given = [a.lower() for a in node.attributes["activations"].as_strings()]
    return given == default * (len(given) // len(default))


def _initial(op: Parts, node: ir.Node, position: int, direction: int, batch: int, size: int) -> ir.Value:
    value = node.inputs[position] if len(node.inputs) > position else None
    if value is None:
        return op.constant(np.zeros((batch, size), np.float32))
    if value.const_value is not None:
        return op.constant(value.const_value.numpy()[direction])
    row = op.Slice(value, np.array([direction]), np.array([direction + 1]), np.array([0]))
    return op.Reshape(row, np.array([batch, size]))


RULES: dict[str, Rule] = {
    "ConvTranspose": conv_transpose,
    "Elu": elu,
    "Erf": erf,
    "GRU": gru,
    "HardSigmoid": hard_sigmoid,
    "InstanceNormalization": instance_normalization,
    "LSTM": lstm,
    "LayerNormalization": layer_normalization,
    "Reciprocal": reciprocal,
}
# those whose parts all have int8 kernels, where the whole has none
INTEGER_RULES = {kind: RULES[kind] for kind in ("ConvTranspose", "Elu", "GRU", "HardSigmoid", "LSTM")}
