"""Mean average precision of detectors, at an intersection over union of 0.5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgecompress.errors import InputError

MOST_BOXES = 100  # of an image, the best, as COCO counts them
CANDIDATES = 1000  # of an image, the best, that non-maximum suppression looks at
SUPPRESSION = 0.7  # boxes of one class that overlap a better one by more are left out
MATCH = 0.5
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Detections:
    """Boxes of one image: corners [k, 4], classes [k], scores [k], best first."""

    corners: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def map50(outputs: Sequence[np.ndarray], labels: np.ndarray, *, centred: bool) -> float:
    """Mean average precision in percent, over the classes that are in the labels, with COCO's 101 recalls.

    outputs[0]: [n, boxes, 4 + classes] or [n, 4 + classes, boxes], the longer of the two being the boxes; or boxes
    [n, boxes, 4] with scores [n, boxes, classes] in outputs[1]. labels: [n, objects, 5], each a class from 0 and a box;
    rows of class -1 fill up. centred: boxes are centre x, centre y, width, height; else left, top, right, bottom.
    Labels are in the outputs' form and unit. Of boxes of one class that overlap by more than SUPPRESSION the best
    stays, and of each image the MOST_BOXES best. Raises InputError when shapes don't fit.
    """
    boxes, scores = _boxes_and_scores(outputs)
    if labels.ndim != 3 or labels.shape[2] != 5 or len(labels) != len(boxes):
        raise InputError(
            f"map50 needs labels [{len(boxes)}, objects, 5], each a class and a box, with class -1 in rows that fill "
            f"up; found {list(labels.shape)}"
        )
    truths = [rows[rows[:, 0] >= 0].astype(np.float64) for rows in labels]
    classes = sorted({int(c) for rows in truths for c in rows[:, 0]})
    if not classes or classes[-1] >= scores.shape[2]:
        found = f"{classes[-1]}" if classes else "none"
        raise InputError(f"map50: the output has classes 0 to {scores.shape[2] - 1}; the highest label is {found}")
    found_boxes = [_detect(_corners(b, centred), s) for b, s in zip(boxes, scores, strict=True)]
    expected = [(rows[:, 0].astype(int), _corners(rows[:, 1:], centred)) for rows in truths]
    return 100.0 * float(np.mean([_average_precision(c, found_boxes, expected) for c in classes]))


centred_map50 = partial(map50, centred=True)
corner_map50 = partial(map50, centred=False)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of corners [k, 4] with corners [m, 4]: [k, m]; 0 where both are empty."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(x[:, 2:] - x[:, :2], 0), axis=1) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _boxes_and_scores(outputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    first = outputs[0]
    apart = len(outputs) > 1 and outputs[1].ndim == 3 and outputs[1].shape[:2] == first.shape[:2]
    if first.ndim == 3 and first.shape[2] == 4 and apart:
        return first.astype(np.float64), outputs[1]
    if first.ndim != 3 or min(first.shape[1:]) < 5:
        raise InputError(
            "map50 needs an output [n, boxes, 4 + classes] or [n, 4 + classes, boxes], or boxes [n, boxes, 4] and then "
            f"scores [n, boxes, classes]; the first output is {list(first.shape)}"
        )
    rows = first if first.shape[1] > first.shape[2] else np.swapaxes(first, 1, 2)
    return rows[..., :4].astype(np.float64), rows[..., 4:]


def _corners(boxes: np.ndarray, centred: bool) -> np.ndarray:
    if not centred:
        return boxes
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def _detect(corners: np.ndarray, scores: np.ndarray) -> Detections:
    """The boxes of one image that stay: every class of a box is a candidate."""
    flat = scores.reshape(-1)
    order = np.argsort(-flat, kind="stable")[:CANDIDATES]
    boxes, classes, values = corners[order // scores.shape[1]], order % scores.shape[1], flat[order]
    kept: list[int] = []
    alive = np.ones(len(order), bool)
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == MOST_BOXES:
            break
        alive &= ~((overlaps(boxes[i : i + 1], boxes)[0] > SUPPRESSION) & (classes == classes[i]))
    return Detections(boxes[kept], classes[kept], values[kept])


def _average_precision(
    c: int, images: Sequence[Detections], expected: Sequence[tuple[np.ndarray, np.ndarray]]
) -> float:
    """Area under the precision that is possible at each of RECALLS. Each object is found once, by the best box left."""
    scores, right = [], []
    objects = sum(int((classes == c).sum()) for classes, _ in expected)
    for found, (classes, corners) in zip(images, expected, strict=True):
        mine = found.classes == c
        overlap = overlaps(found.corners[mine], corners[classes == c])
        for row, score in zip(overlap, found.scores[mine], strict=True):
            best = int(row.argmax()) if row.size else -1
            hit = best >= 0 and row[best] >= MATCH
            if hit:
                overlap[:, best] = -1  # taken
            scores.append(float(score))
            right.append(hit)
    if not scores:
        return 0.0
    hits = np.array(right)[np.argsort(-np.array(scores), kind="stable")]
    recall = np.cumsum(hits) / objects
    precision = np.maximum.accumulate((np.cumsum(hits) / np.arange(1, len(hits) + 1))[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    return float(np.mean(np.append(precision, 0.0)[np.minimum(places, len(precision))]))
