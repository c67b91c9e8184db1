"""What follows a model whose last shapes depend on the data, behind it in one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from edgecompress.ingest.data_dependent import graphs


def with_tail(head: bytes, tail: onnx.ModelProto) -> bytes:
    """An .onnx file with the tail (`ingest.data_dependent.Cut`) behind it, whose outputs are the tail's."""
    proto, rest = onnx.ModelProto.FromString(head), onnx.ModelProto()
    rest.CopyFrom(tail)
    graph = proto.graph
    ends = {v.name for v in (*rest.graph.input, *rest.graph.output)}
    taken = {n for node in graph.node for n in node.output} | {t.name for t in graph.initializer}
    _rename(rest.graph, {name: f"{name}_tail" for name in taken - ends})
    graph.node.extend(rest.graph.node)
    graph.initializer.extend(rest.graph.initializer)
    inputs = {v.name for v in graph.input} | taken
    graph.input.extend(v for v in rest.graph.input if v.name not in inputs)
    del graph.output[:]
    graph.output.extend(rest.graph.output)
    opsets = {o.domain: o.version for o in rest.opset_import}
    for entry in proto.opset_import:
        entry.version = max(entry.version, opsets.get(entry.domain, 0))
    return proto.SerializeToString(deterministic=True)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    def renamed(items: Iterable[str]) -> list[str]:
        return [names.get(item, item) for item in items]

    for node in graph.node:
        node.input[:], node.output[:] = renamed(node.input), renamed(node.output)
        for inner in graphs(node):
            _rename(inner, names)
    for part in (*graph.initializer, *graph.input, *graph.output):
        part.name = names.get(part.name, part.name)
