"""Models whose batch size is open: their files compute any number of samples, as ONNX Runtime computes the user's own
model."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import TensorProto, helper, numpy_helper

import edgecompress
import edgecompress_runtime
import networks
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import tflite as tflite_emitter
from edgecompress.errors import InputError
from edgecompress.evaluate.several_samples import difference
from edgecompress.graph.batch_axes import batch_axes
from edgecompress.ingest import load
from nets import batched


def in_onnx_runtime(model: Path | bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(None, inputs)


def in_litert(data: bytes, inputs: list[np.ndarray], *, reference: bool = False) -> list[np.ndarray]:
    """inputs: as the file takes them."""
    kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=kind)
    places = [d["index"] for d in interpreter.get_input_details()]
    for index, array in zip(places, inputs, strict=True):
        interpreter.resize_tensor_input(index, array.shape)
    interpreter.allocate_tensors()
    for index, array in zip(places, inputs, strict=True):
        interpreter.set_tensor(index, array)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


def to_file(io, array: np.ndarray) -> np.ndarray:
    """ONNX's order of axes to the file's."""
    moved = array.transpose([axis for axis in io.form if axis is not None])
    return np.ascontiguousarray(moved).reshape(len(array), *io.shape[1:]).astype(io.dtype.numpy())


# what mixes the batch with other axes on the way: heads, rows of a Gemm, steps of a recurrence
OPENED = ("mobilenet", "transformer_norm_first", "language_model", "lstm_bidirectional", "gru", "moves_torchscript")


@pytest.mark.parametrize("name", OPENED)
def test_files_take_any_number_of_samples(name, tmp_path):
    path = networks.export(name, tmp_path, open_batch=True)
    require_any_number(path, networks.example(name, 5, seed=1))


@pytest.mark.parametrize(
    ("module", "shape"),
    [(batched.DetectorHead, (3, 16, 16)), (batched.VisionTransformer, (3, 16, 16)), (batched.Windows, (8, 8, 8)),
     (batched.OneStep, (6,)), (batched.Frames, (5, 8, 8))],
)  # fmt: skip
def test_the_batch_may_go_through_other_axes(module, shape, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "model.onnx"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module().eval(), (torch.randn(2, *shape),), path, dynamo=False, opset_version=17, input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )  # fmt: skip
    require_any_number(path, {"x": np.random.default_rng(0).standard_normal((5, *shape), np.float32)})


def require_any_number(path: Path, inputs: dict[str, np.ndarray]) -> None:
    """inputs: of five samples."""
    model = load(path).model
    expected = in_onnx_runtime(path, inputs)
    data = onnx_emitter.emit(model, open_batch=True)
    assert [i.type.tensor_type.shape.dim[0].dim_param for i in onnx.load_from_string(data).graph.input] == [
        "batch" for _ in inputs
    ]
    made = tflite_emitter.emit(model, open_batch=True)
    details = Interpreter(model_content=made.data).get_input_details()
    assert all(d["shape_signature"][0] == -1 and d["shape"][0] == 1 for d in details)
    stored = [to_file(io, inputs[io.name]) for io in made.inputs]
    for n, reference in ((5, False), (2, True), (1, False)):
        alike(expected, in_onnx_runtime(data, {k: v[:n] for k, v in inputs.items()}), n)
        found = in_litert(made.data, [x[:n] for x in stored], reference=reference)
        alike(expected, [y.transpose(np.argsort(io.form)) for io, y in zip(made.outputs, found)], n)


def alike(expected: list[np.ndarray], found: list[np.ndarray], count: int) -> None:
    """An output whose first axis is not the batch (final states of a recurrence) has it along axis 1."""
    for a, b in zip(expected, found, strict=True):
        a = a[:count] if len(a) == 5 else a[:, :count]
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-4 * max(np.abs(a).max(), 1))


def test_a_class_token_joins_every_sample():
    """Concat of a constant of one sample, as exporters write a class token that is expanded to the batch."""
    nodes = [
        helper.make_node("Shape", ["x"], ["dims"]),
        helper.make_node("Slice", ["dims", "zero", "one"], ["count"]),
        helper.make_node("Concat", ["count", "rest"], ["size"], axis=0),
        helper.make_node("Expand", ["token", "size"], ["tokens"]),
        helper.make_node("Concat", ["tokens", "x"], ["joined"], axis=1),
        helper.make_node("MatMul", ["joined", "w"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    arrays = {"token": rng.standard_normal((1, 1, 4), np.float32), "w": rng.standard_normal((4, 3), np.float32)}
    arrays |= {"zero": np.array([0]), "one": np.array([1]), "rest": np.array([1, 4])}
    proto = _model(nodes, arrays, {"x": ["n", 5, 4]}, {"y": ["n", 6, 3]})
    model = load(proto).model
    x = rng.standard_normal((4, 5, 4), np.float32)
    (expected,) = in_onnx_runtime(proto.SerializeToString(), {"x": x})
    for found in (
        in_onnx_runtime(onnx_emitter.emit(model, open_batch=True), {"x": x})[0],
        in_litert(tflite_emitter.emit(model, open_batch=True).data, [x])[0],
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_positions_may_count_the_samples():
    """Rows of a flattened mask, at 4 n + i, as transformers exports them."""
    nodes = [
        helper.make_node("Shape", ["x"], ["dims"]),
        helper.make_node("ReduceProd", ["dims"], ["count"], keepdims=0),
        helper.make_node("Range", ["zero", "count", "one"], ["places"]),
        helper.make_node("Reshape", ["places", "rows"], ["grid"]),
        helper.make_node("Reshape", ["x", "flat"], ["line"]),
        helper.make_node("Gather", ["line", "grid"], ["picked"]),
        helper.make_node("Softmax", ["picked"], ["y"], axis=-1),
    ]
    arrays = {"zero": np.array(0), "one": np.array(1), "rows": np.array([-1, 1, 4]), "flat": np.array([-1])}
    proto = _model(nodes, arrays, {"x": ["n", 4]}, {"y": ["n", 1, 4]})
    x = np.random.default_rng(0).standard_normal((3, 4), np.float32)
    (expected,) = in_onnx_runtime(proto.SerializeToString(), {"x": x})
    (found,) = in_onnx_runtime(onnx_emitter.emit(load(proto).model, open_batch=True), {"x": x})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_batch_size_that_an_exporter_wrote_into_the_model_is_fixed():
    nodes = [helper.make_node("Reshape", ["x", "size"], ["y"])]
    found = load(_model(nodes, {"size": np.array([1, 2, 2])}, {"x": ["n", 4]}, {"y": [1, 2, 2]}))
    reason = "ONNX Runtime can't run the model that came in with several samples"
    assert found.notes == (f"the dynamic batch size of 'x' was set to 1: {reason}",)
    assert batch_axes(found.model.graph) is None


def test_an_interpreter_that_mixes_samples_is_noticed():
    """Softmax over the samples, written as if the batch size were open."""
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 4), np.float32)}
    for axis, said in ((0, "ONNX Runtime gives something else for 3 samples at once"), (1, None)):
        nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=axis)]
        model = load(_model(nodes, {}, {"x": [1, 4]}, {"y": [1, 4]})).model
        assert difference(onnx_emitter.emit(model, open_batch=True), "onnx", None, feeds) == said


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads", "more"),
    [((5, 6), (2, 2), (2, 2), (0, 0, 0, 0), (0, 0)), ((4, 5), (6, 3), (3, 3), (2, 0, 1, 2), (1, 2)),
     ((7,), (4,), (2,), (1, 1), (1,)), ((4, 4), (3, 2), (1, 1), (1, 0, 1, 1), (0, 0))],
)  # fmt: skip
def test_transposed_convolutions_do_not_need_the_batch_size(size, kernel, stride, pads, more):
    rng = np.random.default_rng(0)
    attributes = {"kernel_shape": kernel, "strides": stride, "pads": pads, "output_padding": more}
    nodes = [helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], **attributes)]
    arrays = {"w": rng.standard_normal((3, 4, *kernel), np.float32), "b": rng.standard_normal(4, np.float32)}
    proto = _model(nodes, arrays, {"x": ["n", 3, *size]}, {"y": ["n", 4, *[None] * len(size)]})
    x = rng.standard_normal((3, 3, *size), np.float32)
    (expected,) = in_onnx_runtime(proto.SerializeToString(), {"x": x})
    made = tflite_emitter.emit(load(proto).model, open_batch=True)
    for reference in (False, True):
        (found,) = in_litert(made.data, [to_file(made.inputs[0], x)], reference=reference)
        np.testing.assert_allclose(np.moveaxis(found, -1, 1), expected, rtol=0, atol=1e-4)


@pytest.mark.long
def test_an_int8_transposed_convolution_is_the_same_to_the_bit(tmp_path):
    """As CONV_2D and DEPTH_TO_SPACE, whose batch size is open, and as TRANSPOSE_CONV."""
    path, files = networks.export("unet_bilinear", tmp_path, open_batch=True), []
    calib = networks.example("unet_bilinear", 8)
    for batch in (None, 1):
        result = edgecompress.convert(
            path, output=tmp_path / str(batch), calib=calib, batch=batch, formats=["tflite"], min_snr=0
        )
        files.append(result.artifacts["tflite"].read_bytes())
    x = next(iter(networks.example("unet_bilinear", 4, seed=1).values())).transpose(0, 2, 3, 1)
    together = in_litert(files[0], [x])[0]
    alone = [in_litert(files[1], [x[i : i + 1]])[0] for i in range(4)]
    assert np.array_equal(together, np.concatenate(alone))


def test_batch_fixes_the_size(tmp_path):
    proto = _model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": ["n", 4]}, {"y": ["n", 4]})
    x = np.random.default_rng(0).standard_normal((32, 4), np.float32)
    sizes = {}
    for batch in (None, 2):
        result = edgecompress.convert(
            proto, output=tmp_path / str(batch), calib=x, batch=batch, formats=("onnx", "tflite", "pack")
        )
        paths = result.artifacts
        (onnx_input,) = onnxruntime.InferenceSession(str(paths["onnx"])).get_inputs()
        (tensor,) = Interpreter(str(paths["tflite"])).get_input_details()
        loaded = edgecompress_runtime.load(paths["pack"])
        sizes[batch] = onnx_input.shape[0], tensor["shape_signature"][0], loaded.inputs[0].shape[0]
        for found in (loaded(x[:2]), in_litert(paths["tflite"].read_bytes(), [x[:2]])[0]):
            np.testing.assert_allclose(found, np.maximum(x[:2], 0), rtol=0, atol=0.05)
    assert sizes == {None: ("batch", -1, 1), 2: (2, 2, 2)}
    with pytest.raises(
        InputError, match="--batch 2: the model, or --input-shape, fixes the first dimension of every input"
    ):
        load(_model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": [1, 4]}, {"y": [1, 4]}), batch=2)
    with pytest.raises(InputError, match="batch = 0: expected a whole number of at least 1"):
        load(proto, batch=0)


def _model(nodes, arrays, inputs, outputs) -> onnx.ModelProto:
    def values(shapes):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in shapes.items()]

    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
