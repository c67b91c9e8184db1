"""Wanda and SparseGPT prune by calibration data alone, layer after layer."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import edgecompress
from edgecompress.compress.prune.criteria.sparsegpt import DAMPING, sparsegpt
from edgecompress.compress.prune.criteria.wanda import wanda
from edgecompress.compress.prune.layer_matrix import Columns, LayerMatrix
from edgecompress.compress.prune.patterns import parse_pattern
from edgecompress.compress.prune.prune_layers import prune_layers
from edgecompress.errors import InputError
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.graph.annotations import sparsity
from edgecompress.graph.fusion import constant
from edgecompress.recipe import Prune
from quantizing import data, network, normal, snr_db

BLOCK = 128  # columns that choose together in the SparseGPT paper


def layer(rows: int, k: int, pattern: str, share: float = 0.5, groups: int = 1) -> LayerMatrix:
    """With inputs that hang together."""
    x = normal(groups, 4 * k, k, seed=1).astype(np.float64) @ normal(groups, k, k, seed=2) + 1
    moments = x.swapaxes(1, 2) @ x / (4 * k)
    weights = normal(rows, k).astype(np.float64)
    return LayerMatrix(weights, moments, np.ones(weights.shape, bool), parse_pattern(pattern), k, share)


def mixed(count: int, seed: int = 1) -> np.ndarray:
    """Images whose pixels and channels hang together, each channel of another size."""
    rows = np.cumsum(normal(count, 3, 8, 8, seed=seed), axis=2)
    return (rows + rows.mean(axis=1, keepdims=True)) * np.float32([[[[0.2]], [[1]], [[3]]]])


def weight_of(model: ir.Model, name: str = "w") -> ir.Value:
    return next(v for v in model.graph.initializers.values() if str(v.name).startswith(name))


def weight(model: ir.Model, name: str = "w") -> np.ndarray:
    return constant(weight_of(model, name))


@pytest.mark.parametrize(("share", "k"), [(0.5, 32), (0.3, 21), (0.9, 10)])
def test_wanda_compares_in_each_row(share: float, k: int):
    """|w| times the norm of its input, the lowest of each row go, rounded down (Sun et al., algorithm 1)."""
    given = layer(5, k, "unstructured", share)
    weights, mask = wanda(given)
    for row in range(5):
        scores = [abs(given.weights[row, j]) * given.moments[0, j, j] ** 0.5 for j in range(k)]
        gone = sorted(range(k), key=lambda j: scores[j])[: int(k * share)]
        assert sorted(np.flatnonzero(~mask[row])) == sorted(gone)
    np.testing.assert_array_equal(weights, np.where(mask, given.weights, 0))


@pytest.mark.parametrize(("pattern", "n", "m"), [("2:4", 2, 4), ("4:8", 4, 8), ("1:3", 1, 3)])
def test_wanda_keeps_the_highest_n_of_m(pattern: str, n: int, m: int):
    given = layer(6, 24, pattern)
    _, mask = wanda(given)
    for row in range(6):
        for start in range(0, 24, m):
            scores = [abs(given.weights[row, j]) * given.moments[0, j, j] ** 0.5 for j in range(start, start + m)]
            kept = sorted(range(m), key=lambda j: -scores[j])[:n]
            assert sorted(np.flatnonzero(mask[row, start : start + m])) == sorted(kept)


def exact(given: LayerMatrix, units: dict[int, list[list[tuple[int, int]]]], counts: dict[int, int]) -> np.ndarray:
    """SparseGPT column by column, with the inverse of the Hessian of the columns that are left (Frantar and Alistarh,
    equations 3 and 4). units: at a column, what is chosen between from there on, places (row, column) that go together;
    counts: how many of these go."""
    k = given.weights.shape[1]
    hessian = given.moments[0] + DAMPING * np.trace(given.moments[0]) / k * np.eye(k)
    left, gone = given.weights.copy(), np.zeros(given.weights.shape, bool)
    inverses = [np.linalg.inv(hessian[j:, j:]) for j in range(k)]
    for j in range(k):
        if j in units:
            scores = [np.mean([left[r, c] ** 2 / inverses[c][0, 0] for r, c in places]) for places in units[j]]
            for unit in sorted(range(len(scores)), key=lambda i: scores[i])[: counts[j]]:
                for r, c in units[j][unit]:
                    gone[r, c] = True
        for row in np.flatnonzero(gone[:, j]):
            left[row, j:] -= left[row, j] / inverses[j][0, 0] * inverses[j][0]
            left[row, j] = 0
    return left


@pytest.mark.parametrize(("rows", "k", "share"), [(4, 12, 0.5), (3, BLOCK + 8, 0.7)])
def test_sparsegpt_as_the_paper_eliminates_columns(rows: int, k: int, share: float):
    given = layer(rows, k, "unstructured", share)
    starts = range(0, k, BLOCK)
    units = {s: [[(r, c)] for r in range(rows) for c in range(s, min(s + BLOCK, k))] for s in starts}
    weights, mask = sparsegpt(given)
    expected = exact(given, units, {s: int(len(u) * share) + 1 for s, u in units.items()})
    np.testing.assert_allclose(weights, expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_array_equal(mask, expected != 0)


@pytest.mark.parametrize(("pattern", "n", "m"), [("2:4", 2, 4), ("4:8", 4, 8)])
def test_sparsegpt_chooses_n_of_m_when_it_comes_to_them(pattern: str, n: int, m: int):
    given = layer(1, 24, pattern)
    units = {s: [[(0, c)] for c in range(s, s + m)] for s in range(0, 24, m)}
    expected = exact(given, units, dict.fromkeys(units, m - n))
    np.testing.assert_allclose(sparsegpt(given)[0], expected, atol=1e-6 * np.abs(expected).max())


def test_sparsegpt_removes_whole_blocks():
    given = layer(6, 16, "block:2x4", 0.4)
    blocks = [[(r + i, c + j) for i in range(2) for j in range(4)] for r in range(0, 6, 2) for c in range(0, 16, 4)]
    expected = exact(given, {0: blocks}, {0: int(12 * 0.4) + 1})
    np.testing.assert_allclose(sparsegpt(given)[0], expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block:2x4"])
@pytest.mark.parametrize("prune", [wanda, sparsegpt])
def test_earlier_zeros_stay_and_groups_are_apart(prune, pattern: str):
    given = layer(6, 24, pattern, groups=3)
    given.free[:] = normal(6, 24, seed=7) > -0.5
    given.weights[~given.free] = 0
    weights, mask = prune(given)
    assert not weights[~given.free].any() and not mask[~given.free].any()
    if pattern == "2:4":  # which each row keeps by itself
        alone = LayerMatrix(given.weights[2:4], given.moments[1:2], given.free[2:4], given.pattern, given.inputs, 0.5)
        np.testing.assert_allclose(prune(alone)[0], weights[2:4], atol=1e-9)


LAYERS = {
    "Conv": ("y = Conv <pads = [1, 1, 1, 1], strides = [2, 1]> (x, w, b)", (6, 3, 3, 3)),
    "in groups": ("y = Conv <group = 3> (x, w, b)", (6, 1, 3, 3)),
    "ConvTranspose": ("y = ConvTranspose <strides = [2, 2]> (x, w, b)", (3, 6, 2, 2)),
    "ConvTranspose in groups": ("y = ConvTranspose <group = 3> (x, w, b)", (3, 2, 2, 2)),
    "MatMul": ("a = MatMul (x, w) y = Add (a, b)", (8, 6)),
    "Gemm": ("f = Flatten (x) y = Gemm <transB = 1> (f, w, b)", (6, 192)),
}


FLAT = ("MatMul", "Gemm")  # channels are the last axis


def network_of(kind: str) -> ir.Model:
    body, shape = LAYERS[kind]
    output = "float[a, b] y" if kind == "Gemm" else "float[N, C, H, W] y"
    return network(body, output=output, w=normal(*shape), b=normal(6))


@pytest.mark.parametrize("kind", LAYERS)
def test_scores_are_what_each_weight_adds_to_the_outputs(kind: str):
    """Of Wanda, squared: the energy of the layer's outputs when it has this weight alone, in ONNX Runtime."""
    model, images = network_of(kind), mixed(30)
    pruned, array = (
        prune_layers(model, Prune(criterion="wanda", sparsity=0.5), data(model, {"x": images})),
        weight(model),
    )
    count = 192 if kind == "Gemm" else array.size  # of Gemm the first row
    alone, scores, channels = network_of(kind), np.zeros(count), np.zeros(count, int)
    for name in ("w", "b"):
        weight_of(alone, name).const_value = ir.tensor(np.zeros_like(weight(model, name)))
    for place in range(count):
        single = np.zeros_like(array)
        single.flat[place] = array.flat[place]
        weight_of(alone).const_value = ir.tensor(single)
        outputs = OnnxRuntime(alone).run({"x": images})[0]
        energy = np.square(outputs.astype(np.float64)).sum(axis=tuple(range(outputs.ndim))[: -1 if kind in FLAT else 1])
        energy = energy if kind in FLAT else energy.sum(axis=(1, 2))
        scores[place], channels[place] = energy.sum(), energy.argmax()
    gone = weight(pruned.model).ravel()[:count] == 0
    for channel in np.unique(channels):
        own = np.flatnonzero(channels == channel)
        assert set(own[gone[own]]) == set(own[np.argsort(scores[own])[: len(own) // 2]])


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Gemm"])
def test_less_noise_than_by_magnitude(kind: str):
    """On other samples: inputs differ in size, which Wanda sees, and hang together, which SparseGPT uses."""
    model, fresh = network_of(kind), {"x": mixed(64, 2)}
    wanted, found = OnnxRuntime(model).run(fresh)[0], {}
    for name in ("wanda", "sparsegpt"):
        pruned = prune_layers(model, Prune(criterion=name, sparsity=0.5), data(model, {"x": mixed(200)}))
        assert abs(pruned.achieved - 0.5) < 0.03
        found[name] = snr_db(wanted, OnnxRuntime(pruned.model).run(fresh)[0])
    plain, array = model.clone(), weight(model)
    small = np.abs(array) < np.median(np.abs(array))
    weight_of(plain).const_value = ir.tensor(np.where(small, 0, array))
    by_magnitude = snr_db(wanted, OnnxRuntime(plain).run(fresh)[0])
    assert found["sparsegpt"] > found["wanda"] > by_magnitude


@pytest.mark.parametrize("kind", LAYERS)
def test_columns_lie_as_patterns_need_them(kind: str):
    model = network_of(kind)
    value = weight_of(model)
    node, array = value.consumers()[0], constant(value)
    columns = Columns(node, array.shape)
    np.testing.assert_array_equal(columns.weight(columns.matrix(array)), array)


def test_a_layer_sees_what_pruned_ones_in_front_make():
    model = network(
        "f = Flatten (x) h = Gemm <transB = 1> (f, w, b) r = Relu (h) y = Gemm <transB = 1> (r, v, d)",
        output="float[a, b] y",
        w=normal(24, 192), b=normal(24), v=normal(6, 24), d=normal(6),
    )  # fmt: skip
    images = mixed(200)
    pruned = prune_layers(model, Prune(criterion="wanda", sparsity=0.75), data(model, {"x": images})).model
    first, bias = weight(pruned), weight(pruned, "b")
    hidden = np.maximum(images.reshape(200, -1) @ first.T + bias, 0)
    scores = np.abs(weight(model, "v")) * np.sqrt(np.square(hidden).mean(axis=0))
    expected = np.ones((6, 24), bool)
    np.put_along_axis(expected, np.argsort(scores, axis=1)[:, :18], values=False, axis=1)
    np.testing.assert_array_equal(weight(pruned, "v") != 0, expected)
    means = (images.reshape(200, -1) @ (weight(model) - first).T + weight(model, "b") - bias).mean(axis=0)
    np.testing.assert_allclose(means, 0, atol=1e-3)  # the bias took over what pruning changed


@pytest.mark.parametrize("allocation", ["global", "lamp", "erk", "sensitivity"])
def test_layers_share_the_sparsity_by_the_error_of_their_outputs(allocation: str):
    model = network(
        "f = Flatten (x) h = Gemm <transB = 1> (f, w, b) r = Relu (h) y = Gemm <transB = 1> (r, v, d)",
        output="float[a, b] y",
        w=normal(24, 192), b=normal(24), v=normal(6, 24), d=normal(6),
    )  # fmt: skip
    settings = Prune(criterion="wanda", sparsity=0.6, allocation=allocation)
    pruned = prune_layers(model, settings, data(model, {"x": mixed(200)}))
    wide, narrow = pruned.layers
    assert abs(pruned.achieved - 0.6) < 0.01
    assert narrow.sparsity < wide.sparsity or allocation == "sensitivity"


def test_single_layers_stay_denser():
    model = network_of("Gemm")
    settings = Prune(criterion="sparsegpt", sparsity=0.8, at_most={"y": 0.2})
    assert prune_layers(model, settings, data(model, {"x": mixed(60)})).achieved == pytest.approx(0.2, abs=0.01)
    settings = Prune(criterion="wanda", pattern="2:4", at_most={"y": 0.2})
    with pytest.raises(InputError, match="no layer has so many weights"):
        prune_layers(model, settings, data(model, {"x": mixed(60)}))


def save(model: ir.Model, path) -> None:
    onnx.save(ir.to_proto(model), path)


@pytest.mark.parametrize(("criterion", "pattern"), [("wanda", "unstructured"), ("sparsegpt", "2:4")])
def test_convert_counts_the_zeros(criterion: str, pattern: str, tmp_path):
    body = "f = Flatten (x) h = Gemm <transB = 1> (f, w, b) r = Relu (h) y = Gemm <transB = 1> (r, v, d)"
    model = network(
        body, output="float[a, b] y", w=normal(24, 192), b=normal(24), v=normal(6, 24), d=normal(6)
    )  # fmt: skip
    save(model, tmp_path / "model.onnx")
    prune = {"criterion": criterion, "pattern": pattern, "allocation": "uniform"}
    prune |= {"sparsity": 0.5} if pattern == "unstructured" else {}
    edgecompress.convert(
        tmp_path / "model.onnx",
        output=tmp_path / "out",
        calib={"x": mixed(100)},
        recipe={"prune": prune, "emit": {"formats": ["pack", "onnx"]}, "evaluate": {"min_snr": 0.1}},
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    goal = next(g for g in report["goals"] if g["what"] == "zero weights")
    assert goal["requested"] == 50 and abs(goal["achieved"] - 50) < 0.5


def test_training_holds_the_zeros(tmp_path):
    pytest.importorskip("torch")
    model = network_of("Gemm")
    save(model, tmp_path / "model.onnx")
    labels = np.random.default_rng(0).integers(0, 6, 64)
    edgecompress.convert(
        tmp_path / "model.onnx",
        output=tmp_path / "out",
        train={"x": mixed(64), "y": labels},
        recipe={
            "prune": {"criterion": "sparsegpt", "pattern": "2:4"},
            "train": {"epochs": 1},
            "emit": {"formats": ["onnx"]},
            "evaluate": {"min_snr": 0.1, "max_drop": 100},
        },
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert next(g for g in report["goals"] if g["what"] == "zero weights")["achieved"] == 50
    assert report["training"]


@pytest.mark.parametrize("criterion", ["l2", "wanda", "sparsegpt"])
def test_zeros_have_no_sign(criterion: str):
    """A negative zero has other bits, so that a float .pack would hold each of them as a number."""
    model, settings = network_of("Gemm"), Prune(criterion=criterion, sparsity=0.5)
    if criterion == "l2":
        pytest.importorskip("torch")
        from edgecompress.compress.prune.prune_weights import prune_weights

        array = weight(prune_weights(model, settings).model)
    else:
        array = weight(prune_layers(model, settings, data(model, {"x": mixed(60)})).model)
    assert (array == 0).mean() > 0.45 and not np.signbit(array[array == 0]).any()


def test_bad_requests_are_clear_lines(tmp_path):
    model = network_of("Gemm")
    save(model, tmp_path / "model.onnx")

    def refused(prune: dict, **keywords) -> str:
        with pytest.raises(InputError) as error:
            edgecompress.convert(tmp_path / "model.onnx", output=tmp_path / "out", recipe={"prune": prune}, **keywords)
        return str(error.value)

    calib = {"calib": {"x": mixed(40)}}
    assert "give --calib" in refused({"criterion": "wanda", "sparsity": 0.5})
    assert "single weights only" in refused({"criterion": "sparsegpt", "channels": 0.5}, **calib)
    assert 'use "one-shot"' in refused({"criterion": "wanda", "sparsity": 0.5, "schedule": "rigl"}, **calib)
    assert "no layer has so many weights" in refused({"criterion": "wanda", "sparsity": 0.001}, **calib)


def test_a_layer_that_no_sample_reaches_is_named():
    model = network("r = Relu (x) y = Conv (r, w)", w=normal(6, 3, 3, 3))
    with pytest.raises(InputError, match="inputs of Conv 'y' are 0 in all calibration samples"):
        prune_layers(model, Prune(criterion="wanda", sparsity=0.5), data(model, {"x": -np.abs(mixed(40))}))


def test_inputs_that_are_always_zero_are_named():
    model, images = network_of("Gemm"), mixed(60)
    images[:, 1] = 0
    pruned = prune_layers(model, Prune(criterion="sparsegpt", sparsity=0.5), data(model, {"x": images}))
    assert "64 of 192" in pruned.notes[0] and not weight(pruned.model)[:, 64:128].any()
    assert all(sparsity(v) is None or sparsity(v).mask.sum() == (constant(v) != 0).sum()
               for v in pruned.model.graph.initializers.values())  # fmt: skip
