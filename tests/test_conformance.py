"""A fixed fifth of the tests that come with the `onnx` package (tests/bench/conformance.py runs all of them)."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from conformance import FAULTS, judged

from conformance_cases import collect

SHARE = 5
# group -> how many of the fifth pass at least: "onnx": right in .onnx; "both": right in .tflite as well. Numbers of
# onnx 1.23, which may only rise.
LEAST = json.loads((Path(__file__).parent / "conformance.json").read_text(encoding="utf-8"))


@pytest.mark.long
def test_no_test_of_the_standard_goes_wrong_and_as_many_pass_as_before() -> None:
    rows = [*judged(collect(SHARE).cases)]
    faults = [f"{row.name}: {row.outcome.kind}: {row.outcome.reason}" for row in rows if row.outcome.kind in FAULTS]
    assert not faults, "\n".join(faults)
    for group, least in LEAST.items():
        count = Counter(row.outcome.kind for row in rows if row.group == group)
        both, onnx = count["pass"], count["pass"] + count["onnx"]
        assert both >= least["both"] and onnx >= least["onnx"], f"{group}: {onnx} in .onnx, {both} in both formats"
