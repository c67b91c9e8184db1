"""Loads and runs one operator for each case in a process of its own, which LiteRT and TFLM may end.

Reads a list of (operator, bits, scales of the inputs, scale of the output) from its input, and prints a list of how
each ended: "loaded", or what an interpreter said or died of.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np
from lite import file_of, quantized, quantized_int16, run_micro, run_reference

OPTIONS = {"ADD": {"fusedActivationFunction": 0}, "SUB": {"fusedActivationFunction": 0}, "SOFTMAX": {"beta": 1.0}}


def outcome(kind: str, bits: int, inputs: list[float], output: float) -> str:
    tensor = quantized if bits == 8 else quantized_int16
    place = {"SOFTMAX": -128}.get(kind, 0)
    y = quantized((1, 8), output, place) if bits == 8 else quantized_int16((1, 8), output)
    data = file_of(kind, [tensor((1, 8), scale) for scale in inputs], [y], **OPTIONS.get(kind, {}))
    feeds = [np.ones((1, 8), np.int8 if bits == 8 else np.int16) for _ in inputs]
    for run in (run_reference, run_micro):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                run(data, feeds)
            except RuntimeError:
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            return f"{run.__name__}: status {status}"
    return "loaded"


if __name__ == "__main__":
    print(json.dumps([outcome(*case) for case in json.load(sys.stdin)]))
