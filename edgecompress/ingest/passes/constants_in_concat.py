"""Constants that are joined to each sample, such as a class token."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.graph.batch_axes import batch_axes
from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import arguments, integer
from edgecompress.ingest.passes.edit import Edit, NodePass, static_shape


class ConstantsInConcat(NodePass):
    """Concat(c, x) -> Pad(x) + [c, 0] where the batch size is open: that goes with any number of samples, while a
    constant would have to be repeated for each of them."""

    operators = frozenset({"Concat"})

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        shape, samples = static_shape(node.outputs[0]), (batch_axes(edit.graph) or {}).get(str(node.outputs[0].name))
        parts = [constant(v) for v in arguments(node)]
        if shape is None or samples is None or node.outputs[0].dtype != ir.DataType.FLOAT:
            return False
        axis, computed = integer(node, "axis") % len(shape), [i for i, part in enumerate(parts) if part is None]
        if not computed or len(computed) == len(parts) or axis == samples:
            return False
        first, last = computed[0], computed[-1] + 1
        if last - first != len(computed):
            return False
        x = node.inputs[first]
        if len(computed) > 1:
            x = edit.insert(node, "Concat", node.inputs[first:last], {"axis": axis})
        before, after = (sum(p.shape[axis] for p in some if p is not None) for some in (parts[:first], parts[last:]))
        pads = np.zeros((2, len(shape)), np.int64)
        pads[:, axis] = before, after
        inner = np.zeros((*shape[:axis], shape[axis] - before - after, *shape[axis + 1 :]), np.float32)
        padded = edit.insert(node, "Pad", [x, edit.constant("pads", pads.reshape(-1))], shape=shape)
        rest = np.concatenate([p for p in (*parts[:first], inner, *parts[last:]) if p is not None], axis)
        edit.replace(node, "Add", [padded, edit.constant("joined", rest.astype(np.float32))])
        return True
