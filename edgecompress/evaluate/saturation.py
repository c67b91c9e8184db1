"""Whether ONNX Runtime's integer kernels are exact on this machine, and how a file is checked where they are not."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime

from edgecompress.emit.onnx.unsigned_weights import with_unsigned_weights


@cache
def saturates() -> bool:
    """Whether products of uint8 activations and int8 weights are added in 16 bits, in pairs."""
    graph = onnx.parser.parse_graph("g (uint8[1,8] a) => (int32[1,16] y) { y = MatMulInteger(a, b) }")
    graph.initializer.append(onnx.numpy_helper.from_array(np.full((8, 16), 127, np.int8), "b"))
    opset = onnx.helper.make_opsetid("", 10)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return bool((session.run(None, {"a": np.full((1, 8), 255, np.uint8)})[0] != 8 * 255 * 127).any())


def as_devices_compute(model: bytes) -> bytes:
    """The file for ONNX Runtime here: as it is, or, where its kernels saturate and those of phones don't, with weights
    for which they are exact."""
    if b"DequantizeLinear" not in model or not saturates():
        return model
    proto = onnx.load_model_from_string(model)
    return proto.SerializeToString() if with_unsigned_weights(proto) else model
