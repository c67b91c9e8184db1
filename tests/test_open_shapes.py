"""Dimensions that a model leaves open are as its data has them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper, parser

from edgecompress import convert
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import load_data, sample_shapes
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.ingest import load
from edgecompress.ingest.open_shapes import settled_shapes
from edgecompress.recipe import Preprocess

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 11, (24, 6))
LENGTHS = RNG.integers(2, 7, (24, 1))
TEXT = {"input_ids": IDS, "attention_mask": (np.arange(6) < LENGTHS).astype(np.int64)}


def attention() -> onnx.ModelProto:
    """One attention over embedded tokens, with the shapes that exporters compute from the inputs, of opset 18."""
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> '
        "g (int64[batch,sequence] input_ids, int64[batch,sequence] attention_mask) => (float[batch,sequence,8] y) {"
        "e = Gather(table, input_ids) s = Shape(input_ids) b = Gather(s, zero) t = Gather(s, one) "
        "q = MatMul(e, wq) k = MatMul(e, wk) kt = Transpose<perm=[0,2,1]>(k) l = MatMul(q, kt) "
        "u = Unsqueeze(attention_mask, axis) f = Cast<to=9>(u) n = Where(f, none, low) m = Add(l, n) "
        "a = Softmax(m) r = MatMul(a, e) bu = Unsqueeze(b, start) tu = Unsqueeze(t, start) "
        "shape = Concat<axis=0>(bu, tu, size) y = Reshape(r, shape) }"
    )
    constants = {
        "table": RNG.standard_normal((11, 8)).astype(np.float32),
        "wq": RNG.standard_normal((8, 8)).astype(np.float32),
        "wk": RNG.standard_normal((8, 8)).astype(np.float32),
        "none": np.float32(0),
        "low": np.float32(np.finfo(np.float32).min),
        "zero": np.int64(0),
        "one": np.int64(1),
        "axis": np.array([1]),
        "start": np.array([0]),
        "size": np.array([8]),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items())
    return proto


def test_a_sequence_is_as_long_as_in_the_data(tmp_path: Path):
    proto = attention()
    np.savez(tmp_path / "text.npz", **TEXT)
    result = convert(
        proto,
        output=tmp_path / "out",
        calib=tmp_path / "text.npz",
        formats=["onnx", "tflite"],
        recipe={"quantize": {"weights": "float32"}},
    )
    assert "[1, 6]" in " ".join(result.report.notes)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    sample = {name: array[:1] for name, array in TEXT.items()}
    (expected,) = session.run(None, sample)
    (y,) = OnnxRuntime(result.artifacts["onnx"].read_bytes()).run(sample)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
    lite = Interpreter(str(result.artifacts["tflite"])).get_signature_runner()
    kinds = {name: details["dtype"] for name, details in lite.get_input_details().items()}
    found = lite(**{name: array.astype(kinds[name]) for name, array in sample.items()})
    np.testing.assert_allclose(found["y"], expected, rtol=0, atol=1e-5)


def declared(*inputs: str) -> onnx.ModelProto:
    return parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 18]> g ({", ".join(inputs)}) => (float[n] y) {{ y = Relu(a) }}'
    )


@pytest.mark.parametrize(
    ("inputs", "given", "samples", "expected"),
    [
        (["float[b,t,3] a"], {}, {"a": (7, 3)}, {"a": (1, 7, 3)}),
        (["float[b,t,3] a"], {}, {"a": (2, 7, 3)}, {"a": (2, 7, 3)}),  # a sample is all of the input
        (["float[b,t,3] a"], {}, {"a": (7, 4)}, {}),
        (["float[b,3,h,w] a"], {}, {"a": (9, 8, 3)}, {"a": (1, 3, 9, 8)}),  # channels last
        (["float[b,1,h,w] a"], {}, {"a": (9, 8)}, {"a": (1, 1, 9, 8)}),
        (["float[b,t] a", "int64[b,t] m"], {}, {"a": (5,), "m": (5,)}, {"a": (1, 5), "m": (1, 5)}),
        (["float[b,t] a", "int64[b,t] m"], {}, {"a": (5,)}, {"a": (1, 5), "m": (1, 5)}),  # of one name
        (["float[b,t] a", "int64[b,t] m"], {"a": (2, 5)}, {}, {"a": (2, 5), "m": (2, 5)}),
        (["float[b,t] a", "int64[b,s] m"], {"a": (2, 5)}, {}, {"a": (2, 5)}),
        (["float[b,64] a", "float[2,b,128] state"], {}, {}, {"state": (2, 1, 128)}),  # the batch in another place
        (["float[?,?] a", "float[?,?] m"], {}, {"a": (5,)}, {"a": (1, 5)}),
        (["float[?,3,?,?] a"], {}, {"a": (3, 4, 5)}, {"a": (1, 3, 4, 5)}),
        (["float[b,t] a"], {"a": (1, 4)}, {"a": (5,)}, {"a": (1, 4)}),  # what the user says goes first
        (["float[b,4] a"], {}, {"a": (5,)}, {}),  # nothing but the batch is open
    ],
)
def test_shapes_of_open_inputs(inputs, given, samples, expected):
    proto = declared(*inputs)
    found, notes = settled_shapes(proto, given, lambda names: {n: s for n, s in samples.items() if n in names})
    assert found == expected and len(notes) == (found != given)
    for name, shape in found.items():
        assert name in given or str(list(shape)) in notes[0]


def test_one_name_has_one_size():
    with pytest.raises(InputError, match=r"'m' has 6 where .* 't' is 5 elsewhere"):
        settled_shapes(declared("float[b,t] a", "int64[b,t] m"), {}, lambda names: {"a": (5,), "m": (6,)})


def test_dimensions_of_minus_one_are_open():
    proto = declared("float[b,3] a")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert list(load(proto).model.graph.inputs[0].shape) == [1, 3]


def test_data_is_not_opened_for_shapes_that_are_known():
    def fail(names):
        raise AssertionError

    assert settled_shapes(declared("float[b,4] a", "float[2,b] m"), {}, fail)[0] == {"m": (2, 1)}
    assert settled_shapes(declared("float[b,t] a"), {"a": (1, 4)}, fail)[0] == {"a": (1, 4)}


X = np.zeros((4, 9, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("spec", "preprocess", "inputs", "expected"),
    [
        (X, {}, ["a"], {"a": (9, 8, 3)}),
        ((X, np.zeros(4)), {}, ["a"], {"a": (9, 8, 3)}),
        ({"b": X, "a": X[:, 0], "y": np.zeros(4)}, {}, ["a", "b", "c"], {"b": (9, 8, 3), "a": (8, 3)}),
        ((X, X[:, 0]), {}, ["a", "b"], {"a": (9, 8, 3), "b": (8, 3)}),
        (X, {"layout": "nhwc"}, ["a"], {"a": (3, 9, 8)}),
        (X, {"resize": (4, 5)}, ["a"], {"a": (4, 5, 3)}),
    ],
)
def test_shapes_of_samples(tmp_path: Path, spec, preprocess, inputs, expected):
    settings = Preprocess(**preprocess)
    assert sample_shapes(spec, settings, inputs) == expected
    if isinstance(spec, np.ndarray):
        np.save(tmp_path / "data.npy", spec)
        assert sample_shapes(tmp_path / "data.npy", settings, inputs) == expected
        (tmp_path / "images").mkdir()
        sizes = sample_shapes(tmp_path / "images", settings, inputs)
        assert sizes == ({"a": (4, 5, 3)} if "resize" in preprocess else {})
    if isinstance(spec, dict):
        np.savez(tmp_path / "data.npz", **spec)
        assert sample_shapes(str(tmp_path / "data.npz"), settings, inputs) == expected


def test_shapes_of_data_that_was_opened():
    model = load(declared("float[b,t] a"), input_shapes={"a": (1, 5)}).model
    data = load_data(np.ones((3, 5), np.float32), model.graph.inputs, Preprocess())
    assert sample_shapes(data, Preprocess(), ["a"]) == {"a": (5,)}


def test_torch_takes_the_shape_of_the_data():
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv1d(3, 4, 3), torch.nn.ReLU())
    found = load(module, sample_shapes=lambda names: {names[0]: (3, 9)})
    assert list(found.model.graph.inputs[0].shape) == [1, 3, 9]
    x = RNG.standard_normal((1, 3, 9)).astype(np.float32)
    (y,) = OnnxRuntime(found.model).run({str(found.model.graph.inputs[0].name): x})
    np.testing.assert_allclose(y, module(torch.from_numpy(x)).detach().numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "context"),
    [
        ("transformers.modeling_outputs.BaseModelOutput", '["logits", "hidden"]'),
        # torch would import the module that is named here
        ("builtins.dict", '["logits", {"__enum__": true, "fqn": "edgecompress_was_here:A.b", "name": "c"}]'),
        ("builtins.dict", '["logits", {"\\u005f_enum__": true, "fqn": "edgecompress_was_here:A.b", "name": "c"}]'),
    ],
)
def test_programs_whose_outputs_are_grouped_by_other_packages(tmp_path: Path, monkeypatch, kind: str, context: str):
    torch = pytest.importorskip("torch")
    (tmp_path / "edgecompress_was_here.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)

    class Two(torch.nn.Module):
        def forward(self, x):
            return {"logits": torch.relu(x), "hidden": torch.tanh(x)}

    sizes = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("seq", min=2, max=64)}
    program = torch.export.export(Two(), (torch.zeros(2, 7),), dynamic_shapes=(sizes,))
    torch.export.save(program, tmp_path / "plain.pt2")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt2") as plain,
        zipfile.ZipFile(tmp_path / "grouped.pt2", "w", zipfile.ZIP_STORED) as grouped,
    ):
        for name in plain.namelist():
            content = plain.read(name)
            if name.endswith("models/model.json"):
                document = json.loads(content)
                signature = document["graph_module"]["module_call_graph"][0]["signature"]
                version, tree = json.loads(signature["out_spec"])
                tree.update(type=kind, context=context)
                signature["out_spec"] = json.dumps([version, tree])
                content = json.dumps(document).encode()
            grouped.writestr(name, content)
    found = load(tmp_path / "grouped.pt2", sample_shapes=lambda names: {"x": (5,)})
    assert list(found.model.graph.inputs[0].shape) == [1, 5]
    x = RNG.standard_normal((1, 5)).astype(np.float32)
    logits, hidden = OnnxRuntime(found.model).run({"x": x})
    np.testing.assert_allclose(logits, np.maximum(x, 0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(hidden, np.tanh(x), rtol=0, atol=1e-6)
