"""The order of the calibration samples changes no byte of an artifact."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgecompress import convert
from edgecompress.evaluate.sample_order import in_order_of_content
from edgecompress.recipe import Recipe
from quantizing import data, network, normal

DEEP = """a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) c = Conv <pads = [1, 1, 1, 1]> (r, v, d) s = Sigmoid(c)
g = GlobalAveragePool(s) f = Flatten(g) y = Gemm <transB = 1> (f, u)"""
RECIPES = {
    "as it is": {},
    "exact ranges": {"calibration": "minmax"},
    "percentiles": {"calibration": "percentile"},
    "entropy": {"calibration": "entropy"},
    "neither equalized nor corrected": {"equalize": False, "bias_correction": False},
    "a part of the samples": {"samples": 40},
}


def deep() -> onnx.ModelProto:
    header = '<ir_version: 10, opset_import: ["" : 21]> net (float[1, 3, 8, 8] x) => (float[1, 5] y)'
    model = onnx.parser.parse_model(f"{header} {{ {DEEP} }}")
    weights = {"w": normal(8, 3, 3, 3), "b": normal(8), "v": normal(8, 8, 3, 3), "d": normal(8), "u": normal(5, 8)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in weights.items())
    return model


@pytest.mark.parametrize("kind", RECIPES)
def test_permutations_give_the_same_bytes(tmp_path, kind: str):
    arrays = normal(80, 3, 8, 8) * np.linspace(0.2, 3, 80, dtype=np.float32)[:, None, None, None]
    recipe = Recipe.model_validate({"quantize": RECIPES[kind]})
    files = []
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(80) if seed else np.arange(80)
        folder = tmp_path / str(seed)
        convert(deep(), calib=arrays[order], recipe=recipe, formats=["tflite"], output=folder)
        files.append(next(folder.glob("*.tflite")).read_bytes())
    assert files[0] == files[1]


def test_sorted_samples_keep_their_labels_and_inputs_together():
    model = network("y = Add(x, x)")
    arrays = {"x": normal(10, 3, 8, 8), "y": np.arange(10)}
    found = in_order_of_content(data(model, arrays))
    (batch,) = found.batches(10)
    assert found.labels is not None and not np.array_equal(found.labels, np.arange(10))
    np.testing.assert_array_equal(batch["x"], arrays["x"][found.labels])


def test_more_than_memory_should_hold_stays_as_it_is(monkeypatch):
    monkeypatch.setattr("edgecompress.evaluate.sample_order.LARGEST", 1000)
    opened = data(network("y = Add(x, x)"))
    assert in_order_of_content(opened) is opened
