"""Where a network may end early: which values exits stand behind."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.evaluate.taken_exits import macs_up_to
from edgecompress.graph.channel_axes import shape
from edgecompress.graph.dominators import dominators
from edgecompress.graph.fusion import layers

AUTO = 2  # exits
LEAST = 0.05  # share of the multiply-accumulates in front of an exit that is placed here, and behind it


def exit_values(graph: ir.Graph, after: Sequence[str] | int | str) -> list[ir.Value]:
    """The values that exits stand behind, in the order in which they are computed.

    after: names of nodes or values; or how many exits, "auto" for AUTO: behind ends of blocks, through which all
    computation goes, at even shares of the multiply-accumulates. Fewer where there are not as many such places.
    Raises InputError for names that the model lacks, or whose value no exit can read, and where there is no place.
    """
    if isinstance(after, (int, str)):
        return _spread(graph, AUTO if isinstance(after, str) else after)
    ends = {name: layer.output for layer in layers(graph) for node in layer.nodes for name in _names(node)}
    if missing := [name for name in after if name not in ends]:
        raise InputError(f"[exit] after: the model has no node {', '.join(map(repr, missing))}")
    wanted, order = {ends[name] for name in after}, [layer.output for layer in layers(graph)]
    for value in wanted:
        if value.is_graph_output() or not _is_read(value):
            raise InputError(
                f"[exit] after: {value.name!r} of shape {list(shape(value))} is no place for an exit: expected a "
                "computed value with channels, of one sample, that the network goes on from"
            )
    return [value for value in order if value in wanted]


def _spread(graph: ir.Graph, count: int) -> list[ir.Value]:
    paths, end = dominators(graph), graph.outputs[0]
    on_all = set(paths[end])
    ends = [x.output for x in layers(graph) if x.output in on_all and not x.output.is_graph_output()]
    total = macs_up_to(graph, [end])
    shares = {v: macs_up_to(graph, [v]) / max(total, 1) for v in ends if _is_read(v)}
    free = [v for v, share in shares.items() if LEAST <= share <= 1 - LEAST]
    if not free:
        raise InputError(
            "[exit] after: the network has no value in its middle that all computation goes through; name nodes there"
        )
    chosen: list[ir.Value] = []
    for number in range(1, count + 1):
        left = [v for v in free if v not in chosen]
        if left:
            chosen.append(min(left, key=lambda v: abs(shares[v] - number / (count + 1))))
    return [v for v in free if v in chosen]


def _names(node: ir.Node) -> list[str]:
    return [str(name) for name in (node.name, *(v.name for v in node.outputs)) if name]


def _is_read(value: ir.Value) -> bool:
    """Whether a head can read it: numbers of one sample, with channels."""
    size = shape(value)
    return value.dtype == ir.DataType.FLOAT and 2 <= len(size) <= 4 and size[0] == 1
