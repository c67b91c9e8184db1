"""Inputs that become constants."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from edgecompress.errors import InputError
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.ingest import load


def by_rate() -> onnx.ModelProto:
    """A network that computes otherwise at another sampling rate, as silero-vad does."""
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 16]> g (float[N,4] x, int64 sr, float[M] gain) => (float[N,K] y) { '
        "is_fast = Equal(sr, fast) t = If(is_fast) <then_branch = g1 () => (float[A,B] a) { a = Relu(x) }, "
        "else_branch = g2 () => (float[C,D] b) { c = Mul(x, unused) b = ReduceMean<axes=[1]>(c) }> y = Mul(t, gain) }"
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "unused"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(16000), "fast"))
    return proto


def test_the_branch_of_a_constant_is_taken() -> None:
    x = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)
    for rate, expected in ((16000, np.maximum(x, 0) * 2), (8000, x.mean(1, keepdims=True) * 2)):
        found = load(by_rate(), constants={"sr": rate, "gain": np.array([2.0])})
        assert [v.name for v in found.model.graph.inputs] == ["x"]
        assert all(v.uses() for v in found.model.graph.initializers.values())
        assert ("unused" in found.model.graph.initializers) == (rate == 8000)
        assert any("constants" in note and "'sr', 'gain'" in note for note in found.notes)
        np.testing.assert_allclose(OnnxRuntime(found.model).run({"x": x})[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("constants", "words"),
    [
        ({"rate": 1}, "no such input; its inputs are 'x', 'sr', 'gain'"),
        ({"sr": 0.5}, "has the type int64"),
        ({"sr": "fast"}, "expected a number"),
        ({"gain": np.ones((2, 2))}, "an array of shape"),
        ({"x": 1, "sr": 1, "gain": 1}, "one input at least must stay"),
    ],
)
def test_what_is_no_constant_of_the_model_is_refused(constants: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(by_rate(), constants=constants)
