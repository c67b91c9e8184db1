"""Checks of the float model on data: whether it scores at chance, and what would make it score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.measures import Measure
from edgecompress.evaluate.metrics import Predicted, predicted_classes
from edgecompress.evaluate.verify import Reference, run_dataset
from edgecompress.graph.fusion import layers
from edgecompress.operators import record_of

TRIED = 256  # samples, on which another preprocessing is tried
PROBED = 16  # samples, from which the first layer's outputs are measured
DEVIATIONS = 3.0  # standard deviations from chance, within which a score is chance
POOR = 0.5  # share of what lies between chance and everything, below which hints are looked for
BETTER = 0.3  # share of the predictions that a hint has to set right
BETTER_SCALED = 0.1  # that another preprocessing has to: it may be a part of the right one only
MOST_CLASSES = 4096  # of which an order is looked for
LARGE, USUAL = 30.0, 6.0  # standard deviation of a first layer's outputs: far too large, and as in trained networks
CLASS_METRICS = ("top1", "top5", "f1", "miou")
SCALES = {  # --preprocess, and what it does to values of 0..255 or of 0..1
    "scale=0.003921569": (1 / 255, 0.0),
    "scale=0.007843137,mean=1": (2 / 255, 1.0),
    "scale=255": (255.0, 0.0),
}


@dataclass(frozen=True, eq=False)
class Scored:
    """The float model, and its predictions beside the labels of one output."""

    model: ir.Model
    reference: Reference
    measure: Measure
    predicted: Predicted

    @property
    def right(self) -> float:
        """Share of predictions that equal the labels."""
        return float(np.mean(self.predicted.classes == self.predicted.labels))


@dataclass(frozen=True)
class Hint:
    """What to change, and the share of predictions that is right then."""

    right: float
    text: str
    worth: float = BETTER


def check_labels(model: ir.Model, reference: Reference) -> tuple[str, ...]:
    """What is worth checking of the float model's score and inputs."""
    messages = [
        f"{reference.dataset.source}: output {m.output!r} is measured by {m.metric.name}, as {m.why}"
        for m in reference.measures
        if m.why
    ]
    messages += [message for m in reference.measures if (message := _check(model, reference, m)) is not None]
    if not messages and not reference.measures and (message := raw_values(model, reference.dataset)) is not None:
        messages.append(message)
    return tuple(messages)


def chance(predicted: Predicted) -> float:
    """The share of predictions that is right where they agree with the labels no more than their frequencies explain
    (Cohen 1960).
    """
    a, b = predicted.labels, predicted.classes
    classes, numbers = np.unique(np.concatenate([a, b]), return_inverse=True)
    if (a == a[0]).all():  # one label alone: its frequency says nothing of the model
        return 1 / max(predicted.count or len(classes), 2)
    shares = [np.bincount(part, minlength=len(classes)) / a.size for part in np.split(numbers, 2)]
    return float(shares[0] @ shares[1])


def shifted_labels(scored: Scored) -> Hint | None:
    """Labels that are all one too high or too low."""
    found = []
    for shift, advice in ((-1, "subtract 1 from"), (1, "add 1 to")):
        right = float(np.mean(scored.predicted.labels + shift == scored.predicted.classes))
        found.append(Hint(right, f"{advice} the labels: so shifted, {right:.1%} are right"))
    return max(found, key=lambda hint: hint.right)


def other_order(scored: Scored) -> Hint | None:
    """Classes that data and model number differently."""
    a, b = scored.predicted.labels, scored.predicted.classes
    count = int(max(a.max(), b.max())) + 1
    if count > MOST_CLASSES or len(np.unique(a)) < 3 or len(a) < 10 * count:
        return None
    table = np.bincount(a * count + b, minlength=count * count).reshape(count, count)
    best = table.argmax(axis=0)  # the label that each predicted class mostly has
    if len(np.unique(best[np.unique(b)])) < len(np.unique(b)):
        return None
    right = float(np.mean(best[b] == a))
    return Hint(right, f"check the order of the classes: with others in their places, {right:.1%} are right")


def other_preprocessing(scored: Scored) -> Hint | None:
    """Values that the model was trained on in another scale."""
    few = scored.reference.dataset.head(TRIED)
    session, found = OnnxRuntime(scored.model), []
    for option, (scale, mean) in SCALES.items():
        tried = _preprocessed(few, scale, mean)
        if tried is None:
            return None
        output = run_dataset(session, tried)[scored.measure.place]
        predicted = predicted_classes(output, scored.measure.labels[: len(few)], "top1")
        right = float(np.mean(predicted.classes == predicted.labels))
        text = f"with --preprocess {option}, {right:.1%} of the first {len(few)} samples are right"
        found.append(Hint(right, text, BETTER_SCALED))
    return max(found, key=lambda hint: hint.right)


HINTS: tuple[Callable[[Scored], Hint | None], ...] = (shifted_labels, other_order, other_preprocessing)


def raw_values(model: ir.Model, data: Dataset) -> str | None:
    """Values from 0 to 255 that make the outputs of the first layer far larger than in trained networks, where values
    from 0 to 1 would not.
    """
    first = _first_layer(model)
    if first is None:
        return None
    few = data.head(PROBED)
    values = np.concatenate([next(iter(batch.values())).ravel() for batch in few.batches(PROBED)])
    if not (values.min() >= 0 and 100 < values.max() <= 255 and (np.rint(values) == values).all()):
        return None
    sizes = []
    for scale in (1.0, 1 / 255):
        tried = _preprocessed(few, scale, 0.0)
        assert tried is not None  # _first_layer reads a float input
        outputs = run_dataset(OnnxRuntime(model, extra_outputs=[first]), tried)
        sizes.append(float(np.std(outputs[-1])))
    if sizes[0] < LARGE or sizes[1] > USUAL:
        return None
    return (
        f"{data.source}: values reach from 0 to {values.max():g}, and make the first layer's outputs {sizes[0]:.0f} in "
        f"size, which is {sizes[1]:.1f} for values from 0 to 1: if the model was trained on those, give --preprocess "
        "scale=0.003921569"
    )


def _check(model: ir.Model, reference: Reference, measure: Measure) -> str | None:
    source = reference.dataset.source
    score = measure(reference.outputs)
    if measure.metric.name == "r2" and score <= 0:
        return (
            f"{source}: the float model explains nothing of the labels of output {measure.output!r} (r2 is {score:.1f} "
            "%): check labels, their unit and the preprocessing"
        )
    if measure.metric.name not in CLASS_METRICS:
        return None
    predicted = predicted_classes(reference.outputs[measure.place], measure.labels, measure.metric.name)
    if not predicted.labels.size:
        return None
    scored, by_chance = Scored(model, reference, measure, predicted), chance(predicted)
    if scored.right == 1 or scored.right >= by_chance + POOR * (1 - by_chance):
        return None
    hints = [h for check in HINTS if (h := check(scored)) is not None and h.right >= scored.right + h.worth]
    noise = DEVIATIONS * math.sqrt(by_chance * (1 - by_chance) / predicted.labels.size)
    at_chance = scored.right <= by_chance + noise
    if not hints and not at_chance:
        return raw_values(model, reference.dataset)
    advice = max(hints, key=lambda hint: hint.right).text if hints else "check labels, preprocessing and class order"
    verdict = ", which is chance" if at_chance else " only"
    return f"{source}: the float model is right on {scored.right:.1%}{verdict}: {advice}"


def _preprocessed(data: Dataset, scale: float, mean: float) -> Dataset | None:
    """The data in another scale; None without a float input."""
    columns = {}
    for name, (source, adapter) in data.columns.items():
        if adapter.dtype.kind == "f":
            factor = np.float32(scale)
            columns[name] = source, replace(adapter, scale=adapter.scale * factor, mean=adapter.mean * factor + mean)
    return replace(data, columns={**data.columns, **columns}) if columns else None


def _first_layer(model: ir.Model) -> str | None:
    """The output of the layer with weights that alone reads the model's only input, a float one."""
    inputs = model.graph.inputs
    if len(inputs) != 1 or inputs[0].dtype != ir.DataType.FLOAT:
        return None
    readers = [layer for layer in layers(model.graph) if inputs[0] in layer.node.inputs]
    if len(readers) != 1 or not record_of(readers[0].node).macs(readers[0].node):
        return None
    output = readers[0].node.outputs[0]
    return None if output.is_graph_output() else str(output.name)
