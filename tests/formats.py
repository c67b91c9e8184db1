"""A canonical model as each format computes it, and the model that it came from in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import quantizing
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import pack, tflite
from edgecompress.errors import EdgeCompressError
from edgecompress.evaluate.saturation import as_devices_compute
from edgecompress.lowering.tensor_io import TFLiteModel
from edgecompress.operators.example import Example
from edgecompress.operators.rewriting import integer_parts, tflite_parts
from edgecompress_runtime.execute import Executor

CLOSE = 2e-5  # of the largest value: float32, in another order

Arrays = dict[str, np.ndarray]


def feeds(model: ir.Model, count: int = 0, seed: int = 3) -> Arrays:
    """Random inputs; with a count, that many samples of each."""
    rng = np.random.default_rng(seed)
    shapes = {str(v.name): [int(n) for n in v.shape] for v in model.graph.inputs}
    return {n: rng.normal(size=(count, *s[1:]) if count else s).astype(np.float32) for n, s in shapes.items()}


def original(example: Example, inputs: Arrays) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(example.model().SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def on_plan(model: ir.Model, inputs: Arrays) -> list[np.ndarray]:
    """As the runtime computes it, kernel by kernel."""
    io: TFLiteModel = pack.emit(model)
    executor = Executor(pack.plan(model))
    outputs = executor(*(tensor.to_device(inputs[tensor.name]) for tensor in io.inputs))
    return [tensor.from_device(y.reshape(tensor.shape)) for tensor, y in zip(io.outputs, outputs, strict=True)]


def on_litert(model: ir.Model, inputs: Arrays) -> list[np.ndarray]:
    """With the reference kernels, which define int8; they lack ELU."""
    emitted = tflite.emit(model)
    has_elu = any(node.op_type == "Elu" for node in tflite_parts(model.clone()).graph)
    resolver = OpResolverType.AUTO if has_elu else OpResolverType.BUILTIN_REF
    interpreter = Interpreter(model_content=emitted.data, num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    for details, tensor in zip(interpreter.get_input_details(), emitted.inputs, strict=True):
        interpreter.set_tensor(details["index"], tensor.to_device(inputs[tensor.name]))
    interpreter.invoke()
    found = [interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()]
    return [tensor.from_device(y) for y, tensor in zip(found, emitted.outputs, strict=True)]


def on_onnx(model: ir.Model, inputs: Arrays) -> list[np.ndarray]:
    data = onnx_emitter.emit(model)
    onnx.checker.check_model(onnx.ModelProto.FromString(data))
    session = onnxruntime.InferenceSession(as_devices_compute(data), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def int8(model: ir.Model) -> ir.Model:
    """Quantized, all of it where that can be: else outputs of a fixed range stay float."""
    model = integer_parts(model.clone())
    try:
        return quantizing.static(model, feeds(model, 32), integer_only=True)
    except EdgeCompressError:
        return quantizing.static(model, feeds(model, 32))


FORMATS: dict[str, Callable[[ir.Model, Arrays], list[np.ndarray]]] = {
    "onnx": on_onnx,
    "tflite": on_litert,
    "pack": on_plan,
}


def check_close(found: list[np.ndarray], expected: list[np.ndarray], what: str) -> None:
    for y, e in zip(found, expected, strict=True):
        assert y.shape == e.shape, what
        np.testing.assert_allclose(y, e, rtol=0, atol=CLOSE * max(1.0, float(np.abs(e).max())), err_msg=what)
