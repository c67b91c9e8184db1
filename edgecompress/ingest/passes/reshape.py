"""Turns every operator that only changes the shape into a Reshape to a constant shape."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument
from edgecompress.ingest.passes.edit import Edit, NodePass, static_shape


class CanonicalReshape(NodePass):
    """1. Squeeze, Unsqueeze, Flatten and Reshape -> Reshape to the shape that was inferred.
    2. A Reshape of a Reshape reads what that one reads.
    3. A Reshape to the shape that its input has goes.
    """

    operators = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        shape = static_shape(node.outputs[0])
        if shape is None:
            return False
        before = argument(node, 0).producer()
        merged = before is not None and before.op_type == "Reshape" and before.domain == ""
        if before is not None and merged:
            node.replace_input_with(0, before.inputs[0])
        if static_shape(node.inputs[0]) == shape:
            edit.substitute(node, argument(node, 0))
            return True
        if node.op_type == "Reshape" and not node.attributes.get_int("allowzero", 0):
            present = constant(node.inputs[1])
            if present is not None and tuple(present) == shape:
                return merged
        edit.replace(node, "Reshape", [node.inputs[0], edit.constant("shape", np.array(shape, np.int64))])
        return True
