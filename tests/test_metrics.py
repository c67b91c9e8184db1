"""Built-in metrics against scikit-learn, plain formulas, and figures of pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as oracle

from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.measures import described, measures, worst
from edgecompress.evaluate.metrics import AUTO, METRICS, choose, load_metric
from edgecompress.evaluate.metrics.boxes import overlaps
from edgecompress.recipe import Preprocess
from test_data import value

N = 200


def draw(seed: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a classifier that is right most of the time, and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, N)
    scores = generator.normal(size=(N, classes))
    scores[np.arange(N), labels] += 1.5
    return scores, labels


@pytest.mark.parametrize("seed", range(5))
def test_classes(seed):
    scores, labels = draw(seed, 6 + seed)
    guessed = scores.argmax(axis=1)
    assert METRICS["top1"]([scores], labels) == pytest.approx(100 * oracle.accuracy_score(labels, guessed))
    top5 = 100 * oracle.top_k_accuracy_score(labels, scores, k=5, labels=np.arange(scores.shape[1]))
    assert METRICS["top5"]([scores], labels) == pytest.approx(top5)
    few = np.where(labels == 2, 0, labels)  # a class that is predicted, but no label
    for expected in (labels, few):
        f1 = 100 * oracle.f1_score(expected, guessed, average="macro")
        assert METRICS["f1"]([scores], expected) == pytest.approx(f1)
    assert METRICS["top1"]([scores], np.eye(scores.shape[1])[labels]) == METRICS["top1"]([scores], labels)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32, bool])
@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 1, 1)])
def test_one_score_is_class_1_above_a_half(dtype, shape):
    generator = np.random.default_rng(0)
    scores, labels = generator.random(N), generator.integers(0, 2, N)
    expected = 100 * oracle.accuracy_score(labels, scores > 0.5)
    for name in ("top1", AUTO):
        assert load_metric(name)([scores.reshape(shape)], labels.astype(dtype)) == pytest.approx(expected)
    logits = 6 * scores - 3
    assert METRICS["top1"]([logits.reshape(shape)], labels.astype(dtype)) == pytest.approx(expected)
    f1 = 100 * oracle.f1_score(labels, scores > 0.5, average="macro")
    assert METRICS["f1"]([scores.reshape(shape)], labels.astype(dtype)) == pytest.approx(f1)


@pytest.mark.parametrize("seed", range(5))
def test_several_answers(seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, (N, 4))
    scores = np.clip(labels + generator.normal(0, 0.5, labels.shape), 0, 1)
    answers = scores > 0.5
    assert METRICS["exact"]([scores], labels) == pytest.approx(100 * oracle.accuracy_score(labels, answers))
    micro = 100 * oracle.f1_score(labels, answers, average="micro")
    assert METRICS["micro_f1"]([scores], labels * 1.0) == pytest.approx(micro)
    assert METRICS["micro_f1"]([np.where(answers, 2.0, -2.0)], labels) == pytest.approx(micro)  # logits
    assert METRICS["micro_f1"]([0 * scores], 0 * labels) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.int8])
@pytest.mark.parametrize("columns", [1, 3])
def test_numbers(dtype, columns):
    generator = np.random.default_rng(columns)
    labels = generator.integers(0, 100, (N, columns)).astype(dtype)
    outputs = labels + generator.normal(0, 9, labels.shape)
    assert METRICS["r2"]([outputs], labels) == pytest.approx(
        100 * oracle.r2_score(labels, outputs, multioutput="variance_weighted")
    )
    assert METRICS["mae"]([outputs], labels) == pytest.approx(oracle.mean_absolute_error(labels, outputs))
    with pytest.raises(InputError, match="labels that differ"):
        METRICS["r2"]([outputs], 0 * labels)
    with pytest.raises(InputError, match=f"a number for each of the first output's \\[{N}, {columns}\\]"):
        METRICS["mae"]([outputs], labels[:-1])


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("void", [None, 255, -1])
def test_mean_intersection_over_union(axis, void):
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 4, (6, 5, 7))  # class 4 is never a label
    scores = np.eye(5)[labels] + generator.normal(0, 0.6, (6, 5, 7, 5))
    guessed, kept = scores.argmax(axis=-1), np.ones(labels.shape, bool)
    if void is not None:
        kept = generator.random(labels.shape) < 0.8
    given = np.where(kept, labels, -1 if void is None else void)
    output = np.moveaxis(scores, -1, axis)
    expected = 100 * oracle.jaccard_score(labels[kept], guessed[kept], average="macro")
    assert METRICS["miou"]([output], given) == pytest.approx(expected)
    assert METRICS["top1"]([output], given) == pytest.approx(100 * np.mean(labels[kept] == guessed[kept]))


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """12 images with up to 5 objects of 3 classes, and 40 boxes each of a detector that finds most of them."""
    generator = np.random.default_rng(seed)
    labels, output = np.full((12, 5, 5), -1.0), np.zeros((12, 40, 7))
    output[..., :2], output[..., 2:4] = generator.uniform(0, 200, (12, 40, 2)), generator.uniform(10, 60, (12, 40, 2))
    output[..., 4:] = generator.uniform(0, 0.5, (12, 40, 3))
    for i in range(12):
        for j in range(generator.integers(0, 6)):
            c = generator.integers(0, 3)
            box = np.concatenate([generator.uniform(20, 180, 2), generator.uniform(20, 60, 2)])
            labels[i, j], output[i, j, :4] = [c, *box], box + generator.normal(0, 5, 4)
            output[i, j, 4 + c] = generator.uniform(0.3, 1)
    return output, labels


def corners(boxes: np.ndarray) -> np.ndarray:
    half = boxes[..., 2:4] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half, boxes[..., 4:]], axis=-1)


@pytest.mark.parametrize(
    "seed, expected",  # by pycocotools 2.0, iouThrs = [0.5], maxDets = 100, on the boxes that suppression leaves
    list(enumerate([63.74332697956857, 52.39309111604831, 45.88648312374893, 58.3524838644428, 68.80926940371039])),
)
def test_mean_average_precision(seed, expected):
    output, labels = scene(seed)
    assert METRICS["map50"]([output], labels) == pytest.approx(expected)
    assert METRICS["map50"]([output.swapaxes(1, 2)], labels) == pytest.approx(expected)
    assert METRICS["map50"]([output[..., :4], output[..., 4:]], labels) == pytest.approx(expected)
    truths = np.concatenate([labels[..., :1], corners(labels[..., 1:])], axis=-1)
    assert METRICS["map50_corners"]([corners(output)], truths) == pytest.approx(expected)
    with pytest.raises(InputError, match=r"needs labels \[12, objects, 5\]"):
        METRICS["map50"]([output], labels[..., 0])
    with pytest.raises(InputError, match="the highest label is 3"):
        METRICS["map50"]([output], np.where(labels[..., :1] == 2, 3, labels))


def test_overlap_of_known_boxes():
    a = np.array([[0, 0, 2, 2], [5, 5, 5, 5]], float)
    b = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [9, 9, 10, 10]], float)
    np.testing.assert_allclose(overlaps(a, b), [[1 / 7, 1, 0], [0, 0, 0]])


# labels that don't fit --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shift, hint",
    [
        (1, r"1 to 6, but the output has 6 classes, 0 to 5; subtract 1 from the labels: so shifted, top1 is 9\d"),
        (-1, r"-1 to 4, .*; add 1 to the labels: so shifted, top1 is 9\d"),
        (3, "3 to 8, .*; check that data and model belong together"),
        (1000, "1000 to 1005, .*; check that"),
        (-200, "-200 to -195, .*; check that"),
    ],
)
@pytest.mark.parametrize("name", ["top1", "top5", "f1"])
def test_labels_outside_the_classes_are_refused(name, shift, hint):
    scores, labels = draw(0, 6)
    scores[np.arange(N), labels] += 3
    with pytest.raises(InputError, match=f"the labels are {hint}") as caught:
        METRICS[name]([scores], labels + shift)
    assert "\n" not in str(caught.value)


# which metric -----------------------------------------------------------------------------------------

INTEGERS = np.arange(8)


@pytest.mark.parametrize(
    "shape, labels, expected",
    [
        ((8, 10), INTEGERS, "top1"),
        ((8, 10, 4, 4), np.zeros((8, 4, 4), int), "top1"),
        ((8, 1), INTEGERS % 2, "top1"),
        ((8, 1), (INTEGERS % 2).astype(np.float32), "top1"),
        ((8, 1), INTEGERS, "r2"),
        ((8,), INTEGERS * 0.5, "r2"),
        ((8, 3), np.eye(3)[INTEGERS % 3], "top1"),
        ((8, 3), np.ones((8, 3), int), "exact"),
        ((8, 3), np.arange(24).reshape(8, 3), "r2"),
        ((8, 3, 2, 2), np.zeros((8, 3, 2, 2)) + 0.5, "r2"),
    ],
)
def test_the_metric_that_fits(shape, labels, expected):
    output = np.random.default_rng(0).random(shape)
    assert choose(output, labels).metric == expected


TWO = {"x": np.zeros((N, 3), np.float32), "y": draw(0, 4)[1], "age": np.arange(N)}


@pytest.mark.parametrize(
    "asked, named", [(AUTO, "scores: top1, age: r2"), ({"age": "mae"}, "mae"), ("top1", "top1"),
                     ({"scores": "f1", "age": "mae"}, "scores: f1, age: mae")],
)  # fmt: skip
def test_each_output_has_its_own(asked, named):
    scores, ages = draw(0, 4)[0], np.arange(N)[:, None] * 1.0
    data = load_data(TWO, [value("x", 1, 3)], Preprocess(), ["scores", "age"])
    assert data.notes == () and list(data.output_labels) == ["age"]
    found = measures(["scores", "age"], [scores, ages], data, asked)
    assert described(found) == named
    older = worst(found, [scores, ages], [scores, ages + 20])
    if "age" in str(asked) or asked == AUTO:
        value_of = 20 if older.measure.metric.name == "mae" else 100 * oracle.r2_score(ages, ages + 20)
        assert older.measure.output == "age" and older.value == pytest.approx(value_of) and older.drop > 0
    random = worst(found, [scores, ages], [np.roll(scores, 1, axis=0), ages])
    assert random.drop == 0 if named == "mae" else random.measure.output == "scores" and random.drop > 30


def test_outputs_that_have_no_metric():
    data = load_data(TWO, [value("x", 1, 3)], Preprocess(), ["scores", "other"])
    assert "'age'" in data.notes[0]
    outputs = [draw(0, 4)[0], np.zeros((N, 1))]
    with pytest.raises(InputError, match=r"the model has no output 'age'; its outputs are \['scores', 'other'\]"):
        measures(["scores", "other"], outputs, data, {"age": "mae"})
    with pytest.raises(InputError, match="no labels for output 'other'; give an array of that name"):
        measures(["scores", "other"], outputs, data, {"other": "mae"})
    assert measures(["scores", "other"], outputs, data.without_labels(), AUTO) == ()
