"""Spells out every attribute of Conv and ConvTranspose, and gives each a bias."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument
from edgecompress.ingest.passes.edit import AttributeValue, Edit, NodePass, input_or_none, static_shape


class CanonicalConvolution(NodePass):
    """Downstream code reads attributes and never a default.

    1. kernel_shape, strides, dilations, group and pads are present; auto_pad is worked out and removed.
    2. ConvTranspose: output_padding is present; output_shape is turned into pads.
    3. A missing bias becomes zeros.
    Raises InputError when the weight is for another number of channels than the input has.
    """

    operators = frozenset({"Conv", "ConvTranspose"})

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        x, weight = argument(node, 0), argument(node, 1)
        kernel, size = static_shape(weight), static_shape(x)
        if kernel is None or size is None:
            return False
        spatial = len(kernel) - 2
        attributes = node.attributes
        kernel_shape = list(attributes.get_ints("kernel_shape") or kernel[2:])
        strides = list(attributes.get_ints("strides") or [1] * spatial)
        dilations = list(attributes.get_ints("dilations") or [1] * spatial)
        group = attributes.get_int("group", 1)
        spans = [d * (k - 1) + 1 for k, d in zip(kernel_shape, dilations)]
        new: dict[str, AttributeValue] = {
            "kernel_shape": kernel_shape,
            "strides": strides,
            "dilations": dilations,
            "group": group,
        }
        if node.op_type == "Conv":
            new["pads"] = explicit_pads(node, size[2:], spans, strides)
        else:
            new["pads"], new["output_padding"] = _transposed_pads(node, size[2:], spans, strides)
        channels = kernel[1] * group if node.op_type == "Conv" else kernel[0]
        if channels != size[1]:  # which the onnx package's shape inference lets pass
            raise InputError(
                f"node {node.name!r} ({node.op_type}) has a weight {weight.name!r} {list(kernel)} (groups: "
                f"{group}) for {channels} input channels, and an input {x.name!r} {list(size)} "
                f"with {size[1]}"
            )
        modified = set_attributes(node, new, drop=("auto_pad", "output_shape"))
        if input_or_none(node, 2) is None:
            channels = kernel[0] if node.op_type == "Conv" else kernel[1] * group
            bias = edit.constant(f"{weight.name}/bias", np.zeros(channels, np.float32))
            node.resize_inputs(3)
            node.replace_input_with(2, bias)
            modified = True
        return modified


def set_attributes(node: ir.Node, new: Mapping[str, AttributeValue], drop: tuple[str, ...] = ()) -> bool:
    """Sets and removes attributes; returns whether anything changed."""
    modified = False
    for attribute in ir.convenience.convert_attributes(new):
        if attribute.name not in node.attributes or node.attributes[attribute.name].value != attribute.value:
            modified = True
        node.attributes.add(attribute)
    for name in drop:
        modified |= node.attributes.pop(name, None) is not None
    return modified


def explicit_pads(node: ir.Node, size: tuple[int, ...], spans: list[int], strides: list[int]) -> list[int]:
    """[begin.., end..] of a convolution or pool over `size`, whose kernel spans `spans` with its dilation.

    auto_pad as the ONNX operator specification (Conv) has it: SAME_* gives ceil(size / stride) outputs, the
    odd pad at the end for SAME_UPPER, at the beginning for SAME_LOWER.
    """
    attributes = node.attributes
    mode = attributes.get_string("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return list(attributes.get_ints("pads") or [0] * (2 * len(size)))
    if mode == "VALID":
        return [0] * (2 * len(size))
    totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, spans, strides)]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return small + large if mode == "SAME_UPPER" else large + small


def _transposed_pads(
    node: ir.Node, size: tuple[int, ...], spans: list[int], strides: list[int]
) -> tuple[list[int], list[int]]:
    """(pads, output_padding). ONNX specification of ConvTranspose: total = stride (size - 1) + output_padding + span
    - output; where that is negative, the output is longer than the sums reach, which is more output_padding.
    """
    attributes = node.attributes
    mode = attributes.get_string("auto_pad", "NOTSET")
    output = attributes.get_ints("output_shape")
    extra = list(attributes.get_ints("output_padding") or [0] * len(size))
    if mode == "VALID" or (output is None and mode in ("NOTSET", "")):
        pads = attributes.get_ints("pads") if mode != "VALID" else None
        return list(pads or [0] * (2 * len(size))), extra
    wanted = list(output)[-len(size) :] if output is not None else [n * s for n, s in zip(size, strides)]
    totals = [s * (n - 1) + e + k - w for n, s, e, k, w in zip(size, strides, extra, spans, wanted)]
    extra = [e + max(-t, 0) for e, t in zip(extra, totals)]
    small, large = [max(t, 0) // 2 for t in totals], [max(t, 0) - max(t, 0) // 2 for t in totals]
    return (small + large if mode == "SAME_UPPER" else large + small), extra


class OwnWeights(NodePass):
    """A layer's weight and bias belong to it alone: a constant with other users is copied."""

    operators = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "GRU", "LSTM", "RNN"})

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        modified = False
        for i, value in enumerate(node.inputs[1:], 1):
            array = constant(value)
            if value is not None and array is not None and len(value.uses()) > 1:
                node.replace_input_with(i, edit.constant(value.name, array.copy()))
                modified = True
        return modified
