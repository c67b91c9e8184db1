"""Convolutions against LiteRT's reference kernels: int8 bit for bit, float32 to rounding."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from lite import SCALES, SEEDS, ZEROS, check, constant, examples, per_channel, plain, quantized

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
ACTIVATIONS = st.sampled_from([0, 1, 2, 3])  # NONE, RELU, RELU_N1_TO_1, RELU6
SAME, VALID = 0, 1


def out_size(size, kernel, strides, dilations, padding):
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    if padding == SAME:
        return tuple(-(-n // s) for n, s in zip(size, strides))
    return tuple((n - e) // s + 1 for n, e, s in zip(size, extent, strides))


def weights(shape, axis, x_scale, seed, *, each=True):
    """(int8 weights, int32 bias) with scales per output channel, or one for all."""
    rng = np.random.default_rng(seed)
    channels = shape[axis]
    scales = rng.uniform(0.002, 0.02, channels if each else 1).astype(np.float32)
    bias = rng.integers(-3000, 3000, channels).astype(np.int32)
    w = rng.integers(-127, 128, shape).astype(np.int8)
    return per_channel(w, scales, axis), per_channel(bias, scales * np.float32(x_scale), 0)


CASE = dict(
    size=st.tuples(st.integers(3, 8), st.integers(3, 8)), kernel=PAIR, strides=PAIR, dilations=PAIR,
    padding=st.sampled_from([SAME, VALID]), activation=ACTIVATIONS, x_scale=SCALES, y_scale=SCALES, x_zero=ZEROS,
    y_zero=ZEROS, seed=SEEDS,
)  # fmt: skip


@examples(max_examples=60)
@given(groups=st.sampled_from([(3, 5, 1), (4, 6, 2), (16, 3, 1), (6, 6, 3), (1, 1, 1)]), each=st.booleans(), **CASE)
def test_conv_2d(
    groups, each, size, kernel, strides, dilations, padding, activation, x_scale, y_scale, x_zero, y_zero, seed
):
    channels, filters, group = groups
    out = out_size(size, kernel, strides, dilations, padding)
    assume(min(out) > 0)
    w, bias = weights((filters, *kernel, channels // group), 0, x_scale, seed, each=each)
    options = {
        "padding": padding,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": activation,
    }
    x, y = (2, *size, channels), (2, *out, filters)
    check("CONV_2D", [quantized(x, x_scale, x_zero), w, bias], [quantized(y, y_scale, y_zero)], seed=seed, **options)
    floats = [plain(x), constant(w.data.astype(np.float32) / 100), constant(bias.data.astype(np.float32) / 1000)]
    check("CONV_2D", floats, [plain(y)], seed=seed, tolerance=1e-5, **options)


@examples(max_examples=60)
@given(channels=st.integers(1, 5), times=st.integers(1, 3), each=st.booleans(), **CASE)
def test_depthwise_conv_2d(
    channels, times, each, size, kernel, strides, dilations, padding, activation, x_scale, y_scale, x_zero, y_zero, seed
):
    out = out_size(size, kernel, strides, dilations, padding)
    assume(min(out) > 0)
    w, bias = weights((1, *kernel, channels * times), 3, x_scale, seed, each=each)
    options = {
        "padding": padding,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": activation,
        "depthMultiplier": times,
    }
    x, y = (2, *size, channels), (2, *out, channels * times)
    inputs = [quantized(x, x_scale, x_zero), w, bias]
    check("DEPTHWISE_CONV_2D", inputs, [quantized(y, y_scale, y_zero)], seed=seed, **options)
    floats = [plain(x), constant(w.data.astype(np.float32) / 100), constant(bias.data.astype(np.float32) / 1000)]
    check("DEPTHWISE_CONV_2D", floats, [plain(y)], seed=seed, tolerance=1e-5, **options)


@examples(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=PAIR,
    extra=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    padding=st.sampled_from([SAME, VALID]),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    with_bias=st.booleans(),
    x_scale=SCALES,
    y_scale=SCALES,
    x_zero=ZEROS,
    y_zero=ZEROS,
    seed=SEEDS,
)
def test_transpose_conv(
    size, kernel, strides, extra, padding, channels, with_bias, x_scale, y_scale, x_zero, y_zero, seed
):
    """`extra` (less than a stride): rows that SAME drops, or that VALID appends with nothing but the bias."""
    extra = tuple(min(e, s - 1) for e, s in zip(extra, strides))
    if padding == SAME:
        out = tuple(n * s - e for n, s, e in zip(size, strides, extra))
    else:
        out = tuple((n - 1) * s + k + e for n, s, k, e in zip(size, strides, kernel, extra))
    into, filters = channels
    w, bias = weights((filters, *kernel, into), 0, x_scale, seed)
    options = {"padding": padding, "strideH": strides[0], "strideW": strides[1]}
    x, y = (2, *size, into), (2, *out, filters)
    shape = constant(np.array(y, np.int32))
    inputs = [shape, w, quantized(x, x_scale, x_zero), *([bias] if with_bias else [])]
    check("TRANSPOSE_CONV", inputs, [quantized(y, y_scale, y_zero)], seed=seed, **options)
    w_float, bias_float = (constant(t.data.astype(np.float32) / 100) for t in (w, bias))
    floats = [shape, w_float, plain(x), *([bias_float] if with_bias else [])]
    check("TRANSPOSE_CONV", floats, [plain(y)], seed=seed, tolerance=1e-5, **options)
