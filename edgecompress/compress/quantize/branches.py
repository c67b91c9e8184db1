"""Branches of float values that int8 layers read too, so that the value is rounded for those layers alone."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.compress.quantize.names import Names
from edgecompress.graph.annotations import is_integer, quantization, set_quantization
from edgecompress.graph.fusion import constant


def is_stored(value: ir.Value) -> bool:
    """Whether an int8 layer computes the value, so that everything that reads it reads rounded numbers."""
    producer = value.producer()
    return producer is not None and is_integer(producer)


def is_for_int8_alone(value: ir.Value) -> bool:
    """Whether int8 layers are all that reads the value, which the caller does not see either."""
    return not value.is_graph_output() and all(is_integer(node) for node, _ in value.uses())


def split_branches(model: ir.Model) -> ir.Model:
    """A copy in which int8 layers read a value through an Identity where float layers or the caller read it too."""
    result = model.clone()
    names = Names(result.graph)
    for value in [*result.graph.inputs, *(v for node in result.graph for v in node.outputs)]:
        readers = [(node, index) for node, index in value.uses() if is_integer(node)]
        if quantization(value) is None or constant(value) is not None or not readers:
            continue
        if is_stored(value) or is_for_int8_alone(value):
            continue
        node = ir.node("Identity", [value], name=names(f"{value.name}/int8"))
        branch = node.outputs[0]
        branch.name, branch.shape, branch.type = names(f"{value.name}/int8"), value.shape, value.type
        set_quantization(branch, quantization(value))
        node.meta["branch"] = True
        producer = value.producer()
        if producer is None:
            result.graph.insert_before(result.graph[0], node)
        else:
            result.graph.insert_after(producer, node)
        for reader, index in readers:
            reader.replace_input_with(index, branch)
    return result


def join_branches(model: ir.Model) -> None:
    """Removes the Identities of `split_branches`, in place."""
    for node in list(model.graph):
        if node.meta.get("branch"):
            source = node.inputs[0]
            assert source is not None
            node.outputs[0].replace_all_uses_with(source)
            model.graph.remove(node, safe=True)
