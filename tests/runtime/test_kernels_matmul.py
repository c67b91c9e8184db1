"""FULLY_CONNECTED and BATCH_MATMUL against LiteRT's reference kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lite import SCALES, SEEDS, ZEROS, check, constant, examples, per_channel, plain, quantized


@examples(max_examples=80)
@given(
    lead=st.sampled_from([(1,), (7,), (2, 3), (1, 2, 2)]),
    depth=st.integers(1, 70),
    units=st.integers(1, 20),
    each=st.booleans(),
    with_bias=st.booleans(),
    activation=st.sampled_from([0, 1, 2, 3]),
    x_scale=SCALES,
    w_scale=SCALES,
    spread=st.floats(0.5, 40),
    x_zero=ZEROS,
    w_zero=ZEROS,
    y_zero=ZEROS,
    seed=SEEDS,
)
@example(
    lead=(1,),
    depth=16,
    units=9,
    each=False,
    with_bias=False,
    activation=0,
    x_scale=0.15625,
    w_scale=0.05986783894878876,
    spread=0.5,
    x_zero=-127,
    w_zero=-79,
    y_zero=0,
    seed=190,
)
def test_fully_connected(
    lead, depth, units, each, with_bias, activation, x_scale, w_scale, spread, x_zero, w_zero, y_zero, seed
):
    """Per tensor, weights may have a zero point."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-127, 128, (units, depth)).astype(np.int8)
    bias = rng.integers(-2000, 2000, units).astype(np.int32)
    scales = np.float32(w_scale) * rng.uniform(0.5, 1, units if each else 1).astype(np.float32)
    w = per_channel(matrix, scales, 0) if each else quantized((units, depth), w_scale, w_zero, matrix)
    bias_scale = np.float32(x_scale) * (scales if each else np.array([w_scale], np.float32))
    b = per_channel(bias, bias_scale, 0) if with_bias else None
    y_scale = x_scale * w_scale * 127 * depth**0.5 / spread
    options = {"keepNumDims": len(lead) > 1, "fusedActivationFunction": activation}
    x, y = (*lead, depth), (*lead, units)
    check(
        "FULLY_CONNECTED", [quantized(x, x_scale, x_zero), w, b], [quantized(y, y_scale, y_zero)], seed=seed, **options
    )
    floats = [plain(x), constant(matrix.astype(np.float32)), constant(bias.astype(np.float32)) if with_bias else None]
    check("FULLY_CONNECTED", floats, [plain(y)], seed=seed, tolerance=1e-5, **options)


@pytest.mark.parametrize("each", [False, True], ids=["per tensor", "per unit"])
@pytest.mark.parametrize("ratio", [127 / 8, 508, 1016, 49, 8, 32, 24, 12])
def test_fully_connected_rounds_halves_away_from_zero(each, ratio):
    """Whose accumulators are often a half of the output's scale, `ratio` times theirs."""
    rng = np.random.default_rng(0)
    matrix = rng.integers(-127, 128, (300, 16)).astype(np.int8)
    w = per_channel(matrix, np.full(300, 0.25, np.float32), 0) if each else quantized((300, 16), 0.25, 0, matrix)
    check(
        "FULLY_CONNECTED",
        [quantized((20, 16), 0.25, -3), w, None],
        [quantized((20, 300), ratio / 16, 0)],
        keepNumDims=True,
        fusedActivationFunction=0,
    )


@examples(max_examples=80)
@given(
    batch=st.sampled_from(
        [((), ()), ((3,), (3,)), ((1,), (4,)), ((2, 3), (2, 3)), ((2, 1), (3,)), ((), (2, 2)), ((2, 1, 2), (1, 3, 1))]
    ),
    rows=st.integers(1, 6),
    depth=st.integers(1, 20),
    columns=st.integers(1, 6),
    adj_x=st.booleans(),
    adj_y=st.booleans(),
    scales=st.tuples(SCALES, SCALES),
    spread=st.floats(0.5, 40),
    zeros=st.tuples(ZEROS, ZEROS, ZEROS),
    seed=SEEDS,
)
def test_batch_matmul(batch, rows, depth, columns, adj_x, adj_y, scales, spread, zeros, seed):
    a = (*batch[0], *((depth, rows) if adj_x else (rows, depth)))
    b = (*batch[1], *((columns, depth) if adj_y else (depth, columns)))
    y = (*np.broadcast_shapes(*batch), rows, columns)
    y_scale = scales[0] * scales[1] * 127 * depth**0.5 / spread
    options = {"adjX": adj_x, "adjY": adj_y}
    check(
        "BATCH_MATMUL",
        [quantized(a, scales[0], zeros[0]), quantized(b, scales[1], zeros[1])],
        [quantized(y, y_scale, zeros[2])],
        seed=seed,
        **options,
    )
    check("BATCH_MATMUL", [plain(a), plain(b)], [plain(y)], seed=seed, tolerance=1e-5, **options)
