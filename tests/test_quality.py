"""Quality by slice: slices that a person would draw, ratios by their definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgecompress.evaluate.quality import Meter, Slice, Slices, qualities, slices, worst_equal_percent, worst_snr_db

RNG = np.random.default_rng(0)


def _sparse_scores(n: int, classes: int, anchors: int) -> np.ndarray:
    """Nearly 0, but for an object or two in each image; some classes never come."""
    scores = RNG.random((n, classes, anchors)) * 1e-4
    for image in range(n):
        scores[image, RNG.integers(0, classes // 2), RNG.integers(0, anchors, 5)] = RNG.random(5) * 0.5 + 0.4
    return scores


def _boxes(n: int, anchors: int) -> np.ndarray:
    """x and y rise over the anchors from 32 to 608, as in a grid."""
    grid = np.linspace(32, 608, anchors)
    return np.stack([grid * RNG.random((n, 1)) ** 0.1, grid[::-1] + RNG.random((n, anchors)),
                     20 + 300 * RNG.random((n, anchors)), 20 + 300 * RNG.random((n, anchors))], axis=1)  # fmt: skip


def _detector(n: int = 4, classes: int = 80, anchors: int = 840) -> np.ndarray:
    return np.concatenate([_boxes(n, anchors), _sparse_scores(n, classes, anchors)], axis=1)


def _with_outlier_channel() -> np.ndarray:
    x = RNG.normal(size=(4, 16, 96))
    x[:, :, 30] = 40 + RNG.normal(size=(4, 16))
    return x


def _heatmap() -> np.ndarray:
    """Little but noise, and one blob: its rows are no quantity of their own."""
    x = RNG.random((1, 1, 64, 64)) * 0.01
    x[:, :, 20:25, 40:45] = 0.9
    return x


def _relu_features() -> np.ndarray:
    """Channels of a feature map: sizes spread over four orders of magnitude, two nearly dead."""
    sizes = np.exp(RNG.normal(size=(1, 256, 1, 1)) * 1.5)
    sizes[0, :2] = 1e-5
    return np.maximum(RNG.normal(size=(8, 256, 6, 6)), 0) * sizes


def _interleaved() -> np.ndarray:
    """Key points: x, y, and whether it is visible, 17 times."""
    points = np.stack([640 * RNG.random((32, 17)), 480 * RNG.random((32, 17)), RNG.random((32, 17))], axis=2)
    return points.reshape(32, 51)


def _softmax(n: int, *shape: int) -> np.ndarray:
    logits = RNG.normal(size=(n, *shape)) * 6
    logits[:, 0] += 12  # the class of nearly all samples
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _rare_class() -> np.ndarray:
    return np.concatenate([RNG.random((64, 3)), RNG.random((64, 1)) * 1e-3], axis=1)


VISIBLE = tuple(range(2, 51, 3))
CASES: dict[str, tuple[Callable[[], np.ndarray], int | None, list[tuple[int, ...]]]] = {
    "boxes and scores, axis 1": (_detector, 1, [(0, 1, 2, 3), tuple(range(4, 84))]),
    "boxes and scores, last axis": (lambda: np.moveaxis(_detector(), 1, 2), 2, [(0, 1, 2, 3), tuple(range(4, 84))]),
    "boxes and scores in one row": (
        lambda: np.concatenate([_boxes(8, 50).reshape(8, -1), RNG.random((8, 150))], axis=1), 1,
        [tuple(range(200)), tuple(range(200, 350))]),
    "five axes, as of YOLOv5": (
        lambda: np.moveaxis(_detector(2, 20, 192).reshape(2, 24, 3, 8, 8), 1, 4), 4,
        [(0, 1, 2, 3), tuple(range(4, 24))]),
    "boxes in 0..1, scores sparse": (
        lambda: np.concatenate([_boxes(4, 840) / 640, _sparse_scores(4, 80, 840)], axis=1), 1,
        [(0, 1, 2, 3), tuple(range(4, 84))]),
    "one outlier channel": (_with_outlier_channel, 2, [(30,), tuple(i for i in range(96) if i != 30)]),
    "key points with visibility": (_interleaved, 1, [tuple(i for i in range(51) if i not in VISIBLE), VISIBLE]),
    "targets of a regression": (
        lambda: RNG.normal(size=(64, 6)) * [1, 5, 20, 100, 500, 2000], 1, [(5, 4), (3, 2), (1, 0)]),
    "logits": (lambda: RNG.normal(size=(64, 10)) * 5, None, []),
    "probabilities": (lambda: _softmax(64, 10), None, []),
    "probabilities of pixels": (lambda: _softmax(2, 5, 16, 16), None, []),
    "a class that the data lacks": (_rare_class, None, []),
    "a blob on a heat map": (_heatmap, None, []),
    "channels of a feature map": (_relu_features, None, []),
    "a ramp": (lambda: np.linspace(0, 1000, 400) * RNG.random((8, 1)), None, []),
    "few values at many positions": (lambda: RNG.normal(size=(2, 5000)), None, []),
    "one sample of one value": (lambda: RNG.normal(size=(1, 1)), None, []),
    "a vector": (lambda: RNG.normal(size=9), None, []),
    "all zero": (lambda: np.zeros((16, 4)), None, []),
    "zero at some positions": (lambda: RNG.normal(size=(16, 6)) * [1, 0, 1, 0, 1, 0], None, []),
    "rounding at some positions": (lambda: RNG.normal(size=(16, 6)) * [1, 1e-9, 1, 1e-9, 1, 1e-9], None, []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_slices_are_those_that_a_person_would_draw(name):
    make, axis, groups = CASES[name]
    found = slices("y", make().astype(np.float32))
    assert [(p.axis, set(p.positions)) for p in found.parts] == [(axis, set(g)) for g in groups] or (
        axis is None and found.parts == (Slice("y"),)
    )


@pytest.mark.parametrize("scale", [1e-20, 1e-4, 1.0, 1e6, 1e30])
def test_slices_do_not_depend_on_the_unit(scale):
    detector = _detector(2, 8, 100)
    assert slices("y", (detector * scale).astype(np.float32)).parts == slices("y", detector.astype(np.float32)).parts


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_ratios_of_slices_follow_their_definition(axis):
    exact = np.moveaxis(np.concatenate([640 * RNG.random((4, 9, 6, 3)), RNG.random((4, 9, 6, 5))], 3), 3, axis)
    noisy = exact + RNG.normal(size=exact.shape) * 0.3
    found = slices("y", exact)
    measured = qualities([found], [exact], [noisy])
    assert [(q.slice.axis, q.slice.positions) for q in measured] == [(axis, (0, 1, 2)), (axis, (3, 4, 5, 6, 7))]
    for q in measured:
        a, b = (np.take(x, q.slice.positions, axis) for x in (exact, noisy))
        assert q.snr_db == pytest.approx(10 * np.log10(np.sum(a**2) / np.sum((a - b) ** 2)))
    assert worst_snr_db(measured) == measured[1].snr_db < 10 < 50 < measured[0].snr_db
    meter = Meter(found)  # in batches, and blocks of them
    for i in range(4):
        meter.update(exact[i : i + 1], noisy[i : i + 1])
    assert [q.snr_db for q in meter.qualities()] == pytest.approx([q.snr_db for q in measured])


@pytest.mark.parametrize("spread", [0.3, 1.0, 1.5])
def test_the_ratio_of_many_samples_is_rarely_below_what_a_dozen_of_them_says(spread):
    """Errors are lognormal from sample to sample, whose mean is e^(spread^2 / 2)."""
    above, loose = 0, []
    for _ in range(300):
        noisy = np.ones((12, 1)) + 0.1 * np.exp(spread / 2 * RNG.normal(size=(12, 1)))
        (measured,) = qualities([Slices((Slice("y"),))], [np.ones((12, 1))], [noisy])
        above += measured.least_db <= 20 - 10 * np.log10(np.exp(spread**2 / 2))
        loose.append(measured.snr_db - measured.least_db)
    assert above / 300 > 0.85 and np.median(loose) < 4 * spread


def _quality(expected: np.ndarray, found: np.ndarray) -> float | None:
    return qualities([Slices((Slice("y"),))], [expected], [found])[0].snr_db


SIGNAL = np.array([[1.0, -2.0, 3.0]], np.float32)
EDGES = {
    "equal": (SIGNAL, SIGNAL, np.inf),
    "all zero, equal": (0 * SIGNAL, 0 * SIGNAL, np.inf),
    "all zero, rounding": (0 * SIGNAL, 0 * SIGNAL + 1e-9, np.inf),
    "all zero, not found so": (0 * SIGNAL, SIGNAL, -np.inf),
    "nothing left": (SIGNAL, 0 * SIGNAL, 0.0),
    "NaN": (SIGNAL, SIGNAL * [1, np.nan, 1], -np.inf),
    "infinity": (SIGNAL, SIGNAL * [1, np.inf, 1], -np.inf),
    "the same infinity": (SIGNAL * [1, np.inf, 1], SIGNAL * [1, np.inf, 1], np.inf),
    "the same NaN, and noise": (SIGNAL * [1, np.nan, 1], SIGNAL * [1.1, np.nan, 1.1], 20.0),
    "infinity lost": (SIGNAL * [1, np.inf, 1], SIGNAL, -np.inf),
    "the other infinity": (SIGNAL * [1, np.inf, 1], SIGNAL * [1, -np.inf, 1], -np.inf),
}


@pytest.mark.parametrize("name", EDGES)
def test_what_is_not_finite_is_the_worst_unless_it_should_be(name):
    expected, found, snr = EDGES[name]
    assert _quality(expected, found) == pytest.approx(snr)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.int8, np.bool_])
def test_integer_outputs_are_measured_by_the_share_that_is_equal(dtype):
    exact = RNG.integers(0, 2, (50, 20)).astype(dtype)
    other = exact.copy()
    other.reshape(-1)[:14] = ~other.reshape(-1)[:14] if dtype == np.bool_ else other.reshape(-1)[:14] + 1
    measured = qualities([slices("i", exact)], [exact], [other])
    assert measured[0].snr_db is None and measured[0].equal_percent == pytest.approx(98.6)
    assert worst_equal_percent(measured) == measured[0].equal_percent and worst_snr_db(measured) is None


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Slice("y"), "output 'y'"),
        (Slice("y", 1, tuple(range(4, 84))), "output 'y', positions 4 to 83 of axis 1"),
        (Slice("a b", 2, (308,)), "output 'a b', position 308 of axis 2"),
        (Slice("y", 1, (0, 1, 2, 7)), "output 'y', positions 0 to 2 and 7 of axis 1"),
        (Slice("y", 1, (0, 3, 5, 6)), "output 'y', positions 0, 3 and 5 to 6 of axis 1"),
        (Slice("y", 1, VISIBLE), "output 'y', 17 positions (2, 5, 8, ...) of axis 1"),
    ],
)
def test_slices_in_words(part, words):
    assert str(part) == words


def test_axes_of_an_output_without_samples_are_those_of_the_model():
    stacked = np.moveaxis(_detector(4, 8, 100), 1, 2)  # four runs of an output [100, 12]
    found = slices("y", stacked, stacked=True)
    assert [p.axis for p in found.parts] == [1, 1] and found.axis == 2
    assert all(q.snr_db == np.inf for q in qualities([found], [stacked], [stacked]))
