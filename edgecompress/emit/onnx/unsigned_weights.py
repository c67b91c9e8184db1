"""int8 weights of a QDQ model as uint8, with zero points 128 higher: the same real values.

On x86 without VNNI, ONNX Runtime multiplies uint8 activations by int8 weights with VPMADDUBSW, which adds pairs of
products in 16 bits and saturates (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "When
and why do I need to try U8U8?"). Its kernels for uint8 weights are exact everywhere, but slower where the others are.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx

from edgecompress.emit.onnx.additions import unsigned
from edgecompress.graph.inner_graphs import with_branches


def with_unsigned_weights(model: onnx.ModelProto) -> bool:
    """Changes int8 constants that DequantizeLinear alone reads, directly or through a Gather of a table; in place.
    Returns whether there were any."""
    graphs = list(with_branches(model.graph))
    constants = {t.name: t for g in graphs for t in g.initializer}
    nodes = [node for g in graphs for node in g.node]
    makers = {name: node for node in nodes for name in node.output}
    uses = Counter(name for node in nodes for name in node.input)
    zero_points: dict[tuple[tuple[int, ...], bytes], str] = {}
    for node in nodes:
        if node.op_type != "DequantizeLinear":
            continue
        names = [node.input[0]]  # of what only this node reads in the end
        if (maker := makers.get(names[0])) is not None and maker.op_type == "Gather":
            names.append(maker.input[0])
        stored = constants.get(names[-1])
        if stored is None or stored.data_type != onnx.TensorProto.INT8 or any(uses[name] > 1 for name in names):
            continue
        _replace(stored, unsigned(onnx.numpy_helper.to_array(stored)))
        zero = onnx.numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 else np.zeros((), np.int8)
        array = np.broadcast_to(unsigned(zero), tuple(constants[node.input[1]].dims))
        name = zero_points.setdefault((array.shape, array.tobytes()), f"{stored.name}/zero_point")
        if name not in constants:
            constants[name] = onnx.numpy_helper.from_array(array.copy(), name)
            model.graph.initializer.append(constants[name])
        del node.input[2:]
        node.input.append(name)
    return bool(zero_points)


def _replace(tensor: onnx.TensorProto, array: np.ndarray) -> None:
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
