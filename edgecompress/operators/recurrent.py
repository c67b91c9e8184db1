"""LSTM, GRU and RNN."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.annotations import Quantization, quantization, set_quantization, set_twin
from edgecompress.graph.batch_axes import Growth
from edgecompress.graph.channel_axes import ChannelAxes, elements, shape
from edgecompress.graph.nodes import argument, integer, number, optional_parameter, text
from edgecompress.graph.provenance import label
from edgecompress.lowering.parts import Parts
from edgecompress.operators.checks import constant_inputs
from edgecompress.operators.example import Example
from edgecompress.operators.record import Kept, MatrixInput, Operator, Renew, TorchFunction, Weights, register

if TYPE_CHECKING:
    from torch import Tensor

# (the input's share of the gates, states, R of one direction, the recurrent bias) -> the next states
Step = Callable[[ir.Value, list[ir.Value], "Matrix", np.ndarray], list[ir.Value]]
TorchStep = Callable[["Tensor", "list[Tensor]", "Tensor", "Tensor"], "list[Tensor]"]
MAX_STEPS = 512  # an unrolled step is a dozen operators


def _accepts(node: ir.Node) -> str | None:
    peepholes = len(node.inputs) > 7 and node.inputs[7] is not None
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        return f"operator {node.op_type} with sequence_lens"
    if peepholes or node.attributes.get_float("clip") or integer(node, "input_forget", 0):
        return f"operator {node.op_type} with peepholes, clip or input_forget"
    if integer(node, "layout", 0):
        return f"operator {node.op_type} with the batch first (layout = 1)"
    given = node.attributes.get_strings("activations")
    if given and not (node.op_type == "RNN" and set(given) == {"Tanh"}):  # the standard's default for both directions
        return f"operator {node.op_type} with other activations than the default ones"
    return constant_inputs(1, 2, 3)(node)


# ---- unrolled ----


@dataclass(frozen=True)
class Matrix:
    """W or R of one direction, [gates * hidden, in], and how it is stored."""

    array: np.ndarray
    stored: Quantization | None

    def rows(self, first: int, last: int | None = None) -> Matrix:
        """Some gates of it."""
        return Matrix(self.array[first:last], self.stored)

    def transposed(self, op: Parts) -> ir.Value:
        """The constant [in, gates * hidden]."""
        value = op.constant(np.ascontiguousarray(self.array.T))
        if self.stored is not None:
            set_quantization(value, self.stored)
        return value


def _lstm_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Unrolled (ONNX LSTM: gates in the order i, o, f, c; default activations)."""
    if len(node.inputs) > 7 and node.inputs[7] is not None:
        raise UnsupportedModelError(f"{label(node)} with peephole weights can't be converted")

    def step(gates_x: ir.Value, state: list[ir.Value], recurrent: Matrix, _bias: np.ndarray) -> list[ir.Value]:
        hidden, cell = state
        gates = op.Add(gates_x, _linear(op, hidden, recurrent))
        i, o, f, c = op.several("Split", 4, gates, axis=1, num_outputs=4)
        cell = op.Add(op.Mul(op.Sigmoid(f), cell), op.Mul(op.Sigmoid(i), op.Tanh(c)))
        return [op.Mul(op.Sigmoid(o), op.Tanh(cell)), cell]

    return _unrolled(op, node, step, gates=4, states=2, split_bias=0)


def _linear(op: Parts, x: ir.Value, weight: Matrix, bias: np.ndarray | None = None) -> ir.Value:
    """x W^T (+ b); computed here and now when x is constant, as the first state of a recurrent layer is."""
    if x.const_value is not None:
        return op.constant(x.const_value.numpy() @ weight.array.T + (0 if bias is None else bias))
    product = op.MatMul(x, weight.transposed(op))
    return product if bias is None else op.Add(product, bias)


def _gru_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Unrolled (ONNX GRU: gates in the order z, r, h; default activations)."""
    reset_after = integer(node, "linear_before_reset", 0) == 1

    def step(gates_x: ir.Value, state: list[ir.Value], recurrent: Matrix, bias: np.ndarray) -> list[ir.Value]:
        (hidden,) = state
        size = recurrent.array.shape[1]
        z_x, r_x, h_x = op.several("Split", 3, gates_x, axis=1, num_outputs=3)
        zr = op.Add(op.Concat(z_x, r_x, axis=1), _linear(op, hidden, recurrent.rows(0, 2 * size)))
        z, r = op.several("Split", 2, op.Sigmoid(zr), axis=1, num_outputs=2)
        if reset_after:
            inner = op.Mul(r, _linear(op, hidden, recurrent.rows(2 * size), bias))
        else:
            inner = _linear(op, op.Mul(r, hidden), recurrent.rows(2 * size), bias)
        candidate = op.Tanh(op.Add(h_x, inner))
        return [op.Add(op.Mul(op.Sub(1.0, z), candidate), op.Mul(z, hidden))]

    return _unrolled(op, node, step, gates=3, states=1, split_bias=1)


def _rnn_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Unrolled: H = tanh(W x + R H + b)."""

    def step(gates_x: ir.Value, state: list[ir.Value], recurrent: Matrix, _bias: np.ndarray) -> list[ir.Value]:
        return [op.Tanh(op.Add(gates_x, _linear(op, state[0], recurrent)))]

    return _unrolled(op, node, step, gates=1, states=1, split_bias=0)


def _unrolled(op: Parts, node: ir.Node, step: Step, *, gates: int, states: int, split_bias: int) -> Sequence[ir.Value]:
    """Y [T, D, B, H] and final states [D, B, H] each, one copy of `step` per time step and direction.

    split_bias: how many of the last gates get their recurrent bias inside `step` in place of up front.
    """
    x, weights, recurrents, hidden_size = argument(node, 0), *_matrices(node)
    if node.attributes.get("activations") is not None and not _default_activations(node, gates):
        raise UnsupportedModelError(f"{label(node)} with other activations than the default ones can't be converted")
    if node.attributes.get("clip") is not None or number(node, "input_forget", 0) or number(node, "layout", 0):
        raise UnsupportedModelError(f"{label(node)} with clip, input_forget or layout=1 can't be converted")
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        raise UnsupportedModelError(f"{label(node)} with sequence lengths can't be converted")
    steps, batch, _ = shape(x)
    if steps > MAX_STEPS:
        raise UnsupportedModelError(
            f"{label(node)} has {steps} time steps; at most {MAX_STEPS} can be unrolled. Pass a shorter --input-shape"
        )
    backwards = _directions(node)
    bias = optional_parameter(node, 3)
    biases = np.zeros((len(backwards), 2 * gates * hidden_size), np.float32) if bias is None else bias
    kept = (gates - split_bias) * hidden_size  # biases that can be added up front
    by_direction, finals = [], []
    for d, reverse in enumerate(backwards):
        input_bias, recurrent_bias = np.split(biases[d], 2)
        ahead = input_bias + np.concatenate([recurrent_bias[:kept], np.zeros_like(recurrent_bias[kept:])])
        projected = op.Add(op.MatMul(x, weights[d].transposed(op)), ahead)
        rows = op.several("Split", steps, projected, axis=0, num_outputs=steps) if steps > 1 else [projected]
        state = [_initial(op, node, 5 + s, d, batch, hidden_size) for s in range(states)]
        outputs: list[ir.Value] = []
        for t in reversed(range(steps)) if reverse else range(steps):
            row = op.Reshape(rows[t], np.array([batch, gates * hidden_size]))
            begin = len(op.nodes)
            state = step(row, state, recurrents[d], recurrent_bias[kept:])
            _name_twins(op.nodes[begin:], f"{node.outputs[0].name}/{d}")
            outputs.append(op.Reshape(state[0], np.array([1, 1, batch, hidden_size])))
        ordered = outputs[::-1] if reverse else outputs
        by_direction.append(op.Concat(*ordered, axis=0))
        finals.append([op.Reshape(s, np.array([1, batch, hidden_size])) for s in state])
    sequence = by_direction[0] if len(backwards) == 1 else op.Concat(*by_direction, axis=1)
    last = [f[0] if len(backwards) == 1 else op.Concat(*f, axis=0) for f in zip(*finals)]
    return [sequence, *last]


def _name_twins(nodes: Sequence[ir.Node], prefix: str) -> None:
    """Names what each step of a loop computes: its operator, and which of that kind it is.

    So the steps are alike although the first lacks the products with a state that is 0.
    """
    counted = Counter[str]()
    for node in nodes:
        counted[node.op_type] += 1
        for place, value in enumerate(node.outputs):
            set_twin(value, f"{prefix}/{node.op_type}/{counted[node.op_type]}/{place}")


def _weights(node: ir.Node) -> tuple[np.ndarray, np.ndarray, int]:
    weight, recurrent = optional_parameter(node, 1), optional_parameter(node, 2)
    if weight is None or recurrent is None:
        raise UnsupportedModelError(f"{label(node)} with weights that aren't constant can't be converted")
    return weight, recurrent, recurrent.shape[2]


def _matrices(node: ir.Node) -> tuple[list[Matrix], list[Matrix], int]:
    """W and R of each direction, and the size of the hidden state."""
    weight, recurrent, hidden_size = _weights(node)
    found = [
        [Matrix(array, quantization(node.inputs[place])) for array in arrays]
        for place, arrays in ((1, weight), (2, recurrent))
    ]
    return found[0], found[1], hidden_size


def _default_activations(node: ir.Node, gates: int) -> bool:
    default = {4: ["sigmoid", "tanh", "tanh"], 3: ["sigmoid", "tanh"], 1: ["tanh"]}[gates]
    given = [a.lower() for a in node.attributes["activations"].as_strings()]
    return given == default * (len(given) // len(default))


def _initial(op: Parts, node: ir.Node, position: int, direction: int, batch: int, size: int) -> ir.Value:
    value = node.inputs[position] if len(node.inputs) > position else None
    if value is None:
        return op.constant(np.zeros((1, size), np.float32))  # of every sequence
    if value.const_value is not None:
        return op.constant(value.const_value.numpy()[direction])
    row = op.Slice(value, np.array([direction]), np.array([direction + 1]), np.array([0]))
    return op.Reshape(row, np.array([batch, size]))


# ---- channels and costs ----


def _channels(node: ir.Node, axes: ChannelAxes) -> None:
    """X [steps, n, in], W [directions, gates * hidden, in], R [directions, gates * hidden, hidden],
    B [directions, 2 * gates * hidden]; all outputs and initial states end in hidden."""
    x, w, r = (argument(node, i) for i in range(3))
    axes.couple(axes.ids(x, 2), axes.ids(w, 2))
    for axis in (0, 1):
        axes.fix(axes.ids(x, axis), f"{label(node)} steps along this axis")
    hidden = axes.ids(r, 2)
    bias = node.inputs[3] if len(node.inputs) > 3 else None
    for value in (w, r, bias):
        if value is not None:
            axes.couple(axes.ids(value, 1).reshape(-1, len(hidden)), hidden[None])
            axes.fix(axes.ids(value, 0), f"{label(node)} has one position for each direction")
    states = [v for v in (*node.inputs[5:7], *node.outputs) if v is not None and v in axes]
    for value in states:
        axes.couple(axes.ids(value, -1), hidden)
        for axis in range(len(shape(value)) - 1):
            axes.fix(axes.ids(value, axis), f"{label(node)} steps along this axis")


def _renew_hidden_size(node: ir.Node, kept: Kept, renew: Renew) -> None:
    node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", int(kept(argument(node, 2), 2).sum()))


def _batch(node: ir.Node, growth: Growth) -> dict[int, np.ndarray | None] | None:
    """Zeros are the initial state where none is given; any other constant one has a batch size of its own."""
    states = {i: optional_parameter(node, i) for i in range(5, len(node.inputs))}
    given = {i: state for i, state in states.items() if state is not None}
    return None if any(state.any() for state in given.values()) else dict.fromkeys(given)


def _macs(node: ir.Node) -> int:
    """Per step and sequence, W [directions, gates * hidden, in] and R [directions, gates * hidden, hidden]
    once.
    """
    steps, sequences = shape(argument(node, 0))[:2]
    return steps * sequences * (elements(argument(node, 1)) + elements(argument(node, 2)))


# ---- torch ----


def _lstm_torch(node: ir.Node) -> TorchFunction:
    """Gates i, o, f, c (ONNX LSTM): C = f C + i c, H = o tanh(C)."""
    import torch
    from torch.nn import functional as F

    def step(x: Tensor, state: list[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
        gates = x + F.linear(state[0], weight, bias)
        i, o, f, c = gates.chunk(4, -1)
        cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(c)
        return [torch.sigmoid(o) * torch.tanh(cell), cell]

    return _recurrent_torch(node, step, states=2)


def _gru_torch(node: ir.Node) -> TorchFunction:
    """Gates z, r, h (ONNX GRU): H = (1 - z) h + z H; the reset gate before or after the recurrent product."""
    import torch
    from torch.nn import functional as F

    after = bool(integer(node, "linear_before_reset"))

    def step(x: Tensor, state: list[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
        size, hidden = state[0].shape[-1], state[0]
        z, r = torch.sigmoid(x[:, : 2 * size] + F.linear(hidden, weight[: 2 * size], bias[: 2 * size])).chunk(2, -1)
        if after:
            recurrent = r * F.linear(hidden, weight[2 * size :], bias[2 * size :])
        else:
            recurrent = F.linear(r * hidden, weight[2 * size :], bias[2 * size :])
        candidate = torch.tanh(x[:, 2 * size :] + recurrent)
        return [(1 - z) * candidate + z * hidden]

    return _recurrent_torch(node, step, states=1)


def _rnn_torch(node: ir.Node) -> TorchFunction:
    """H = tanh(W x + R H + b)"""
    import torch
    from torch.nn import functional as F

    def step(x: Tensor, state: list[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
        return [torch.tanh(x + F.linear(state[0], weight, bias))]

    return _recurrent_torch(node, step, states=1)


def _directions(node: ir.Node) -> list[bool]:
    """Whether each direction runs backwards."""
    kinds = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    return kinds[text(node, "direction", "forward")]


def _recurrent_torch(node: ir.Node, step: TorchStep, states: int) -> TorchFunction:
    """x [steps, batch, in] -> Y [steps, directions, batch, hidden], and the last states [directions, batch, hidden]."""
    import torch
    from torch.nn import functional as F

    directions = _directions(node)

    def run(
        x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: None = None, *initial: Tensor | None
    ) -> list[Tensor]:
        batch, hidden = x.shape[1], r.shape[-1]
        outputs, finals = [], []
        for d, backwards in enumerate(directions):
            bias, recurrent_bias = (torch.zeros_like(w[d, :, 0]),) * 2 if b is None else b[d].chunk(2)
            projected = F.linear(x, w[d], bias)
            begin = [initial[s] if s < len(initial) else None for s in range(states)]
            state = [x.new_zeros(batch, hidden) if v is None else v[d].expand(batch, hidden) for v in begin]
            rows = []
            for row in reversed(projected.unbind()) if backwards else projected.unbind():
                state = step(row, state, r[d], recurrent_bias)
                rows.append(state[0])
            outputs.append(torch.stack(rows[::-1] if backwards else rows))
            finals.append(state)
        return [torch.stack(outputs, 1), *(torch.stack(last) for last in zip(*finals))]

    return run


RECURRENT = Weights(learned=(1, 2, 3), matrices=(MatrixInput(1, 1, 2), MatrixInput(2, 1, 2)), stored=(1, 2))
X = {"x": (3, 1, 5)}


register(
    Operator(
        "LSTM",
        examples=(
            Example(
                "y, h, c = LSTM<hidden_size=4>(x, w, r, b)",
                X,
                {"w": (1, 16, 5), "r": (1, 16, 4), "b": (1, 32)},
                outputs=("y", "h", "c"),
            ),
            Example(
                'y = LSTM<hidden_size=4, direction="bidirectional">(x, w, r)', X, {"w": (2, 16, 5), "r": (2, 16, 4)}
            ),
        ),
        accepts=_accepts,
        parts=_lstm_parts,
        integer_parts=_lstm_parts,
        channels=_channels,
        batch=_batch,
        change=_renew_hidden_size,
        torch=_lstm_torch,
        weights=RECURRENT,
        macs=_macs,
    ),
    Operator(
        "GRU",
        examples=(
            Example(
                "y, h = GRU<hidden_size=4>(x, w, r, b)",
                X,
                {"w": (1, 12, 5), "r": (1, 12, 4), "b": (1, 24)},
                outputs=("y", "h"),
            ),
            Example(
                'y = GRU<hidden_size=4, direction="reverse", linear_before_reset=1>(x, w, r, b)',
                X,
                {"w": (1, 12, 5), "r": (1, 12, 4), "b": (1, 24)},
            ),
        ),
        accepts=_accepts,
        parts=_gru_parts,
        integer_parts=_gru_parts,
        channels=_channels,
        batch=_batch,
        change=_renew_hidden_size,
        torch=_gru_torch,
        weights=RECURRENT,
        macs=_macs,
    ),
    Operator(
        "RNN",
        examples=(
            Example(
                'y, h = RNN<hidden_size=4, direction="bidirectional">(x, w, r, b)',
                X,
                {"w": (2, 4, 5), "r": (2, 4, 4), "b": (2, 8)},
                outputs=("y", "h"),
            ),
        ),
        accepts=_accepts,
        parts=_rnn_parts,
        integer_parts=_rnn_parts,
        channels=_channels,
        batch=_batch,
        change=_renew_hidden_size,
        torch=_rnn_torch,
        weights=RECURRENT,
        macs=_macs,
    ),
)
