"""Operators that move data, and resizing, against LiteRT's reference kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lite import SCALES, SEEDS, ZEROS, check, constant, examples, plain, quantized

SHAPE = st.lists(st.integers(1, 4), min_size=1, max_size=4)
MAKERS = {"int8": lambda shape: quantized(shape, 0.1, -7), "float32": plain}
both_types = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def ints(values):
    return constant(np.asarray(values, np.int32))


@both_types
@examples(max_examples=30)
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=5), random=st.randoms(), seed=SEEDS)
def test_transpose_and_reshape(make, shape, random, seed):
    order = random.sample(range(len(shape)), len(shape))
    y = [shape[a] for a in order]
    check("TRANSPOSE", [make(shape), ints(order)], [make(y)], seed=seed)
    check("RESHAPE", [make(shape), ints(y)], [make(y)], seed=seed, newShape=y)


@both_types
@examples(max_examples=30)
@given(shape=SHAPE, sizes=st.lists(st.integers(1, 3), min_size=2, max_size=4), data=st.data(), seed=SEEDS)
def test_concatenation_and_split(make, shape, sizes, data, seed):
    axis = data.draw(st.integers(0, len(shape) - 1))
    parts = [(*shape[:axis], n, *shape[axis + 1 :]) for n in sizes]
    whole = (*shape[:axis], sum(sizes), *shape[axis + 1 :])
    check("CONCATENATION", [make(p) for p in parts], [make(whole)], seed=seed, axis=axis)
    check("SPLIT_V", [make(whole), ints(sizes), ints(axis)], [make(p) for p in parts], seed=seed, numSplits=len(parts))
    even = (*shape[:axis], shape[axis] * len(sizes), *shape[axis + 1 :])
    check("SPLIT", [ints(axis), make(even)], [make(shape)] * len(sizes), seed=seed, numSplits=len(sizes))


@both_types
@examples(max_examples=30)
@given(shape=SHAPE, data=st.data(), seed=SEEDS)
def test_slices(make, shape, data, seed):
    begin = [data.draw(st.integers(0, n - 1)) for n in shape]
    size = [data.draw(st.integers(1, n - b)) for n, b in zip(shape, begin)]
    check("SLICE", [make(shape), ints(begin), ints(size)], [make(size)], seed=seed)
    step = [data.draw(st.integers(1, 3)) for _ in shape]
    end = [b + n for b, n in zip(begin, size)]
    y = [-(-n // s) for n, s in zip(size, step)]
    check("STRIDED_SLICE", [make(shape), ints(begin), ints(end), ints(step)], [make(y)], seed=seed)


@both_types
@examples(max_examples=30)
@given(shape=SHAPE, data=st.data(), seed=SEEDS)
def test_pads(make, shape, data, seed):
    amounts = [data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in shape]
    y = make([n + a + b for n, (a, b) in zip(shape, amounts)])
    check("PAD", [make(shape), ints(amounts)], [y], seed=seed)
    value = quantized((1,), 0.1, -7, np.array([42], np.int8)) if y.quantization else constant(np.float32([1.5]))
    check("PADV2", [make(shape), ints(amounts), value], [y], seed=seed)


@both_types
@pytest.mark.parametrize("mode", [0, 1])
@examples(max_examples=30)
@given(shape=SHAPE, data=st.data(), seed=SEEDS)
def test_mirror_pads(make, mode, shape, data, seed):
    most = [n - 1 if mode == 0 else n for n in shape]
    amounts = [data.draw(st.tuples(st.integers(0, m), st.integers(0, m))) for m in most]
    y = make([n + a + b for n, (a, b) in zip(shape, amounts)])
    check("MIRROR_PAD", [make(shape), ints(amounts)], [y], seed=seed, mode=mode)


@both_types
@examples(max_examples=30)
@given(shape=SHAPE, data=st.data(), seed=SEEDS)
def test_tile_and_broadcast(make, shape, data, seed):
    multiples = [data.draw(st.integers(1, 3)) for _ in shape]
    check("TILE", [make(shape), ints(multiples)], [make([n * m for n, m in zip(shape, multiples)])], seed=seed)
    source = [1 if data.draw(st.booleans()) else n for n in shape]
    y = [data.draw(st.integers(1, 3)), *shape]
    check("BROADCAST_TO", [make(source), ints(y)], [make(y)], seed=seed)


@both_types
@examples(max_examples=20)
@given(shape=SHAPE, data=st.data(), seed=SEEDS)
def test_reverse(make, shape, data, seed):
    axes = sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    axes = [a for a in axes if a - axes[0] == axes.index(a)]  # TFLite takes neighbouring axes only
    check("REVERSE_V2", [make(shape), ints(axes)], [make(shape)], seed=seed)


@both_types
@examples(max_examples=20)
@given(
    size=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    block=st.integers(2, 3),
    seed=SEEDS,
)
def test_space_and_depth(make, size, block, seed):
    n, h, w, c = size
    deep, wide = (n, h, w, c * block * block), (n, h * block, w * block, c)
    check("DEPTH_TO_SPACE", [make(deep)], [make(wide)], seed=seed, blockSize=block)
    check("SPACE_TO_DEPTH", [make(wide)], [make(deep)], seed=seed, blockSize=block)


@both_types
@examples(max_examples=30)
@given(shape=SHAPE, where=st.lists(st.integers(0, 99), min_size=1, max_size=6), data=st.data(), seed=SEEDS)
def test_gather(make, shape, where, data, seed):
    axis = data.draw(st.integers(0, len(shape) - 1))
    index = np.array(where) % shape[axis]
    y = make((*shape[:axis], len(where), *shape[axis + 1 :]))
    check("GATHER", [make(shape), ints(index)], [y], seed=seed, axis=axis)
    for dtype in (np.int32, np.int64):  # computed indices
        feeds = [np.zeros(shape, np.float32), index.astype(dtype)]
        check("GATHER", [plain(shape), plain(index.shape, dtype)], [plain(y.shape)], feeds=feeds, axis=axis)


@both_types
@examples(max_examples=30)
@given(
    shapes=st.sampled_from(
        [((2, 3, 4), (2, 3, 4), (2, 3, 4)), ((1, 4), (3, 1), (3, 4)), ((2, 1, 1), (3, 1), (4,)), ((), (2, 3), ())]
    ),
    seed=SEEDS,
)
def test_select(make, shapes, seed):
    condition, a, b = shapes
    check("SELECT_V2", [plain(condition, bool), make(a), make(b)], [make(np.broadcast_shapes(*shapes))], seed=seed)


# ---- resizing ----

FLAGS = st.sampled_from([(False, False), (False, True), (True, False)])
SIZES = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 15), st.integers(1, 15))


@examples(max_examples=80)
@given(sizes=SIZES, flags=FLAGS, channels=st.integers(1, 4), scale=SCALES, zero=ZEROS, seed=SEEDS)
def test_resizes(sizes, flags, channels, scale, zero, seed):
    x, y = (2, *sizes[:2], channels), (2, *sizes[2:], channels)
    operand, options = ints(sizes[2:]), {"alignCorners": flags[0], "halfPixelCenters": flags[1]}
    for kind in ("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"):
        check(kind, [quantized(x, scale, zero), operand], [quantized(y, scale, zero)], seed=seed, **options)
        check(kind, [plain(x), operand], [plain(y)], seed=seed, tolerance=1e-6, **options)
