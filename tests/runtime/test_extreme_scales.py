"""int8 kernels at scales far apart, where fixed point of 32 bits overflows in TFLM and LiteRT: against the functions in
float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from lite import constant, file_of, per_channel, quantized, run_micro, run_ours

EVERY = np.arange(-128, 128).astype(np.int8)
Function = Callable[[np.ndarray], np.ndarray]
FUNCTIONS: dict[str, tuple[Function, dict[str, object]]] = {
    "HARD_SWISH": (lambda x: x * np.clip(x + 3, 0, 6) / 6, {}),
    "LEAKY_RELU": (lambda x: np.where(x < 0, 0.25 * x, x), {"alpha": 0.25}),
    "RELU": (lambda x: np.maximum(x, 0), {}),
    "ABS": (np.abs, {}),
    "QUANTIZE": (lambda x: x, {}),
    "ELU": (lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x), {}),
}
# of the input and the output, from 1e-8 to 1e8, alike and far apart; zero points at the ends too
GRIDS = [
    ((1e5, 0), (1e5, -128)), ((1536.0, 3), (900.0, -3)), ((3e7, 127), (1e3, 0)), ((1e-8, -128), (1e-8, 5)),
    ((2e3, -7), (1e-6, 100)), ((0.05, 0), (1e-9, -128)), ((1e-7, 0), (1e6, 77)), ((40.0, -128), (0.001, 127)),
]  # fmt: skip


@pytest.mark.parametrize(("x", "y"), GRIDS)
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions(kind: str, x: tuple[float, int], y: tuple[float, int]) -> None:
    function, options = FUNCTIONS[kind]
    (found,) = run_ours(file_of(kind, [quantized((256,), *x)], [quantized((256,), *y)], **options), [EVERY])
    assert np.abs(found.astype(int) - stored(function(real(EVERY, x)), y)).max() <= 1


@pytest.mark.parametrize(("x", "y"), GRIDS)
@pytest.mark.parametrize("factor", [(0.01, 0), (1e3, -128), (1e-6, 127)])
def test_products(factor: tuple[float, int], x: tuple[float, int], y: tuple[float, int]) -> None:
    a, b = (grid.reshape(-1) for grid in np.meshgrid(EVERY, EVERY))
    ends = [quantized((65536,), *grid) for grid in (x, factor, y)]
    (found,) = run_ours(file_of("MUL", ends[:2], ends[2:], fusedActivationFunction=0), [a, b])
    assert np.abs(found.astype(int) - stored(real(a, x) * real(b, factor), y)).max() <= 1
    slopes = quantized((1, 256), *factor, EVERY.reshape(1, 256))
    (found,) = run_ours(
        file_of("PRELU", [quantized((1, 256, 256), *x), slopes], [quantized((1, 256, 256), *y)]),
        [np.repeat(EVERY[:, None], 256, 1)[None]],
    )
    value, slope = real(EVERY, x)[:, None], real(EVERY, factor)[None]
    assert np.abs(found[0].astype(int) - stored(np.where(value < 0, value * slope, value), y)).max() <= 1


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("sizes", [(6, 144), (1, 65), (7, 300), (1, 2000), (11, 700), (3, 2), (64, 1025)])
def test_a_constant_image_stays_so(sizes: tuple[int, int], flags: tuple[bool, bool]) -> None:
    """Positions are in steps that are rounded: TFLM and LiteRT read past their input where these add up."""
    size, out = sizes
    ends = [quantized((1, size, 1, 2), 0.1, 3), quantized((1, out, 1, 2), 0.1, 3)]
    options = {"alignCorners": flags[0], "halfPixelCenters": flags[1]}
    data = file_of("RESIZE_BILINEAR", [ends[0], constant(np.array([out, 1], np.int32))], ends[1:], **options)
    x = np.full((1, size, 1, 2), 100, np.int8)
    assert np.unique(run_ours(data, [x])[0]).tolist() == [100]


def real(stored: np.ndarray, grid: tuple[float, int]) -> np.ndarray:
    return np.float64(np.float32(grid[0])) * (stored.astype(np.float64) - grid[1])


def stored(real: np.ndarray, grid: tuple[float, int]) -> np.ndarray:
    return np.clip(np.round(real / np.float64(np.float32(grid[0]))) + grid[1], -128, 127).astype(int)


# ---- layers of sums whose output is finer than their accumulator: int32 overflows as in TFLM

DEPTH, UNITS = 23, 5
WINDOW = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, "fusedActivationFunction": 0}
Sums = Callable[[np.random.Generator, float], tuple[bytes, list[np.ndarray]]]


def some(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.integers(-128, 128, shape).astype(np.int8)


def with_weights(kind: str, x: tuple[int, ...], y: tuple[int, ...], **options: object) -> Sums:
    def case(random: np.random.Generator, factor: float) -> tuple[bytes, list[np.ndarray]]:
        w_shape, axis = ((1, 3, 3, UNITS), 3) if kind == "DEPTHWISE_CONV_2D" else ((UNITS, 1, 1, DEPTH), 0)
        scales = (0.01 * random.uniform(0.5, 1, UNITS)).astype(np.float32)
        data = random.integers(-127, 128, (UNITS, DEPTH) if len(x) == 2 else w_shape).astype(np.int8)
        bias = per_channel(random.integers(-2000, 2000, UNITS).astype(np.int32), np.float32(0.05) * scales, 0)
        operands = [quantized(x, 0.05, 3), per_channel(data, scales, axis), bias]
        if kind == "TRANSPOSE_CONV":
            operands = [constant(np.array(y, np.int32)), operands[1], operands[0], bias]
        return file_of(kind, operands, [quantized(y, 0.0005 / factor, -5)], **options), [some(random, *x)]

    return case


def product_of_matrices(random: np.random.Generator, factor: float) -> tuple[bytes, list[np.ndarray]]:
    ends = [quantized((1, 3, DEPTH), 0.05, 3), quantized((1, UNITS, DEPTH), 0.01, -7)]
    y = quantized((1, 3, UNITS), 0.0005 / factor, -5)
    feeds = [some(random, 1, 3, DEPTH), some(random, 1, UNITS, DEPTH)]
    return file_of("BATCH_MATMUL", ends, [y], adjX=False, adjY=True), feeds


def reduction(kind: str) -> Sums:
    def case(random: np.random.Generator, factor: float) -> tuple[bytes, list[np.ndarray]]:
        ends = [quantized((1, 3, DEPTH), 0.05, 3), constant(np.array([1], np.int32))]
        y = quantized((1, 1, DEPTH), 0.05 / factor, -5)
        return file_of(kind, ends, [y], keepDims=True), [some(random, 1, 3, DEPTH)]

    return case


SUMS: dict[str, Sums] = {
    "FULLY_CONNECTED": with_weights(
        "FULLY_CONNECTED", (3, DEPTH), (3, UNITS), keepNumDims=True, fusedActivationFunction=0
    ),
    "CONV_2D": with_weights("CONV_2D", (1, 1, 3, DEPTH), (1, 1, 3, UNITS), padding=1, **WINDOW),
    "DEPTHWISE_CONV_2D": with_weights(
        "DEPTHWISE_CONV_2D", (1, 4, 5, UNITS), (1, 4, 5, UNITS), padding=0, depthMultiplier=1, **WINDOW
    ),
    "TRANSPOSE_CONV": with_weights(
        "TRANSPOSE_CONV", (1, 1, 3, DEPTH), (1, 1, 3, UNITS), padding=0, strideH=1, strideW=1
    ),
    "BATCH_MATMUL": product_of_matrices, "MEAN": reduction("MEAN"), "SUM": reduction("SUM"),
}  # fmt: skip


@pytest.mark.parametrize("exponent", [0, 6, 12, 17, 22, 26, 29])
@pytest.mark.parametrize("kind", SUMS)
def test_sums_overflow_as_in_tflm(kind: str, exponent: int) -> None:
    """The factor of accumulators is 2**exponent and less; from 2**31 on, TFLM shifts by more bits than C defines."""
    for seed in range(3):
        data, feeds = SUMS[kind](np.random.default_rng(seed), 2.0**exponent)
        if (theirs := run_micro(data, feeds)) is None:
            pytest.skip("tflite-micro is not installed")
        np.testing.assert_array_equal(run_ours(data, feeds)[0], theirs[0])


def test_the_sums_above_do_overflow() -> None:
    """A sum that is far above 0 is below it in the output."""
    data, (x,) = SUMS["MEAN"](np.random.default_rng(0), 2.0**29)
    found = run_ours(data, [x])[0]
    assert (found[0, 0][x[0].astype(int).mean(0) > 4] < -5).any()
