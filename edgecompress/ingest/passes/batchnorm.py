"""Writes BatchNormalization as a multiplication and an addition per channel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument
from edgecompress.ingest.passes.edit import Edit, NodePass


class BatchNormToAffine(NodePass):
    """y = x * a + b with a = gamma / sqrt(var + epsilon), b = beta - mean * a, both [1, C, 1, ..].

    FuseAffine then works them into the layer before, where there is one. In training mode (which depends on
    the batch) or with computed statistics it stays, and is refused.
    """

    operators = frozenset({"BatchNormalization"})

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        x = argument(node, 0)
        arrays = [a.astype(np.float64) for v in node.inputs[1:5] if (a := constant(v)) is not None]
        if x.shape is None or len(arrays) < 4 or node.attributes.get_int("training_mode", 0) != 0:
            return False
        gamma, beta, mean, variance = arrays
        spread = variance + node.attributes.get_float("epsilon", 1e-5)
        if not (spread > 0).all():
            raise InputError(f"tensor {argument(node, 4).name!r} is a variance but has values that aren't positive")
        scale = gamma / np.sqrt(spread)
        shift = beta - mean * scale
        form = (1, -1, *(1,) * (len(x.shape) - 2))
        stem = argument(node, 1).name
        product = edit.insert(
            node,
            "Mul",
            [x, edit.constant(f"{stem}/scale", scale.reshape(form).astype(np.float32))],
            shape=node.outputs[0].shape,
        )
        edit.replace(node, "Add", [product, edit.constant(f"{stem}/shift", shift.reshape(form).astype(np.float32))])
        return True
