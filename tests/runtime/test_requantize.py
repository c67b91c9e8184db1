"""The vectors' requantization against gemmlowp's formulas, both in Python's own integers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from edgecompress_runtime.families.x86.real import MAGIC
from edgecompress_runtime.families.x86.x86_requantize import Fields, Rounding, channel_fields

LARGEST = 2**31 - 1
MULTIPLIER = st.one_of(st.integers(2**30, LARGEST), st.sampled_from([0, 2**30, LARGEST]))
FRACTIONS = st.lists(st.floats(-1, 1), min_size=20, max_size=20)


def wrapped(n: int, bits: int) -> int:
    return (n + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def twice(acc: int, multiplier: int, shift: int) -> int:
    high = ((acc << max(shift, 0)) * multiplier + 2**30) >> 31
    down = max(-shift, 0)
    size = (abs(high) + (2**down >> 1)) >> down  # halves away from zero
    return -size if high < 0 else size


def ours(acc: int, fields: Fields) -> int:
    """What `x86_vectors.requantized` does with an accumulator without bias, in 32 and 64 bits."""
    bias, multiplier, low, high, down, up, nudge = fields.numbers()
    raised = wrapped(acc + bias, 32)
    if fields.rounding is Rounding.TWICE_UP:
        raised = wrapped((raised << up) + 2**30, 32)
    assert raised >= 0
    product = wrapped(raised * (multiplier % 2**32) + (low % 2**32) + (high << 32), 64) >> 32
    if fields.rounding is not Rounding.FLOOR:
        product += raised >> 30 & (nudge if fields.rounding is Rounding.TWICE_UP else 1)
    assert product == wrapped(product, 32)
    return product >> down


def fields_of(
    bias: np.ndarray, largest: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, zero: int, **options: Any
) -> Fields | None:
    return channel_fields(bias, largest, (multiplier, shift), zero, **options)


@settings(deadline=None, max_examples=500)
@given(
    MULTIPLIER,
    st.integers(-31, 8),
    st.integers(0, 2**30),
    st.integers(-(2**20), 2**20),
    st.integers(-128, 127),
    st.integers(-128, 127),
    FRACTIONS,
)
@example(LARGEST, -30, 2**29, 0, -128, -128, [-1.0, 1.0, 0.0] * 7)
@example(2**30, -1, 2**29, 0, 0, -128, [-1.0, 1.0, 0.0] * 7)
def test_the_formulas_agree(multiplier, shift, largest, bias, zero, low, fractions):
    arrays = (np.array([n]) for n in (bias, largest + abs(bias), multiplier, shift))
    fields = fields_of(*arrays, zero, low=low)
    assume(fields is not None)
    near = [int(f * largest) for f in fractions] + list(range(-3, 4))
    if multiplier:  # where an output turns into the next
        step = 2.0 ** (31 - shift) / multiplier
        near += [round((k + 0.5) * step) + d for k in range(-130, 130) for d in (-1, 0, 1)]
    for acc in near:
        if abs(acc) <= largest:
            expected = twice(acc + bias, multiplier, shift) + zero
            assert np.clip(ours(acc, fields), low, 127) == np.clip(expected, low, 127)


def real(acc: int, fields: Fields) -> int:
    """What `x86_vectors.requantized` does in float32 with an accumulator without bias: exact, then rounded."""
    shifted, limit = acc + int(fields.bias[0]), int(fields.down[0])
    assert abs(shifted) <= 2**24
    scale, offset, below = (
        Fraction(float(np.uint32(of[0]).view(np.float32))) for of in (fields.multiplier, fields.up, fields.nudge)
    )
    if fields.rounding is Rounding.REAL:
        total = shifted * scale + offset
        assert 2**23 < total < 2**24  # where floats are whole numbers
        return round(total) - int(MAGIC)  # halves to even, as floats are rounded
    total = shifted * scale + (below if shifted < limit else offset)
    narrow = np.float32(float(total))  # has few enough bits for a double
    assert float(total) == total and abs(narrow) < 2**21
    return round(Fraction(float(narrow)))


@pytest.mark.long
@settings(deadline=None, max_examples=300)
@given(
    st.integers(2**30, LARGEST),
    st.integers(-13, -1),
    st.integers(1, 2**23 - 1),
    st.integers(-(2**18), 2**18),
    st.integers(-128, 127),
    st.booleans(),
    FRACTIONS,
)
@example(2**30, -1, 2**22, 0, 3, False, [-1.0, 1.0, 0.0] * 7)
@example(1518500250, -9, 2**20, 77, -128, True, [-1.0, 1.0, 0.0] * 7)
def test_a_product_in_float32_is_on_the_right_side_of_every_boundary(
    multiplier, shift, largest, bias, zero, relu, fractions
):
    assume(abs(bias) < largest)
    low = zero if relu else -128
    arrays = (np.array([n]) for n in (bias, largest, multiplier, shift))
    fields = fields_of(*arrays, zero, low=low, fuses=True)
    assume(fields is not None and fields.rounding in (Rounding.REAL, Rounding.REAL_TWICE))
    step = 2.0 ** (31 - shift) / multiplier
    near = [round((k + 0.5) * step) + d for k in range(-260, 260) for d in (-2, -1, 0, 1, 2)]
    near += [int(f * largest) for f in fractions] + [-largest, largest, 0, -1, 1]
    for acc in near:
        if abs(acc) <= largest:
            expected = twice(acc, multiplier, shift) + zero
            assert np.clip(real(acc - bias, fields), low, 127) == np.clip(expected, low, 127)


@pytest.mark.filterwarnings("error")
def test_a_channel_that_is_always_the_same_goes_with_others():
    arrays = (np.array(n) for n in ([0, 5], [30000, 30000], [1518500250, 0], [-6, 0]))
    fields = fields_of(*arrays, 7, fuses=True)
    assert fields.rounding is Rounding.REAL_TWICE and (np.abs(fields.bias) < 2**23).all()
    every = fields.bias, fields.multiplier, fields.term, fields.down, fields.up, fields.nudge
    dull = Fields(*(of[1:] for of in every), fields.rounding)
    assert {real(acc, dull) for acc in (-30000, -1, 0, 30000)} == {7}


def test_products_in_float32_are_found_for_usual_scales():
    """Of 200 channels whose outputs take all of int8, with scales of 2**-2 to 2**-10."""
    random, found = np.random.default_rng(0), []
    for _ in range(200):
        multiplier, shift, zero = random.integers(2**30, 2**31), random.integers(-9, -1), random.integers(-128, 128)
        largest = int(min(400 * 2.0 ** (31 - shift) / multiplier, 2**23 - 1))
        arrays = [np.array([n]) for n in (0, largest, multiplier, shift)]
        for low in (-128, zero):
            fields = fields_of(*arrays, int(zero), low=int(low), fuses=True)
            found.append(fields.rounding in (Rounding.REAL, Rounding.REAL_TWICE))
    assert np.mean(found) > 0.97


@pytest.mark.parametrize("low", [-128, -7])
@pytest.mark.parametrize("down", [1, 2, 5])
@pytest.mark.parametrize("multiplier", [2**30, 1518500250, LARGEST])
def test_every_accumulator_of_a_coarse_scale(multiplier, down, low):
    """Where a step is few accumulators, the smallest part of a term shows."""
    one = np.ones(1, np.int64)
    fields = fields_of(0 * one, 9000 * one, multiplier * one, -down * one, -7, low=low)
    assert fields.rounding is (Rounding.FLOOR if low == -7 else Rounding.TWICE)
    for acc in range(-150 * 2**down, 150 * 2**down):
        expected = twice(acc, multiplier, -down) - 7
        assert np.clip(ours(acc, fields), low, 127) == np.clip(expected, low, 127)


def test_what_does_not_fit_is_refused():
    def fits(bias: int, largest: int, shift: int, zero: int = 0) -> bool:
        arrays = (np.array([n]) for n in (bias, largest, 2**30, shift))
        return fields_of(*arrays, zero) is not None

    assert fits(0, 2**30 - 1, -1) and not fits(0, 2**30, -1)
    assert fits(0, 2**27 - 1, 3) and not fits(0, 2**27, 3)
    assert fits(2**30 - 1, 2**30 - 1, -1) and not fits(2**30, 2**30 - 1, -1)
    assert fits(0, 1000, -30) and not fits(0, 2**29, -30, 2) and not fits(0, 1000, -31)


def test_each_rounding_occurs():
    def rounding(shifts: list[int], low: int) -> Rounding | None:
        one = np.ones(len(shifts), np.int64)
        found = fields_of(0 * one, 1000 * one, 2**30 * one, np.array(shifts), -5, low=low)
        return found and found.rounding

    assert rounding([-4, -5], -5) is Rounding.FLOOR
    assert rounding([-4, -5], -128) is Rounding.TWICE
    assert rounding([-4, 0], -5) is Rounding.TWICE_UP
    assert rounding([-31], -128) is None
