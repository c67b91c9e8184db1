"""Small edits of a graph that keep the names of its values unique and those of its outputs as they are."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgecompress.graph.provenance import follow, replace_origin

# What an attribute of a node can be set to here.
AttributeValue = int | float | str | Sequence[int]


class Edit:
    """Edits one graph: inserts constants and nodes, and puts values in the place of others."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._names: set[str] | None = None
        self._split: set[ir.Node] = set()  # nodes that others were inserted for

    def constant(self, stem: str | None, array: np.ndarray | np.generic) -> ir.Value:
        """Adds an initializer of the array's shape and dtype, whose name is `stem`, made unique."""
        value = ir.Value(
            name=self._unique(str(stem)),
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(np.ascontiguousarray(array).reshape(array.shape)),
        )
        self.graph.register_initializer(value)
        return value

    def renewed(self, value: ir.Value, array: np.ndarray) -> ir.Value:
        """The initializer with another array or, when more than one node reads it, a new initializer."""
        if len(value.uses()) > 1 or value.is_graph_output():
            return self.constant(value.name, array)
        value.const_value = ir.tensor(np.ascontiguousarray(array).reshape(array.shape))
        value.shape = ir.Shape(array.shape)
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        return value

    def insert(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        stem: str | None = None,
        shape: Sequence[int] | ir.Shape | None = None,
        dtype: ir.DataType | None = None,
    ) -> ir.Value:
        """Inserts a node in front of another and returns its one output, named `stem` or after `before`'s output."""
        origin = before.outputs[0]
        output = ir.Value(
            name=self._unique(stem or f"{origin.name}/{op_type}"),
            shape=None if shape is None else ir.Shape(shape),
            type=ir.TensorType(dtype or origin.dtype or ir.DataType.FLOAT),
        )
        node = ir.node(op_type, inputs, attributes or {}, outputs=[output], name=output.name)
        follow(node, before)
        self._split.add(before)
        self.graph.insert_before(before, node)
        return output

    def inline(self, before: ir.Node, graph: ir.Graph, arguments: Sequence[ir.Value | None]) -> list[ir.Value]:
        """Puts a copy of what is in `graph` in front of a node; returns its outputs for these arguments."""
        copy = graph.clone(allow_outer_scope_values=True)
        for formal, actual in zip(copy.inputs, arguments, strict=True):
            if actual is not None:
                formal.replace_all_uses_with(actual, replace_graph_outputs=True)
        outputs, nodes, constants = list(copy.outputs), list(copy), list(copy.initializers.values())
        copy.outputs.clear()
        copy.initializers.clear()
        copy.remove(nodes)
        for value in (*constants, *(v for node in nodes for v in node.outputs)):
            value.name = self._unique(f"{before.name}/{value.name}") if value.name else value.name
        for value in constants:
            self.graph.register_initializer(value)
        for node in nodes:
            node.name = f"{before.name}/{node.name}"
            follow(node, before)
        self.graph.insert_before(before, nodes)
        return outputs

    def append_identity(self, value: ir.Value, stem: str) -> ir.Value:
        """Appends an Identity of the value to the graph and returns its output."""
        output = ir.Value(name=self._unique(stem), shape=value.shape, type=value.type)
        self.graph.append(ir.node("Identity", [value], outputs=[output], name=output.name))
        return output

    def substitute(self, node: ir.Node, value: ir.Value) -> None:
        """Gives `value` the uses and the output name of the node's first output, and removes the node."""
        old = node.outputs[0]
        name = old.name
        if old.is_graph_output():
            if value.is_graph_input() or value.is_initializer() or value.is_graph_output():
                # such a value has a name of its own to keep
                value = self.insert(node, "Identity", [value], shape=old.shape, dtype=old.dtype)
            old.replace_all_uses_with(value, replace_graph_outputs=True)
            value.name = name
        else:
            old.replace_all_uses_with(value)
        if value.shape is None:
            value.shape = old.shape
        self.graph.remove(node, safe=True)

    def replace(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> ir.Value:
        """Puts another node in the place of this one; its output keeps the name, shape and dtype."""
        old = node.outputs[0]
        name, shape = old.name, old.shape
        take_origin = follow if node in self._split else replace_origin
        value = self.insert(node, op_type, inputs, attributes, dtype=old.dtype)
        value.shape = shape
        producer = value.producer()
        assert producer is not None
        producer.name = node.name
        take_origin(producer, node)
        self.substitute(node, value)
        value.name = name
        return value

    def absorb(self, node: ir.Node, followers: Sequence[ir.Node]) -> None:
        """Removes a chain of nodes behind this one, whose output takes the name and the readers of the chain's last."""
        old = followers[-1].outputs[0]
        name = old.name
        old.replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
        for follower in reversed(followers):
            self.graph.remove(follower, safe=True)
        node.outputs[0].name = name

    def _unique(self, stem: str) -> str:
        if self._names is None:
            self._names = {v.name for v in self.graph.inputs if v.name}
            self._names.update(self.graph.initializers)
            self._names.update(v.name for n in self.graph for v in n.outputs if v.name)
        name, count = stem, 0
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name


class NodePass(ir.passes.InPlacePass):
    """A pass that looks at one node at a time: it calls `rewrite` for each node of one of `operators`."""

    operators: ClassVar[frozenset[str]]

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites every node of one of `operators`, in graph order; the model is changed in place."""
        edit = Edit(model.graph)
        modified = False
        for node in model.graph:
            if node.op_type in self.operators and node.domain == "":
                modified |= self.rewrite(node, edit)
        return ir.passes.PassResult(model, modified)

    @abc.abstractmethod
    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        """Changes the node; returns whether it did."""


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The value's shape, or None when any of it is unknown."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(value.shape.numpy())


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads the value, or None when there are others or it is a graph output."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def input_or_none(node: ir.Node, index: int) -> ir.Value | None:
    """The input, or None where the node leaves it out."""
    return node.inputs[index] if index < len(node.inputs) else None
