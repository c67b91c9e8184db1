"""GPTQ rounds weights so that a layer's outputs come nearer to the float model's than with the nearest integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from sklearn.covariance import oas

from edgecompress.compress.quantize import quantize, simulation
from edgecompress.compress.quantize.eliminate import BLOCK
from edgecompress.compress.quantize.gptq import (
    DAMPING,
    damping_for,
    round_columns,
    round_weights,
    samples_for,
    with_rounded,
)
from edgecompress.compress.quantize.moments import Accumulator, Moments
from edgecompress.compress.quantize.search import improve
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.graph.annotations import quantization
from edgecompress.recipe import Quantize
from quantizing import PLAIN, data, network, normal, snr_db

LAYERS = {
    "Conv": ("y = Conv <pads = [1, 1, 1, 1]> (x, w, b)", (6, 3, 3, 3)),
    "no bias": ("y = Conv (x, w)", (6, 3, 3, 3)),
    "in groups": ("y = Conv <group = 3> (x, w, b)", (6, 1, 3, 3)),
    "ConvTranspose": ("y = ConvTranspose <strides = [2, 2]> (x, w, b)", (3, 6, 2, 2)),
    "MatMul": ("a = MatMul (x, w) y = Add (a, b)", (8, 6)),
    "Gemm": ("f = Flatten (x) y = Gemm <transB = 1> (f, w, b)", (6, 192)),
}


def mixed(count: int, seed: int) -> np.ndarray:
    """Images whose pixels and channels hang together: errors of neighbours can make up for each other."""
    noise = normal(count, 3, 8, 8, seed=seed)
    rows = np.cumsum(noise, axis=2) + 0.5 * np.cumsum(noise, axis=3)
    return rows + rows.mean(axis=1, keepdims=True)


def layer(kind: str) -> ir.Model:
    body, shape = LAYERS[kind]
    arrays = {"w": normal(*shape), "b": normal(6)}
    return network(body, output="float[a, b] y" if kind == "Gemm" else "float[N, C, H, W] y",
                   **{k: v for k, v in arrays.items() if f"{k})" in body or f"{k}," in body})  # fmt: skip


def moments(k: int, channels: int, groups: int = 1, seed: int = 0) -> tuple[np.ndarray, Moments]:
    """(weights [channels, k], what was measured of inputs that hang together)"""
    matrix, found = normal(channels, k, seed=seed).astype(np.float64), Accumulator(centred=True)
    x = np.stack([normal(4 * k, k, seed=g) @ normal(k, k, seed=g + 9) for g in range(groups)])
    found.add(x, np.concatenate([a @ rows.T for a, rows in zip(x, np.split(matrix, groups))], axis=1))
    return matrix, found.moments()


@pytest.mark.parametrize(
    ("k", "channels", "groups"), [(5, 3, 1), (9, 6, 3), (16, 8, 2), (BLOCK, 4, 1), (BLOCK + 9, 4, 1)]
)
def test_columns_as_the_paper_eliminates_them(k: int, channels: int, groups: int):
    """Optimal brain quantization in a fixed order, with the inverse Hessian updated column by column (equation 3)."""
    matrix, measured = moments(k, channels, groups)
    step = np.abs(matrix).max(axis=1) / 127
    wanted, expected = measured.solution(DAMPING, matrix), np.zeros(matrix.shape)
    for row in range(channels):
        inverse, left = np.linalg.inv(measured.damped(DAMPING)[row * groups // channels]), wanted[row].copy()
        for j in range(k):
            expected[row, j] = np.clip(np.rint(left[j] / step[row]), -127, 127)
            left -= (left[j] - step[row] * expected[row, j]) / inverse[j, j] * inverse[j]
            inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    found = round_columns(matrix, measured, step)
    assert (found == expected).mean() > 0.999 and np.abs(found - expected).max() <= 1  # halves may fall either way


def test_pruned_weights_stay():
    matrix, measured = moments(24, 6)
    matrix[normal(6, 24, seed=4) > 0.3] = 0
    found = round_columns(matrix, measured, np.abs(matrix).max(axis=1) / 7)
    assert not found[matrix == 0].any() and np.abs(found).max() <= 127


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_come_nearer(kind: str):
    model = layer(kind)
    dataset = data(model, {"x": mixed(128, 1)})
    coarse = quantize(model, dataset, PLAIN)
    for node in coarse.model.graph:  # 4 bits, so that weights and not activations decide
        for value in node.inputs:
            if value is not None and value.name == "w":
                quantization(value).scale[:] *= 16
    rounded = round_weights(model, coarse.model, dataset, lambda: False)
    better = with_rounded(coarse.model.clone(), rounded)
    fresh = {"x": mixed(64, 2)}
    exact = OnnxRuntime(model).run(fresh)[0]
    before, after = (snr_db(exact, OnnxRuntime(simulation(m)).run(fresh)[0]) for m in (coarse.model, better))
    assert after > before + 0.2
    (entry,) = rounded.values()
    whole = entry.weight / quantization(
        next(v for v in better.graph.initializers.values() if v.name == "w")
    ).dequantize(np.ones(entry.weight.shape, np.int8))
    assert np.abs(whole - np.rint(whole)).max() < 1e-4 and np.abs(whole).max() < 127.5


def test_the_search_keeps_it_where_it_helps_and_says_so():
    model = network(
        "a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu (a) y = Conv (r, v, d)",
        w=normal(16, 3, 3, 3), b=normal(16), v=normal(4, 16, 3, 3), d=normal(4),
    )  # fmt: skip
    settings = Quantize(equalize=False, calibration="minmax", per_channel=False, bias_correction=False)
    before = quantize(model, data(model, {"x": mixed(128, 1)}), settings)
    found = improve(before, settings, 80.0, integer_only=False)
    tried = next(t for t in found.tried if "GPTQ" in t.what)
    assert tried.kept == (tried.after > tried.before) and set(tried.names) == {"w", "v"} and tried.bytes == 0


@pytest.mark.parametrize("k", [4, 40])
@pytest.mark.parametrize("samples", [12, 60, 5000])
def test_moments_of_few_samples_are_damped_as_scikit_learn_shrinks_them(k: int, samples: int):
    x, found = normal(samples, k) @ normal(k, k, seed=1) + normal(k), Accumulator(centred=True)
    found.add(x[None], x @ normal(k, 3))
    shrunk, rho = oas(x)
    measured = found.moments()
    damping = min(rho / (1 - rho), 20) if rho < 1 else 20
    assert damping_for(measured, samples) == pytest.approx(max(damping, DAMPING), rel=1e-3)
    if DAMPING < damping < 20:
        damped = (1 - rho) * measured.damped(damping)[0]
        np.testing.assert_allclose(damped, shrunk, rtol=1e-3, atol=1e-3 * np.abs(shrunk).max())


def test_weights_that_fit_few_samples_alone_are_not_kept():
    """Two dozen samples and 300 inputs of one layer, whose own noise of int8 they could all make up for."""
    model = network(
        "f = Flatten (x) h = Gemm <transB = 1> (f, w, b) r = Relu (h) y = Gemm <transB = 1> (r, v, d)",
        output="float[a, b] y",
        w=normal(300, 192), b=normal(300), v=normal(2, 300), d=normal(2),
    )  # fmt: skip
    settings = Quantize(equalize=False, bias_correction=False)
    before = quantize(model, data(model, {"x": normal(24, 3, 8, 8)}), settings)
    found = improve(before, settings, 80.0, integer_only=True)
    tried, fresh = next(t for t in found.tried if "GPTQ" in t.what), {"x": normal(300, 3, 8, 8, seed=5)}
    exact = OnnxRuntime(model).run(fresh)[0]
    rounded = with_rounded(before.model.clone(), found.quantized.rounded)
    ratios = [snr_db(exact, OnnxRuntime(simulation(m)).run(fresh)[0]) for m in (before.model, rounded)]
    assert ratios[1] >= ratios[0] and tried.after < tried.before + 2


def test_shared_weights_are_stored_once():
    model = network(
        "a = Conv (x, w, b) r = Relu (a) c = Conv (r, w, b) y = Conv (c, v)",
        w=normal(3, 3, 3, 3), b=normal(3), v=normal(4, 3, 3, 3),
    )  # fmt: skip
    dataset = data(model, {"x": mixed(64, 1)})
    assert list(round_weights(model, quantize(model, dataset, PLAIN).model, dataset, lambda: False)) == ["v"]


def test_large_models_are_left_alone():
    assert samples_for(layer("Conv")) == 128
    huge = network("y = Conv <pads = [1, 1, 1, 1]> (x, w)", w=np.zeros((8, 3, 3, 3), np.float32))
    for value in huge.graph.outputs:
        value.shape = ir.Shape([1, 8, 40_000, 40_000])
    assert samples_for(huge) == 0


def test_without_time_nothing_is_rounded():
    model = layer("Conv")
    dataset = data(model)
    assert not round_weights(model, quantize(model, dataset, PLAIN).model, dataset, lambda: True)
