"""Interpreters against NumPy and against each other; what they do with batches, names and bad models."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgecompress.emit.onnx import emit as emit_onnx
from edgecompress.emit.tflite import emit as emit_tflite
from edgecompress.evaluate.interpreters import (
    InterpreterError,
    LiteRT,
    OnnxRuntime,
    TFLiteRuntime,
    installed_tflite_interpreters,
)
from edgecompress.evaluate.micro import TFLM

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(6, 3, 3, 3)).astype(np.float32)
BIAS = RNG.normal(size=6).astype(np.float32)


def parse(text: str, **arrays: np.ndarray) -> ir.Model:
    """Nodes in ONNX's text form, with initializers by name -> model with shapes."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> g {text}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in arrays.items())
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def conv_net() -> ir.Model:
    """Conv, Relu, mean over the image; names with characters that file formats stumble on."""
    model = parse(
        """(float[1, 3, 8, 8] x) => (float[1, 6, 1, 1] y) {
            c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [1, 1], dilations = [1, 1],
                     group = 1>(x, w, b)
            r = Relu(c)
            y = GlobalAveragePool(r)
        }""",
        w=WEIGHT,
        b=BIAS,
    )
    model.graph.inputs[0].name, model.graph.outputs[0].name = "serving/input_1:0", "Ausgabe/größe:0"
    return model


def conv_net_numpy(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    convolved = np.einsum("nchwij,ocij->nohw", windows, WEIGHT) + BIAS[:, None, None]
    return np.maximum(convolved, 0).mean(axis=(2, 3), keepdims=True)


X = RNG.normal(size=(5, 3, 8, 8)).astype(np.float32)
FEED = {"serving/input_1:0": X}


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("kind", ["model", "bytes", "file"])
def test_onnx_runtime(tmp_path, kind, optimize):
    model = conv_net()
    (tmp_path / "m.onnx").write_bytes(emit_onnx(model))
    given = {"model": model, "bytes": emit_onnx(model), "file": tmp_path / "m.onnx"}[kind]
    (y,) = OnnxRuntime(given, optimize=optimize).run(FEED)
    np.testing.assert_allclose(y, conv_net_numpy(X), rtol=1e-4, atol=1e-5)


def test_a_large_constant_that_nothing_reads_is_no_fault():
    """As smoothing leaves behind where it puts another matrix in a layer's place."""
    model = conv_net()
    rest = ir.tensor(np.ones((300, 300), np.float32), name="rest")
    model.graph.register_initializer(ir.Value(name="rest", const_value=rest))
    (y,) = OnnxRuntime(model).run(FEED)
    np.testing.assert_allclose(y, conv_net_numpy(X), rtol=1e-4, atol=1e-5)


def test_extra_outputs_come_after_the_models_own():
    outputs = OnnxRuntime(conv_net(), extra_outputs=["r", "Ausgabe/größe:0", "c"]).run(FEED)
    y, r, again, c = outputs
    assert r.shape == c.shape == (5, 6, 8, 8)
    np.testing.assert_array_equal(r, np.maximum(c, 0))
    np.testing.assert_array_equal(y, again)
    np.testing.assert_allclose(y, r.mean(axis=(2, 3), keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("kind", installed_tflite_interpreters())
def test_tflite(kind, tmp_path, capfd):
    emitted = emit_tflite(conv_net())
    (tmp_path / "m.tflite").write_bytes(emitted.data)
    for data in (emitted.data, tmp_path / "m.tflite"):
        (y,) = kind(data, emitted).run(FEED)
        np.testing.assert_allclose(y, conv_net_numpy(X), rtol=1e-4, atol=1e-5)
    assert "XNNPACK" not in capfd.readouterr().err


def test_litert_reference_kernels():
    emitted = emit_tflite(conv_net())
    interpreter = LiteRT(emitted.data, emitted, reference=True)
    np.testing.assert_allclose(interpreter.run(FEED)[0], conv_net_numpy(X), rtol=1e-4, atol=1e-5)
    assert interpreter.name == "LiteRT reference" and interpreter.version[0].isdigit()


def test_tflite_runtime_is_used_only_with_numpy_1(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert installed_tflite_interpreters() == [LiteRT, TFLiteRuntime]
    monkeypatch.setattr(np, "__version__", "2.0.0")
    assert installed_tflite_interpreters() == [LiteRT]


def test_model_with_a_batch_of_its_own():
    nodes = "y = Neg(x)\n s = ReduceSum<keepdims = 0>(x)"
    model = parse(f"(float[2, 4] x) => (float[2, 4] y, float s) {{ {nodes} }}")
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    y, s = OnnxRuntime(model).run({"x": x})  # runs of 2, 2 and 1, filled up
    np.testing.assert_array_equal(y, -x)
    np.testing.assert_allclose(s[:2], [x[:2].sum(), x[2:4].sum()], rtol=1e-5)


def test_samples_that_are_whole_inputs():
    model = parse("(float[1, 3] x, float[2, 1, 3] h) => (float[2, 1, 3] y) { y = Add(x, h) }")
    x, h = RNG.normal(size=(4, 3)).astype(np.float32), RNG.normal(size=(4, 2, 1, 3)).astype(np.float32)
    (y,) = OnnxRuntime(model).run({"x": x, "h": h})
    np.testing.assert_allclose(y, x[:, None, None] + h, rtol=1e-6)


def test_integer_outputs_stay_integers():
    model = parse("(float[1, 7] x) => (int64[1] y) { y = ArgMax<axis = 1, keepdims = 0>(x) }")
    x = RNG.normal(size=(9, 7)).astype(np.float32)
    emitted = emit_tflite(model)
    for interpreter in (OnnxRuntime(model), LiteRT(emitted.data, emitted)):
        (y,) = interpreter.run({"x": x})
        assert y.dtype.kind == "i"
        np.testing.assert_array_equal(y, x.argmax(axis=1))


def test_what_does_not_load_is_said_with_the_interpreters_name():
    emitted = emit_tflite(conv_net())
    with pytest.raises(InterpreterError, match=r"^ONNX Runtime \d+\..*protobuf"):
        OnnxRuntime(b"no model")
    with pytest.raises(InterpreterError, match=r"^LiteRT \d+\."):
        LiteRT(b"no model", emitted)
    with pytest.raises(InterpreterError, match="ONNX Runtime"):
        OnnxRuntime(conv_net()).run({"serving/input_1:0": X[:, :2]})


def test_other_output_on_standard_error_is_kept():
    code = (
        "import os\nfrom edgecompress.evaluate.interpreters import _without_info\n"
        "with _without_info():\n    os.write(2, b'INFO: chatter\\nERROR: kept\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "ERROR: kept\n"


def test_tflm_computes_as_a_microcontroller_and_says_what_its_arena_takes():
    pytest.importorskip("tflite_micro")
    emitted = emit_tflite(conv_net())
    interpreter = TFLM(emitted.data, emitted)
    (y,) = interpreter.run(FEED)
    np.testing.assert_allclose(y, conv_net_numpy(X), rtol=1e-4, atol=1e-5)
    assert interpreter.arena.head >= 4 * 6 * 8 * 8 and interpreter.arena.persistent > 0


def test_tflm_says_what_it_lacks():
    pytest.importorskip("tflite_micro")
    emitted = emit_tflite(parse("(float[1, 4] x) => (float[1, 4] y) { y = Gelu(x) }"))
    with pytest.raises(InterpreterError, match=r"TFLM .*Didn't find op for builtin opcode 'GELU'"):
        TFLM(emitted.data, emitted).run({"x": X[:, 0, 0, :4]})
    with pytest.raises(InterpreterError, match="TFLM "):
        TFLM(b"no model", emitted).run({"x": X[:, 0, 0, :4]})


def test_tflm_aborts_in_a_process_of_its_own(monkeypatch, tmp_path):
    """As it does where the scales of an ADD lie too far apart."""
    script = tmp_path / "aborts.py"
    script.write_text("import os; os.abort()")
    monkeypatch.setattr("edgecompress.evaluate.micro.micro_process.__file__", str(script))
    pytest.importorskip("tflite_micro")
    emitted = emit_tflite(conv_net())
    with pytest.raises(InterpreterError, match="ended without a word"):
        TFLM(emitted.data, emitted).run(FEED)


@pytest.mark.parametrize("directions", [1, 2])
def test_final_states_are_split_by_the_axis_of_the_batch(directions: int):
    """Y_h of an LSTM is [directions, batch, hidden]: with two of both, only the values tell which axis is which."""
    from torch import nn, tensor

    lstm = nn.LSTM(3, 4, batch_first=True, bidirectional=directions == 2)
    order = [0, 3, 1, 2]  # of the gates, in ONNX; torch has i, f, g, o
    arrays = {}
    for name, ours in (("w", "weight_ih"), ("r", "weight_hh"), ("b0", "bias_ih"), ("b1", "bias_hh")):
        ways = [getattr(lstm, f"{ours}_l0{end}").detach().numpy() for end in ("", "_reverse")[:directions]]
        arrays[name] = np.stack([np.concatenate([way.reshape(4, 4, -1)[i] for i in order]) for way in ways])
    bias = np.concatenate([arrays.pop("b0"), arrays.pop("b1")], axis=1)[..., 0]
    way = "forward" if directions == 1 else "bidirectional"
    model = parse(
        f"""(float[2, 5, 3] x) => (float[{directions}, 2, 4] h) {{
            t = Transpose<perm = [1, 0, 2]>(x)
            y, h = LSTM<hidden_size = 4, direction = "{way}">(t, w, r, b)
        }}""",
        **arrays,
        b=bias,
    )
    x = RNG.normal(size=(5, 5, 3)).astype(np.float32)  # runs of 2, 2 and 1, filled up
    (h,) = OnnxRuntime(model).run({"x": x})
    exact = lstm(tensor(x))[1][0].detach().numpy()
    np.testing.assert_allclose(h, exact.transpose(1, 0, 2), rtol=0, atol=1e-5)
