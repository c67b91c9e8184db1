"""Scales that a model came with: where some values have none, against the float model and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import edgecompress
from edgecompress.compress.quantize import knows_scales, quantize, simulation
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.graph.annotations import quantization
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
from quantizing import normal, snr_db, value

DIGITS = Path(__file__).parent.parent / "samples" / "digits"
PAIR = "{0}q = QuantizeLinear({0}, s{1}, z) {0}d = DequantizeLinear({0}q, s{1}, z) "
BRANCHES = "a = Conv(xd, va) {a} b = Conv(xd, vb) {b} m = MaxPool<kernel_shape = [1, 1]>({bd}) "
JOINED = "c = Concat<axis = 1>({ad}, m) {c} r = Conv({cd}, w) {r}"
CASES = {  # values with a scale, beside the input: what is left out must fit in what is joined
    "neither branch": {"c", "r"},
    "one branch": {"a", "r"},
    "one branch and the sum": {"a", "c", "r"},
    "the other branch": {"b", "r"},
    "both branches": {"a", "b", "r"},
    "no result": {"a"},
}
STEPS = {"x": 0.03, "a": 0.02, "b": 0.25, "c": 0.25, "r": 0.3}


def joined(scaled: set[str]) -> onnx.ModelProto:
    """Two branches, of which b is ten times a, meet in a Concat."""
    pairs = {name: PAIR.format(name, name) if name in scaled else "" for name in "abcr"}
    reads = {f"{name}d": f"{name}d" if name in scaled else name for name in "abcr"}
    end = "y = MaxPool<kernel_shape = [1, 1]>({rd})".format(**reads)
    body = PAIR.format("x", "x") + (BRANCHES + JOINED).format(**pairs, **reads) + end
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> g (float[1,3,8,8] x) => (float y) {{ {body} }}'
    )
    a = normal(4, 3, 1, 1) / 3
    arrays = {"va": a, "vb": 10 * a[::-1], "w": normal(5, 8, 1, 1)}
    arrays |= {f"s{name}": np.float32(step) for name, step in STEPS.items()} | {"z": np.int8(0)}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(x, np.float32 if n != "z" else np.int8), n) for n, x in arrays.items()
    )
    return proto


@pytest.mark.parametrize("scaled", CASES.values(), ids=CASES)
def test_what_came_without_a_scale_fits_beside_what_came_with_one(scaled: set[str]) -> None:
    proto = joined(scaled)
    model = load(proto).model
    fresh = {"x": normal(32, 3, 8, 8, seed=7)}
    data = load_data({"x": normal(64, 3, 8, 8)}, model.graph.inputs, Preprocess())
    made = quantize(model, data, Quantize(), integer_only=True).model
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    theirs = np.concatenate([session.run(None, {"x": x[None]})[0] for x in fresh["x"]])
    exact, found = (OnnxRuntime(m).run(fresh)[0] for m in (model, simulation(made)))
    # A value that has a scale of its own in the model shares one here, where it is much the smaller of two.
    assert snr_db(exact, found) > min(snr_db(exact, theirs), 32) - 3


@pytest.mark.parametrize("readers", ["Conv", "MaxPool, Conv"])
def test_a_finer_scale_stays_for_those_that_read_it(readers: str) -> None:
    """The value is joined with one that needs a scale ten times as large, and read by a convolution as well."""
    moved = "n = MaxPool<kernel_shape = [1, 1]>(ad) " if "MaxPool" in readers else "n = Identity(ad) "
    nodes = PAIR.format("x", "x") + "a = Conv(xd, va) " + PAIR.format("a", "a") + moved + "b = Conv(xd, vb) "
    nodes += PAIR.format("b", "b") + "c = Concat<axis = 1>(n, bd) " + PAIR.format("c", "c") + "r = Conv(cd, w) "
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[1,3,8,8] x) => (float t, float r) '
        f"{{ {nodes} t = Conv(ad, u) }}"
    )
    arrays = {
        "va": normal(4, 3, 1, 1) / 3,
        "vb": normal(4, 3, 1, 1) * 3,
        "w": normal(5, 8, 1, 1),
        "u": normal(2, 4, 1, 1),
    }
    arrays |= {f"s{name}": np.float32(step) for name, step in STEPS.items()}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(x, np.float32), n) for n, x in arrays.items()
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.int8(0), "z"))
    model = load(proto).model
    data = load_data({"x": normal(64, 3, 8, 8)}, model.graph.inputs, Preprocess())
    made = quantize(model, data, Quantize(), integer_only=True).model
    kept = quantization(value(made, "a"))
    assert kept is not None and kept.scale[0] == np.float32(STEPS["a"])
    fresh = {"x": normal(32, 3, 8, 8, seed=7)}
    ratios = [snr_db(a, b) for a, b in zip(OnnxRuntime(model).run(fresh), OnnxRuntime(simulation(made)).run(fresh))]
    assert min(ratios) > 30


@pytest.mark.parametrize("activation", ["Relu(ad)", "Clip(ad, zero, six)"], ids=["Relu", "Relu6"])
def test_a_scale_in_front_of_an_activation_stays(activation: str) -> None:
    """Devices compute both at once: the output keeps to the grid that the convolution's had."""
    nodes = PAIR.format("x", "x") + "a = Conv(xd, va) " + PAIR.format("a", "b") + f"n = {activation} r = Conv(n, w) "
    nodes += PAIR.format("r", "r") + "y = MaxPool<kernel_shape = [1, 1]>(rd)"
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> g (float[1,3,8,8] x) => (float y) {{ {nodes} }}'
    )
    arrays = {"va": 3 * normal(4, 3, 1, 1), "w": normal(5, 4, 1, 1), "zero": np.float32(0), "six": np.float32(6)}
    arrays |= {f"s{name}": np.float32(step) for name, step in STEPS.items()}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(x, np.float32), n) for n, x in arrays.items()
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.int8(0), "z"))
    model = load(proto).model
    data = load_data({"x": normal(64, 3, 8, 8)}, model.graph.inputs, Preprocess())
    kept = quantization(value(quantize(model, data, Quantize(), integer_only=True).model, "n"))
    assert kept is not None and kept.scale[0] == np.float32(STEPS["b"])


FORMS = {  # how ONNX Runtime is told to quantize the digits sample
    "per channel": {"per_channel": True},
    "per tensor": {"per_channel": False},
    "symmetric": {"per_channel": True, "extra_options": {"ActivationSymmetric": True}},
    "convolutions": {"per_channel": True, "op_types_to_quantize": ["Conv"]},
    "all but one": {"per_channel": True, "nodes_to_exclude": 1},
    "all but two": {"per_channel": True, "nodes_to_exclude": 2},
}


FEW = {"first": [0], "second": [1], "third": [2], "last": [-1], "first and last": [0, -1]}


def quantized(folder: Path, form: str) -> Path:
    """The digits sample, quantized by ONNX Runtime."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = iter(np.load(DIGITS / "train.npz")["x"][:100].astype(np.float32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self.samples, None)
            return None if sample is None else {"pixels": sample[None]}

    options = dict(FORMS[form]) if form in FORMS else {"per_channel": True, "nodes_to_quantize": FEW[form]}
    weighted = [n.name for n in onnx.load(DIGITS / "digits.onnx").graph.node if n.op_type in ("Conv", "Gemm")]
    if count := options.get("nodes_to_exclude"):
        options["nodes_to_exclude"] = weighted[1 : 1 + count]
    if places := options.get("nodes_to_quantize"):
        options["nodes_to_quantize"] = [weighted[place] for place in places]
    path = folder / "digits.onnx"
    quantize_static(
        DIGITS / "digits.onnx", path, Reader(), activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, **options
    )
    return path


def run(path: Path) -> np.ndarray:
    """In float, as the file says: integer kernels saturate on some processors."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.concatenate(
        [session.run(None, {"pixels": x[None]})[0] for x in np.load(DIGITS / "test.npz")["x"].astype(np.float32)]
    )


@pytest.mark.parametrize("form", FORMS)
def test_calibration_data_makes_nothing_worse(tmp_path: Path, form: str) -> None:
    path, calibration = quantized(tmp_path, form), {"pixels": np.load(DIGITS / "train.npz")["x"][:100]}
    exact = run(DIGITS / "digits.onnx")
    alone, calibrated = (
        edgecompress.convert(path, formats=["onnx"], calib=data, output=tmp_path / name)
        for name, data in (("alone", None), ("calibrated", calibration))
    )
    ratio = snr_db(exact, run(calibrated.artifacts["onnx"]))
    assert ratio > snr_db(exact, run(path)) - 0.5
    assert alone.report.status == calibrated.report.status == "ok"
    assert alone.report.achieved.encoding == "int8"
    assert ratio > snr_db(exact, run(alone.artifacts["onnx"])) - 0.3
    stay = any(layer.encoding.startswith("float") for layer in calibrated.report.layers)
    assert stay == any("the model came with it in float" in note for note in calibrated.report.notes)


@pytest.fixture(scope="module")
def of_the_float_model() -> float:
    return calibrated_ratio(DIGITS / "digits.onnx", integer_only=False)


def calibrated_ratio(path: Path, *, integer_only: bool) -> float:
    """How near the model is to the float one when all of it is int8."""
    model = load(path).model
    dataset = load_data({"pixels": np.load(DIGITS / "train.npz")["x"][:100]}, model.graph.inputs, Preprocess())
    made = quantize(model, dataset, Quantize(), integer_only=integer_only)
    fresh = {"pixels": np.load(DIGITS / "test.npz")["x"].astype(np.float32)}
    return snr_db(run(DIGITS / "digits.onnx"), OnnxRuntime(simulation(made.model)).run(fresh)[0])


@pytest.mark.parametrize(
    ("form", "integer_only"),
    [
        ("first", False),
        ("third", True),
        *(pytest.param(form, False, marks=pytest.mark.long) for form in FEW if form != "first"),
    ],
)
def test_a_few_scales_make_the_other_layers_no_worse(
    tmp_path: Path, form: str, integer_only: bool, of_the_float_model: float
) -> None:
    """ONNX Runtime's ranges of a few values lost up to 5 dB to those that the float model is calibrated with."""
    path = quantized(tmp_path, form)
    assert not knows_scales(load(path).model, every=False)
    assert calibrated_ratio(path, integer_only=integer_only) > of_the_float_model - 1.5


@pytest.mark.parametrize(
    "nodes", ["r = Relu(xd)", "r = Add(xd, xd)", "r = Sub(xd, ad)", "r = Max(ad, xd)", "r = Mul(xd, ad)"]
)
def test_all_scales_stay_where_nothing_has_weights(nodes: str) -> None:
    """However coarse they are beside those that calibration finds."""
    a = "a = Neg(xd) " + PAIR.format("a", "x") if "ad" in nodes else ""
    body = PAIR.format("x", "x") + a + f"{nodes} " + PAIR.format("r", "r") + "y = MaxPool<kernel_shape = [1, 1]>(rd)"
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> g (float[1,3,8,8] x) => (float y) {{ {body} }}'
    )
    arrays = {"sx": np.float32(1.5), "sr": np.float32(0.9), "z": np.int8(0)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(x), n) for n, x in arrays.items())
    model = load(proto).model
    data = load_data({"x": normal(64, 3, 8, 8)}, model.graph.inputs, Preprocess())
    made = quantize(model, data, Quantize()).model
    kept = [quantization(v) for v in (made.graph.inputs[0], *(v for node in made.graph for v in node.outputs))]
    assert {float(q.scale[0]) for q in kept if q is not None} <= {1.5, float(np.float32(0.9))} and any(kept)


def test_without_data_nothing_is_searched_on_random_inputs(tmp_path: Path) -> None:
    """An input's whole range, drawn evenly, is far from what models see: what is better there is worse elsewhere."""
    proto = joined({"a", "b", "c", "r"})
    made = edgecompress.convert(proto, "cortex-m4", formats=["tflite"], output=tmp_path / "out")
    assert "search" not in [stage.name for stage in made.report.stages] and made.report.status == "ok"
    assert any("compared on 16 random inputs with the model as it came" in note for note in made.report.notes)
