"""Blocks that a network can do without."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.graph.dominators import dominators
from edgecompress.ingest.passes.edit import static_shape

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "GRU", "LSTM", "MatMul", "RNN"})


def removable_blocks(graph: ir.Graph) -> list[tuple[ir.Value, ir.Value]]:
    """(input, output) of each smallest block, in order; none lies within another.

    A block is what lies between two values of equal shape, with layers inside, where all that comes from the inputs
    goes through the first one and on through the second: a residual block, a layer of a transformer, a convolution
    that keeps its size.
    """
    paths = dominators(graph)
    taken: set[ir.Node] = set()
    blocks = []
    for node in graph:
        last = node.outputs[0]
        if last.is_graph_output() or last not in paths:
            continue
        inside = {node}
        for first in reversed(paths[last][:-1]):  # the nearest first
            inside = _between(first, last)
            if inside & taken:
                break
            if static_shape(first) == static_shape(last) and any(n.op_type in LINEAR for n in inside):
                if _closed(inside, first, last) and _ends_alike(first, last):
                    blocks.append((first, last))
                    taken |= inside
                break
    return blocks


def _ends_alike(first: ir.Value, last: ir.Value) -> bool:
    """Both come from the same kind of operator, so that what reads `last` finds in `first` what it knows."""
    before, after = first.producer(), last.producer()
    return before is not None and after is not None and before.op_type == after.op_type


def _closed(inside: set[ir.Node], first: ir.Value, last: ir.Value) -> bool:
    """Nothing outside reads the block's input (a shortcut around a part of it), nor what it makes on the way."""
    within = [first, *(v for n in inside for v in n.outputs if v is not last)]
    return all(use.node in inside for v in within for use in v.uses()) and not any(v.is_graph_output() for v in within)


def _between(first: ir.Value, last: ir.Value) -> set[ir.Node]:
    found: set[ir.Node] = set()
    frontier = [last]
    while frontier:
        value = frontier.pop()
        node = value.producer()
        if value is first or node is None or node in found:
            continue
        found.add(node)
        frontier.extend(v for v in node.inputs if v is not None)
    return found
