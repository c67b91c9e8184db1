"""Fixed-point helpers against exact rational arithmetic."""

from __future__ import annotations

import doctest
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lite import examples
from numba import njit

from edgecompress_runtime.kernels import arithmetic, fixed_point, softmax, strides

INT32 = st.integers(-(2**31), 2**31 - 1)


@given(st.floats(2**-30, 2**29))
def test_a_multiplier_is_the_nearest_of_31_bits(real):
    multiplier, shift = arithmetic.quantize_multiplier(real)
    assert 2**30 <= multiplier < 2**31
    assert abs(Fraction(multiplier) * Fraction(2) ** (shift - 31) - Fraction(real)) <= Fraction(2) ** (shift - 32)


@pytest.mark.parametrize(
    "real, expected",
    [
        (0.0, (0, 0)),
        (1.0, (2**30, 1)),
        (-0.5, (-(2**30), 0)),
        (2**-33, (0, 0)),
        (1e12, (2**31 - 1, 30)),
        (math.nextafter(1.0, 0), (2**30, 1)),
    ],
)
def test_multipliers_at_the_edges(real, expected):
    assert arithmetic.quantize_multiplier(real) == expected


def nearest(x: Fraction, *, up: bool) -> int:
    """Halves up, or away from zero."""
    floor = math.floor(x + Fraction(1, 2))
    return floor - 1 if not up and x < 0 and x - math.floor(x) == Fraction(1, 2) else floor


@njit
def requantized(acc, multiplier, shift):
    return arithmetic.requantize(acc, multiplier, shift)


@examples(max_examples=300)
@given(INT32, st.integers(2**30, 2**31 - 1), st.integers(-31, 0))
def test_requantizing_rounds_twice(acc, multiplier, shift):
    twice = requantized(np.int32(acc), np.int32(multiplier), np.int32(shift))
    high = nearest(Fraction(acc * multiplier, 2**31), up=True)
    assert twice == nearest(Fraction(high, 2**-shift), up=False)
    assert arithmetic.requantized(np.array(acc), multiplier, shift) == twice


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1))
def test_rounding_is_that_of_c(values):
    expected = [math.copysign(math.floor(abs(Fraction(v)) + Fraction(1, 2)), v) for v in values]
    assert arithmetic.round_half_away(np.array(values, np.float32)).tolist() == expected


@njit
def logarithm(x):
    return fixed_point.log_of_sum(x)


@njit
def reciprocal(x):
    return fixed_point.one_over_one_plus(x)


@examples()
@given(st.integers(2**19, 2**31 - 1))
def test_fixed_point_logarithm(raw):
    assert logarithm(np.int32(raw)) / 2**26 == pytest.approx(math.log(raw / 2**19), abs=1e-6)


@examples()
@given(st.integers(0, 2**31 - 1))
def test_fixed_point_reciprocal(raw):
    assert reciprocal(np.int32(raw)) / 2**31 == pytest.approx(1 / (1 + raw / 2**31), abs=1e-7)


@given(st.integers(-(2**31), 0))
def test_fixed_point_exponential(raw):
    assert softmax.exp_on_negative(np.array(raw), 5) / 2**31 == pytest.approx(math.exp(raw / 2**26), abs=5e-7)


def test_examples_in_docstrings():
    failed, attempted = doctest.testmod(strides)
    assert attempted > 0 and failed == 0


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_collapsed_axes_visit_the_same_elements_in_the_same_order(dims, data):
    own = data.draw(st.tuples(*[st.sampled_from([1, n]) for n in dims]))
    read = strides.broadcast(own, dims)
    new_dims, new_read = strides.collapsed(dims, read)
    assert len(new_dims) == 6
    assert _offsets(new_dims, new_read) == _offsets(dims, read)
    rows = [strides.offset.py_func(np.int32(r), new_dims, new_read) for r in range(math.prod(new_dims[:5]))]
    assert [r + i * new_read[5] for r in rows for i in range(new_dims[5])] == _offsets(dims, read)


def _offsets(dims, steps) -> list[int]:
    return [sum(i * s for i, s in zip(index, steps)) for index in np.ndindex(*dims)]
