"""ADD and SUB as one weighted sum: for every pair of int8 what the ordinary kernel gives."""

from __future__ import annotations

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from edgecompress_runtime.execute import Executor
from edgecompress_runtime.families.shared.linear_sum import linear_sum
from edgecompress_runtime.kernels.registry import KERNELS
from edgecompress_runtime.options import SumOptions
from edgecompress_runtime.plan import Operator, Plan, Tensor

PAIRS = np.repeat(np.arange(-128, 128), 256), np.tile(np.arange(-128, 128), 256)
SCALE, ZERO = st.floats(0.005, 0.5), st.integers(-128, 127)


def tensor(scale: float, zero: int) -> Tensor:
    scales, zeros = np.array([scale], np.float32), np.array([zero], np.int32)
    return Tensor("t", (1, 65536), np.dtype(np.int8), scales, zeros)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["ADD", "SUB"]),
    st.tuples(SCALE, SCALE),
    st.floats(0.3, 3),
    st.tuples(ZERO, ZERO, ZERO),
    st.sampled_from([0, 1, 3]),
    st.booleans(),
)
def test_every_pair(kind, scales, spread, zeros, activation, rounded):
    a, b = (tensor(s, z) for s, z in zip(scales, zeros))
    y = tensor(float(np.hypot(*scales)) * spread, zeros[2])
    options = SumOptions(activation)
    (call,) = KERNELS[kind]([a, b], [y], options)
    found = linear_sum(call, y, rounded=rounded)
    event("found" if found else "not found")
    if found is None:
        return
    sums = PAIRS[0] * found.slopes[0] + PAIRS[1] * found.slopes[1]
    assert np.abs(sums).max() < 2**30 and found.multiplier < 2**32 and found.multiplier % 2 == 0
    assert not rounded or found.term % 2**32 == 2**31
    # below 2**62 both: int64 holds them
    ours = np.clip((sums * found.multiplier + found.term) >> (32 + found.down), *found.bounds)
    plan = Plan((a, b, y), (Operator(kind, (0, 1), (2,), options),), (0, 1), (2,))
    (exact,) = Executor(plan)(*(n.astype(np.int8)[None] for n in PAIRS))
    np.testing.assert_array_equal(ours[None], exact)


def test_it_is_found_for_the_scales_of_layers():
    rng, missing = np.random.default_rng(0), 0
    for number in range(200):
        a, b = (tensor(s, int(z)) for s, z in zip(np.exp(rng.uniform(-4, -1, 2)), rng.integers(-128, 128, 2)))
        y = tensor(float(np.hypot(a.scale[0], b.scale[0]) * rng.uniform(0.5, 1.5)), int(rng.integers(-128, 128)))
        (call,) = KERNELS["ADD"]([a, b], [y], SumOptions(number % 2))
        assert linear_sum(call, y) is not None
        missing += linear_sum(call, y, rounded=True) is None
    assert missing <= 2
