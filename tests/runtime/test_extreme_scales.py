"""int8 kernels at scales far apart, where fixed point of 32 bits overflows in TFLM and LiteRT: against the functions in
float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from lite import constant, file_of, quantized, run_ours

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
