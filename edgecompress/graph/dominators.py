"""The values of a graph that all computation goes through."""

from __future__ import annotations

import onnx_ir as ir


def dominators(graph: ir.Graph) -> dict[ir.Value, tuple[ir.Value, ...]]:
    """For each value that depends on the inputs: the values that all paths from them to it go through, in order."""
    found: dict[ir.Value, tuple[ir.Value, ...]] = {v: (v,) for v in graph.inputs}
    for node in graph:
        paths = [found[v] for v in node.inputs if v in found]
        if paths:
            common = tuple(v for v in paths[0] if all(v in p for p in paths[1:]))
            found.update({output: (*common, output) for output in node.outputs})
    return found
