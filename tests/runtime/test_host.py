"""The host's blocked kernels, each variant that this CPU has, bit for bit against the plain ones.

The plain ones are checked against LiteRT in test_kernels_*.py. Many layers share one plan: a compilation takes longer
than all of their arithmetic.
"""

from __future__ import annotations

from dataclasses import replace

import networks
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lite import SCALES, SEEDS, ZEROS, plan_of
from test_execute import int8
from test_kernels_convolution import CASE, out_size

from edgecompress.emit.tflite import emit
from edgecompress.ingest import load
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.host.build import build
from edgecompress_runtime.host.native import Native
from edgecompress_runtime.host.program import program
from edgecompress_runtime.host.variants import VARIANTS, available
from edgecompress_runtime.plan import Operator, Plan, Tensor

HERE = [variant.name for variant in available()]
SCALE = st.floats(0.5, 40)  # of the output: how far its range exceeds int8
every_variant = pytest.mark.parametrize("variant", HERE)
few = settings(max_examples=2, deadline=None, print_blob=False, suppress_health_check=[HealthCheck.too_slow])


class Layers:
    """A plan of independent layers, each with its own input and output."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []

    def add(self, kind: str, inputs: list[Tensor], y: Tensor, **options) -> None:
        first = len(self.tensors)
        self.tensors += [*inputs, y]
        self.operators.append(Operator(kind, tuple(range(first, first + len(inputs))), (first + len(inputs),), options))

    def plan(self) -> Plan:
        fed = [i for o in self.operators for i in o.inputs if self.tensors[i].data is None]
        return Plan(tuple(self.tensors), tuple(self.operators), tuple(fed), tuple(o.outputs[0] for o in self.operators))


def quantized(shape, scale, zero=0, data=None) -> Tensor:
    return Tensor("t", tuple(shape), np.dtype(np.int8), np.array([scale], np.float32), np.array([zero], np.int32), 0, data)


def weights(shape, axis, rng) -> tuple[Tensor, Tensor]:
    """With one scale a channel, over two powers of ten; and a bias."""
    channels = shape[axis]
    scales = (0.001 * 10 ** rng.uniform(0, 2, channels)).astype(np.float32)
    w = rng.integers(-128, 128, shape).astype(np.int8)
    bias = rng.integers(-3000, 3000, channels).astype(np.int32)
    return (Tensor("w", tuple(shape), w.dtype, scales, np.zeros(channels, np.int32), axis, w),
            Tensor("b", (channels,), bias.dtype, data=bias))  # fmt: skip


def feeds_of(plan: Plan, seed: int) -> list[np.ndarray]:
    rng, result = np.random.default_rng(seed), []
    for tensor in (plan.tensors[i] for i in plan.inputs):
        if tensor.dtype == np.int8:
            values = rng.integers(-128, 128, tensor.shape)
            # extremes too: runs of them make the largest sums
            result.append(np.where(rng.random(tensor.shape) < 0.3, rng.choice([-128, 127]), values).astype(np.int8))
        else:
            result.append(rng.normal(0, 2, tensor.shape).astype(tensor.dtype))
    return result


def same(plan: Plan, variant: str, seed: int = 0) -> None:
    chosen = VARIANTS[variant]
    artifact = build(plan, program(plan, chosen), chosen)
    assert artifact is not None
    native, feeds = Native(artifact), feeds_of(plan, seed)
    for index, ours, plain in zip(plan.outputs, native(*feeds), Executor(plan)(*feeds), strict=True):
        tensor = plan.tensors[index]
        np.testing.assert_array_equal(ours, plain, err_msg=f"{tensor.name} {tensor.shape}")


# input channels, output channels, groups
CHANNELS = st.sampled_from([(3, 5, 1), (4, 70, 1), (16, 16, 1), (6, 6, 3), (8, 40, 2), (1, 1, 1), (33, 17, 1), (5, 130, 1)])
CONVOLUTION = st.fixed_dictionaries(CASE | {"groups": CHANNELS, "y_scale": st.floats(0.02, 5)})


def convolution(layers: Layers, case: dict, images: int) -> None:
    channels, filters, group = case["groups"]
    out = out_size(case["size"], case["kernel"], case["strides"], case["dilations"], case["padding"])
    if min(out) <= 0:
        return
    w, bias = weights((filters, *case["kernel"], channels // group), 0, np.random.default_rng(case["seed"]))
    x = quantized((images, *case["size"], channels), case["x_scale"], case["x_zero"])
    layers.add("CONV_2D", [x, w, bias], quantized((images, *out, filters), case["y_scale"], case["y_zero"]), **window(case))


def window(case: dict) -> dict:
    (stride_h, stride_w), (dilation_h, dilation_w) = case["strides"], case["dilations"]
    return {"padding": case["padding"], "strideH": stride_h, "strideW": stride_w, "dilationHFactor": dilation_h,
            "dilationWFactor": dilation_w, "fusedActivationFunction": case["activation"]}  # fmt: skip


@every_variant
@few
@given(cases=st.lists(CONVOLUTION, min_size=6, max_size=6), images=st.integers(1, 2), seed=SEEDS)
def test_convolutions(variant, cases, images, seed):
    layers = Layers()
    for case in cases:
        convolution(layers, case, images)
    same(layers.plan(), variant, seed)


@every_variant
@few
@given(cases=st.lists(st.fixed_dictionaries(CASE | {"y_scale": st.floats(0.02, 1)}), min_size=4, max_size=4),
       channels=st.lists(st.integers(1, 40), min_size=4, max_size=4), images=st.integers(1, 2), seed=SEEDS)  # fmt: skip
def test_depthwise_convolutions(variant, cases, channels, images, seed):
    layers = Layers()
    for case, n in zip(cases, channels):
        out = out_size(case["size"], case["kernel"], case["strides"], case["dilations"], case["padding"])
        if min(out) > 0:
            w, bias = weights((1, *case["kernel"], n), 3, np.random.default_rng(case["seed"]))
            x = quantized((images, *case["size"], n), case["x_scale"], case["x_zero"])
            y = quantized((images, *out, n), case["y_scale"], case["y_zero"])
            layers.add("DEPTHWISE_CONV_2D", [x, w, bias], y, depthMultiplier=1, **window(case))
    same(layers.plan(), variant, seed)


DENSE = st.fixed_dictionaries({
    "lead": st.sampled_from([(1,), (7,), (2, 3), (1, 40)]), "depth": st.integers(1, 300), "units": st.integers(1, 150),
    "activation": st.sampled_from([0, 1, 3]), "x_scale": SCALES, "x_zero": ZEROS, "y_zero": ZEROS, "spread": SCALE,
    "seed": SEEDS,
})  # fmt: skip


@every_variant
@few
@given(cases=st.lists(DENSE, min_size=6, max_size=6), seed=SEEDS)
def test_fully_connected(variant, cases, seed):
    layers = Layers()
    for case in cases:
        w, bias = weights((case["units"], case["depth"]), 0, np.random.default_rng(case["seed"]))
        x = quantized((*case["lead"], case["depth"]), case["x_scale"], case["x_zero"])
        y_scale = case["x_scale"] * float(w.scale.max()) * 127 * case["depth"] ** 0.5 / case["spread"]
        y = quantized((*case["lead"], case["units"]), y_scale, case["y_zero"])
        layers.add("FULLY_CONNECTED", [x, w, bias], y, keepNumDims=True, fusedActivationFunction=case["activation"])
    same(layers.plan(), variant, seed)


SUM = st.fixed_dictionaries({
    "kind": st.sampled_from(["ADD", "SUB"]), "size": st.integers(1, 100), "activation": st.sampled_from([0, 1, 3]),
    "scales": st.tuples(SCALES, SCALES, SCALES), "zeros": st.tuples(ZEROS, ZEROS, ZEROS), "equal": st.booleans(),
})  # fmt: skip


@every_variant
@few
@given(cases=st.lists(SUM, min_size=8, max_size=8), seed=SEEDS)
def test_sums(variant, cases, seed):
    layers = Layers()
    for case in cases:
        a, b, y = case["scales"]
        scales = (a, a if case["equal"] else b, y)
        tensors = [quantized((1, case["size"]), s, z) for s, z in zip(scales, case["zeros"])]
        layers.add(case["kind"], tensors[:2], tensors[2], fusedActivationFunction=case["activation"])
    same(layers.plan(), variant, seed)


def network(name: str, exported) -> Plan:
    """Quantised; everything that its layers make is an output."""
    samples = networks.example(name, 8, 1)
    model = load(str(exported(name)), input_shapes={k: v.shape for k, v in networks.example(name).items()}).model
    plan = plan_of(emit(int8(model, samples)).data)
    return replace(plan, outputs=tuple(o.outputs[0] for o in plan.operators))


@pytest.mark.parametrize("name", ["residual", "inverted_residual", "dense", "pools", "transformer", "autoencoder"])
def test_networks(exported, name):
    same(network(name, exported), HERE[0])


@every_variant
def test_a_network_in_every_variant(exported, variant):
    same(network("residual", exported), variant)
