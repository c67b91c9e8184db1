"""What TensorFlow Lite Micro lacks is written with what it has, and gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from edgecompress.emit import tflite
from edgecompress.evaluate import micro
from edgecompress.evaluate.verify import Check, refusal
from edgecompress.ingest import load
from edgecompress.operators.example import Example
from edgecompress_targets import OPERATOR_SETS
from formats import feeds, int8, on_litert

# (axis, half of the number of parts): at TFLM's limit for one operator, above it, and in three levels
PARTS = [(1, 5), (1, 6), (2, 11), (3, 25), (2, 51)]
needs_tflm = pytest.mark.skipif(not micro.installed(), reason="not installed: tflite-micro")


@needs_tflm
@pytest.mark.parametrize(
    "example",
    [
        Example("y = Exp(x)"),
        Example("e = Exp(x) y = Mul(e, x)"),
        Example("y = Gelu(x)"),
        Example('y = Gelu<approximate="tanh">(x)'),
        Example("y = Tile(x, r)", constants={"r": [1, 1, 2, 3]}),
        Example("y = Tile(x, r)", constants={"r": [1, 2, 1, 2]}),
        Example("y = Tile(x, r)", constants={"r": [1, 1, 2, 23]}),
        *(Example(f"r = Relu(x) y = Concat<axis={axis}>({', '.join(['x', 'r'] * half)})") for axis, half in PARTS),
        Example("a = ArgMax<axis=1>(x) y = Cast<to=1>(a)"),
        Example("i = ArgMax<axis=2, keepdims=0>(x) y = Gather(t, i)", constants={"t": np.arange(6, dtype=np.float32)}),
    ],
    ids=lambda example: example.nodes,
)
def test_substitutes_give_what_litert_computes(example: Example) -> None:
    quantized = int8(load(example.model()).model)
    inputs = feeds(quantized)
    emitted = tflite.emit(quantized, operators=OPERATOR_SETS["tflm"])
    for found, expected in zip(
        micro.TFLM(emitted.data, emitted).run(inputs), on_litert(quantized, inputs), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@needs_tflm
@pytest.mark.parametrize("options", ["axis=1", "axis=2, keepdims=0"])
def test_classes_are_int32(options: str) -> None:
    text = f"(float[1,4,6,5] x) => (int64[a,b,c] y) {{ y = ArgMax<{options}>(x) }}"
    quantized = int8(load(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {text}')).model)
    inputs = feeds(quantized)
    emitted = tflite.emit(quantized, operators=OPERATOR_SETS["tflm"])
    (found,), (expected,) = micro.TFLM(emitted.data, emitted).run(inputs), on_litert(quantized, inputs)
    assert found.dtype == np.int32 and np.array_equal(found, expected)


def checked(interpreter: str, error: str | None) -> Check:
    return Check(interpreter, "1", "top1", None, None, None, (), 0, error)


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ([checked("LiteRT", None), checked("TFLM", None)], None),
        ([checked("LiteRT", "no kernel"), checked("TFLM", None)], None),
        ([checked("LiteRT", None), checked("LiteRT reference", "no kernel")], None),
        (
            [checked("LiteRT", None), checked("TFLM", "no EXP")],
            "the device's interpreter refuses the .tflite file: no EXP",
        ),
        ([checked("LiteRT", "no kernel")], "no interpreter could run the .tflite file: no kernel"),
    ],
)
def test_a_file_that_its_device_refuses_is_refused(checks: list[Check], expected: str | None) -> None:
    assert refusal("tflite", checks) == expected
