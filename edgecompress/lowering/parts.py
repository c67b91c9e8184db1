"""Operators written with others: the nodes that take a node's place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgecompress.graph.provenance import follow

# of an operator, as onnx_ir makes one from it
Attribute = int | float | str | Sequence[int] | Sequence[float] | Sequence[str]

SMALL = (np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32)  # dtypes


class Parts:
    """Collects the nodes that replace one node; `parts.Add(a, b)` appends an Add and returns its output."""

    def __init__(self, node: ir.Node) -> None:
        """node: whose name those of the parts begin with."""
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self._prefix = node.name or node.outputs[0].name or node.op_type

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        """A function of inputs and attributes that appends a node of this operator and returns its output."""

        def add(*inputs: ir.Value | np.ndarray | float | None, **attributes: Attribute) -> ir.Value:
            return self.several(op_type, 1, *inputs, **attributes)[0]

        return add

    def several(
        self, op_type: str, count: int, *inputs: ir.Value | np.ndarray | float | None, **attributes: Attribute
    ) -> Sequence[ir.Value]:
        """Like calling an attribute, for an operator with `count` outputs. Inputs that are None are left out."""
        values = [v if isinstance(v, ir.Value | None) else self.constant(v) for v in inputs]
        name = f"{self._prefix}/{op_type}_{len(self.nodes)}"
        node = ir.node(op_type, values, attributes=attributes, num_outputs=count, name=name)
        for i, output in enumerate(node.outputs):
            output.name = name if count == 1 else f"{name}:{i}"
        self.nodes.append(node)
        return node.outputs

    def constant(self, array: np.ndarray | float) -> ir.Value:
        """Initializer; floats become float32, and whole numbers int64, except for arrays of SMALL."""
        array = np.asarray(array)
        if array.dtype not in SMALL:
            array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        name = f"{self._prefix}/constant_{len(self.initializers)}"
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.initializers.append(value)
        return value


# what replaces the node's outputs, or None when the node can stay
Rule = Callable[[Parts, ir.Node], Sequence[ir.Value] | None]


def written_in_parts(model: ir.Model, rule_of: Callable[[ir.Node], Rule | None]) -> ir.Model:
    """Applies to each node the rule that `rule_of` has for it, and to its parts, until none has one, in place; shapes
    of the new values are inferred.
    """
    while _written_once(model, rule_of):
        ShapeInferencePass()(model)
        for name, value in list(model.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():  # weights of an operator that was taken apart
                del model.graph.initializers[name]
    return model


def _written_once(model: ir.Model, rule_of: Callable[[ir.Node], Rule | None]) -> bool:
    changed = False
    for node in list(model.graph):
        rule = rule_of(node)
        if rule is None:
            continue
        parts = Parts(node)
        results = rule(parts, node)
        if results is None:
            continue
        for value in parts.initializers:
            model.graph.register_initializer(value)
        if len(parts.nodes) == 1:
            parts.nodes[0].name = node.name  # by which a recipe may name it
        for part in parts.nodes:
            follow(part, node)
        used = [(old, new) for old, new in zip(node.outputs, results) if old.uses() or old.is_graph_output()]
        for old, new in used:
            new.name, new.shape, new.type = old.name, old.shape, old.type
            new.meta.update(old.meta)
        ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], parts.nodes, [old for old, _ in used], [new for _, new in used]
        )
        changed = True
    return changed
