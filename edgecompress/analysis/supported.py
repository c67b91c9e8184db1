"""Which ONNX operators (opset 21) can be converted, and what is refused about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.fusion import constant

OPERATORS = frozenset(
    "Abs Add ArgMax AveragePool Cast Clip Concat Conv ConvTranspose DepthToSpace Div Elu Equal Erf Exp "
    "Expand GRU Gather Gelu Gemm GlobalAveragePool GlobalMaxPool Greater HardSigmoid HardSwish Identity "
    "InstanceNormalization LSTM LayerNormalization LeakyRelu Less Log LogSoftmax MatMul Max MaxPool Min Mul "
    "Neg Not PRelu Pad Pow Reciprocal ReduceMax ReduceMean ReduceSum Relu Reshape Resize Sigmoid Slice "
    "Softmax SpaceToDepth Split Sqrt Sub Tanh Tile Transpose Where".split()
)

# Operators that ingest turns into those above, or computes beforehand.
REWRITTEN = frozenset(
    "And ArgMin BatchNormalization CastLike Constant ConstantOfShape Dropout Flatten GreaterOrEqual "
    "LessOrEqual Mean Or Range ReduceMin Shape Size Softplus Squeeze Sum Unsqueeze".split()
)

# Left in a model that is to be trained, when ingest is told to.
TRAINED = frozenset({"BatchNormalization"})

# What a user can do about operators that are refused as a family.
HINTS = {
    ("If", "Loop", "Scan"): (
        "control flow can't be converted; export the model with fixed shapes, or trace it instead of "
        "scripting it"
    ),
    (
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
        "ConvInteger", "MatMulInteger",
    ): (
        "the model computes on integers already; pass the float model that it was made from, or one quantised in "
        "ONNX's QDQ format"
    ),
}  # fmt: skip

# Values that a canonical model may have.
DTYPES = frozenset({ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})

Reason = Callable[[ir.Node], str | None]


def require_supported(model: ir.Model, also: frozenset[str] = frozenset()) -> None:
    """Raises UnsupportedModelError, naming every node at fault, if the model has something not in the
    tables. also: operators allowed besides OPERATORS.
    """
    allowed = OPERATORS | also
    faults = [(n, reason) for n in model.graph.all_nodes() if (reason := _fault(n, allowed)) is not None]
    if not faults:
        return
    # Behind an operator that nobody knows shapes are unknown too, and ingest leaves what needs them as it is.
    faults = [f for f in faults if f[0].op_type not in REWRITTEN] or faults
    kinds = Counter(reason for _, reason in faults)
    lines = []
    for reason, count in sorted(kinds.items()):
        nodes = [_label(node) for node, r in faults if r == reason]
        lines.append(f"{reason}: {count} ({', '.join(nodes)})")
    op_types = {node.op_type for node, _ in faults}
    hints = [hint for family, hint in HINTS.items() if op_types.intersection(family)]
    advice = hints or ["replace these operators in the model, or convert only the part without them"]
    raise UnsupportedModelError(
        f"{len(faults)} {'node' if len(faults) == 1 else 'nodes'} can't be converted: {'; '.join(lines)}. "
        f"What to do: {'; '.join(advice)}."
    )


def _label(node: ir.Node) -> str:
    return repr(node.name or next((v.name for v in node.outputs if v.name), "unnamed"))


def _fault(node: ir.Node, allowed: frozenset[str]) -> str | None:
    """Why the node can't be converted, or None."""
    if node.domain not in ("", "ai.onnx"):
        return f"operator {node.domain}.{node.op_type}"
    if node.op_type not in allowed:
        return f"operator {node.op_type}"
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.dtype is not None and value.dtype not in DTYPES:
            return f"operator {node.op_type} on {value.dtype.name.lower()} values"
    check = CHECKS.get(node.op_type)
    return None if check is None else check(node)


def _constant_inputs(*positions: int) -> Reason:
    """The inputs at these positions, if present, must be constants."""

    def check(node: ir.Node) -> str | None:
        for i in positions:
            if i < len(node.inputs) and node.inputs[i] is not None and constant(node.inputs[i]) is None:
                return f"operator {node.op_type} whose input {i} is computed, not constant"
        return None

    return check


def _spatial_rank(node: ir.Node) -> str | None:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is not None and len(shape) not in (3, 4):
        return f"operator {node.op_type} in {len(shape) - 2} dimensions (1 and 2 are known)"
    return None


def _one_output(node: ir.Node) -> str | None:
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return f"operator {node.op_type} with a second output"
    return None


def _recurrent(node: ir.Node) -> str | None:
    peepholes = len(node.inputs) > 7 and node.inputs[7] is not None
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        return f"operator {node.op_type} with sequence_lens"
    if peepholes or node.attributes.get_float("clip") or node.attributes.get_int("input_forget", 0):
        return f"operator {node.op_type} with peepholes, clip or input_forget"
    if node.attributes.get_int("layout", 0):
        return f"operator {node.op_type} with the batch first (layout = 1)"
    if node.attributes.get_strings("activations"):
        return f"operator {node.op_type} with activations of its own"
    return _constant_inputs(1, 2, 3)(node)


def _batch_normalization(node: ir.Node) -> str | None:
    if node.attributes.get_int("training_mode", 0):
        return "operator BatchNormalization in training mode"
    return _constant_inputs(1, 2, 3, 4)(node)


def _resize(node: ir.Node) -> str | None:
    mode = node.attributes.get_string("mode", "nearest")
    if mode not in ("nearest", "linear"):
        return f"operator Resize in mode {mode}"
    if node.attributes.get_string("coordinate_transformation_mode") == "tf_crop_and_resize":
        return "operator Resize with a crop"
    if node.attributes.get_int("antialias", 0):
        return "operator Resize with antialias"
    return _constant_inputs(2, 3)(node)


def _pad(node: ir.Node) -> str | None:
    mode = node.attributes.get_string("mode", "constant")
    if mode not in ("constant", "reflect"):
        return f"operator Pad in mode {mode}"
    return _constant_inputs(1, 2, 3)(node)


def _all(*checks: Reason) -> Reason:
    def check(node: ir.Node) -> str | None:
        return next((reason for c in checks if (reason := c(node)) is not None), None)

    return check


CHECKS: dict[str, Reason] = {
    "AveragePool": _spatial_rank,
    "BatchNormalization": _batch_normalization,
    "Clip": _constant_inputs(1, 2),
    "Conv": _all(_constant_inputs(1, 2), _spatial_rank),
    "ConvTranspose": _all(_constant_inputs(1, 2), _spatial_rank),
    "Expand": _constant_inputs(1),
    "GRU": _recurrent,
    "InstanceNormalization": _constant_inputs(1, 2),
    "LSTM": _recurrent,
    "LayerNormalization": _one_output,
    "MaxPool": _all(_one_output, _spatial_rank),
    "Pad": _pad,
    "ReduceMax": _constant_inputs(1),
    "ReduceMean": _constant_inputs(1),
    "ReduceSum": _constant_inputs(1),
    "Reshape": _constant_inputs(1),
    "Resize": _resize,
    "Slice": _constant_inputs(1, 2, 3, 4),
    "Split": _constant_inputs(1),
    "Tile": _constant_inputs(1),
}
