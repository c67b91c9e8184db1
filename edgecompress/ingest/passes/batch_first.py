"""Recurrent layers that take the batch first (layout = 1), which ONNX Runtime has no kernels for."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgecompress.graph.nodes import integer
from edgecompress.lowering.parts import Parts, Rule, written_in_parts

STATES = (5, 6)  # positions of the first states


class BatchFirst(ir.passes.InPlacePass):
    """LSTM, GRU and RNN of layout 1 become those of layout 0 between Transposes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = any(_rule_of(node) is not None for node in model.graph)
        if modified:
            written_in_parts(model, _rule_of)
        return ir.passes.PassResult(model, modified)


def _rule_of(node: ir.Node) -> Rule | None:
    is_batch_first = node.op_type in ("LSTM", "GRU", "RNN") and integer(node, "layout") == 1
    return _batch_first if is_batch_first else None


def _batch_first(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """X [B, T, I], Y [B, T, D, H] and states [B, D, H] instead of [T, B, I], [T, D, B, H] and [D, B, H]."""
    inputs: list[ir.Value | None] = [
        op.Transpose(value, perm=[1, 0, 2]) if value is not None and i in (0, *STATES) else value
        for i, value in enumerate(node.inputs)
    ]
    attributes = {name: a.value for name, a in node.attributes.items() if name != "layout"}
    y, *states = op.several(node.op_type, len(node.outputs), *inputs, **attributes)
    return [op.Transpose(y, perm=[2, 0, 1, 3]), *(op.Transpose(state, perm=[1, 0, 2]) for state in states)]
