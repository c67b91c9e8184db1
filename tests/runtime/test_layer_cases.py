"""Each layer of the table with LiteRT's kernels and with the runtime's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from layer_cases import CASES, VALUES, Layers
from lite import OPTIMISED_ONLY, file_of, per_channel, run_micro, run_reference

from edgecompress.graph.annotations import Quantization
from edgecompress.lowering.tensors import Tensor as FileTensor
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.operators import RECORDS
from edgecompress_runtime.plan import Tensor

TABLE = [(group, name) for group, cases in CASES.items() for name in cases]
# LiteRT fills tables with the machine's C library, and scales sums in float32: halfway between two it may be a step off
ONE_STEP = {"LOGISTIC", "TANH", "ELU", "EXP", "GELU", "LOG", "SUM"}
WEIGHTS = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}


def test_every_operator_has_a_case() -> None:
    found = set()
    for group, name in TABLE:
        made = Layers(0)
        CASES[group][name](made)
        found.add(made.operators[0].kind)
    missing = sorted(RECORDS.keys() - found)
    assert not missing, f"{', '.join(missing)}: write a case into layer_cases.py"


@pytest.mark.parametrize(
    ("group", "name"),
    [
        case
        for case in TABLE
        if case[1] != "table" and case[0] not in ("exits", "gated", "padded") and case[1] != "behind a PAD"
    ],
)
def test_layers_equal_tflm_or_litert(group: str, name: str) -> None:
    made = Layers(1, VALUES.get(group, 255))
    CASES[group][name](made)
    feeds, (operator,) = made.feeds(), made.operators
    inputs, outputs = ([_of_file(made.tensors[i]) for i in ends] for ends in (operator.inputs, operator.outputs))
    if operator.kind in WEIGHTS and made.tensors[operator.inputs[1]].is_int8:
        x, w, bias = (made.tensors[operator.inputs[i]] for i in WEIGHTS[operator.kind])
        assert bias.data is not None
        inputs[WEIGHTS[operator.kind][2]] = per_channel(bias.data, x.scale * w.scale, 0)  # as TFLite has it
    data = file_of(operator.kind, inputs, outputs, **operator.options.stored())
    reference = run_micro(data, feeds) or run_reference(data, feeds, optimised=operator.kind in OPTIMISED_ONLY)
    for ours, theirs in zip(Executor(made.plan())(*feeds), reference, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        if ours.dtype == np.float32:
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        else:
            steps = 1 if operator.kind in ONE_STEP else 0
            assert np.abs(ours.astype(np.int64) - theirs).max() <= steps


def test_the_table_operator_looks_its_entries_up() -> None:
    made = Layers(1)
    CASES["blocks"]["table"](made)
    (x,), entries = made.feeds(), made.tensors[made.operators[0].inputs[1]].data
    assert entries is not None
    np.testing.assert_array_equal(Executor(made.plan())(x)[0], entries[x.astype(int) + 128])


def _of_file(tensor: Tensor) -> FileTensor:
    q = Quantization(tensor.scale, tensor.zero_point, tensor.axis if tensor.scale.size > 1 else None)
    dtype = ir.DataType.from_numpy(tensor.dtype)
    return FileTensor(tensor.name, tensor.shape, dtype, q if tensor.scale.size else None, tensor.axis, tensor.data)
