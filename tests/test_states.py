"""Inputs that outputs feed: kept inside by the runtime, fed back as integers elsewhere, and checked over sequences."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import numpy_helper, parser

from edgecompress import convert
from edgecompress.cli.options import parse_states
from edgecompress.compress.quantize import quantize
from edgecompress.conversion.data import open_data
from edgecompress.emit import pack
from edgecompress.emit import tflite as tflite_emitter
from edgecompress.errors import InputError
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.verify import run_dataset
from edgecompress.graph.annotations import quantization
from edgecompress.graph.states import state_values
from edgecompress.ingest import load
from edgecompress.operators.rewriting import integer_parts
from edgecompress.recipe import Quantize, Recipe
from edgecompress.targets import load_target
from edgecompress_runtime import load as load_pack
from emulators import CORTEX_M

STEPS, WIDE = 12, 6


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def model(header: str, body: str, **constants) -> onnx.ModelProto:
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {header} {{ {body} }}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items())
    return proto


def convolution() -> onnx.ModelProto:
    """Over the frame and three before it, which are the state."""
    return model(
        "(float[1,6,1] x, float[1,6,3] s) => (float[1,5,1] y, float[1,6,3] t)",
        "w = Concat <axis = 2> (s, x) c = Conv (w, k, b) y = Relu (c) t = Slice (w, one, four, two)",
        k=normal(5, 6, 4), b=normal(5), one=np.array([1]), four=np.array([4]), two=np.array([2]),
    )  # fmt: skip


def gru() -> onnx.ModelProto:
    """One cell, whose state is read again by the operator in front of the one that writes it."""
    return model(
        "(float[1,6] x, float[1,8] h) => (float[1,4] y, float[1,8] n)",
        "xz = MatMul (x, wxz) hz = MatMul (h, whz) az = Add (xz, hz) z = Sigmoid (az) xc = MatMul (x, wxc) "
        "hc = MatMul (h, whc) ac = Add (xc, hc) c = Tanh (ac) d = Sub (h, c) m = Mul (z, d) n = Add (c, m) "
        "y = MatMul (n, wy)",
        wxz=normal(6, 8), whz=normal(8, 8) / 3, wxc=normal(6, 8), whc=normal(8, 8) / 3, wy=normal(8, 4),
    )  # fmt: skip


def tanh() -> onnx.ModelProto:
    """The state has the scale that Tanh fixes for it, and what it is joined with another."""
    return model(
        "(float[1,6] x, float[1,8] h) => (float[1,4] y, float[1,8] n)",
        "j = Concat <axis = 1> (x, h) a = MatMul (j, w) n = Tanh (a) y = MatMul (n, wy)",
        w=normal(14, 8) / 3, wy=normal(8, 4),
    )  # fmt: skip


def delay() -> onnx.ModelProto:
    """A state that becomes another, and one that becomes the input."""
    return model(
        "(float[1,6] x, float[1,6] a, float[1,6] b) => (float[1,6] y, float[1,6] c, float[1,6] d)",
        "p = Add (x, a) q = Add (p, b) y = Mul (q, k) c = Identity (x) d = Identity (a)",
        k=normal(1, 6),
    )  # fmt: skip


NETWORKS = {
    "convolution": (convolution, {"t": "s"}),
    "gru": (gru, {"n": "h"}),
    "tanh": (tanh, {"n": "h"}),
    "delay": (delay, {"c": "a", "d": "b"}),
}
X = np.cumsum(normal(24, STEPS, WIDE), axis=1) / 3


def fed_back(proto: onnx.ModelProto, states: dict[str, str], sequence: np.ndarray) -> np.ndarray:
    """What the model that came in gives at every step, in ONNX Runtime."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    shapes = {v.name: v.shape for v in session.get_inputs()}
    kept, found = {name: np.zeros(shapes[name], np.float32) for name in states.values()}, []
    for frame in sequence:
        y, *rest = session.run(["y", *states], {"x": frame.reshape(shapes["x"]), **kept})
        kept = dict(zip(states.values(), rest, strict=True))
        found.append(y)
    return np.stack(found)


def quantized(name: str):
    network, states = NETWORKS[name]
    found = integer_parts(load(network(), states=states).model)
    recipe = Recipe.model_validate({"emit": {"formats": ["pack"]}})
    data = open_data(found, X, None, recipe, load_target("cortex-m4"))
    return quantize(found, data.calibration, Quantize(), integer_only=True).model


@pytest.mark.parametrize("name", NETWORKS)
def test_floats_are_those_of_the_model_that_came_in(name):
    network, states = NETWORKS[name]
    proto, found = network(), load(network(), states=states).model
    expected = fed_back(proto, states, X[0])
    run = load_pack(pack.emit(found).data)
    assert [t.name for t in run.inputs] == ["x"] and len(run.outputs) == 1
    for _ in range(2):
        steps = np.stack([run(frame.reshape(run.inputs[0].shape)) for frame in X[0]])
        np.testing.assert_allclose(steps.reshape(expected.shape), expected, rtol=0, atol=2e-5 * np.abs(expected).max())
        run.reset()
    recipe = Recipe.model_validate({"quantize": {"weights": "float32"}})
    data = open_data(found, None, X, recipe, load_target("android"))
    (outputs,) = run_dataset(OnnxRuntime(found), data.check)
    np.testing.assert_allclose(outputs[:STEPS].reshape(expected.shape), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_integers_are_fed_back_as_they_are(name):
    """LiteRT's reference kernels get the integers that they gave; the runtime has them inside. Both give the same."""
    annotated, (_, states) = quantized(name), NETWORKS[name]
    for before, after in state_values(annotated.graph):
        assert quantization(before).same_as(quantization(after))
    lite, packed = tflite_emitter.emit(annotated), pack.emit(annotated)
    interpreter = Interpreter(
        model_content=lite.data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    ).get_signature_runner()
    details, run = interpreter.get_input_details(), load_pack(packed.data)
    kept = {}
    for output, name_ in states.items():
        scale, zero = details[name_]["quantization"]
        assert interpreter.get_output_details()[output]["quantization"] == (scale, zero)
        kept[name_] = np.full(details[name_]["shape"], zero, np.int8)
    exact = fed_back(NETWORKS[name][0](), states, X[1])
    found = []
    for frame in X[1]:
        x = packed.inputs[0].to_device(frame.reshape(1, *frame.shape, *[1] * (len(packed.inputs[0].shape) - 2)))
        outputs = interpreter(x=x, **kept)
        kept = {name_: outputs[output] for output, name_ in states.items()}
        y = run(x)
        # LiteRT's TANH has other roundings than TensorFlow Lite Micro's and ours, and each is fed back
        steps = 3 * packed.outputs[0].scale if name == "tanh" else 0
        np.testing.assert_allclose(y, outputs["y"], rtol=0, atol=steps)
        found.append(packed.outputs[0].from_device(y))
    noise = np.square(np.stack(found).reshape(exact.shape) - exact).sum()
    assert 10 * np.log10(np.square(exact).sum() / noise) > 22


def test_states_lie_in_the_arena_without_copies():
    """What a state becomes has its bytes, but where the state is read until then."""
    from edgecompress_runtime.codegen.llvm_writer import llvm_program
    from edgecompress_runtime.families.table import family_of

    family = family_of("thumbv7em-none-eabi", "")
    copies = {}
    for name in NETWORKS:
        plan = pack.plan(quantized(name), io_dtype=ir.DataType.INT8)
        program = llvm_program(plan, "model", family)
        copies[name] = sum(step not in plan.operators for step in program.steps)
        kept = [(s.offset, s.offset + s.size) for s in program.states]
        names = {s.name for s in program.states}
        sizes = [(key, at, key.size * np.dtype(key.dtype).itemsize) for key, at in program.layout.offsets.items()]
        others = [(at, at + size) for key, at, size in sizes if getattr(key, "name", None) not in names]
        assert len(kept) == len(plan.states) and all(a[1] <= b[0] or b[1] <= a[0] for a in kept for b in others)
    assert copies["convolution"] == copies["gru"] == copies["tanh"] == 0


def test_a_sequence_decides_whether_the_file_is_good(tmp_path):
    """Each step alone is right to a fraction of the scale, but adds less to the state than a step of that."""
    proto = model(
        "(float[1,6] x, float[1,6] s) => (float[1,6] y, float[1,6] t)",
        "a = Mul (x, k) t = Add (s, a) y = Mul (t, m)",
        k=np.full((1, 6), 0.002, np.float32), m=normal(1, 6),
    )  # fmt: skip
    x = 1 + 0.1 * normal(40, 200, 6)
    recipe = {"quantize": {"search_seconds": 0}}
    result = convert(proto, output=tmp_path / "out", calib=x, states={"t": "s"}, formats=["onnx"], recipe=recipe)
    assert result.report.status == "quality-below-limit"
    assert "40 sequences of 200 steps, each from states that are zero" in " ".join(result.report.notes)


def test_without_data_random_sequences_check_the_file():
    opened = open_data(load(tanh(), states={"n": "h"}).model, None, None, Recipe(), load_target("android"))
    assert opened.check.streams is not None
    assert f"artifacts were checked on {len(opened.check)} random inputs" in " ".join(opened.notes)


@pytest.mark.parametrize(
    ("before", "after", "is_likely"),
    [("h0", "hn", True), ("state", "stateN", True), ("past_key", "present_key", True), ("c_in", "c_out", True),
     ("buf", "new_buf", True), ("a", "b", False), ("image", "mask", False)],
)  # fmt: skip
def test_likely_states_are_named_in_a_note(before, after, is_likely):
    proto = model(
        f"(float[1,6] x, float[1,6] {before}) => (float[1,6] y, float[1,6] {after})",
        f"{after} = Add (x, {before}) y = Relu ({after})",
    )
    notes = " ".join(load(proto).notes)
    assert (f"--state {after}={before}" in notes) == is_likely and ("look like states" in notes) == is_likely
    assert "look like states" not in " ".join(load(proto, states={after: before}).notes)


def test_what_is_refused(tmp_path):
    proto = convolution()
    for states, message in (
        ({"q": "s"}, r"--state q=s: the model has no output 'q'; its outputs are 'y', 't'"),
        ({"t": "q"}, r"--state t=q: the model has no input 'q'; its inputs are 'x', 's'"),
        ({"y": "s"}, r"--state y=s: the output is float \[1, 5, 1\], but the input is float \[1, 6, 3\]"),
    ):
        with pytest.raises(InputError, match=message):
            load(proto, states=states)
    with pytest.raises(InputError, match=r"takes sequences, \[samples, steps, 6, 1\], of its other inputs"):
        convert(proto, output=tmp_path / "out", calib=X[:, 0], states={"t": "s"})
    assert parse_states(("hn=h0", "a=b=c")) == {"hn": "h0", "a=b": "c"}
    with pytest.raises(InputError, match="expected OUTPUT=INPUT"):
        parse_states(("h0",))


@CORTEX_M
@pytest.mark.long
@pytest.mark.parametrize("name", ["convolution", "gru"])
def test_firmware_keeps_states(name, tmp_path):
    """An emulated Cortex-M4 gives what this machine does, frame after frame, bit for bit."""
    from edgecompress import build

    network, states = NETWORKS[name]
    out = tmp_path / "out"
    result = convert(network(), "cortex-m4", output=out, calib=X, states=states, formats=["pack"], devices=["qemu"])
    (device,) = result.report.devices
    assert result.report.status == "ok" and device.agrees
    made = build(result.artifacts["pack"], target="cortex-m4", output=tmp_path / "firmware", name="stream")
    header = (made.directory / "stream.h").read_text()
    assert "static inline void stream_reset(int8_t *arena)" in header and "#define STREAM_STATE_BYTES" in header
