"""Control flow that is known once input shapes are fixed: branches that are taken, loops that are written out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from edgecompress.errors import InputError
from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument, integer, integers
from edgecompress.ingest.passes.edit import Edit, input_or_none, static_shape
from edgecompress.ingest.passes.expand_composites import ExpandComposites
from edgecompress.ingest.passes.float32 import CastToFloat32
from edgecompress.ingest.passes.fold_constants import FoldConstants
from edgecompress.ingest.passes.infer_shapes import InferShapes

LARGEST = 20_000  # nodes that a loop may become
AGAIN = (CastToFloat32(), InferShapes(), ExpandComposites(), FoldConstants(), InferShapes())  # for what was inside


class ControlFlow(ir.passes.InPlacePass):
    """1. If of a constant condition becomes its branch. Any other becomes both branches, of which Where takes one.
    2. Loop becomes its body, as often as its constant trip count says, if its condition stays true.
    3. Scan becomes its body, once for each position along its inputs.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if not any(node.op_type in WRITTEN for node in model.graph):
            return ir.passes.PassResult(model, False)
        modified = FoldConstants()(model).modified
        edit = Edit(model.graph)
        while [node for node in list(model.graph) if node.op_type in WRITTEN and WRITTEN[node.op_type](node, edit)]:
            modified = True
            _prepare(model)
            edit = Edit(model.graph)
        _forget_branches(model)
        if any(node.op_type == "If" for node in model.graph) and _choose_all(model.clone()):
            modified |= _choose_all(model)
        return ir.passes.PassResult(model, modified)


def _prepare(model: ir.Model) -> None:
    for step in (LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0), *AGAIN):
        step(model)


def _forget_branches(model: ir.Model) -> None:
    """Nodes of branches that were not taken read nothing any more, so that what they read is seen to be unused."""
    graphs = [*model.graphs()]
    for value in (*model.graph.initializers.values(), *(v for node in model.graph for v in node.outputs)):
        for use in list(value.uses()):
            if not any(use.node.graph is graph for graph in graphs):
                use.node.replace_input_with(use.idx, None)


def _if(node: ir.Node, edit: Edit) -> bool:
    condition = constant(node.inputs[0])
    if condition is None:
        return False
    branch = node.attributes["then_branch" if condition.all() else "else_branch"].as_graph()
    _replace(node, edit, edit.inline(node, branch, []))
    return True


def _choose_all(model: ir.Model) -> bool:
    """Has every If, in place, compute both branches, of which Where takes one. Returns whether that can be, and both
    give results of the same shapes."""
    edit = Edit(model.graph)
    results = [v for node in list(model.graph) if node.op_type == "If" for v in _choose(node, edit)]
    try:
        _prepare(model)
    except InputError:
        return False
    _forget_branches(model)
    ControlFlow()(model)  # what was in the branches
    makers = [node for v in results if (node := v.producer()) is not None and node.op_type == "Where"]
    shapes = [[static_shape(v) for v in node.inputs[1:]] for node in makers]
    return bool(results) and all(a is not None and a == b for a, b in shapes)


def _choose(node: ir.Node, edit: Edit) -> list[ir.Value]:
    """The results of both branches, one of which is taken; none where they are no tensors."""
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    if any(not isinstance(v.type, ir.TensorType | None) for branch in branches for v in branch.outputs):
        return []
    shape = edit.constant("shape", np.zeros(0, np.int64))
    condition = edit.insert(node, "Reshape", [node.inputs[0], shape], shape=(), dtype=ir.DataType.BOOL)
    pairs = zip(*(edit.inline(node, branch, []) for branch in branches))
    results = [edit.insert(node, "Where", [condition, a, b], dtype=a.dtype) for a, b in pairs]
    _replace(node, edit, results)
    return results


def _loop(node: ir.Node, edit: Edit) -> bool:
    body, trips, first = node.attributes["body"].as_graph(), constant(node.inputs[0]), constant(node.inputs[1])
    goes_on = (input_or_none(node, 1) is None) or (first is not None and bool(first.all()))
    if trips is None or not goes_on or not _stays_true(body) or int(trips) * len(body) > LARGEST or int(trips) < 1:
        return False
    true, states = edit.constant("true", np.array(True)), list(node.inputs[2:])
    rows: list[Sequence[ir.Value]] = []
    for i in range(int(trips)):
        _, *outputs = edit.inline(node, body, [edit.constant("trip", np.array(i, np.int64)), true, *states])
        states, row = list(outputs[: len(states)]), outputs[len(states) :]
        rows.append(row)
    stacked = [_stack(edit, node, column, 0) for column in zip(*rows)]
    _replace(node, edit, [*states, *stacked])
    return True


def _stays_true(body: ir.Graph) -> bool:
    """Whether the condition that the body returns is the one that it is given, or true."""
    value = body.outputs[0]
    while (maker := value.producer()) is not None and maker.op_type in ("Identity", "Cast"):
        value = argument(maker, 0)
    if value is body.inputs[1]:
        return True
    given = constant(value)
    if given is None and maker is not None and maker.op_type == "Constant":
        tensor = maker.attributes.get_tensor("value")
        given = None if tensor is None else tensor.numpy()
    return given is not None and bool(given.all())


def _scan(node: ir.Node, edit: Edit) -> bool:
    body, scanned = node.attributes["body"].as_graph(), integer(node, "num_scan_inputs")
    count = len(node.inputs) - scanned
    states, sources = list(node.inputs[:count]), [argument(node, i) for i in range(count, len(node.inputs))]
    shapes = [static_shape(v) for v in sources]
    if any(shape is None for shape in shapes):
        return False
    axes = _axes(node, "scan_input_axes", [len(shape or ()) for shape in shapes])
    steps = (shapes[0] or (0,))[axes[0]]
    if steps * len(body) > LARGEST:
        return False
    back = integers(node, "scan_input_directions", [0] * scanned)
    rows: list[Sequence[ir.Value]] = []
    for i in range(steps):
        read = [
            edit.insert(node, "Gather", [x, edit.constant("step", np.array(steps - 1 - i if turned else i))],
                        {"axis": axis}, dtype=x.dtype)
            for x, axis, turned in zip(sources, axes, back)
        ]  # fmt: skip
        outputs = edit.inline(node, body, [*states, *read])
        states = list(outputs[:count])
        rows.append(outputs[count:])
    columns = list(zip(*rows))
    turned = integers(node, "scan_output_directions", [0] * len(columns))
    places = integers(node, "scan_output_axes", [0] * len(columns))
    stacked = [
        _stack(edit, node, column[::-1] if back else column, axis)
        for column, axis, back in zip(columns, places, turned)
    ]
    _replace(node, edit, [*states, *stacked])
    return True


def _axes(node: ir.Node, name: str, ranks: Sequence[int]) -> list[int]:
    return [axis % max(rank, 1) for axis, rank in zip(integers(node, name, [0] * len(ranks)), ranks)]


def _stack(edit: Edit, node: ir.Node, values: Sequence[ir.Value], axis: int) -> ir.Value:
    """The values along a new axis."""
    where = edit.constant("axis", np.array([axis]))
    rows = [edit.insert(node, "Unsqueeze", [v, where], dtype=v.dtype) for v in values]
    return edit.insert(node, "Concat", rows, {"axis": axis}, dtype=values[0].dtype)


def _replace(node: ir.Node, edit: Edit, values: Sequence[ir.Value | None]) -> None:
    """Gives the node's outputs' readers these values, and removes it."""
    for old, new in zip(node.outputs, values, strict=True):
        if new is None or not (old.uses() or old.is_graph_output()):
            continue
        name = old.name
        if old.is_graph_output():
            new = edit.insert(node, "Identity", [new], shape=old.shape, dtype=new.dtype or old.dtype)
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            old.name, new.name = None, name
        else:
            old.replace_all_uses_with(new)
    edit.graph.remove(node, safe=True)


WRITTEN: dict[str, Callable[[ir.Node, Edit], bool]] = {"If": _if, "Loop": _loop, "Scan": _scan}
