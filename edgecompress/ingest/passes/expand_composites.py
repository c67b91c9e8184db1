"""Operators that the ONNX standard defines by others are replaced by their definition."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.analysis.supported import OPERATORS, REWRITTEN
from edgecompress.graph.standard_functions import write_functions

LARGEST_DEPTH = 8  # a definition may use composites again


class ExpandComposites(ir.passes.InPlacePass):
    """An operator that we don't know, but that has a function body in its schema (GroupNormalization, Celu,
    Mish, RMSNormalization, Swish, Attention, ...), becomes that body.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replaces the operators in place, also in the bodies of their definitions."""
        modified = False
        for _ in range(LARGEST_DEPTH):
            if not write_functions(model, _is_unknown):
                break
            modified = True
        return ir.passes.PassResult(model, modified)


def _is_unknown(node: ir.Node) -> bool:
    return node.op_type not in OPERATORS and node.op_type not in REWRITTEN
