"""Pools, reductions and softmax against LiteRT's reference kernels."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import TensorType
from hypothesis import assume, given
from hypothesis import strategies as st
from lite import SCALES, SEEDS, ZEROS, check, constant, examples, plain, quantized
from test_kernels_convolution import SAME, VALID, out_size

PAIR = st.tuples(st.integers(1, 4), st.integers(1, 4))


@pytest.mark.parametrize("kind", ["MAX_POOL_2D", "AVERAGE_POOL_2D"])
@examples(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    kernel=PAIR,
    strides=PAIR,
    channels=st.integers(1, 5),
    padding=st.sampled_from([SAME, VALID]),
    activation=st.sampled_from([0, 1, 2, 3]),
    scale=SCALES,
    zero=ZEROS,
    seed=SEEDS,
)
def test_pools(kind, size, kernel, strides, channels, padding, activation, scale, zero, seed):
    out = out_size(size, kernel, strides, (1, 1), padding)
    assume(min(out) > 0)
    options = {
        "padding": padding,
        "strideH": strides[0],
        "strideW": strides[1],
        "filterHeight": kernel[0],
        "filterWidth": kernel[1],
        "fusedActivationFunction": activation,
    }
    x, y = (2, *size, channels), (2, *out, channels)
    check(kind, [quantized(x, scale, zero)], [quantized(y, scale, zero)], seed=seed, **options)
    check(kind, [plain(x)], [plain(y)], seed=seed, tolerance=1e-6, **options)


AXES = st.sampled_from(
    [
        ((2, 5, 6, 3), (1, 2)),
        ((2, 5, 6, 3), (0, 3)),
        ((2, 5, 6, 3), (1, 3)),
        ((2, 5, 6, 3), (0, 1, 2, 3)),
        ((7,), (0,)),
        ((4, 9), (-1,)),
        ((3, 4, 5), (0,)),
        ((2, 3, 2, 3, 2), (0, 2, 4)),
        ((2, 1, 70, 3), (1, 2)),
    ]
)


def reduced(shape, axes, keep):
    return np.zeros(shape).sum(axis=axes, keepdims=keep).shape


@pytest.mark.parametrize("kind", ["MEAN", "SUM"])
@examples(max_examples=80)
@given(case=AXES, keep=st.booleans(), scales=st.tuples(SCALES, SCALES), zeros=st.tuples(ZEROS, ZEROS), seed=SEEDS)
def test_means_and_sums(kind, case, keep, scales, zeros, seed):
    shape, axes = case
    operand, y = constant(np.array(axes, np.int32)), reduced(shape, axes, keep)
    x = quantized(shape, scales[0], zeros[0])
    steps = 1 if kind == "SUM" else 0  # the only SUM of LiteRT 2.3 that works scales in float32
    check(kind, [x, operand], [quantized(y, scales[1], zeros[1])], seed=seed, steps=steps, keepDims=keep)
    check(kind, [plain(shape), operand], [plain(y)], seed=seed, tolerance=1e-5, keepDims=keep)


@pytest.mark.parametrize("kind", ["REDUCE_MAX", "REDUCE_MIN"])
@examples(max_examples=30)
@given(case=AXES, keep=st.booleans(), scale=SCALES, zero=ZEROS, seed=SEEDS)
def test_reduced_extremes(kind, case, keep, scale, zero, seed):
    shape, axes = case
    operand, y = constant(np.array(axes, np.int32)), reduced(shape, axes, keep)
    check(kind, [quantized(shape, scale, zero), operand], [quantized(y, scale, zero)], seed=seed, keepDims=keep)
    check(kind, [plain(shape), operand], [plain(y)], seed=seed, keepDims=keep)


@examples(max_examples=30)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), data=st.data(), seed=SEEDS)
def test_arg_max(shape, data, seed):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    y = tuple(np.delete(shape, axis))
    for x in (quantized(shape, 0.1, 3), plain(shape)):
        for dtype, code in ((np.int32, TensorType.INT32), (np.int64, TensorType.INT64)):
            check("ARG_MAX", [x, constant(np.array([axis], np.int32))], [plain(y, dtype)], seed=seed, outputType=code)


ROWS = st.sampled_from([(1, 2), (3, 10), (5, 1), (2, 3, 7), (1, 300)])


@examples(max_examples=80)
@given(shape=ROWS, scale=st.floats(0.001, 0.6), zero=ZEROS, beta=st.sampled_from([1.0, 0.3]), seed=SEEDS)
def test_softmax(shape, scale, zero, beta, seed):
    check("SOFTMAX", [quantized(shape, scale, zero)], [quantized(shape, 1 / 256, -128)], seed=seed, beta=beta)
    check("SOFTMAX", [plain(shape)], [plain(shape)], seed=seed, tolerance=1e-6, beta=beta)


@examples(max_examples=80)
@given(shape=ROWS, scale=st.floats(0.001, 0.6), zero=ZEROS, seed=SEEDS)
def test_log_softmax(shape, scale, zero, seed):
    check("LOG_SOFTMAX", [quantized(shape, scale, zero)], [quantized(shape, 16 / 256, 127)], seed=seed)
    check("LOG_SOFTMAX", [plain(shape)], [plain(shape)], seed=seed, tolerance=1e-6)
