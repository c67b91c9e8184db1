"""Our math.h for CPUs without a C library, against float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit

from edgecompress_runtime.llvm.float_functions import FUNCTIONS

COMPILED = {name: njit(function) for name, function in FUNCTIONS.items()}
EXACT: dict[str, Callable[[float], float]] = {
    "expf": math.exp, "expm1f": math.expm1, "tanhf": math.tanh, "logf": math.log, "erfcf": math.erfc,
    "truncf": math.trunc, "floorf": math.floor, "sqrtf": math.sqrt,
}  # fmt: skip
ULPS = {"truncf": 0, "floorf": 0, "sqrtf": 1, "logf": 2}  # the others 3
SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 1e-40, 3.4e38, -3.4e38, 88.7, 89.0, -103.9)


def expected(name: str, x: float) -> float:
    """As C has it: NaN outside of the domain, infinity beyond the largest."""
    if math.isnan(x) or (name in ("logf", "sqrtf") and x < 0):
        return math.nan
    if name == "logf" and x == 0:
        return -math.inf
    if name in ("truncf", "floorf") and math.isinf(x):
        return x
    try:
        return float(EXACT[name](x))
    except OverflowError:
        return math.inf


def several(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Many in each example: to make an example takes longer than to compute with what is in it."""
    return st.lists(values, min_size=1, max_size=20)


PAIRS = st.tuples(
    st.floats(width=32) | st.floats(-9, 9, width=32), st.floats(-9, 9, width=32) | st.sampled_from((-2.0, 0.5, 3.0))
)


@settings(deadline=None)
@given(several(PAIRS))
def test_powers(pairs: list[tuple[float, float]]) -> None:
    for x, y in pairs:
        check_power(x, y)


def check_power(x: float, y: float) -> None:
    ours = COMPILED["powf"](np.float32(x), np.float32(y))
    with np.errstate(all="ignore"):
        exact = np.power(np.float64(x), np.float64(y))
        rounded = np.float32(exact)
    if np.array_equal(ours, rounded, equal_nan=True) or min(abs(ours), abs(rounded)) > 3.4e38:
        return
    assert abs(ours - exact) <= (2.5 + abs(y)) * np.spacing(abs(rounded)), (x, y, ours, exact)


@pytest.mark.parametrize("name", EXACT)
@settings(deadline=None)
@given(numbers=several(st.floats(width=32) | st.floats(-12, 12, width=32)))
@example(numbers=[np.float32(x).item() for x in SPECIAL])
def test_functions_are_within_their_bounds(name: str, numbers: list[float]) -> None:
    for x in numbers:
        check_function(name, x)


def check_function(name: str, x: float) -> None:
    ours = float(COMPILED[name](np.float32(x)))
    exact = expected(name, x)
    with np.errstate(over="ignore"):
        rounded = float(np.float32(exact))
    if not math.isfinite(rounded):
        assert ours == rounded or (math.isnan(ours) and math.isnan(exact)), (x, ours, exact)
        return
    size = np.float32(abs(rounded))
    ulp = max(float(size) - float(np.nextafter(size, np.float32(0))), 2.0**-149)
    bound = max(4e-6 * abs(exact), 1e-35) if name == "erfcf" else ULPS.get(name, 3) * ulp
    assert abs(ours - exact) <= bound + (0 if bound == 0 else ulp / 2), (x, ours, exact, abs(ours - exact) / ulp)
