"""Outputs that single roundings change by much: loaded where nothing else is wrong, refused where something is."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgecompress.errors import UnsupportedModelError
from edgecompress.ingest import load
from edgecompress.ingest.equality import with_roundings
from edgecompress.ingest.passes.gemm import CanonicalGemm

TAILS = {
    "Sigmoid": [("Sigmoid", ["z"], ["p"])],
    "1 - Sigmoid": [("Neg", ["z"], ["n"]), ("Sigmoid", ["n"], ["s"]), ("Sub", ["one", "s"], ["p"])],
    "log of Sigmoid": [("Sigmoid", ["z"], ["s"]), ("Log", ["s"], ["p"])],
    "root of Sigmoid": [("Sigmoid", ["z"], ["s"]), ("Sqrt", ["s"], ["p"])],
    "1 + Tanh": [("Tanh", ["z"], ["s"]), ("Add", ["s", "one"], ["p"])],
    "Softmax": [("Concat", ["zero", "z"], ["two"]), ("Softmax", ["two"], ["s"]), ("Gather", ["s", "index"], ["p"])],
}


def saturated(tail: str, bias: float, seed: int = 1) -> onnx.ModelProto:
    """A small network whose last logit lies around `bias`."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    constants = {"w": normal(256, 32) / 16, "b": normal(32), "g": normal(32) + 2, "h": normal(32), "m": normal(32),
                 "v": np.abs(normal(32)) + 0.5, "w2": normal(32, 1) / 6, "b2": np.array([bias], np.float32),
                 "one": np.ones(1, np.float32), "zero": np.zeros((1, 1), np.float32),
                 "index": np.array([[1]])}  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["t0"]),
        helper.make_node("BatchNormalization", ["t0", "g", "h", "m", "v"], ["t1"]),
        helper.make_node("Gemm", ["t1", "w2", "b2"], ["z"]),
    ]
    attributes = {"Concat": {"axis": 1}, "Gather": {"axis": 1}, "Softmax": {"axis": 1}}
    nodes += [helper.make_node(kind, *names, **attributes.get(kind, {})) for kind, *names in TAILS[tail]]
    value = helper.make_tensor_value_info
    shape = [1, 1, 1] if tail == "Softmax" else [1, 1]
    graph = helper.make_graph(nodes, "g", [value("x", 1, [1, 256])], [value("p", 1, shape)],
                              [numpy_helper.from_array(array, name) for name, array in constants.items()])  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_constants_are_not_rounded():
    """An exponent of 2.0000002 makes NaN of negative numbers, and a scale of 1.9999999 a smaller image."""
    nodes = [
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2))),
        helper.make_node("Identity", ["scales"], ["same"]),
        helper.make_node("Pow", ["x", "two"], ["p"]),
        helper.make_node("Resize", ["p", "", "same"], ["y"], mode="nearest"),
    ]
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", [1, 1, 4]), ("y", None))]
    scales = numpy_helper.from_array(np.float32([1, 1, 2]), "scales")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    x = np.float32([[[-2, -1, 1, 2]]])
    (exact,) = ReferenceEvaluator(model).run(None, {"x": x})
    rounded = with_roundings(model, np.random.default_rng(0))
    (found,) = ReferenceEvaluator(rounded).run(None, {"x": x})
    assert len(rounded.graph.node) == len(nodes) + 2  # p and y
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    assert (found != exact).any()


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("bias", [-6.0, -9.0, -14.0])
def test_a_rounding_of_a_saturated_output_is_no_fault(tail, bias):
    """One unit of float32 at 1, 1.2e-7, is a large share of an output near 1e-6."""
    found = [load(saturated(tail, bias, seed)).max_relative_error for seed in range(3)]
    assert all(np.isfinite(found))
    if tail == "Sigmoid" and bias == -14:
        assert max(found) > 1e-5  # the case is what it says


@pytest.mark.parametrize("tail", TAILS)
def test_a_fault_shows_on_a_saturated_output_as_well(tail, monkeypatch):
    rewrite = CanonicalGemm.rewrite

    def defective(self, node, edit):
        result = rewrite(self, node, edit)
        for value in edit.graph.initializers.values():
            if value.const_value.numpy().shape == (1,) and value.const_value.numpy()[0] == -6:
                value.const_value = ir.tensor(value.const_value.numpy() + np.float32(0.2), name=value.name)
        return result

    monkeypatch.setattr(CanonicalGemm, "rewrite", defective)
    with pytest.raises(UnsupportedModelError, match="'p' of the normalised model differs"):
        load(saturated(tail, -6.0))
