"""int16 activations: one operator at a time with the runtime's kernels, TensorFlow Lite Micro's and LiteRT's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lite import SEEDS, check, constant, examples, per_channel, plain, quantized, quantized_int16

from edgecompress_runtime.errors import RuntimeModelError, UnsupportedOperatorError
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.kernels.int16_arithmetic import wide_multipliers
from edgecompress_runtime.operators import check_plan, options_of
from edgecompress_runtime.plan import Operator, Plan, Tensor

SCALES = st.floats(-11.5, -4.6).map(lambda x: float(np.exp(x)))  # 1e-5..1e-2
RATIOS = st.floats(-2.0, 2.0).map(lambda x: float(np.exp(x)))
SHAPE = (3, 40)
UNIT = 2.0**-15
WINDOW = {"padding": 0, "strideH": 2, "strideW": 1}


@examples(max_examples=15)
@given(st.sampled_from(["LOGISTIC", "TANH"]), SCALES, SEEDS)
def test_sigmoids(kind, scale, seed):
    check(kind, [quantized_int16(SHAPE, scale)], [quantized_int16(SHAPE, UNIT)], seed=seed)


@pytest.mark.parametrize("kind", ["LOGISTIC", "TANH"])
@pytest.mark.parametrize("scale", [2**-12, 2**-11, 2**-9, 1 / 12288, 0.00031])
def test_sigmoids_of_all_values(kind, scale):
    every = np.arange(-32768, 32768).astype(np.int16)
    check(kind, [quantized_int16(every.shape, scale)], [quantized_int16(every.shape, UNIT)], feeds=[every])


@examples(max_examples=15)
@given(SCALES, st.sampled_from([1.0, 0.5, 1.7]), SEEDS)
def test_softmax(scale, beta, seed):
    check("SOFTMAX", [quantized_int16(SHAPE, scale)], [quantized_int16(SHAPE, UNIT)], seed=seed, beta=beta)


@examples(max_examples=15)
@given(st.sampled_from(["ADD", "SUB"]), SCALES, SCALES, RATIOS, st.sampled_from([0, 1, 3]), SEEDS)
def test_sums(kind, a, b, ratio, activation, seed):
    inputs, y = [quantized_int16(SHAPE, a), quantized_int16((40,), b)], quantized_int16(SHAPE, max(a, b) * ratio)
    check(kind, inputs, [y], seed=seed, potScaleInt16=False, fusedActivationFunction=activation)


@examples(max_examples=15)
@given(SCALES, SCALES, RATIOS, st.sampled_from([0, 1, 2]), SEEDS)
def test_products(a, b, ratio, activation, seed):
    inputs, y = [quantized_int16(SHAPE, a), quantized_int16(SHAPE, b)], quantized_int16(SHAPE, a * b * 32768 * ratio)
    check("MUL", inputs, [y], seed=seed, fusedActivationFunction=activation)


@examples(max_examples=15)
@given(SCALES, RATIOS, st.floats(-1, 1), SEEDS)
def test_relu_and_leaky_relu(scale, ratio, alpha, seed):
    x, y = quantized_int16(SHAPE, scale), quantized_int16(SHAPE, scale * ratio)
    check("RELU", [x], [y], seed=seed)
    check("LEAKY_RELU", [x], [y], seed=seed, alpha=alpha)


@examples(max_examples=15)
@given(SCALES, RATIOS, st.integers(-128, 127), SEEDS)
def test_conversions(scale, ratio, zero, seed):
    narrow = quantized(SHAPE, scale * 200, zero)
    wide, other = quantized_int16(SHAPE, scale * ratio), quantized_int16(SHAPE, scale)
    for x, y in ((narrow, wide), (wide, narrow), (wide, other), (plain(SHAPE), wide)):
        check("QUANTIZE", [x], [y], seed=seed)
    check("DEQUANTIZE", [wide], [plain(SHAPE)], seed=seed)


@examples(max_examples=15)
@given(SCALES, RATIOS, SEEDS)
def test_layers_with_weights(scale, ratio, seed):
    rng = np.random.default_rng(seed)
    weights = np.exp(rng.uniform(-7, -3, 8)).astype(np.float32)
    bias = per_channel(rng.integers(-(10**6), 10**6, 8), np.float32(scale) * weights, 0)
    image = per_channel(rng.integers(-127, 128, (8, 3, 3, 6)).astype(np.int8), weights, 0)
    deep = per_channel(rng.integers(-127, 128, (1, 3, 3, 8)).astype(np.int8), weights, 3)
    matrix = per_channel(rng.integers(-127, 128, (8, 24)).astype(np.int8), weights, 0)
    y = scale * float(weights.mean()) * 1000 * ratio
    x = quantized_int16((1, 5, 6, 6), scale)
    check("CONV_2D", [x, image, bias], [quantized_int16((1, 3, 6, 8), y)], seed=seed, **WINDOW)
    x = quantized_int16((1, 5, 6, 8), scale)
    wide = quantized_int16((1, 3, 6, 8), y / 3)
    check("DEPTHWISE_CONV_2D", [x, deep, bias], [wide], seed=seed, **WINDOW, depthMultiplier=1)
    inputs = [constant(np.int32([1, 6, 6, 8])), image, quantized_int16((1, 3, 6, 6), scale), bias]
    check("TRANSPOSE_CONV", inputs, [quantized_int16((1, 6, 6, 8), y)], seed=seed, **WINDOW)
    rows = quantized_int16((5, 24), scale)
    check("FULLY_CONNECTED", [rows, matrix, bias], [quantized_int16((5, 8), y)], seed=seed)
    check("FULLY_CONNECTED", [rows, matrix, None], [quantized_int16((5, 8), y)], seed=seed)


@examples(max_examples=15)
@given(SCALES, SCALES, RATIOS, SEEDS)
def test_products_of_matrices_means_and_pools(a, b, ratio, seed):
    inputs = [quantized_int16((2, 3, 24), a), quantized_int16((2, 24, 5), b)]
    check("BATCH_MATMUL", inputs, [quantized_int16((2, 3, 5), a * b * 90000 * ratio)], seed=seed)
    image = quantized_int16((2, 5, 6, 3), a)
    mean = quantized_int16((2, 3), a * ratio / 3)
    check("MEAN", [image, constant(np.int32([1, 2]))], [mean], seed=seed)
    for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        pooled = quantized_int16((2, 3, 6, 3), a)
        check(kind, [image], [pooled], seed=seed, **WINDOW, filterHeight=3, filterWidth=2)


def _tensor(dtype, scale=0.01, zero=0, shape=(1, 4), data=None) -> Tensor:
    scales = np.float32([] if scale is None else [scale])
    return Tensor("t", shape, np.dtype(dtype), scales, np.full(scales.size, zero, np.int32), 0, data)


def _plan(kind: str, *tensors: Tensor, **options) -> Plan:
    last = len(tensors) - 1
    fed = tuple(i for i, t in enumerate(tensors[:-1]) if t.data is None)
    operator = Operator(kind, tuple(range(last)), (last,), options_of(kind, options))
    return Plan(tensors, (operator,), fed, (last,))


WEIGHTS = _tensor("int8", shape=(4, 4), data=np.ones((4, 4), np.int8))
BIAS = _tensor("int64", None, shape=(4,), data=np.zeros(4, np.int64))
WIDE = _tensor("int16")
WRONG = {
    "a zero point": _plan("RELU", _tensor("int16", zero=1), WIDE),
    "a zero point of the output": _plan("RELU", WIDE, _tensor("int16", zero=-3)),
    "two widths in a sum": _plan("ADD", WIDE, _tensor("int8"), WIDE),
    "two widths in a function": _plan("TANH", WIDE, _tensor("int8")),
    "an int32 bias": _plan(
        "FULLY_CONNECTED", WIDE, WEIGHTS, _tensor("int32", None, shape=(4,), data=np.zeros(4, np.int32)), WIDE
    ),
    **{
        f"a bias of {value}": _plan(
            "FULLY_CONNECTED", WIDE, WEIGHTS, _tensor("int64", None, shape=(4,), data=np.array([0, value, 1, 2])), WIDE
        )
        for value in (2**47, -(2**47), 2**62, -7639175892346684500, -(2**63))
    },
    "an int8 output": _plan("FULLY_CONNECTED", WIDE, WEIGHTS, BIAS, _tensor("int8")),
    "int16 weights": _plan(
        "FULLY_CONNECTED", WIDE, _tensor("int16", shape=(4, 4), data=np.ones((4, 4), np.int16)), BIAS, WIDE
    ),
    "weights around another zero point": _plan(
        "FULLY_CONNECTED", WIDE, _tensor("int8", zero=2, shape=(4, 4), data=np.ones((4, 4), np.int8)), BIAS, WIDE
    ),
    "another scale of what only moves": _plan("RESHAPE", WIDE, _tensor("int16", 0.02), newShape=[1, 4]),
    "a softmax of another scale": _plan("SOFTMAX", WIDE, WIDE, beta=1.0),
}


@pytest.mark.parametrize("name", WRONG)
def test_tensors_that_do_not_fit_are_refused(name):
    with pytest.raises(RuntimeModelError, match="operator 0"):
        check_plan(WRONG[name])


@pytest.mark.parametrize("kind", ["ELU", "HARD_SWISH", "GELU", "PRELU", "REDUCE_MAX"])
def test_operators_without_int16_kernels_are_refused(kind):
    second = {"PRELU": [WIDE], "REDUCE_MAX": [constant_axes()]}.get(kind, [])
    with pytest.raises(UnsupportedOperatorError, match=f"{kind} of int16"):
        Executor(_plan(kind, WIDE, *second, WIDE))


def constant_axes() -> Tensor:
    return _tensor("int32", None, shape=(1,), data=np.int32([0]))


@pytest.mark.parametrize("real", [1e-9, 0.01, 0.5, 1.0, 3.7, 127.9])
def test_wide_multipliers_have_fifteen_bits(real):
    (multiplier,), (shift,) = wide_multipliers([real])
    assert multiplier <= 0x7FFF and abs(multiplier / 2.0**shift - real) <= real * 2.0**-14


def test_factors_that_tflite_does_not_scale_by_are_refused():
    with pytest.raises(OverflowError, match="too small a scale for int16"):
        wide_multipliers([0.5, 130.0])
