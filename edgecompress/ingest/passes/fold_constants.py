"""Computes everything that is known before the model runs, by onnxscript's optimizer."""

from __future__ import annotations

import math

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from edgecompress.ingest.passes.edit import static_shape

# A larger constant isn't worth computing from smaller ones, and a hostile shape could ask for terabytes.
LARGEST_ELEMENTS = 2**26


class FoldConstants(ir.passes.InPlacePass):
    """Shapes are inferred and constant expressions evaluated, node by node, in order.

    1. With static input shapes every Shape, Size and what is computed from them becomes a constant.
    2. The optimizer leaves Constant nodes behind; they become initializers.
    3. No size limit but LARGEST_ELEMENTS: a transposed or dequantized weight is a weight.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        from onnxscript.optimizer import fold_constants_ir

        result = fold_constants_ir(
            model,
            onnx_shape_inference=True,
            input_size_limit=LARGEST_ELEMENTS,
            output_size_limit=LARGEST_ELEMENTS,
            should_fold=_affordable,
        )
        lifted = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        return ir.passes.PassResult(model, result.modified or lifted.modified)


def _affordable(node: ir.Node) -> bool:
    shapes = [static_shape(v) for v in node.outputs]
    known = [math.prod(s) for s in shapes if s is not None]
    if len(known) == len(shapes):
        return max(known, default=0) <= LARGEST_ELEMENTS
    return node.op_type not in {"ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Pad", "OneHot"}
