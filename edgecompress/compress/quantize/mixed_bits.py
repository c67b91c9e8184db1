"""Which matrices and tables are int4 and which int8, beside float activations, for a file of so many bytes.

What a weight's error does to the outputs is measured on calibration data, one weight at a time, in blocks of MEASURED;
other blocks, and int8, change it as they change the weight's own squared error. Noise of several weights adds up. From
the smallest choice on, that change is taken, again and again, which gains most for each byte and fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize.dynamic import blocks_of, can_be_int4, named_weights
from edgecompress.compress.quantize.int4_blocks import Blocks, quantize_blocks
from edgecompress.compress.quantize.tuning import Judge, Tuner
from edgecompress.compress.quantize.weight_scales import quantize_weight
from edgecompress.graph.fusion import constant
from edgecompress.recipe import Quantize

MEASURED = 64  # weights of a block in measurements
SIZES = (32, 64, 128, None)
ROWS = 256  # of a weight that tell how large its error is, at least
OF_GPTQ = 0.25  # share of matrices' int4 noise that is left behind GPTQ, which tables can't have: all-MiniLM-L6-v2's
Choice = Mapping[str, Blocks | None]  # by the name of a weight; None: int8


@dataclass(frozen=True)
class Option:
    """A way to store a weight. noise: of the outputs, as a share of their power."""

    blocks: Blocks | None
    bytes: float
    noise: float


def options_of(reference: ir.Model, judge: Judge, settings: Quantize) -> dict[str, list[Option]]:
    """By the name of a weight, its options from the smallest on, as far as the settings leave a choice."""
    able, named = can_be_int4(reference.graph), named_weights(reference.graph, settings)
    base = Blocks(MEASURED, settings.int4_zero_points)
    tuner = Tuner(judge, reference, weights=[str(value.name) for value in able])
    found = {}
    for value, axis in able.items():
        if named.get(value) == "float32":
            continue
        array = np.asarray(constant(value))
        q = quantize_blocks(array, axis, base)
        noise = 10 ** (-tuner.measure({}, others={str(value.name): q.dequantize(q.quantize(array))}).mean / 10)
        is_table = any(use.node.op_type == "Gather" for use in value.uses())
        options = _options(array if axis == 0 else array.T, noise * (1 if is_table else OF_GPTQ), base, settings)
        asked = named.get(value)
        found[str(value.name)] = [o for o in options if asked is None or (o.blocks is None) == (asked == "int8")]
    return found


def _options(rows: np.ndarray, noise: float, base: Blocks, settings: Quantize) -> list[Option]:
    """rows: [channels, k]. noise: of the outputs with int4 as `base` says."""
    part = rows[:: max(len(rows) // ROWS, 1)]
    one = blocks_of(settings)
    sizes = SIZES if settings.int4_block is None else (one.size,)
    every = [Blocks(size, settings.int4_zero_points) for size in sizes]
    error = max(_error(part, base), np.finfo(np.float64).tiny)
    found = [Option(b, rows.size * b.bits(rows.shape[1]) / 8, noise * _error(part, b) / error) for b in every]
    found.append(Option(None, rows.size + 4 * len(rows), noise * _error(part, None) / error))
    return sorted(found, key=lambda option: option.bytes)


def _error(rows: np.ndarray, blocks: Blocks | None) -> float:
    q = quantize_weight(rows, 0) if blocks is None else quantize_blocks(rows, 0, blocks)
    return float(np.square(q.dequantize(q.quantize(rows)) - rows, dtype=np.float64).sum())


def choose(options: Mapping[str, list[Option]], room: float) -> Choice:
    """The options of at most `room` bytes together that gain most for each byte; the smallest where none fit."""
    taken = {name: its[0] for name, its in options.items()}
    left = room - sum(option.bytes for option in taken.values())
    while True:
        gains = [
            ((taken[name].noise - option.noise) / (option.bytes - taken[name].bytes), name, number)
            for name, its in options.items()
            for number, option in enumerate(its)
            if 0 < option.bytes - taken[name].bytes <= left and option.noise < taken[name].noise
        ]
        if not gains:
            return {name: option.blocks for name, option in taken.items()}
        _, name, number = max(gains)
        left -= options[name][number].bytes - taken[name].bytes
        taken[name] = options[name][number]
