"""Recurrent layers taken apart for targets of integers alone: nothing of the whole layer stays behind."""

from __future__ import annotations

import numpy as np
import pytest

from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.ingest import load
from edgecompress.operators.example import Example
from edgecompress.operators.rewriting import integer_parts


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3)])
@pytest.mark.parametrize(("inputs", "hidden"), [(8, 8), (32, 64), (96, 64)])
@pytest.mark.parametrize("ways", [1, 2])
def test_weights_of_any_size_leave_with_their_layer(kind: str, gates: int, inputs: int, hidden: int, ways: int) -> None:
    """ONNX Runtime refuses a weight of more than 32 KB that no node reads."""
    direction = "bidirectional" if ways == 2 else "forward"
    rows = gates * hidden
    weights = {"w": (ways, rows, inputs), "r": (ways, rows, hidden), "b": (ways, 2 * rows)}
    nodes = f'y = {kind}<hidden_size={hidden}, direction="{direction}">(x, w, r, b)'
    model = load(Example(nodes, {"x": (3, 1, inputs)}, weights).model()).model
    parts = integer_parts(model.clone())
    assert all(value.uses() for value in parts.graph.initializers.values())
    x = {"x": np.random.default_rng(0).normal(size=(1, 3, 1, inputs)).astype(np.float32)}
    expected, found = OnnxRuntime(model).run(x)[0], OnnxRuntime(parts).run(x)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
