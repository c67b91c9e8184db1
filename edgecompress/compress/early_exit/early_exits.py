"""A network that gets early exits: what they need, and the thresholds from which on they are taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgecompress.compress.early_exit.exit_places import exit_values
from edgecompress.compress.early_exit.heads import with_exits
from edgecompress.compress.early_exit.thresholds import Answers, Operation, cheapest_thresholds, table
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.taken_exits import confidences, costs
from edgecompress.evaluate.verify import run_dataset
from edgecompress.graph.annotations import EXIT_STEPS, exits, set_exits
from edgecompress.graph.channel_axes import shape
from edgecompress.recipe import EarlyExit
from edgecompress.train.output_kinds import OutputKind


@dataclass(frozen=True)
class Calibrated:
    """model: its exits have their thresholds. chosen: what it says of validation data with these. operations: with
    others, and last without exits."""

    model: ir.Model
    chosen: Operation
    operations: tuple[Operation, ...]

    @property
    def lost(self) -> float:
        """Percent of the validation samples that the whole network is right about and exits are not, less others."""
        return self.operations[-1].value - self.chosen.value


def require_classifier(model: ir.Model, kinds: Sequence[OutputKind | None]) -> OutputKind:
    """What the one output of a canonical model is that can have exits. Raises InputError for any other model."""
    kind, outputs = kinds[0], model.graph.outputs
    scores = kind is not None and kind.form in ("logits", "shares") and outputs[0].dtype == ir.DataType.FLOAT
    size = list(shape(outputs[0]))
    if kind is None or len(outputs) > 1 or not scores or len(size) != 2 or size[0] != 1 or size[1] < 2:
        listed = ", ".join(f"{v.name!r} {list(shape(v))}" for v in outputs)
        raise InputError(
            "[exit] needs a model with one output that holds scores or probabilities of classes, [1, classes] for one "
            f'sample: this one has {listed}; if these are scores, give labels or [train] loss = "cross-entropy"'
        )
    return kind


def places(graph: ir.Graph, settings: EarlyExit) -> list[ir.Value]:
    """The values that exits stand behind. Raises InputError where there can be none, and for thresholds of more or
    fewer exits."""
    assert settings.after is not None
    found = exit_values(graph, settings.after)
    if settings.threshold is not None and len(settings.threshold) not in (1, len(found)):
        raise InputError(
            f"[exit] threshold has {len(settings.threshold)} numbers for {len(found)} exits: give one, or one for each"
        )
    return found


def add_exits(model: ir.Model, settings: EarlyExit, kind: OutputKind) -> ir.Model:
    """The model with untrained exits where the settings say. Raises InputError where there can be none."""
    activation = "Softmax" if kind.form == "shares" else kind.activation
    return with_exits(model, places(model.graph, settings), activation)


def calibrated(model: ir.Model, data: Dataset, settings: EarlyExit) -> Calibrated:
    """The model with the thresholds that the settings name, or those that lose no more than they allow at least cost.

    data: with labels, or without any; samples that were not trained on say more.
    """
    outputs = run_dataset(OnnxRuntime(model), data)
    by_name = dict(zip((str(v.name) for v in model.graph.outputs), outputs, strict=True))
    own = exits(model.graph)
    said = np.stack([by_name[name].argmax(axis=1) for name in (*(e.value for e in own), _first(model))], axis=1)
    truth = _classes(data.labels, outputs[0])
    right = said == (said[:, -1:] if truth is None else truth[:, None])
    answers = Answers(confidences(model, outputs), right, costs(model.graph))
    if settings.threshold is None:
        thresholds = cheapest_thresholds(answers, settings.max_drop)
    else:
        thresholds = _chosen(settings.threshold, len(own))
    result = model.clone()
    set_exits(result.graph, tuple(replace(e, threshold=t) for e, t in zip(own, thresholds, strict=True)))
    return Calibrated(result, answers.at(thresholds), tuple(table(answers, thresholds)))


def _chosen(threshold: Sequence[float], count: int) -> tuple[int, ...]:
    """What [exit] threshold says for each of so many exits, in 256ths."""
    steps = [math.ceil(t * EXIT_STEPS - 1e-9) for t in threshold]
    return tuple(steps if len(steps) == count else steps * count)


def _first(model: ir.Model) -> str:
    return str(model.graph.outputs[0].name)


def _classes(labels: np.ndarray | None, output: np.ndarray) -> np.ndarray | None:
    """The class of each sample, where labels are such."""
    if labels is None:
        return None
    if labels.shape == output.shape:
        return labels.argmax(axis=1)
    return labels.reshape(-1) if labels.dtype.kind in "iu" and labels.size == len(output) else None
