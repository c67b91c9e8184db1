"""Makes inputs of small integers, such as uint8 pixels, float where the model casts them to float at once."""

from __future__ import annotations

import onnx_ir as ir

SMALL = frozenset({ir.DataType.INT8, ir.DataType.INT16, ir.DataType.UINT8, ir.DataType.UINT16})


class FloatInputs(ir.passes.InPlacePass):
    """An integer input of 8 or 16 bits that only Casts to float32 read becomes float32; the Casts then do nothing.

    The range of its values doesn't change: 0..255 stays 0..255.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for value in model.graph.inputs:
            if value.dtype in SMALL and value.uses() and all(_to_float(n) for n in value.consumers()):
                value.type = ir.TensorType(ir.DataType.FLOAT)
                modified = True
        return ir.passes.PassResult(model, modified)


def _to_float(node: ir.Node) -> bool:
    return node.op_type == "Cast" and node.attributes.get_int("to") == ir.DataType.FLOAT
