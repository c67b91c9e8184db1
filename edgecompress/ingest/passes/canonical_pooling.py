"""Spells out every attribute of MaxPool and AveragePool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.nodes import argument
from edgecompress.graph.provenance import label
from edgecompress.ingest.passes.canonical_convolution import explicit_pads, set_attributes
from edgecompress.ingest.passes.edit import AttributeValue, Edit, NodePass, static_shape

LOWEST = np.finfo(np.float32).min


class Pool(NamedTuple):
    """A pool's windows along each axis of an image of `size`: spans count the gaps of a dilated kernel."""

    size: Sequence[int]
    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    spans: list[int]
    before: list[int]
    after: list[int]
    ceil: bool

    @property
    def out(self) -> list[int]:
        """How many windows there are. With ceil_mode the last may reach beyond the padding at the end, but a window
        that begins in that padding does not exist (ONNX operator specification, MaxPool).
        """
        counts = []
        for n, stride, span, before, after in zip(self.size, self.strides, self.spans, self.before, self.after):
            free = n + before + after - span
            count = (-(-free // stride) if self.ceil else free // stride) + 1
            if self.ceil and (count - 1) * stride >= n + before:
                count -= 1
            counts.append(count)
        return counts

    @property
    def beyond(self) -> list[int]:
        """How far the last window reaches beyond the padding at the end."""
        rows = zip(self.out, self.size, self.strides, self.spans, self.before, self.after)
        return [max((o - 1) * stride + span - (n + b + a), 0) for o, n, stride, span, b, a in rows]


def pool_of(node: ir.Node, size: Sequence[int]) -> Pool:
    """The windows of MaxPool or AveragePool over an image of `size`, with whatever the node leaves out filled in."""
    attributes = node.attributes
    kernel = list(attributes.get_ints("kernel_shape") or ())
    strides = list(attributes.get_ints("strides") or [1] * len(kernel))
    dilations = list(attributes.get_ints("dilations") or [1] * len(kernel))
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations)]
    pads = explicit_pads(node, tuple(size), spans, strides)
    ceil = bool(attributes.get_int("ceil_mode", 0))
    return Pool(size, kernel, strides, dilations, spans, pads[: len(kernel)], pads[len(kernel) :], ceil)


class CanonicalPooling(NodePass):
    """Downstream code reads attributes and never a default.

    1. kernel_shape, strides, dilations, pads, ceil_mode = 0 (and count_include_pad) are present, auto_pad isn't.
    2. What ceil_mode adds becomes padding at the end. An average never counts it: where the divisor counts other
       padding, that is a Pad of zeros in front.
    3. Padding as large as the kernel, which ONNX Runtime refuses, is a Pad in front of the maximum.
    """

    operators = frozenset({"AveragePool", "MaxPool"})

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        size = static_shape(node.inputs[0])
        if size is None:
            return False
        pool, maximum = pool_of(node, size[2:]), node.op_type == "MaxPool"
        before, after, beyond = pool.before, pool.after, pool.beyond
        include = node.attributes.get_int("count_include_pad", 0)
        if include and any(beyond):
            if any(before) or any(after):
                _pad_in_front(node, edit, before, after, 0.0)
            before, after, include = [0] * len(before), beyond, 0
        else:
            after = [a + b for a, b in zip(after, beyond)]
        if any(a >= k for a, k in zip(after, pool.kernel)) and any(beyond):
            if not maximum:
                raise UnsupportedModelError(
                    f"{label(node)} has dilations {pool.dilations} and ceil_mode, so that its last window reaches "
                    f"{max(after)} elements beyond the image; use ceil_mode = 0 or dilations of 1"
                )
            _pad_in_front(node, edit, before, after, float(LOWEST))
            before = after = [0] * len(before)
        new: dict[str, AttributeValue] = {
            "kernel_shape": pool.kernel,
            "strides": pool.strides,
            "dilations": pool.dilations,
            "pads": [*before, *after],
            "ceil_mode": 0,
        }
        if not maximum:
            new["count_include_pad"] = include
        return set_attributes(node, new, drop=("auto_pad",))


def _pad_in_front(node: ir.Node, edit: Edit, before: Sequence[int], after: Sequence[int], fill: float) -> None:
    x = argument(node, 0)
    amounts = edit.constant("pads", np.array([0, 0, *before, 0, 0, *after], np.int64))
    size = [n + b + a for n, b, a in zip(static_shape(x) or (), [0, 0, *before], [0, 0, *after])]
    inputs = [x, amounts, edit.constant("pad_value", np.float32(fill))]
    node.replace_input_with(0, edit.insert(node, "Pad", inputs, {"mode": "constant"}, shape=size))
