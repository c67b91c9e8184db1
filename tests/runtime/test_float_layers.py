"""The host's blocks for float32 layers, bit for bit as the plain kernels, for each variant that this CPU has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from test_host import HERE, Layers, every_variant, feeds_of, program, same

from edgecompress_runtime.execute import Executor
from edgecompress_runtime.families.x86.variants import VARIANTS
from edgecompress_runtime.loading.compile_for_host import build
from edgecompress_runtime.loading.native import Native
from edgecompress_runtime.plan import Tensor

SAME, VALID = 0, 1
RELU, RELU_N1, RELU6 = 1, 2, 3

# x, w, y, and padding, stride, dilation, activation
CONVOLUTIONS = {
    "a 3x3": ((1, 8, 9, 16), (16, 3, 3, 16), (1, 8, 9, 16), (SAME, 1, 1, RELU)),
    "of three channels, stride 2, two images": ((2, 11, 13, 3), (20, 3, 3, 3), (2, 6, 7, 20), (SAME, 2, 1, 0)),
    "dilated, without padding": ((1, 9, 10, 5), (7, 3, 3, 5), (1, 5, 6, 7), (VALID, 1, 2, RELU6)),
    "in groups": ((1, 5, 6, 8), (36, 3, 3, 4), (1, 5, 6, 36), (SAME, 1, 1, RELU_N1)),
    "dilated groups": ((1, 7, 7, 6), (6, 3, 2, 2), (1, 3, 6, 6), (VALID, 1, 2, 0)),
    "a 1x1 of many channels": ((1, 5, 7, 40), (150, 1, 1, 40), (1, 5, 7, 150), (SAME, 1, 1, 0)),
    "a 1x1 with stride": ((1, 7, 7, 8), (9, 1, 1, 8), (1, 4, 4, 9), (SAME, 2, 1, 0)),
    "a column": ((1, 30, 1, 4), (33, 5, 1, 4), (1, 15, 1, 33), (SAME, 2, 1, 0)),
    "one of everything": ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1), (SAME, 1, 1, 0)),
}
DEPTHWISE = {
    "a 3x3": ((1, 7, 8, 18), (3, 3), (1, 7, 8, 18), (SAME, 1, 1, RELU6)),
    "a 5x5, stride 2, two images": ((2, 9, 9, 13), (5, 5), (2, 5, 5, 13), (SAME, 2, 1, 0)),
    "dilated": ((1, 9, 9, 33), (3, 2), (1, 5, 7, 33), (VALID, 1, 2, 0)),
}
DENSE = ((1, 64, 150), (1, 3, 2), (3, 17, 5), (70, 9, 40))
# a, b, y, and whether b's rows are columns
PRODUCTS = (
    ((1, 3, 7, 5), (1, 3, 5, 19), (1, 3, 7, 19), False),
    ((2, 4, 17, 8), (2, 4, 17, 8), (2, 4, 17, 17), True),
    ((3, 1, 6), (1, 50, 6), (3, 1, 50), True),
)


def real(*shape: int, random: np.random.Generator | None = None) -> Tensor:
    data = None if random is None else random.normal(size=shape).astype(np.float32)
    return Tensor("t", shape, np.dtype(np.float32), data=data)


def all_layers() -> Layers:
    layers, random = Layers(), np.random.default_rng(0)

    def window(padding: int, stride: int, dilation: int, activation: int) -> dict[str, Any]:
        steps = {"strideH": stride, "strideW": stride, "dilationHFactor": dilation, "dilationWFactor": dilation}
        return {"padding": padding, "fusedActivationFunction": activation, **steps}

    for number, (x, w, y, options) in enumerate(CONVOLUTIONS.values()):
        bias = [real(y[-1], random=random)] if number % 3 else []
        layers.add("CONV_2D", [real(*x), real(*w, random=random), *bias], real(*y), **window(*options))
    for x, kernel, y, options in DEPTHWISE.values():
        inputs = [real(*x), real(1, *kernel, x[-1], random=random), real(x[-1], random=random)]
        layers.add("DEPTHWISE_CONV_2D", inputs, real(*y), **window(*options), depthMultiplier=1)
    for rows, depth, units in DENSE:
        inputs = [real(rows, depth), real(units, depth, random=random), real(units, random=random)]
        layers.add("FULLY_CONNECTED", inputs, real(rows, units), fusedActivationFunction=RELU)
    for a, b, y, across in PRODUCTS:
        layers.add("BATCH_MATMUL", [real(*a), real(*b)], real(*y), adjX=False, adjY=across)
    return layers


@every_variant
def test_layers(variant: str) -> None:
    plan = all_layers().plan()
    feeds = feeds_of(plan, 0)
    random = np.random.default_rng(1)
    special = np.float32([np.inf, -np.inf, np.nan, -0.0, 1e-42, 3e38])
    odd = [np.where(random.random(x.shape) < 0.02, random.choice(special, x.shape), x) for x in feeds]
    code = program(plan, variant)
    assert all("float" in kernel.symbol for kernel in code.kernels)
    artifact = build(code, VARIANTS[variant])
    assert artifact is not None
    native = Native(artifact)
    with np.errstate(invalid="ignore"):
        for given in (feeds, [x.astype(np.float32) for x in odd]):
            for ours, plain in zip(native(*given), Executor(plan)(*given), strict=True):
                np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_that_share_layers(threads: int) -> None:
    layers, random = Layers(), np.random.default_rng(0)
    x, w = real(1, 24, 24, 32), real(40, 3, 3, 32, random=random)
    layers.add("CONV_2D", [x, w], real(1, 24, 24, 40), padding=SAME, strideH=1, strideW=1)
    depthwise = [real(1, 40, 40, 64), real(1, 3, 3, 64, random=random)]
    layers.add("DEPTHWISE_CONV_2D", depthwise, real(1, 40, 40, 64), padding=SAME, strideH=1, strideW=1)
    layers.add("FULLY_CONNECTED", [real(1, 900), real(500, 900, random=random)], real(1, 500))
    layers.add("FULLY_CONNECTED", [real(40, 300), real(50, 300, random=random)], real(40, 50))
    same(layers.plan(), HERE[0], threads=threads)


def test_weights_that_are_no_numbers_have_plain_kernels() -> None:
    """Times a zero of the padding they would be no number where the plain kernel leaves them out."""
    layers, random = Layers(), np.random.default_rng(0)
    w = real(4, 3, 3, 2, random=random)
    assert w.data is not None
    w.data[0, 0, 0, 0] = np.inf
    layers.add("CONV_2D", [real(1, 5, 5, 2), w], real(1, 5, 5, 4), padding=SAME, strideH=1, strideW=1)
    same(layers.plan(), HERE[0])


# kind, options, the exact function, and by how much of its value it may be off
FUNCTIONS = (
    ("EXP", {}, torch.exp, 4e-7),
    ("LOGISTIC", {}, torch.sigmoid, 4e-7),
    ("TANH", {}, torch.tanh, 4e-7),
    ("ELU", {}, torch.nn.functional.elu, 4e-7),
    ("GELU", {"approximate": False}, torch.nn.functional.gelu, 4e-6),
    ("GELU", {"approximate": True}, lambda x: torch.nn.functional.gelu(x, approximate="tanh"), 4e-7),
)
SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 1e-40, 3.4e38, -3.4e38, 88.7, 88.8, 89.0, -103.9)


@every_variant
def test_functions(variant: str) -> None:
    grid = np.linspace(-104, 89, 4001), np.linspace(-3, 3, 1000), np.geomspace(1e-30, 1, 200), SPECIAL
    x = np.concatenate(grid).astype(np.float32)  # an odd count
    layers = Layers()
    for kind, options, _, _ in FUNCTIONS:
        layers.add(kind, [real(x.size)], real(x.size), **options)
    code = program(layers.plan(), variant)
    assert {kernel.symbol.partition("_float")[1] for kernel in code.kernels} == {"_float"}
    artifact = build(code, VARIANTS[variant])
    assert artifact is not None
    for (kind, _, exact, error), y in zip(FUNCTIONS, Native(artifact)(*[x] * len(FUNCTIONS)), strict=True):
        expected = exact(torch.from_numpy(x.astype(np.float64))).numpy()
        with np.errstate(invalid="ignore"):
            expected = np.where(np.abs(expected) > np.finfo(np.float32).max, np.sign(expected) * np.inf, expected)
        # denormal numbers have fewer digits; 1 + tanh, like erfc of a rounded number, is off by a rounding of 1
        slack = 1e-37 + (np.abs(x) * 1.2e-7 if kind == "GELU" else 0)
        with np.errstate(invalid="ignore"):
            right = (np.abs(y - expected) <= error * np.abs(expected) + slack) | (y == expected)
        right |= np.isnan(y) & (np.isnan(expected) | np.isinf(x) & (kind == "GELU"))  # infinity times 0
        assert right.all(), (kind, x[~right], y[~right], expected[~right])


@every_variant
@pytest.mark.parametrize("depth", [1, 3, 24, 33, 100])
def test_softmax(variant: str, depth: int) -> None:
    layers = Layers()
    layers.add("SOFTMAX", [real(7, depth)], real(7, depth), beta=1.0)
    artifact = build(program(layers.plan(), variant), VARIANTS[variant])
    assert artifact is not None
    x = np.random.default_rng(depth).normal(0, 20, (7, depth)).astype(np.float32)
    x[0, 0], x[1, -1] = 1e4, -np.inf if depth > 1 else 0
    (y,) = Native(artifact)(x)
    expected = torch.softmax(torch.from_numpy(x.astype(np.float64)), -1).numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-37)
