"""The graphs of an ONNX file: branches and bodies of control flow hold some of their own."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def with_branches(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, and all that are inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from with_branches(inner)
