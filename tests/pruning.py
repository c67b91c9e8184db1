"""Pruned models against the original with the same channels zeroed, in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from edgecompress.analysis.channel_groups import ChannelGroup
from edgecompress.graph.fusion import constant
from edgecompress.operators import record_of

BIASES = {"Add": (0, 1), "Conv": (2,), "ConvTranspose": (2,), "Gemm": (2,)}


def zeroed(model: ir.Model, removed: dict[ChannelGroup, np.ndarray]) -> ir.Model:
    """A copy in which all that makes these channels (weights, biases) and all weights that read them are zero."""
    model = model.clone()
    where: dict[str, list[tuple[int, np.ndarray]]] = {}
    for group, channels in removed.items():
        for m in group.members:
            where.setdefault(m.value, []).append((m.axis, m.positions[np.isin(m.channels, channels)]))
    for node in model.graph:
        weights = [m.position for m in record_of(node).weights.matrices if node.op_type != "Gather"]
        for i in (*weights, *BIASES.get(node.op_type, ())):
            value = node.inputs[i] if i < len(node.inputs) else None
            if value is None or constant(value) is None:
                continue
            array = constant(value).copy()
            for axis, positions in where.get(value.name, ()):
                array[(slice(None),) * axis + (positions,)] = 0
            value.const_value = ir.tensor(array, name=value.name)
    return model


def run(model: ir.Model, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)
