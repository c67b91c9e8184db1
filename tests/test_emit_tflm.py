"""What TensorFlow Lite Micro lacks is written with what it has, and gives the same bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import parser

from edgecompress.emit import tflite
from edgecompress.evaluate import micro
from edgecompress.evaluate.verify import Check, refusal
from edgecompress.graph.annotations import quantization
from edgecompress.ingest import load
from edgecompress.operators.example import Example
from edgecompress_targets import OPERATOR_SETS
from formats import feeds, int8, on_litert, original

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
        Example("a = ArgMax<axis=1, select_last_index=1>(x) y = Cast<to=1>(a)"),
        Example("r = Relu(x) a = ArgMin<axis=-1, keepdims=0, select_last_index=1>(r) y = Cast<to=1>(a)"),
        Example("r = Relu(x) a = ArgMax<axis=2, select_last_index=1>(r) y = Cast<to=1>(a)"),
        Example(
            "i = ArgMax<axis=2, keepdims=0, select_last_index=1>(x) y = Gather(t, i)",
            constants={"t": np.arange(6, dtype=np.float32)},
        ),
        Example(
            "i = ArgMax<axis=2, keepdims=0>(x) j = Sub(i, three) y = Gather(t, j)",
            constants={"t": np.arange(6, dtype=np.float32), "three": np.array(3)},
        ),
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
@pytest.mark.parametrize(
    "options",
    ["axis=1", "axis=2, keepdims=0", "axis=1, select_last_index=1", "axis=-1, keepdims=0, select_last_index=1"],
)
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


BLENDED = {((6, 6), (144, 144)), ((1, 5), (65, 5)), ((5, 3), (200, 9)), ((3, 2), (9, 65)), ((2, 1), (105, 66))}


def step(model: ir.Model) -> float:
    q = quantization(model.graph.outputs[0])
    assert q is not None
    return float(q.scale[0])


def as_stored(model: ir.Model, x: np.ndarray) -> np.ndarray:
    """What int8 holds of an input."""
    q = quantization(model.graph.inputs[0])
    assert q is not None
    return ((q.quantize(x).astype(np.float32) - q.zero_point) * q.scale).astype(np.float32)


OTHERS = [((6, 6), (12, 12)), ((3, 3), (90, 7)), ((64, 2), (65, 3))]


@needs_tflm
@pytest.mark.parametrize(
    ("before", "after", "mode"),
    [
        *((before, after, "asymmetric") for before, after in (*sorted(BLENDED), *OTHERS)),
        ((6, 6), (144, 144), "half_pixel"),
        ((1, 5), (65, 5), "align_corners"),
    ],
)
def test_resizes_that_kernels_read_past(before: tuple[int, int], after: tuple[int, int], mode: str) -> None:
    """TFLM's kernel and LiteRT's reference add up a rounded step. Where that ends behind the last row, other operators
    blend the rows."""
    nodes = f'r = Relu(x) y = Resize<mode="linear", coordinate_transformation_mode="{mode}">(r, , , s)'
    example = Example(nodes, {"x": (1, 4, *before)}, constants={"s": np.array([1, 4, *after])})
    model = int8(load(example.model()).model)
    emitted = tflite.emit(model, operators=OPERATOR_SETS["tflm"])
    interpreter = Interpreter(model_content=emitted.data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    kinds = [details["op_name"] for details in interpreter._get_ops_details()]
    assert ("RESIZE_BILINEAR" in kinds) == (mode != "asymmetric" or (before, after) not in BLENDED), kinds
    run = micro.TFLM(emitted.data, emitted).run
    inputs = feeds(model)
    (found,), (expected,) = run(inputs), original(example, {"x": as_stored(model, inputs["x"])})
    if mode == "asymmetric":  # the kernel's own positions are up to a tenth of a row off
        assert np.abs(found - expected).max() < (6 if (before, after) in BLENDED else 8) * step(model)
    (constant,) = run({"x": np.full((1, 4, *before), 0.5, np.float32)})
    assert np.unique(constant).size == 1 and abs(float(constant.flat[0]) - 0.5) < 0.02
