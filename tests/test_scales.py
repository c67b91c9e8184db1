"""Scales at which LiteRT's and TFLM's kernels end the process: no file is written with these. Each operator is loaded
in a process of its own, with scales on both sides of what the rule allows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgecompress.compress.quantize.weight_scales import quantize_range
from edgecompress.emit import tflite
from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.annotations import quantization, set_quantization
from edgecompress.ingest import load
from edgecompress.lowering import scales
from edgecompress.lowering.tensors import Operator, Tensor
from edgecompress.operators.example import Example
from edgecompress_targets import OPERATOR_SETS
from formats import int8

LOADER = Path(__file__).parent / "runtime" / "load_operators.py"
# operator, bits of its values, scales of the inputs and of the output
CASES = [
    *(
        (kind, bits, inputs, output)
        for kind in ("ADD", "SUB")
        for bits, limit in ((8, 2**19), (16, 2**14))
        for inputs, output in (
            ((1.0, 0.01), 1.1 / limit), ((1.0, 0.01), 0.9 / limit), ((1e-4, 50.0), 60 / limit),
            ((1e-4, 50.0), 40 / limit), ((1e-8, 1e-8), 1e-8),
        )
    ),
    *(("SOFTMAX", 8, (x,), 1 / 256) for x in (1e-9, 1.4e-8, 1.6e-8, 1e-3, 1e6)),
    *(("HARD_SWISH", 8, (x,), y) for x, y in ((1.0, 1.0), (0.1, 9e-4), (0.1, 7e-4), (1e4, 100.0), (1e4, 50.0))),
]  # fmt: skip


@pytest.fixture(scope="module")
def outcomes() -> list[str]:
    """What became of each case: loaded, or why not."""
    pytest.importorskip("tflite_micro")
    done = subprocess.run(
        [sys.executable, str(LOADER)], input=json.dumps(CASES), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{k}{b} {x} {y:.3g}" for k, b, x, y in CASES])
def test_the_rule_is_what_the_interpreters_do(case: int, outcomes: list[str]) -> None:
    kind, bits, inputs, output = CASES[case]
    dtype = ir.DataType.INT8 if bits == 8 else ir.DataType.INT16
    tensors = [Tensor("t", (1, 8), dtype, _of_scale(scale, bits)) for scale in (*inputs, output)]
    operator = Operator(kind, tuple(range(len(inputs))), (len(inputs),), None, "'n' (Node)")
    refused = list(scales.faults([operator], tensors))
    assert bool(refused) == (outcomes[case] != "loaded"), outcomes[case]
    assert all("'n' (Node)" in line and "quantize.float_layers" in line for line in refused)


def _of_scale(scale: float, bits: int):
    return quantize_range(0, scale * 255, 8) if bits == 8 else quantize_range(-scale * 32767 / 1.05, 0, 16)


@pytest.mark.parametrize("operators", [None, "tflm"])
@pytest.mark.parametrize("nodes", ["y = Add(x, z)", "y = Sub(x, z)", "a = Add(x, z) y = Relu(a)"])
def test_a_file_that_would_end_the_interpreter_is_refused(nodes: str, operators: str | None) -> None:
    model = int8(load(Example(nodes, {"x": (1, 8), "z": (1, 8)}).model()).model)
    values = [v for v in (*model.graph.inputs, *(v for n in model.graph for v in n.outputs)) if quantization(v)]
    for value, largest in zip(values, (1e9, 1e9, 1.0), strict=True):
        set_quantization(value, quantize_range(-largest / 1e3, largest / 1e3))
    with pytest.raises(UnsupportedModelError, match=r"(Add|Sub) '(a|y)': one step of its int8 inputs is 7.8e\+03"):
        tflite.emit(model, operators=OPERATOR_SETS[operators] if operators else None)


@pytest.mark.parametrize("bits", [8, 16])
def test_zeros_can_be_added_to_values_of_any_usual_size(bits: int) -> None:
    zeros = quantize_range(0.0, 0.0, bits)
    for size in (1e-3, 0.1, 1.0, 100.0, 1e4):
        q = quantize_range(-size, size, bits)
        tensors = [Tensor("t", (1, 8), q.dtype, scale) for scale in (q, zeros, q, zeros)]
        adds = [
            Operator("ADD", (0, 1), (2,), None),
            Operator("ADD", (1, 1), (3,), None),
            Operator("SUB", (1, 0), (2,), None),
        ]
        assert not list(scales.faults(adds, tensors)), size
    assert np.array_equal(zeros.quantize(np.zeros(3, np.float32)), np.full(3, zeros.zero_point[0]))
