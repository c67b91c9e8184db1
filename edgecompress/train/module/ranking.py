"""The scores that an output ranks: what its Softmax, LogSoftmax or ArgMax reads, which losses want in its place."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgecompress.graph.nodes import argument, integer


@dataclass(frozen=True)
class Ranked:
    """value: the scores, or the output itself where it ranks none. axis: of the classes; None where it ranks none."""

    value: ir.Value
    axis: int | None


def ranked(output: ir.Value) -> Ranked:
    """The scores behind an output of a canonical model."""
    node = output.producer()
    if node is not None and node.op_type == "Cast" and output.dtype != ir.DataType.FLOAT:
        node = argument(node, 0).producer()
    if node is not None and node.op_type == "ArgMax" and argument(node, 0).dtype == ir.DataType.FLOAT:
        before = ranked(argument(node, 0))
        return before if before.axis is not None else Ranked(before.value, integer(node, "axis", 0))
    if node is not None and node.op_type in ("Softmax", "LogSoftmax"):
        return Ranked(argument(node, 0), integer(node, "axis", -1))
    return Ranked(output, None)
