"""The host's blocked kernels, each variant that this CPU has, bit for bit against the plain ones.

The plain ones are checked against LiteRT in test_kernels_*.py. Many layers share one plan: a compilation takes longer
than all of their arithmetic.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer_cases import layers
from lite import SCALES, SEEDS, ZEROS, plan_of
from test_execute import int8
from test_kernels_convolution import CASE, out_size

import edgecompress_runtime as runtime
import networks
from edgecompress.emit.tflite import emit
from edgecompress.ingest import load
from edgecompress_runtime.codegen.llvm_writer import LlvmProgram, llvm_program
from edgecompress_runtime.codegen.memory import CACHE_LINE
from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.families.shared.division import Divided
from edgecompress_runtime.families.x86.variants import VARIANTS, available
from edgecompress_runtime.families.x86.x86_family import x86_family
from edgecompress_runtime.loading.compile_for_host import build
from edgecompress_runtime.loading.native import Native
from edgecompress_runtime.operators import options_of
from edgecompress_runtime.options import ReshapeOptions
from edgecompress_runtime.pack import read_pack, write_pack
from edgecompress_runtime.plan import Operator, Plan, Tensor

HERE = [variant.name for variant in available()]
SCALE = st.floats(0.5, 40)  # of the output: how far its range exceeds int8
# the first two differ in one kernel, which has a test of its own
TESTED = [v for v in HERE if v != "avx512_vnni" or "avx512_vbmi" not in HERE]
# CPUs without AVX2 are few, and have the kernels of fewest kinds
every_variant = pytest.mark.parametrize(
    "variant", [pytest.param(v, marks=pytest.mark.long) if v == "sse" and len(TESTED) > 1 else v for v in TESTED]
)
few = settings(max_examples=2, deadline=None, print_blob=False, suppress_health_check=[HealthCheck.too_slow])


class Layers:
    """A plan of independent layers, each with its own input and output."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []

    def add(self, kind: str, inputs: list[Tensor], y: Tensor, **options) -> None:
        first = len(self.tensors)
        self.tensors += [*inputs, y]
        self.operators.append(
            Operator(kind, tuple(range(first, first + len(inputs))), (first + len(inputs),), options_of(kind, options))
        )

    def plan(self) -> Plan:
        fed = [i for o in self.operators for i in o.inputs if self.tensors[i].data is None]
        return Plan(tuple(self.tensors), tuple(self.operators), tuple(fed), tuple(o.outputs[0] for o in self.operators))


def quantized(shape, scale, zero=0, data=None) -> Tensor:
    scales, zeros = np.array([scale], np.float32), np.array([zero], np.int32)
    return Tensor("t", tuple(shape), np.dtype(np.int8), scales, zeros, 0, data)


def weights(shape, axis, rng) -> tuple[Tensor, Tensor]:
    """With one scale a channel, over two powers of ten; and a bias."""
    channels = shape[axis]
    scales = (0.001 * 10 ** rng.uniform(0, 2, channels)).astype(np.float32)
    w = rng.integers(-128, 128, shape).astype(np.int8)
    bias = rng.integers(-3000, 3000, channels).astype(np.int32)
    return (
        Tensor("w", tuple(shape), w.dtype, scales, np.zeros(channels, np.int32), axis, w),
        Tensor("b", (channels,), bias.dtype, data=bias),
    )


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


def program(plan: Plan, variant: str, threads: int = 1) -> LlvmProgram:
    return llvm_program(
        plan, "edgecompress", x86_family(VARIANTS[variant], threads), alignment=CACHE_LINE, threads=threads
    )


def same(
    plan: Plan, variant: str, seed: int = 0, feeds: list[np.ndarray] | None = None, expected: str = "", threads: int = 1
) -> None:
    """Bit for bit as the plain kernels; `expected`: in the names of all kernels that were chosen."""
    code = program(plan, variant, threads)
    assert all(expected in kernel.symbol for kernel in code.kernels)
    artifact = build(code, VARIANTS[variant])
    assert artifact is not None
    native, feeds = Native(artifact), feeds_of(plan, seed) if feeds is None else feeds
    for index, ours, plain in zip(plan.outputs, native(*feeds), Executor(plan)(*feeds), strict=True):
        tensor = plan.tensors[index]
        np.testing.assert_array_equal(ours, plain, err_msg=f"{tensor.name} {tensor.shape}")


# input channels, output channels, groups
CHANNELS = st.sampled_from(
    [(3, 5, 1), (4, 70, 1), (16, 16, 1), (6, 6, 3), (8, 40, 2), (1, 1, 1), (33, 17, 1), (5, 130, 1)]
)
CONVOLUTION = st.fixed_dictionaries(CASE | {"groups": CHANNELS, "y_scale": st.floats(0.02, 5)})


def add_convolution(layers: Layers, case: dict, images: int) -> None:
    channels, filters, group = case["groups"]
    out = out_size(case["size"], case["kernel"], case["strides"], case["dilations"], case["padding"])
    if min(out) <= 0:
        return
    w, bias = weights((filters, *case["kernel"], channels // group), 0, np.random.default_rng(case["seed"]))
    x = quantized((images, *case["size"], channels), case["x_scale"], case["x_zero"])
    y = quantized((images, *out, filters), case["y_scale"], case["y_zero"])
    layers.add("CONV_2D", [x, w, bias], y, **window(case))


def window(case: dict) -> dict:
    (stride_h, stride_w), (dilation_h, dilation_w) = case["strides"], case["dilations"]
    return {
        "padding": case["padding"],
        "strideH": stride_h,
        "strideW": stride_w,
        "dilationHFactor": dilation_h,
        "dilationWFactor": dilation_w,
        "fusedActivationFunction": case["activation"],
    }


@every_variant
@few
@given(cases=st.lists(CONVOLUTION, min_size=6, max_size=6), images=st.integers(1, 2), seed=SEEDS)
def test_convolutions(variant, cases, images, seed):
    layers = Layers()
    for case in cases:
        add_convolution(layers, case, images)
    same(layers.plan(), variant, seed)


@every_variant
@few
@given(
    cases=st.lists(st.fixed_dictionaries(CASE | {"y_scale": st.floats(0.02, 1)}), min_size=4, max_size=4),
    channels=st.lists(st.integers(1, 40), min_size=4, max_size=4),
    images=st.integers(1, 2),
    seed=SEEDS,
)
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


DENSE = st.fixed_dictionaries(
    {
        "lead": st.sampled_from([(1,), (7,), (2, 3), (1, 40)]),
        "depth": st.integers(1, 300),
        "units": st.integers(1, 150),
        "activation": st.sampled_from([0, 1, 3]),
        "x_scale": SCALES,
        "x_zero": ZEROS,
        "y_zero": ZEROS,
        "spread": SCALE,
        "seed": SEEDS,
    }
)


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


def pruned(w: np.ndarray, pattern: str, rng) -> np.ndarray:
    """A fifth is left: in blocks of 16 outputs by 4 inputs, one of every 5 inputs, or anywhere. Or nothing is."""
    mask = rng.random(w.shape) < (0 if pattern == "nothing" else 0.2)
    if pattern == "blocks":
        cells = rng.random((-(-w.shape[0] // 16), -(-w.shape[-1] // 4), *w.shape[1:-1])) < 0.2
        mask = np.moveaxis(cells, 1, -1).repeat(16, 0).repeat(4, -1)[: w.shape[0], ..., : w.shape[-1]]
    elif pattern == "1:5":
        mask = np.arange(w.shape[-1]) % 5 == rng.integers(0, 5, w.shape).repeat(5, -1)[..., : w.shape[-1]]
    return np.where(mask, w, 0).astype(np.int8)


# where nothing can be picked, zeros that lie anywhere are multiplied like other weights
PATTERNS = pytest.mark.parametrize(
    "variant, pattern, expected",
    [
        *((v, pattern, "skipping") for v in TESTED for pattern in ("blocks", "nothing")),
        *((v, pattern, "picked") for v in TESTED if VARIANTS[v].pick for pattern in ("1:5", "anywhere")),
    ],
)


@PATTERNS
def test_skipping_convolutions(variant, pattern, expected):
    rng, layers = np.random.default_rng(0), Layers()
    for filters, kernel, stride, size in (
        (16, (1, 1), (1, 1), (5, 6)),
        (37, (1, 1), (2, 2), (5, 6)),
        (37, (3, 2), (2, 1), (9, 8)),
    ):
        w, bias = weights((filters, *kernel, 166), 0, rng)
        w = replace(w, data=pruned(w.data, pattern, rng))
        y = quantized((2, *(-(-n // s) for n, s in zip(size, stride)), filters), 0.7, 3)
        x = quantized((2, *size, 166), 0.05, -7)
        layers.add("CONV_2D", [x, w, bias], y, padding=0, strideH=stride[0], strideW=stride[1])
    same(layers.plan(), variant, expected=expected)


@PATTERNS
def test_skipping_fully_connected(variant, pattern, expected):
    rng, layers = np.random.default_rng(0), Layers()
    for shape, rows in (((70, 331), 1), ((523, 2051), 1), ((40, 300), 3)):
        w, bias = weights(shape, 0, rng)
        w = replace(w, data=pruned(w.data, pattern, rng))
        x, y = quantized((rows, shape[1]), 0.05, 9), quantized((rows, shape[0]), 3.0, 3)
        layers.add("FULLY_CONNECTED", [x, w, bias], y)
    same(layers.plan(), variant, expected=expected)


SUM = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["ADD", "SUB"]),
        "size": st.integers(1, 100),
        "activation": st.sampled_from([0, 1, 3]),
        "scales": st.tuples(SCALES, SCALES, SCALES),
        "zeros": st.tuples(ZEROS, ZEROS, ZEROS),
        "equal": st.booleans(),
    }
)


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


@every_variant
def test_sums_of_every_pair(variant):
    """Of int8; by vectors, whatever the scales of a network's layers."""
    layers, rng = Layers(), np.random.default_rng(0)
    every = np.arange(-128, 128).astype(np.int8)
    pairs = [np.repeat(every, 256)[None], np.tile(every, 256)[None]]
    for relu in (0, 1, 0, 1, 3):
        scales = [float(s) for s in np.exp(rng.uniform(-5, 0, 2))]
        y_scale = float(np.hypot(*scales) * rng.uniform(0.5, 1.5))
        zeros = [int(z) for z in rng.integers(-128, 128, 3)]
        a, b, y = (quantized((1, 65536), s, z) for s, z in zip((*scales, y_scale), zeros))
        layers.add("ADD", [a, b], y, fusedActivationFunction=relu)
    same(layers.plan(), variant, feeds=pairs * 5, expected="_sum")


def test_a_sum_that_threads_share_is_written_over_no_operand():
    """Where it starts in front of one and ends within it, a thread would overwrite what another has yet to read."""
    rng, tensors, operators = np.random.default_rng(0), [quantized((1, 56, 56, 24), 0.05)], []

    def computed(kind: str, inputs: tuple[int, ...], channels: int, **options: int) -> int:
        tensors.append(quantized((1, 56, 56, channels), 0.3))
        operators.append(Operator(kind, inputs, (len(tensors) - 1,), options_of(kind, options)))
        return len(tensors) - 1

    def convolution(x: int, channels: int) -> int:
        tensors.append(weights((channels, 1, 1, tensors[x].shape[3]), 0, rng)[0])
        return computed("CONV_2D", (x, len(tensors) - 1), channels, padding=0, strideH=1, strideW=1)

    a = convolution(0, 24)
    b = convolution(convolution(a, 24), 24)
    total = computed("ADD", (a, b), 24)
    last = convolution(total, 8)
    plan = Plan(tuple(tensors), tuple(operators), (0,), (last,))
    offsets = program(plan, TESTED[0], 2).layout.offsets
    size, start = tensors[total].size, offsets[tensors[total]]
    assert all(abs(offsets[tensors[operand]] - start) >= size for operand in (a, b))
    same(plan, TESTED[0], threads=2)


WINDOW = st.fixed_dictionaries(
    CASE | {"kind": st.sampled_from(["MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "SUM"]), "channels": st.integers(1, 80)}
)


@every_variant
@few
@given(cases=st.lists(WINDOW, min_size=6, max_size=6), images=st.integers(1, 2), seed=SEEDS)
def test_windows(variant, cases, images, seed):
    layers = Layers()
    for case in cases:
        x = quantized((images, *case["size"], case["channels"]), case["x_scale"], case["x_zero"])
        if case["kind"] in ("MEAN", "SUM"):
            axes = Tensor("axes", (2,), np.dtype(np.int32), data=np.array([2, 1], np.int32))
            y = quantized((images, case["channels"]), case["y_scale"], case["y_zero"])
            layers.add(case["kind"], [x, axes], y, keepDims=False)
            continue
        out = out_size(case["size"], case["kernel"], case["strides"], (1, 1), case["padding"])
        if min(out) > 0:
            options = window(case) | {"filterHeight": case["kernel"][0], "filterWidth": case["kernel"][1]}
            layers.add(case["kind"], [x], replace(x, shape=(images, *out, case["channels"])), **options)
    same(layers.plan(), variant, seed)


@every_variant
def test_quantize_rounds_halves_away_from_zero(variant):
    layers = Layers()
    x = Tensor("x", (2, 4099), np.dtype(np.float32))
    layers.add("QUANTIZE", [x], quantized(x.shape, 0.25, -3))
    values = np.concatenate([np.arange(-4096, 4096) / 16, [0.12499999, -0.12499999, 1e30, -1e30, np.inf, -np.inf]])
    same(layers.plan(), variant, feeds=[values.astype(np.float32).reshape(2, -1)])


@every_variant
def test_layers_of_the_table(variant):
    made = layers("blocks", "exact", seed=6)
    same(made.plan(), variant, feeds=made.feeds())


@pytest.mark.long
def test_layers_that_are_changed_before_they_get_kernels():
    made = layers("unlike", "padded", "upscaled", seed=6)
    same(made.plan(), HERE[0], feeds=made.feeds())


def network(name: str, exported) -> Plan:
    """Quantized; everything that its layers make is an output."""
    samples = networks.example(name, 8, 1)
    model = load(str(exported(name)), input_shapes={k: v.shape for k, v in networks.example(name).items()}).model
    plan = plan_of(emit(int8(model, samples)).data)
    return replace(plan, outputs=tuple(o.outputs[0] for o in plan.operators))


@pytest.mark.parametrize("name", ["residual", "inverted_residual", "pools", "transformer"])
def test_networks(exported, name):
    same(network(name, exported), HERE[0])


@every_variant
def test_a_network_in_every_variant(exported, variant):
    same(network("residual", exported), variant)


def test_the_kernels_for_this_cpu_are_the_ones_that_run(exported):
    symbols = " ".join(k.symbol for k in program(network("inverted_residual", exported), HERE[0]).kernels)
    for kernel in ("blocked", "depthwise", "sum"):
        assert kernel in symbols
    for plain in ("_conv_2d", "_add_int8", "fully_connected"):
        assert plain not in symbols


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_that_share_layers(threads):
    plan = layers("large", seed=0).plan()
    same(plan, HERE[0], threads=threads)
    family = x86_family(VARIANTS[HERE[0]], threads)
    for operator in plan.operators:
        ends = ([plan.tensors[i] for i in indices] for indices in (operator.inputs, operator.outputs))
        (step,) = family.steps(operator.kind, *ends, operator.options)
        assert isinstance(step, Divided) and len(step.shares) == threads


def test_a_network_that_threads_share(exported):
    same(network("inverted_residual", exported), HERE[0], threads=2)


# ---- load ----

START = """
import sys
import numpy as np
from edgecompress_runtime import load
model = load(sys.argv[1])
y = model(*(np.full(t.shape, 3, t.dtype) for t in model.inputs))
print(model.compile_seconds > 0, "numba" in sys.modules, y.tobytes().hex())
"""


@pytest.fixture
def pack(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    rng, layers = np.random.default_rng(0), Layers()
    w, bias = weights((20, 30), 0, rng)
    layers.add("FULLY_CONNECTED", [quantized((1, 30), 0.05, 9), w, bias], quantized((1, 20), 0.9, 3))
    path = tmp_path / "layer.pack"
    path.write_bytes(write_pack(layers.plan(), "layer"))
    return path


def started(pack: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", START, str(pack)], capture_output=True, text=True, check=True)
    assert not done.stderr  # which is no terminal here
    return done.stdout.split()


def test_the_second_start_neither_compiles_nor_imports_numba(pack, tmp_path):
    first, second = started(pack), started(pack)
    assert first[:2] == ["True", "True"] and second[:2] == ["False", "False"] and first[2] == second[2]
    (kept,) = (tmp_path / "cache" / "models").glob("*.native")
    kept.write_bytes(kept.read_bytes()[:-1])  # a damaged one is made again
    assert started(pack) == first
    assert started(pack) == second


def test_another_pack_has_code_of_its_own(pack, tmp_path):
    started(pack)
    plan = read_pack(pack).plan()
    pack.write_bytes(write_pack(plan, "another name"))
    assert started(pack)[0] == "True"
    assert len(list((tmp_path / "cache" / "models").glob("*.native"))) == 2


def test_a_cache_that_can_not_be_written_is_no_error(pack, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    assert started(pack)[0] == started(pack)[0] == "True"


def test_inputs_are_checked_and_outputs_are_the_caller_s(pack):
    model = runtime.load(pack)
    a, b = (np.random.default_rng(n).integers(-128, 128, (1, 30)).astype(np.int8) for n in range(2))
    first = model(a)
    kept = first.copy()
    assert not np.array_equal(model(b), kept) and np.array_equal(first, kept)
    assert np.array_equal(model(np.asfortranarray(np.repeat(a, 2, 0))[:1]), kept)  # any strides
    with pytest.raises(RuntimeModelError, match="expected 1 inputs, got 2"):
        model(a, a)
    with pytest.raises(RuntimeModelError, match=r"expected int8 \(1, 30\), got int8 \(30,\)"):
        model(a[0])
    with pytest.raises(ValueError, match="variant 'mmx': expected one of"):
        runtime.load(pack, variant="mmx")


def test_several_samples_come_out_as_one_by_one(pack):
    model = runtime.load(pack)
    x = np.random.default_rng(0).integers(-128, 128, (3, 30)).astype(np.int8)
    assert np.array_equal(model(x), np.concatenate([model(row[None]) for row in x]))
    for wrong in (x[:0], x.astype(np.int16), x[:, :29]):
        with pytest.raises(RuntimeModelError, match=r"expected int8 \(1, 30\)"):
            model(wrong)


def test_samples_without_an_axis_of_their_own_are_stacked(tmp_path):
    """y [1, 4] = x + s, t [2, 4] = s + s, of x [1, 4] and a state s [2, 4]."""
    tensors = [Tensor(name, dims, np.dtype(np.float32)) for name, dims in zip("xsty", [(1, 4), (2, 4), (2, 4), (2, 4)])]
    add = options_of("ADD", {"fusedActivationFunction": 0})
    operators = (Operator("ADD", (1, 1), (2,), add), Operator("ADD", (0, 1), (3,), add))
    model = runtime.load(write_pack(Plan(tuple(tensors), operators, (0, 1), (2, 3)), "state"))
    rng = np.random.default_rng(0)
    x, s = rng.standard_normal((5, 4), np.float32), rng.standard_normal((5, 2, 4), np.float32)
    t, y = model(x, s)
    assert np.array_equal(t, s + s) and np.array_equal(y, x[:, None] + s)
    with pytest.raises(RuntimeModelError, match=r"input 'x': expected float32 \(1, 4\), got float32 \(5, 4\)"):
        model(x, s[:4])


def test_threads_that_share_a_model_do_not_disturb_one_another(pack):
    model = runtime.load(pack)
    feeds = [np.random.default_rng(n).integers(-128, 128, (1, 30)).astype(np.int8) for n in range(8)]
    alone = [model(x) for x in feeds]
    with ThreadPoolExecutor(4) as pool:
        for n, y in enumerate(pool.map(model, feeds * 50)):
            assert np.array_equal(y, alone[n % 8])


SHARED = """
import gc, os, sys, threading, time
import numpy as np
from edgecompress_runtime import load
one, model = load(sys.argv[1]), load(sys.argv[1], threads=2)
x = np.full(model.inputs[0].shape, 3, np.int8)
expected = one(x)
for pause in (0, 0, 0.05):  # the last finds the other thread asleep
    time.sleep(pause)
    assert np.array_equal(model(x), expected)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(model(x), expected) else 1)
assert os.waitpid(child, 0)[1] == 0
assert threading.active_count() == 2
del model
gc.collect()
for _ in range(12_000):
    if threading.active_count() == 1:
        break
    time.sleep(0.01)
print(threading.active_count(), "numba" in sys.modules)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_threads_sleep_survive_a_fork_and_end_with_their_model(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    rng, layers = np.random.default_rng(0), Layers()
    w, bias = weights((700, 700), 0, rng)
    layers.add("FULLY_CONNECTED", [quantized((1, 700), 0.05, 9), w, bias], quantized((1, 700), 1.0, 3))
    path = tmp_path / "layer.pack"
    path.write_bytes(write_pack(layers.plan(), "layer"))
    for numba in (True, False):  # compiled, and then read
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", SHARED, path], capture_output=True, text=True)
        assert done.stdout.split() == ["1", str(numba)], done.stderr
    with pytest.raises(ValueError, match="threads = 0: expected 1 to 64"):
        runtime.load(path, threads=0)


def test_an_output_that_is_an_input_a_constant_or_another_output_is_filled():
    """Packs that other writers make may have them; here all of an output's memory is the caller's."""
    x, y = (quantized((1, 5), 0.5) for _ in range(2))
    held = quantized((3,), 0.5, data=np.arange(1, 4, dtype=np.int8))
    plan = Plan((x, y, held), (Operator("RESHAPE", (0,), (1,), ReshapeOptions()),), (0,), (0, 1, 1, 2))
    array = np.arange(1, 6, dtype=np.int8)[None]
    found = runtime.load(write_pack(plan, "ends"))(array)
    for expected, output in zip((array, array, array, held.data), found, strict=True):
        assert np.array_equal(expected, output)
