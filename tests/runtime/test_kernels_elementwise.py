"""Element-wise operators against LiteRT's reference kernels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lite import (
    OPTIMISED_ONLY,
    SCALES,
    SEEDS,
    ZEROS,
    check,
    constant,
    examples,
    file_of,
    plain,
    quantized,
    run_micro,
    run_ours,
    run_reference,
)

SHAPES = st.sampled_from(
    [
        ((5,), (5,)),
        ((2, 3, 4, 5), (2, 3, 4, 5)),
        ((2, 3, 4, 5), (5,)),
        ((2, 3, 4, 5), ()),
        ((1, 1, 1, 5), (2, 3, 4, 5)),
        ((2, 1, 4, 1), (1, 3, 1, 5)),
        ((2, 3, 1, 5), (1, 1, 4, 1)),
        ((3, 4), (2, 3, 1)),
        ((2, 1, 2, 1, 3), (1, 2, 1, 2, 1)),
    ]
)
EVERY = np.arange(-128, 128).astype(np.int8)


def out_shape(shapes):
    return np.broadcast_shapes(*shapes)


@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL"])
@examples(max_examples=60)
@given(
    shapes=SHAPES,
    scales=st.tuples(SCALES, SCALES, SCALES),
    zeros=st.tuples(ZEROS, ZEROS, ZEROS),
    activation=st.sampled_from([0, 1, 2, 3]),
    seed=SEEDS,
)
def test_sums_and_products(kind, shapes, scales, zeros, activation, seed):
    y, options = out_shape(shapes), {"fusedActivationFunction": activation}
    inputs = [quantized(s, scale, zero) for s, scale, zero in zip(shapes, scales, zeros)]
    check(kind, inputs, [quantized(y, scales[2], zeros[2])], seed=seed, **options)
    check(kind, [plain(s) for s in shapes], [plain(y)], seed=seed, **options)


@pytest.mark.parametrize("kind", ["MINIMUM", "MAXIMUM"])
@examples(max_examples=30)
@given(shapes=SHAPES, scale=SCALES, zero=ZEROS, seed=SEEDS)
def test_extremes(kind, shapes, scale, zero, seed):
    y = out_shape(shapes)
    check(kind, [quantized(s, scale, zero) for s in shapes], [quantized(y, scale, zero)], seed=seed)
    for dtype in (np.float32, np.int32, np.int64):
        check(kind, [plain(s, dtype) for s in shapes], [plain(y, dtype)], seed=seed)


@examples(max_examples=30)
@given(shapes=SHAPES, seed=SEEDS)
def test_quotients_and_powers(shapes, seed):
    y = out_shape(shapes)
    rng = np.random.default_rng(seed)
    positive = [np.asarray(rng.uniform(0.1, 3, s), np.float32) for s in shapes]
    check("DIV", [plain(s) for s in shapes], [plain(y)], feeds=positive)
    check("POW", [plain(s) for s in shapes], [plain(y)], feeds=positive, tolerance=1e-5)


@pytest.mark.parametrize("kind", ["EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"])
@examples(max_examples=15)
@given(shapes=SHAPES, dtype=st.sampled_from([np.float32, np.int32, np.int64]), seed=SEEDS)
def test_comparisons(kind, shapes, dtype, seed):
    if len(out_shape(shapes)) <= 4:  # TFLite's comparisons stop there
        check(kind, [plain(s, dtype) for s in shapes], [plain(out_shape(shapes), bool)], seed=seed)


@pytest.mark.parametrize("kind", ["LOGICAL_AND", "LOGICAL_OR"])
@examples(max_examples=15)
@given(shapes=SHAPES, seed=SEEDS)
def test_logic(kind, shapes, seed):
    if len(out_shape(shapes)) <= 4:
        check(kind, [plain(s, bool) for s in shapes], [plain(out_shape(shapes), bool)], seed=seed)


@examples(max_examples=60)
@given(
    channels=st.integers(1, 6),
    shared=st.booleans(),
    scales=st.tuples(SCALES, SCALES, SCALES),
    zeros=st.tuples(ZEROS, ZEROS, ZEROS),
    seed=SEEDS,
)
def test_prelu(channels, shared, scales, zeros, seed):
    shape, slope = (2, 3, 4, channels), (1, 1, channels if shared else 1)
    rng = np.random.default_rng(seed)
    alpha = quantized(slope, scales[1], zeros[1], rng.integers(-128, 128, slope).astype(np.int8))
    check("PRELU", [quantized(shape, scales[0], zeros[0]), alpha], [quantized(shape, scales[2], zeros[2])], seed=seed)
    floats = constant(rng.normal(0, 1, slope).astype(np.float32))
    check("PRELU", [plain(shape), floats], [plain(shape)], seed=seed)


# ---- one operand ----

FIXED_POINT = ["RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "HARD_SWISH", "ABS", "QUANTIZE"]


@pytest.mark.parametrize("kind", FIXED_POINT)
@examples(max_examples=100)
@given(x_scale=SCALES, y_scale=SCALES, x_zero=ZEROS, y_zero=ZEROS)
def test_fixed_point_functions_of_every_value(kind, x_scale, y_scale, x_zero, y_zero):
    check(kind, [quantized((256,), x_scale, x_zero)], [quantized((256,), y_scale, y_zero)], feeds=[EVERY])


@examples(max_examples=100)
@given(scale=SCALES, zero=ZEROS)
def test_abs_of_equal_scales(scale, zero):
    check("ABS", [quantized((256,), scale, zero)], [quantized((256,), scale, 3)], feeds=[EVERY])


@examples(max_examples=100)
@given(x_scale=SCALES, y_scale=SCALES, x_zero=ZEROS, y_zero=ZEROS, alpha=st.floats(-2, 2, width=32))
def test_leaky_relu_of_every_value(x_scale, y_scale, x_zero, y_zero, alpha):
    x, y = quantized((256,), x_scale, x_zero), quantized((256,), y_scale, y_zero)
    check("LEAKY_RELU", [x], [y], feeds=[EVERY], alpha=alpha)


def erf(x):
    return np.vectorize(math.erf)(x)


# kind -> (float64 function, output scale and zero point), computed in fixed point
SIGMOIDS = {
    "LOGISTIC": (lambda x: 1 / (1 + np.exp(-np.clip(x, -700, 700))), (1 / 256, -128)),
    "TANH": (np.tanh, (1 / 128, 0)),
}
POWERS_OF_TWO = st.sampled_from([2.0**k for k in range(-12, 2)])  # from 4 on, TFLM has one step saturate in LOGISTIC


@pytest.mark.parametrize("kind", SIGMOIDS)
@examples(max_examples=200)
@given(x_scale=st.floats(0.0001, 0.3) | st.floats(0.3, 3.99) | POWERS_OF_TWO, x_zero=ZEROS)
def test_sigmoids_of_every_value(kind, x_scale, x_zero):
    check(kind, [quantized((256,), x_scale, x_zero)], [quantized((256,), *SIGMOIDS[kind][1])], feeds=[EVERY])


@pytest.mark.parametrize("kind", SIGMOIDS)
@pytest.mark.parametrize("x_scale", [4.0, 5.3, 7.99, 8.0, 16.0, 57.8, 1e4])
def test_sigmoids_of_coarse_values(kind, x_scale):
    """As TFLM up to input scales of 8, where it begins to have 0 saturate: from there on, right."""
    function, grid = SIGMOIDS[kind]
    for zero in (0, -128, 127, 5):
        data = file_of(kind, [quantized((256,), x_scale, zero)], [quantized((256,), *grid)])
        (ours,), theirs = run_ours(data, [EVERY]), run_micro(data, [EVERY])
        if x_scale >= 8:
            stored = function(np.float64(np.float32(x_scale)) * (EVERY.astype(int) - zero)) / grid[0] + grid[1]
            np.testing.assert_array_equal(ours, np.clip(np.round(stored), -128, 127))
        elif theirs is not None:
            np.testing.assert_array_equal(ours, theirs[0])


def test_sigmoids_on_other_grids_are_those_of_float64():
    """TFLite has none; a pack may."""
    for kind, (function, _) in SIGMOIDS.items():
        data = file_of(kind, [quantized((256,), 0.07, 3)], [quantized((256,), 0.011, -9)])
        stored = function(np.float64(np.float32(0.07)) * (EVERY.astype(int) - 3)) / np.float64(np.float32(0.011)) - 9
        np.testing.assert_array_equal(run_ours(data, [EVERY])[0], np.clip(np.round(stored), -128, 127))


# kind -> (float64 function, options)
TABULATED = {
    "ELU": (lambda x: np.where(x < 0, np.expm1(x), x), {}),
    "EXP": (np.exp, {}),
    "LOG": (lambda x: np.log(np.maximum(x, 1e-9)), {}),
    "GELU": (lambda x: x / 2 * (1 + erf(x / math.sqrt(2))), {"approximate": False}),
    "GELU, tanh": (
        lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), {"approximate": True}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABULATED)
@examples(max_examples=100)
@given(x_scale=st.floats(0.001, 0.06), y_scale=SCALES, x_zero=ZEROS, y_zero=ZEROS)
def test_tabulated_functions_of_every_value(name, x_scale, y_scale, x_zero, y_zero):
    """LiteRT fills the table with this machine's C library, we with correctly rounded functions: a step may
    differ where the exact value lies halfway between two, within float32's error."""
    (function, options), kind = TABULATED[name], name.split(",")[0]
    data = file_of(kind, [quantized((256,), x_scale, x_zero)], [quantized((256,), y_scale, y_zero)], **options)
    (ours,), (theirs,) = run_ours(data, [EVERY]), run_reference(data, [EVERY], optimised=kind in OPTIMISED_ONLY)
    real = np.float64(np.float32(x_scale)) * (EVERY.astype(int) - x_zero)
    steps = function(real) / np.float64(np.float32(y_scale))
    halfway = np.abs(steps - np.floor(steps) - 0.5) <= 1e-6 * np.maximum(1, np.abs(steps))
    difference = np.abs(ours.astype(int) - theirs)
    assert np.all((difference == 0) | ((difference == 1) & halfway))


EXACT = ["RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "ABS", "NEG", "FLOOR", "SQRT", "HARD_SWISH"]


@pytest.mark.parametrize("kind", [*EXACT, "RSQRT", "EXP", "LOG", "ELU", "LOGISTIC", "TANH", "GELU", "LEAKY_RELU"])
def test_float_functions(kind):
    x = np.random.default_rng(1).normal(0, 3, 4000).astype(np.float32)
    if kind in ("SQRT", "RSQRT", "LOG"):
        x = np.abs(x) + np.float32(1e-3)
    options = [{"alpha": 0.3}] if kind == "LEAKY_RELU" else [{}]
    options = [{"approximate": False}, {"approximate": True}] if kind == "GELU" else options
    for given_options in options:
        check(
            kind, [plain(x.shape)], [plain(x.shape)], feeds=[x], tolerance=0 if kind in EXACT else 2e-6, **given_options
        )


def test_logical_not():
    check("LOGICAL_NOT", [plain((2, 5), bool)], [plain((2, 5), bool)])


# ---- between types ----


@examples(max_examples=60)
@given(scale=SCALES, zero=ZEROS, seed=SEEDS)
def test_to_and_from_int8(scale, zero, seed):
    check("QUANTIZE", [plain((3, 50))], [quantized((3, 50), scale, zero)], seed=seed)
    check("DEQUANTIZE", [quantized((256,), scale, zero)], [plain((256,))], feeds=[EVERY])


def test_quantizing_rounds_halves_away_from_zero_and_saturates():
    x = np.array([0.125, -0.125, 0.375, -0.375, 0.1249999, 1e8, -1e8, 31.74, -32.2], np.float32)
    check("QUANTIZE", [plain(x.shape)], [quantized(x.shape, 0.25, 3)], feeds=[x])


@pytest.mark.parametrize("into", [np.float32, np.int32, np.int64, bool])
@pytest.mark.parametrize("source", [np.float32, np.int32, np.int64, bool])
def test_casts(source, into):
    check("CAST", [plain((4, 30), source)], [plain((4, 30), into)], inDataType=_type(source), outDataType=_type(into))


def _type(dtype) -> int:
    from ai_edge_litert.schema_py_generated import TensorType

    return {
        np.float32: TensorType.FLOAT32,
        np.int32: TensorType.INT32,
        np.int64: TensorType.INT64,
        bool: TensorType.BOOL,
    }[dtype]
