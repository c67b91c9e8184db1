"""Nodes that no format but ONNX can have: read as they came, kept in float there, and refused by name elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import edgecompress
import quantizing
from edgecompress.analysis.channel_groups import channel_groups
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import pack, tflite
from edgecompress.errors import UnsupportedModelError
from edgecompress.evaluate.file_count import count_file
from edgecompress.evaluate.saturation import as_devices_compute
from edgecompress.graph.annotations import is_integer
from edgecompress.ingest import load
from edgecompress.operators import record_of
from edgecompress.operators.example import Example
from formats import FORMATS, check_close, feeds, original

VOLUME = {"x": (1, 2, 5, 5, 5)}
# reason -> network. Each has a node of that kind; in front of it and behind it are others that every format has.
KEPT = {
    "operator Det of 4 x 4 matrices": Example("a = Relu(x) d = Det(a) y = Neg(d)", {"x": (1, 4, 4, 4)}),
    "operator ConvTranspose in 3 dimensions": Example(
        "a = Relu(x) b = ConvTranspose(a, w) y = Relu(b)", VOLUME, {"w": (2, 3, 3, 3, 3)}
    ),
    "operator ConvTranspose whose input 1 is computed": Example(
        "w = Relu(z) y = ConvTranspose(x, w)", {"x": (1, 4, 6, 5), "z": (4, 3, 3, 3)}
    ),
    "operator BitwiseAnd": Example("c = Cast<to=3>(x) d = BitwiseAnd(c, c) y = Cast<to=1>(d)"),
    "operator ReduceMin": Example("c = Cast<to=2>(x) d = ReduceMin<keepdims=0>(c) y = Cast<to=1>(d)"),
    "operator MaxPool with a second output": Example(
        "a = Relu(x) y, i = MaxPool<kernel_shape=[2, 2]>(a) z = Cast<to=1>(i)", outputs=("y", "z")
    ),
}


@pytest.mark.parametrize("reason", KEPT)
def test_onnx_keeps_the_node_and_other_formats_refuse_it_alone(reason: str) -> None:
    example = KEPT[reason]
    read = load(example.model())
    assert any("only .onnx can have" in note and reason in note for note in read.notes)
    inputs = {name: np.abs(x) for name, x in feeds(read.model).items()}  # casts to uint8 are defined above 0 alone
    check_close(FORMATS["onnx"](read.model, inputs), original(example, inputs), example.nodes)
    for emit in (tflite.emit, pack.emit):
        with pytest.raises(UnsupportedModelError, match=f"{reason}.*'[a-z]'"):
            emit(read.model)


@pytest.mark.parametrize("reason", ["operator Det of 4 x 4 matrices", "operator ConvTranspose in 3 dimensions"])
def test_the_node_is_float_among_integers_and_its_channels_stay(reason: str) -> None:
    example = KEPT[reason]
    model = load(example.model()).model
    (kept,) = [node for node in model.graph if node.op_type in reason]
    assert not [g for g in channel_groups(model) if kept.name in str(g)]
    quantized = quantizing.static(model, feeds(model, 32))
    assert not any(is_integer(node) for node in quantized.graph if node.op_type in reason)
    inputs = feeds(model)
    data = as_devices_compute(onnx_emitter.emit(quantized))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (y,), (expected,) = session.run(None, inputs), original(example, inputs)
    assert quantizing.snr_db(expected, y) > 20


BETWEEN = {
    "Sin": "b = Sin(a)",
    "Cos": "b = Cos(a)",
    "Atan": "b = Atan(a)",
    "Sinh": "b = Sinh(a)",
    "Erf": "b = Erf(a)",
    "CumSum": "b = CumSum(a, one)",
    "Det": "r = Reshape(a, square) d = Det(r) e = ReduceMean<keepdims=0>(d, axes) f = Tanh(e) b = Add(a, f)",
}


@pytest.mark.parametrize("name", BETWEEN)
def test_layers_around_a_node_that_others_lack_are_int8_in_onnx(name: str) -> None:
    """Both convolutions, whatever stands between them."""
    weights = {"w": (4, 4, 1, 1), "v": (3, 4, 3, 3)}
    constants = {"one": np.array(1), "square": np.array([1, 16, 3, 3]), "axes": np.array([0, 1])}
    nodes = f"a = Conv(x, w) {BETWEEN[name]} y = Conv(b, v)"
    used = {k: v for k, v in constants.items() if f" {k})" in nodes}
    example = Example(nodes, {"x": (1, 4, 6, 6)}, weights, used)
    model = load(example.model()).model
    macs = {str(node.name): record_of(node).macs(node) for node in model.graph}
    quantized = quantizing.static(model, feeds(model, 32))
    found = count_file(onnx_emitter.emit(quantized), "onnx", macs)
    assert found.macs == {"int8": 4 * 4 * 36 + 4 * 3 * 9 * 16}
    (y,), (expected,) = FORMATS["onnx"](quantized, feeds(model)), original(example, feeds(model))
    assert quantizing.snr_db(expected, y) > 20


def test_training_refuses_it_by_name() -> None:
    torch_model = pytest.importorskip("edgecompress.train.module.torch_model")
    with pytest.raises(UnsupportedModelError, match="have no PyTorch form: Det"):
        torch_model.TorchModel(load(KEPT["operator Det of 4 x 4 matrices"].model()).model)


def test_a_conversion_writes_onnx_and_says_why_not_tflite(tmp_path: Path) -> None:
    data = {"x": np.random.default_rng(0).normal(size=(16, 4, 5, 5)).astype(np.float32)}
    pool = "LpPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>"
    example = Example(f"a = Conv(x, w) b = Relu(a) d = {pool}(b) y = Neg(d)", {"x": (1, 4, 5, 5)}, {"w": (4, 4, 1, 1)})
    made = edgecompress.convert(
        example.model(), "android", calib=data, formats=["onnx", "tflite"], output=tmp_path / "out"
    )
    assert set(made.report.refused) == {"tflite"} and "operator LpPool: 1 ('d')" in made.report.refused["tflite"]
    kinds = [node.op_type for node in onnx.load(made.artifacts["onnx"]).graph.node]
    assert "LpPool" in kinds and "QuantizeLinear" in kinds


def test_what_onnx_runtime_cannot_run_is_refused_in_one_line() -> None:
    with pytest.raises(edgecompress.EdgeCompressError, match="ONNX Runtime can't") as caught:
        load(Example("c = Cast<to=4>(x) m = Max(c, c) d = BitwiseNot(m) y = Cast<to=1>(d)").model())
    assert "\n" not in str(caught.value)
