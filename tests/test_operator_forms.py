"""Operators in the forms that exporters write beside the plain ones: other attributes, shapes and dtypes. Each network
computes in every format what ONNX Runtime (or the reference evaluator of the onnx package) computes of the original.
"""

from __future__ import annotations

import numpy as np
import pytest

import quantizing
from edgecompress.ingest import load
from edgecompress.operators.example import Example
from formats import FORMATS, check_close, feeds, int8, original

LEAST_DB = 20.0  # of int8 against float


def pools() -> list[Example]:
    """ceil_mode: the divisor of an average leaves out cells that it adds, and a window that begins in the padding at
    the end does not exist."""
    windows = [  # kernel, stride, padding of all sides, size
        ("[2,2]", "[2,2]", 0, (7, 9)),
        ("[3,3]", "[2,2]", 1, (12, 10)),
        ("[2,2]", "[2,2]", 1, (7, 9)),
        ("[2,2]", "[3,3]", 1, (7, 10)),
        ("[2,2]", "[4,4]", 0, (11, 14)),
        ("[4,3]", "[3,2]", 1, (9, 8)),
    ]
    averages = ("AveragePool<count_include_pad=1, ", "AveragePool<count_include_pad=0, ")
    found = [
        Example(
            f"y = {pool}kernel_shape={kernel}, strides={stride}, pads={[pad] * 4}, ceil_mode=1>(x)", {"x": (1, 3, *n)}
        )
        for kernel, stride, pad, n in windows
        for pool in ("MaxPool<", *averages)
    ]
    return [*found, Example("y = AveragePool<kernel_shape=[4], strides=[4], ceil_mode=1>(x)", {"x": (1, 3, 13)})]


FORMS = {"pools": pools()}
CASES = [pytest.param(e, id=f"{kind}-{i}") for kind, examples in FORMS.items() for i, e in enumerate(examples)]


@pytest.mark.parametrize("example", CASES)
def test_every_format_computes_what_the_original_does(example: Example) -> None:
    model = load(example.model()).model
    inputs = feeds(model)
    expected = original(example, inputs)
    for kind, run in FORMATS.items():
        check_close(run(model, inputs), expected, f"{example.nodes} as .{kind}")
    quantized = int8(model)
    found = {kind: run(quantized, inputs) for kind, run in FORMATS.items()}
    for kind, outputs in found.items():
        for y, e in zip(outputs, expected, strict=True):
            snr = quantizing.snr_db(np.asarray(e, np.float64), y)
            assert snr > LEAST_DB, f"{example.nodes} as int8 .{kind}: {snr:.1f} dB"
    check_close(found["pack"], found["tflite"], f"{example.nodes}: .pack and .tflite")
