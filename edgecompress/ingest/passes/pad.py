"""Spells out the pads of Pad, and works them into the convolution or pool behind it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument
from edgecompress.ingest.passes.canonical_convolution import set_attributes
from edgecompress.ingest.passes.edit import Edit, NodePass, input_or_none, static_shape

LOWEST = float(np.finfo(np.float32).min)


class CanonicalPad(NodePass):
    """Pad(x, pads [2 rank], value): axes resolved, value present when the mode is constant, no axes input.

    Edges that are repeated, and ends that are joined (`wrap`), are a Gather along each axis.
    """

    operators = frozenset({"Pad"})

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        x = argument(node, 0)
        shape, amounts = static_shape(x), constant(node.inputs[1])
        axes, filler = constant(input_or_none(node, 3)), constant(input_or_none(node, 2))
        if shape is None or amounts is None or (input_or_none(node, 3) is not None and axes is None):
            return False
        if input_or_none(node, 2) is not None and filler is None:
            return False
        rank = len(shape)
        pads = np.zeros((2, rank), np.int64)
        pads[:, list(range(rank)) if axes is None else list(axes)] = amounts.reshape(2, -1)
        mode = node.attributes.get_string("mode", "constant")
        if mode in ("edge", "wrap"):
            _pick(node, edit, pads, mode)
            return True
        inputs = [x, edit.constant("pads", pads.reshape(-1))]
        if mode == "constant":
            fill = np.zeros((), (x.dtype or ir.DataType.FLOAT).numpy()) if filler is None else filler.reshape(())
            inputs.append(edit.constant("pad_value", fill))
        edit.replace(node, "Pad", inputs, {"mode": mode})
        return True


def _pick(node: ir.Node, edit: Edit, pads: np.ndarray, mode: str) -> None:
    """Writes the Pad as Gathers of the positions that stand in the result."""
    x = argument(node, 0)
    size = static_shape(x) or ()
    for axis in np.flatnonzero(pads.any(axis=0)):
        before, after = pads[:, axis]
        inner = np.arange(size[axis])[max(-before, 0) : size[axis] + min(after, 0)]
        amounts = (max(int(before), 0), max(int(after), 0))
        picked = np.pad(inner, amounts, mode="edge" if mode == "edge" else "wrap")
        x = edit.insert(node, "Gather", [x, edit.constant("picked", picked.astype(np.int64))], {"axis": int(axis)})
    edit.substitute(node, x)


class MergePad(NodePass):
    """Pad(constant) -> Conv, AveragePool or MaxPool, explicit and canonical: the layer pads by itself.

    1. Zeros in front of Conv add up with its pads.
    2. Zeros in front of AveragePool count in its divisor: count_include_pad = 1, if it has no other pads.
    3. The lowest value (or -inf) in front of MaxPool adds up with its pads; zeros do when the input is a
       Relu's.
    """

    operators = frozenset({"AveragePool", "Conv", "MaxPool"})

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        pad = argument(node, 0).producer()
        own = node.attributes.get_ints("pads")
        if pad is None or pad.op_type != "Pad" or own is None or pad.attributes.get_string("mode") != "constant":
            return False
        amounts, fill = constant(pad.inputs[1]), constant(input_or_none(pad, 2))
        if amounts is None or fill is None:
            return False
        before, after = amounts.reshape(2, -1)
        if before[:2].any() or after[:2].any() or (amounts < 0).any():
            return False
        if not _fits(node, pad, amounts, float(fill)):
            return False
        merged = [int(a + b) for a, b in zip(own, [*before[2:], *after[2:]])]
        set_attributes(node, {"pads": merged})
        if node.op_type == "AveragePool":
            set_attributes(node, {"count_include_pad": 1})
        node.replace_input_with(0, pad.inputs[0])
        if not pad.outputs[0].uses() and not pad.outputs[0].is_graph_output():
            edit.graph.remove(pad, safe=True)
        return True


def _fits(node: ir.Node, pad: ir.Node, amounts: np.ndarray, fill: float) -> bool:
    if node.op_type == "Conv":
        return fill == 0.0
    kernel = node.attributes.get_ints("kernel_shape")
    if (amounts.reshape(2, -1)[:, 2:] >= np.array(kernel)).any():
        return False  # a pool's pads must be smaller than its kernel (ONNX Runtime, TFLite)
    if node.op_type == "AveragePool":
        unpadded = not any(node.attributes.get_ints("pads"))
        return fill == 0.0 and (unpadded or bool(node.attributes.get_int("count_include_pad", 0)))
    source = argument(pad, 0).producer()
    return fill <= LOWEST or (fill == 0.0 and source is not None and source.op_type == "Relu")
