"""Outputs that hold unlike quantities, each with its own scale: the quantizer marks them, emitters take them apart."""

from __future__ import annotations

import onnx_ir as ir


def joins_output(node: ir.Node) -> bool:
    """Whether the node only joins or moves the parts of an output, in float because they are unlike."""
    return bool(node.meta.get("joins_output"))


def set_joins_output(node: ir.Node) -> None:
    """Records that the node joins or moves the parts of an output."""
    node.meta["joins_output"] = True


def take_apart(model: ir.Model) -> ir.Model | None:
    """Takes the nodes that join outputs off, in place; the parts that they read become outputs.

    Returns the model that makes the former outputs of the new ones, whose names its inputs have; None where no output
    has parts.
    """
    graph = model.graph
    nodes = [node for node in graph if joins_output(node)]
    if not nodes:
        return None
    parts = list(dict.fromkeys(part for end in graph.outputs for part in _parts_of(end, nodes)))
    join = _join(model, nodes, parts)
    graph.outputs.clear()
    graph.outputs.extend(parts)
    for node in reversed(nodes):
        graph.remove(node, safe=True)
    return join


def _parts_of(value: ir.Value, nodes: list[ir.Node]) -> list[ir.Value]:
    """The values that the nodes make this one of, in the order in which they read them."""
    producer = value.producer()
    if producer not in nodes or producer is None:
        return [value]
    read = [v for v in producer.inputs if v is not None and v.const_value is None]
    return [part for v in read for part in _parts_of(v, nodes)]


def _join(model: ir.Model, nodes: list[ir.Node], parts: list[ir.Value]) -> ir.Model:
    """A model of these nodes alone, from the parts to what the model's outputs are."""
    copies = {part: _copy(part) for part in parts}
    inputs, constants, copied = list(copies.values()), [], []
    for node in nodes:
        for value in node.inputs:
            if value is not None and value.const_value is not None and value not in copies:
                copies[value] = _copy(value)
                constants.append(copies[value])
        ends = [copies.setdefault(v, _copy(v)) for v in node.outputs]
        sources = [None if v is None else copies[v] for v in node.inputs]
        attributes = list(node.attributes.values())
        copied.append(ir.Node("", node.op_type, sources, attributes, outputs=ends, name=node.name))
    outputs = [copies[end] for end in model.graph.outputs]
    imports = dict(model.graph.opset_imports)
    graph = ir.Graph(inputs, outputs, nodes=copied, initializers=constants, opset_imports=imports, name="join")
    return ir.Model(graph, ir_version=model.ir_version)


def _copy(value: ir.Value) -> ir.Value:
    return ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=value.const_value)
