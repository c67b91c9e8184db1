"""Arithmetic where it turns: at the ends of ranges, against formulas in Python's own integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit

from edgecompress_runtime.kernels.arithmetic import quantize_multiplier
from edgecompress_runtime.kernels.fixed_point import half_sum, saturating_shift_left
from edgecompress_runtime.pack import CODECS
from edgecompress_runtime.pack.entropy.huffman_code import canonical_codes, code_lengths, short_code_lengths
from edgecompress_runtime.pack.errors import PackError

LARGEST = 2**31 - 1


@njit
def shifted(x, exponent):
    return saturating_shift_left(x, exponent)


@njit
def halved(a, b):
    return half_sum(a, b)


@settings(deadline=None)
@given(st.integers(-(2**31), LARGEST), st.integers(0, 30))
@example(2**26 - 1, 5)
@example(2**26, 5)
@example(-(2**26) + 1, 5)
@example(-(2**26), 5)
def test_a_shift_stops_at_the_ends(x: int, exponent: int) -> None:
    """gemmlowp's SaturatingRoundingMultiplyByPOT: beyond +-(2^(31 - exponent) - 1) the result is an end of int32."""
    threshold = 2 ** (31 - exponent) - 1
    expected = LARGEST if x > threshold else -(2**31) if x < -threshold else x << exponent
    assert shifted(np.int32(x), np.int32(exponent)) == expected


@settings(deadline=None)
@given(st.integers(0, LARGEST), st.integers(0, LARGEST))
@example(LARGEST, LARGEST)
@example(1, 2)
def test_halves_go_up(a: int, b: int) -> None:
    assert halved(np.int32(a), np.int32(b)) == (a + b + 1) // 2


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_as_many_symbols_as_a_limit_allows(limit: int) -> None:
    lengths = code_lengths(np.ones(2**limit, np.int64), limit)
    assert (lengths == limit).all()
    with pytest.raises(PackError, match="too short"):
        code_lengths(np.ones(2**limit + 1, np.int64), limit)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40), st.integers(6, 12))
def test_code_lengths_are_those_of_the_best_code(counts: list[int], limit: int) -> None:
    """Complete (Kraft's sum is 1), within the limit, and where the limit is no hindrance as good as Huffman's tree."""
    import heapq

    lengths = code_lengths(np.array(counts, np.int64), limit)
    used = [c for c in counts if c]
    assert ((lengths > 0) == (np.array(counts) > 0)).all() and lengths.max(initial=0) <= limit
    if len(used) < 2:
        return
    assert sum(2.0 ** -int(n) for n in lengths if n) == 1
    heap, cost, depth = [(c, 0) for c in used], 0, 0
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, i), (b, j) = heapq.heappop(heap), heapq.heappop(heap)
        cost, depth = cost + a + b, max(depth, max(i, j) + 1)
        heapq.heappush(heap, (a + b, max(i, j) + 1))
    total = int(np.dot(counts, lengths.astype(np.int64)))
    assert total >= cost and (depth > limit or total == cost)


@settings(deadline=None)
@given(st.floats(1e-6, 4.0))
@example(1.0)
@example(0.5)
@example(np.nextafter(1.0, 0.0))
@example(1 - 2.0**-33)
def test_multipliers_in_training_are_the_runtimes(real: float) -> None:
    assert training_multiplier(real, 1) == tuple(map(int, quantize_multiplier(real)))


@settings(deadline=None)
@given(st.floats(1e-6, 4.0), st.integers(1, 2**20))
@example(0.5, 2)
@example(0.75, 3)
@example(1e-6, 2**20)
def test_means_in_training_divide_as_tflite_does(real: float, count: int) -> None:
    """reference/reduce.h, QuantizedMeanOrSum: the multiplier takes as many bits as fit before it is divided."""
    multiplier, shift = map(int, quantize_multiplier(real))
    room = min(count.bit_length() - 1, 32, 31 + shift)
    assert training_multiplier(real, count) == ((multiplier << room) // count, shift - room)


def training_multiplier(real: float, count: int) -> tuple[int, int]:
    torch = pytest.importorskip("torch")
    from edgecompress.compress.quantize.requantize import _multiplier

    multiplier, shift = _multiplier(torch.tensor(real, dtype=torch.float64), count)
    return int(multiplier), int(shift)


@pytest.mark.parametrize("spread", [1.0, 2.6, 6.0])
def test_short_codes_cost_hardly_more(spread: float) -> None:
    """Laplace's long tails need the longer codes; none costs more than a thousandth over 12 bits."""
    values = np.random.default_rng(0).laplace(0, spread, 200_000).round().clip(-128, 127).astype(np.int64) + 128
    counts = np.bincount(values, minlength=256)
    short, best = short_code_lengths(counts), code_lengths(counts, 12)
    assert counts @ short <= 1.001 * (counts @ best)
    assert all(counts @ code_lengths(counts, n) > 1.001 * (counts @ best) for n in range(8, int(short.max())))


def test_both_bits_mean_a_lone_symbol() -> None:
    """Whatever the coded bits are, decoding goes on and gives the one symbol that there is."""
    encoded = CODECS["huffman"].encode(np.full(300, 7, np.int8))
    for byte in (0x00, 0xFF, 0xA5):
        data = bytes([byte]) * len(encoded.data)
        out = CODECS["huffman"].decode(data, encoded.params, np.zeros(300, np.int8))
        np.testing.assert_array_equal(out, 7)


def test_incomplete_codes_are_told_with_their_sum() -> None:
    with pytest.raises(PackError, match="fill 3072 of 4096 code points"):
        canonical_codes(np.array([1, 2, 0, 0], np.uint8))
