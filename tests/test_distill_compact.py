"""Students of compact blocks: budget, shapes, and that they learn and convert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgecompress
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.distill.compact import BLOCKS_BY_NAME, compact
from edgecompress.errors import UnsupportedModelError
from edgecompress.ingest import fold_batchnorm, load
from edgecompress.recipe import Distill
from test_own_loop import HELD_X, HELD_Y, X, Y


def teacher(shape: tuple[int, ...], outputs: int = 10, softmax: bool = False) -> ir.Model:
    """Three convolutions of up to 96 channels, and a layer that reads all means."""
    last = shape[3] in (1, 3) and shape[1] > 3
    sizes = {"w0": (24, shape[3 if last else 1], 3, 3), "w1": (48, 24, 3, 3), "w2": (96, 48, 3, 3), "w3": (outputs, 96)}
    rng = np.random.default_rng(0)
    drawn = {k: rng.standard_normal(s) * (2 / np.prod(s[1:])) ** 0.5 for k, s in sizes.items()}
    weights = [numpy_helper.from_array(w.astype(np.float32), name) for name, w in drawn.items()]
    node = helper.make_node
    nodes = [node("Transpose", ["x"], ["r"], perm=[0, 3, 1, 2]) if last else node("Identity", ["x"], ["r"])]
    for i, stride in enumerate((1, 2, 2)):
        nodes.append(node("Conv", [f"r{i - 1}" if i else "r", f"w{i}"], [f"c{i}"], strides=[stride] * 2, pads=[1] * 4))
        nodes.append(node("Relu", [f"c{i}"], [f"r{i}"]))
    nodes += [node("GlobalAveragePool", ["r2"], ["m"]), node("Flatten", ["m"], ["f"])]
    nodes.append(node("Gemm", ["f", "w3"], ["l" if softmax else "y"], transB=1))
    nodes += [node("Softmax", ["l"], ["y"])] if softmax else []
    given, made = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", (1, outputs)))
    )
    return load(helper.make_model(helper.make_graph(nodes, "teacher", [given], [made], weights))).model


@pytest.mark.parametrize("blocks", BLOCKS_BY_NAME)
@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ((1, 3, 32, 32), {"macs": 0.5}),
        ((1, 1, 49, 10), {"macs": 0.3, "softmax": True}),
        ((1, 96, 96, 3), {"macs": 0.1}),
        ((1, 3, 40, 24), {"macs": 1.0, "align": 4}),
        ((1, 3, 20, 50), {"macs": 0.2, "outputs": 3}),
    ],
)
def test_the_budget_is_used_and_kept(blocks: str, shape: tuple[int, ...], given: dict[str, Any]) -> None:
    macs, align = given["macs"], given.get("align", 1)
    source = teacher(shape, given.get("outputs", 10), given.get("softmax", False))
    student = compact(source, Distill(student=blocks, macs=macs, align=align), 0)
    share = statistics(student).macs / statistics(source).macs
    assert 0.7 * macs < share <= macs
    for what in ("inputs", "outputs"):
        assert [v.shape for v in getattr(student.graph, what)] == [v.shape for v in getattr(source.graph, what)]
    convolutions = [n for n in fold_batchnorm(student).graph if n.op_type == "Conv"]
    assert all(n.inputs[1].shape[0] % align == 0 for n in convolutions)
    assert any(n.attributes.get_int("group", 1) > 1 for n in convolutions)


@pytest.mark.parametrize("blocks", BLOCKS_BY_NAME)
def test_it_learns_and_converts(blocks: str, tmp_path: Path) -> None:
    recipe = {
        "distill": {"student": blocks, "macs": 0.05, "alpha": 0.0, "epochs": 6, "lr": 0.1},
        "train": {"batch": 32, "validation": 0.0},
    }
    source = teacher((1, 1, 8, 8), 4)
    result = edgecompress.convert(
        ir.to_proto(source), formats=["onnx"], recipe=recipe,
        train=(X, Y), eval=(HELD_X, HELD_Y), output=tmp_path,
    )  # fmt: skip
    assert result.report.artifacts[0].checks[0].value > 60  # chance is 25


@pytest.mark.parametrize(
    ("name", "macs", "message"),
    [("vector", 0.5, "one float image and one row of numbers"), ("image", 1e-4, r"takes at least 0\.0")],
)
def test_what_cannot_be_made_is_said(name: str, macs: float, message: str) -> None:
    flat = '<ir_version: 8, opset_import: ["": 17]> g (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }'
    source = load(ir.from_onnx_text(flat)).model if name == "vector" else teacher((1, 3, 32, 32))
    with pytest.raises(UnsupportedModelError, match=message):
        compact(source, Distill(student="mobilenet", macs=macs), 0)
