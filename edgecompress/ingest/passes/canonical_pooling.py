"""Spells out every attribute of MaxPool and AveragePool."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.ingest.passes.canonical_convolution import explicit_pads, set_attributes
from edgecompress.ingest.passes.edit import AttributeValue, Edit, NodePass, static_shape


class CanonicalPooling(NodePass):
    """Downstream code reads attributes and never a default.

    1. kernel_shape, strides, dilations, pads, ceil_mode (and count_include_pad) are present, auto_pad isn't.
    2. ceil_mode = 1 becomes padding at the end, except where the divisor of an average would change.
    """

    operators = frozenset({"AveragePool", "MaxPool"})

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        size, out = static_shape(node.inputs[0]), static_shape(node.outputs[0])
        if size is None or out is None:
            return False
        attributes = node.attributes
        kernel = list(attributes.get_ints("kernel_shape"))
        strides = list(attributes.get_ints("strides") or [1] * len(kernel))
        dilations = list(attributes.get_ints("dilations") or [1] * len(kernel))
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations)]
        pads = explicit_pads(node, size[2:], spans, strides)
        ceil = attributes.get_int("ceil_mode", 0)
        include = attributes.get_int("count_include_pad", 0)
        if ceil:
            missing = [
                max((o - 1) * s + k - (n + before + after), 0)
                for o, s, k, n, before, after in zip(
                    out[2:], strides, spans, size[2:], pads[: len(kernel)], pads[len(kernel) :]
                )
            ]
            if not any(missing) or not include:
                pads = pads[: len(kernel)] + [a + m for a, m in zip(pads[len(kernel) :], missing)]
                ceil = 0
        new: dict[str, AttributeValue] = {
            "kernel_shape": kernel,
            "strides": strides,
            "dilations": dilations,
            "pads": pads,
            "ceil_mode": ceil,
        }
        if node.op_type == "AveragePool":
            new["count_include_pad"] = include
        return set_attributes(node, new, drop=("auto_pad",))
