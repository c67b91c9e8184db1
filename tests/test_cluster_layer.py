"""One layer's clustering against least squares, brute force and rate-distortion theory."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.compress.cluster import codebooks as codebook
from edgecompress.compress.cluster.assignment import assign, improve
from edgecompress.compress.cluster.codebooks import Centroids
from edgecompress.compress.cluster.layer import Bits, Price, cluster_weights
from edgecompress.compress.quantize import matrices
from edgecompress.compress.quantize.moments import Accumulator, unknown
from edgecompress.evaluate.interpreters import OnnxRuntime

FLOAT = ir.TensorType(ir.DataType.FLOAT)
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def node_of(op_type: str, x: np.ndarray, weight: np.ndarray, **attributes: object) -> tuple[ir.Node, np.ndarray]:
    """A node, and what ONNX Runtime makes of it."""
    source = ir.Value(name="x", shape=ir.Shape(x.shape), type=FLOAT)
    values = [ir.Value(name="w", const_value=ir.tensor(weight, name="w"))]
    if op_type != "MatMul":
        zeros = np.zeros(10, np.float32)[: output_channels(op_type, weight, attributes)]
        values.append(ir.Value(name="b", const_value=ir.tensor(zeros, name="b")))
    node = ir.node(op_type, [source, *values], attributes=attributes)
    node.outputs[0].name, node.outputs[0].type = "y", FLOAT
    graph = ir.Graph([source], node.outputs, nodes=[node], initializers=values, opset_imports={"": 21}, name="g")
    return node, OnnxRuntime(ir.Model(graph, ir_version=10)).run({"x": x})[0]


def output_channels(op_type: str, weight: np.ndarray, attributes: dict[str, object]) -> int:
    return weight.shape[1] * int(attributes["group"]) if op_type == "ConvTranspose" else len(weight)


@settings(deadline=None)
@given(
    seeds,
    st.sampled_from(["Conv", "ConvTranspose"]),
    st.integers(1, 2),
    st.sampled_from([1, 2]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
)
def test_convolutions_are_matrix_products(
    rng: np.random.Generator,
    op_type: str,
    rank: int,
    group: int,
    kernel: int,
    stride: int,
    dilation: int,
    pads: list[int],
) -> None:
    channels = (2 * group, 3) if op_type == "ConvTranspose" else (3 * group, 2)
    weight = rng.normal(size=(*channels, *[kernel] * rank)).astype(np.float32)
    x = rng.normal(size=(2, 2 * group, *range(6, 6 + rank))).astype(np.float32)
    attributes = {
        "kernel_shape": [kernel] * rank,
        "strides": [stride] * rank,
        "dilations": [dilation] * rank,
        "pads": pads[: 2 * rank],
        "group": group,
    }
    if op_type == "ConvTranspose":
        attributes["output_padding"] = [min(stride, dilation + 1) - 1] * rank
    node, y = node_of(op_type, x, weight, **attributes)
    check_product(node, x, y, weight)


def test_fully_connected_layers_are_matrix_products() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(4, 6)).astype(np.float32), rng.normal(size=(5, 6)).astype(np.float32)
    node, y = node_of("Gemm", x, weight, transB=1)
    check_product(node, x, y, weight)
    x = rng.normal(size=(2, 3, 5)).astype(np.float32)
    node, y = node_of("MatMul", x, weight)
    check_product(node, x, y, weight)


def check_product(node: ir.Node, x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> None:
    matrix, rng = matrices.to_matrix(node, weight), np.random.default_rng(0)
    np.testing.assert_array_equal(matrices.from_matrix(node, matrix, weight.shape), weight)
    for most in (10**6, 7):
        inputs, outputs = matrices.rows(node, x, y, most, rng)
        assert len(outputs) == min(most, y.size // len(matrix))
        grouped = matrix.reshape(len(inputs), -1, matrix.shape[1])
        found = np.einsum("gmk,gck->mgc", inputs, grouped).reshape(outputs.shape)
        np.testing.assert_allclose(found, outputs, atol=1e-4)


@settings(deadline=None)
@given(seeds, st.sampled_from([1, 2]), st.booleans())
def test_moments_give_least_squares(rng: np.random.Generator, groups: int, centred: bool) -> None:
    x = rng.normal(1, 1, size=(groups, 50, 3))
    y = rng.normal(2, 1, size=(50, 2 * groups))
    found = Accumulator(centred=centred)
    for part in (slice(0, 20), slice(20, 50)):
        found.add(x[:, part], y[part])
    moments = found.moments()
    for channel, matrix in enumerate(moments.solution(0.0)):
        design = x[channel // 2]
        if centred:
            design = np.column_stack([design, np.ones(50)])
        solution, residual, *_ = np.linalg.lstsq(design, y[:, channel], rcond=None)
        np.testing.assert_allclose(matrix, solution[:3], atol=1e-4)
        assert moments.noise(moments.solution(0.0))[channel] == pytest.approx(residual[0] / 50, rel=1e-3)
        if centred:
            through = moments.input_mean[channel // 2] @ matrix
            assert moments.output_mean[channel] - through == pytest.approx(solution[3], abs=1e-3)


def problem(rng: np.random.Generator, channels: int = 4, k: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A target [channels, k] and a hessian [1, k, k] of correlated inputs."""
    inputs = rng.normal(size=(40, k)) @ rng.normal(size=(k, k))
    return rng.normal(size=(channels, k)), (inputs.T @ inputs / 40 + 0.05 * np.eye(k))[None]


def loss(error: np.ndarray, hessian: np.ndarray) -> float:
    return float(np.einsum("ck,kl,cl->", error, hessian[0], error))


@settings(deadline=None)
@given(seeds)
def test_columns_left_make_up_by_least_squares(rng: np.random.Generator) -> None:
    target, hessian = problem(rng)
    scale, values = rng.uniform(0.5, 2, len(target)), np.array([-2.0, -0.7, 0.0, 0.5, 1.5])
    pruned = rng.random(target.shape) < 0.2
    found = assign(target, hessian, scale, values, np.zeros(5), pruned)
    h = hessian[0]
    for channel, wanted in enumerate(target):
        fixed: list[float] = []
        for j in range(len(wanted)):
            done = np.array(fixed) - wanted[:j]
            # least error e^T H e with e known in columns before j
            rest = wanted[j:] - np.linalg.solve(h[j:, j:], h[j:, :j] @ done)
            index = 2 if pruned[channel, j] else int(np.abs(scale[channel] * values - rest[0]).argmin())
            assert found[channel, j] == index
            fixed.append(scale[channel] * values[index])


@settings(deadline=None)
@given(seeds, st.floats(0, 2))
def test_improving_is_never_worse_and_ends_where_no_weight_gains(rng: np.random.Generator, price: float) -> None:
    target, hessian = problem(rng, channels=2, k=4)
    scale, values, lengths = np.ones(2), np.array([-1.5, 0.0, 0.4, 1.5]), np.array([3.0, 1.0, 2.0, 3.0])
    pruned = np.zeros(target.shape, bool)

    def cost(indices: np.ndarray) -> float:
        return loss(values[indices] - target, hessian) + price * lengths[indices].sum()

    indices = assign(target, hessian, scale, values, lengths * price, pruned)
    before = cost(indices)
    for _ in range(20):
        indices = improve(target, hessian, scale, values, lengths * price, pruned, indices)
        assert cost(indices) <= before + 1e-9
        before = cost(indices)
    for place, index in itertools.product(np.ndindex(indices.shape), range(4)):
        changed = indices.copy()
        changed[place] = index
        assert cost(changed) >= before - 1e-9


@settings(deadline=None)
@given(seeds, st.booleans())
def test_refitting_is_least_squares_in_the_centroids(rng: np.random.Generator, with_zero: bool) -> None:
    target, hessian = problem(rng)
    values = np.array([-1.0, 0.0 if with_zero else 0.1, 1.0])
    indices = np.concatenate([np.arange(3), rng.integers(0, 3, target.size - 3)]).reshape(target.shape)
    centroids = Centroids(values, np.ones(len(target)))
    found = codebook.refitted(centroids, indices, target, hessian, per_channel=False, whole=False)
    # |L^T (centroids[indices] - target)|^2 with L L^T = hessian, as an ordinary least-squares problem
    root = np.linalg.cholesky(hessian[0]).T
    design = np.concatenate([root @ np.eye(3)[row] for row in indices])
    wanted = (target @ root.T).ravel()
    free = [0, 2] if with_zero else [0, 1, 2]
    solution = np.linalg.lstsq(design[:, free], wanted, rcond=None)[0]
    np.testing.assert_allclose(found.values[free], solution, atol=1e-3)
    assert not with_zero or found.values[1] == 0


@pytest.mark.parametrize("bits", [1.0, 2.0, 3.0, 4.0])
def test_price_reaches_what_theory_allows(bits: float) -> None:
    """Gaussian weights, independent inputs: entropy-coded scalars are at most 0.255 bits above the
    rate-distortion bound 1/2 log2(variance / noise) (Gish and Pierce, 1968), and never below it."""
    matrix = np.random.default_rng(0).normal(size=(64, 256))
    price = 2 * np.log(2) * 4.0**-bits / matrix.size  # the bound's own slope there
    found = cluster_weights(matrix, unknown(matrix, 1), Price(price), per_channel=False, whole=True)
    share = np.bincount(found.indices.ravel()) / matrix.size
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    bound = 0.5 * np.log2(np.square(matrix).sum() / np.square(found.matrix - matrix).sum())
    assert 0 < entropy - bound < 0.27
    assert abs(bound - bits) < 0.3


@settings(deadline=None)
@given(
    seeds, st.sampled_from([Bits(1), Bits(3), Bits(3, "random"), Price(1e-3), Price(1.0)]), st.booleans(), st.booleans()
)
def test_a_fit_keeps_its_promises(rng: np.random.Generator, how: Bits | Price, per_channel: bool, whole: bool) -> None:
    matrix = rng.normal(size=(6, 12)) * rng.uniform(0.01, 1, (6, 1))
    matrix[rng.random(matrix.shape) < 0.3] = 0.0
    matrix[0] = 0.0
    found = cluster_weights(matrix, unknown(matrix, 2), how, per_channel=per_channel, whole=whole)
    values, scale = found.centroids.values, found.centroids.scale
    assert not found.matrix[matrix == 0].any()
    assert (np.diff(values) > 0).all() and set(np.unique(found.indices)) == set(range(len(values)))
    assert len(values) <= (2**how.bits if isinstance(how, Bits) else 127)
    assert (scale > 0).all() and (per_channel or len(set(scale)) == 1)
    np.testing.assert_array_equal(scale, scale.astype(np.float32))
    if whole:
        np.testing.assert_array_equal(values, np.rint(values).clip(-127, 127))


def test_data_makes_clusters_better_than_the_nearest_ones() -> None:
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(1, 4000, 30)), axis=2)  # neighbours are much alike, as pixels are
    matrix = rng.normal(size=(16, 30))
    rows = Accumulator(centred=True)
    rows.add(x, x[0] @ matrix.T)
    moments = rows.moments()
    plain = cluster_weights(matrix, unknown(matrix, 1), Bits(3), per_channel=True, whole=True)
    found = cluster_weights(matrix, moments, Bits(3), per_channel=True, whole=True)
    assert moments.noise(found.matrix).sum() < 0.25 * moments.noise(plain.matrix).sum()
