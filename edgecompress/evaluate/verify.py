"""Runs an artifact in every interpreter that is installed for it, and compares it with the float model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.interpreters import (
    Interpreter,
    InterpreterError,
    LiteRT,
    OnnxRuntime,
    PackRuntime,
    TFLiteIO,
    installed_tflite_interpreters,
)
from edgecompress.evaluate.measures import Measure, Metrics, described, measures, worst
from edgecompress.evaluate.metrics import AUTO, Paired, SameClasses, gain, is_classifier, paired, same_classes
from edgecompress.evaluate.micro import TFLM, ArenaUse, installed
from edgecompress.evaluate.quality import Quality, Slices, qualities, slices, worst_equal_percent, worst_snr_db
from edgecompress.evaluate.taken_exits import ExitUse, Taken, exit_use, taken
from edgecompress.graph.annotations import exits

BATCH = 64  # samples in memory at a time
REFERENCE_SAMPLES = 256  # for LiteRT's reference kernels and TFLM, 20 to 100 times slower than optimised kernels
REFERENCE_MACS = 4_000_000_000  # of a large model's on fewer samples: about a second

Progress = Callable[[int], None]
Candidates = Iterator[tuple[Callable[[], Interpreter], bool]]  # loads it; whether it is slow


@dataclass(frozen=True)
class Reference:
    """The float model's outputs on a data set, and their score when it has labels.

    slices: of each output. metric: the name of the score, or those of several outputs; without labels "agreement", for
    a comparison with the float outputs. score: of the first output that is measured. classes: the outputs that are
    class scores or classes, so that agreement means something. sure: those of them that can't be anything else, from
    Softmax or ArgMax. measures: of each output with labels. taken: what the float model gives that has the early exits
    of the artifacts; None where they have none. few: how many samples slow interpreters run.
    """

    dataset: Dataset
    outputs: list[np.ndarray]
    slices: tuple[Slices, ...]
    metric: str
    score: float | None
    classes: frozenset[str]
    sure: frozenset[str] = frozenset()
    measures: tuple[Measure, ...] = ()
    taken: Taken | None = None
    few: int = REFERENCE_SAMPLES

    @property
    def names(self) -> list[str]:
        """The names of the outputs, in order."""
        return [parts.parts[0].output for parts in self.slices]

    @property
    def classifier(self) -> bool:
        """Whether the first output is class scores or classes."""
        return self.names[0] in self.classes


@dataclass(frozen=True)
class Check:
    """One artifact in one interpreter.

    metric: name of `value` (top1 and agreement: percent) and of `reference_value`, the float model's on
    the same samples; both None when there is nothing to measure it by, or it failed.
    agreement_percent: predictions of the first output equal to the float model's; None unless it is class scores.
    qualities: of every slice of every output. samples: how many were run. error: what the interpreter said when it
    refused or failed. classes: how often outputs of classes say the same as the float model's. paired: right and wrong
    predictions beside the float model's, where the metric is top1. output: the one that the metric is of: where several
    have one, that which lost most. arena: bytes that TFLM used. exits: which early exits it takes; the qualities are
    those of samples then that leave where they do in the float model with the same exits. shape: the key of the shape
    that it was run in, of a model for several. beside: for a slow interpreter that ran fewer samples, the qualities of
    the first one's outputs on the same.
    """

    interpreter: str
    version: str
    metric: str
    value: float | None
    reference_value: float | None
    agreement_percent: float | None
    qualities: tuple[Quality, ...]
    samples: int
    error: str | None = None
    classes: Mapping[str, SameClasses] = field(default_factory=dict)
    paired: Paired | None = None
    output: str | None = None
    arena: ArenaUse | None = None
    exits: ExitUse | None = None
    shape: str | None = None
    beside: tuple[Quality, ...] = ()

    @property
    def snr_db(self) -> float | None:
        """Signal-to-noise ratio of the worst slice of the float outputs; None without any."""
        return worst_snr_db(self.qualities)

    @property
    def equal_percent(self) -> float | None:
        """Share of equal values in the worst of the integer outputs; None without any."""
        return worst_equal_percent(self.qualities)

    @property
    def drop(self) -> float | None:
        """Points that the artifact lost against the float model; negative when it gained."""
        if self.value is None or self.reference_value is None:
            return None
        return gain(self.metric, self.reference_value) - gain(self.metric, self.value)


def worst_value(checks: Sequence[Check]) -> float | None:
    """The value of the check that lost most; None when nothing was measured."""
    measured = [(check.drop, check.value) for check in checks if check.drop is not None]
    return max(measured, key=lambda pair: pair[0])[1] if measured else None


def run_dataset(interpreter: Interpreter, dataset: Dataset, progress: Progress | None = None) -> list[np.ndarray]:
    """All outputs on all samples, [n, ...] each. Inputs are streamed, outputs kept.

    progress: called with the number of samples done since the last call.
    """
    parts = []
    for batch in dataset.batches(BATCH):
        parts.append(dataset.streams.run(interpreter, batch) if dataset.streams else interpreter.run(batch))
        if progress is not None:
            progress(len(next(iter(batch.values()))))
    return [np.concatenate(output) for output in zip(*parts, strict=True)]


def reference(model: ir.Model, dataset: Dataset, metric: Metrics = AUTO, progress: Progress | None = None) -> Reference:
    """Runs the float model (canonical, in ONNX Runtime) once, for every artifact to be compared with.

    metric: of the first output, or of each output by its name. Raises InputError when it doesn't fit the labels.
    """
    outputs, values = run_dataset(OnnxRuntime(model), dataset, progress), list(model.graph.outputs)
    if dataset.streams is not None:
        values = dataset.streams.measured(values)
    parts = tuple(_slices(value, output) for value, output in zip(values, outputs, strict=True))
    sure = frozenset(str(value.name) for value in values if _chooses(value))
    classes = set(sure)
    first = str(values[0].name)
    try:
        measured = measures([str(value.name) for value in values], outputs, dataset, metric)
        for measure in measured:
            measure(outputs)
    except InputError as error:
        raise InputError(f"{dataset.source}: {error}") from error
    few = int(np.clip(REFERENCE_MACS // max(statistics(model).macs, 1), 1, REFERENCE_SAMPLES))
    inputs = {adapter.cut or adapter.shape for _, adapter in dataset.columns.values()}
    # An output of the input's shape is more likely to be the input again: an autoencoder.
    if is_classifier(outputs) and (measured or outputs[0].shape[1:] not in inputs):
        classes.add(first)
    if measured:
        score: float | None = measured[0](outputs)
        found = (described(measured), score, frozenset(classes), sure, measured)
        return Reference(dataset, outputs, parts, *found, few=few)
    score = 100.0 if first in classes else None
    return Reference(dataset, outputs, parts, "agreement", score, frozenset(classes), sure, few=few)


def _chooses(value: ir.Value) -> bool:
    """Whether it is probabilities, or the index of the highest score, whatever their type and shape became."""
    node = value.producer()
    while node is not None and node.op_type in ("Cast", "Reshape", "Transpose") and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None:
        return False
    indices = node.op_type in ("ArgMax", "ArgMin") and value.dtype != ir.DataType.FLOAT
    return indices or node.op_type in ("Softmax", "LogSoftmax")


def _slices(value: ir.Value, output: np.ndarray) -> Slices:
    """The slices of one output. One without a batch axis is stacked, so that its array has an axis more."""
    assert value.shape is not None
    return slices(str(value.name), output, stacked=output.ndim > len(value.shape))


def verify(
    artifact: bytes | Path,
    format: str,
    reference: Reference,
    io: TFLiteIO | None = None,
    progress: Progress | None = None,
    *,
    micro: bool = False,
) -> list[Check]:
    """One Check for each interpreter of the format ("onnx", "tflite" or "pack") that is installed.

    io: of the .tflite or .pack file. micro: whether it is for a microcontroller, so that TFLM is among them. All
    samples of the reference are run, but in LiteRT's reference kernels and TFLM only the first `reference.few`. An
    interpreter that refuses the artifact is a Check with `error`.
    """
    candidates = list(CANDIDATES[format](artifact, io))
    if micro and format == "tflite" and io is not None and installed():
        candidates.append((partial(TFLM, artifact, io), True))
    checks: list[Check] = []
    first: Sequence[np.ndarray] | None = None
    for load, is_slow in candidates:
        check, outputs = _check(load, reference, progress, is_slow=is_slow)
        if check.samples == len(reference.dataset):
            first = outputs if first is None else first
        elif check.samples and first is not None and reference.taken is None:
            check = replace(check, beside=_qualities(reference, first, check.samples))
        checks.append(check)
    return checks


def _qualities(reference: Reference, outputs: Sequence[np.ndarray], samples: int) -> tuple[Quality, ...]:
    """Of the outputs for the first samples."""
    part = samples / len(reference.dataset)
    expected, found = ([x[: round(len(x) * part)] for x in arrays] for arrays in (reference.outputs, outputs))
    return qualities(reference.slices, expected, found)


def refusal(format: str, checks: Sequence[Check]) -> str | None:
    """Why a file can't be used on its device: no interpreter runs it, or TFLM, which is the device's own, does not."""
    if all(check.error for check in checks):
        return f"no interpreter could run the .{format} file: {checks[0].error}"
    refused = [check for check in checks if check.error and check.interpreter == TFLM.name]
    return f"the device's interpreter refuses the .{format} file: {refused[0].error}" if refused else None


def verify_once(artifact: bytes | Path, format: str, reference: Reference, io: TFLiteIO | None = None) -> Check:
    """The Check in the first interpreter of the format that runs the artifact, or the last refusal."""
    for load, is_slow in CANDIDATES[format](artifact, io):
        check, _ = _check(load, reference, None, is_slow=is_slow)
        if check.error is None:
            break
    return check


def _onnx(artifact: bytes | Path, io: TFLiteIO | None) -> Candidates:
    yield partial(OnnxRuntime, artifact), False


def _tflite(artifact: bytes | Path, io: TFLiteIO | None) -> Candidates:
    assert io is not None, "a .tflite file is run by its TFLiteIO"
    for kind in installed_tflite_interpreters():
        yield partial(kind, artifact, io), False
        if kind is LiteRT:
            yield partial(LiteRT, artifact, io, reference=True), True


def _pack(artifact: bytes | Path, io: TFLiteIO | None) -> Candidates:
    assert io is not None, "a .pack file is run by its TFLiteIO"
    yield partial(PackRuntime, artifact, io), False


CANDIDATES: dict[str, Callable[[bytes | Path, TFLiteIO | None], Candidates]] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "pack": _pack,
}


def _check(
    load: Callable[[], Interpreter], reference: Reference, progress: Progress | None, *, is_slow: bool
) -> tuple[Check, Sequence[np.ndarray]]:
    """The Check, and the outputs that it is of."""
    dataset = reference.dataset.head(reference.few) if is_slow else reference.dataset
    try:
        interpreter = load()
        outputs = run_dataset(interpreter, dataset, progress)
    except InterpreterError as error:
        failed = (None, None, None, (), 0, error.reason)
        return Check(error.interpreter, error.version, reference.metric, *failed), ()
    return compare(interpreter, dataset, outputs, reference), outputs


def compare(interpreter: Interpreter, dataset: Dataset, outputs: Sequence[np.ndarray], reference: Reference) -> Check:
    """The Check of what an interpreter computed. dataset: all of the reference's samples, or the first."""
    part = len(dataset) / len(reference.dataset)
    expected = [output[: round(len(output) * part)] for output in reference.outputs]
    near, use = (expected, outputs), None
    if reference.taken is not None:
        outputs, chosen, its = outputs[:1], outputs[1].reshape(-1), reference.taken.head(len(dataset))
        same = chosen == its.exits
        near, use = ([its.output[same]], [outputs[0][same]]), exit_use(chosen, _right(reference, outputs[0]), its)
    triples = zip(reference.names, expected, outputs, strict=True)
    classes = {name: same_classes(a, b) for name, a, b in triples if name in reference.classes}
    agreed = classes[reference.names[0]].percent if reference.classifier else None
    value, reference_value = agreed, None if agreed is None else 100.0
    metric, output, pairs = reference.metric, None, None
    if reference.measures:
        score = worst(reference.measures, expected, outputs)
        value, reference_value, metric = score.value, score.reference_value, score.measure.metric.name
        output = score.measure.output if len(reference.measures) > 1 else None
        if metric == "top1":
            place = score.measure.place
            pairs = paired(expected[place], outputs[place], score.measure.labels[: len(dataset)])
    return Check(
        interpreter=interpreter.name,
        version=interpreter.version,
        metric=metric,
        value=value,
        reference_value=reference_value,
        agreement_percent=agreed,
        qualities=qualities(reference.slices, *near),
        samples=len(dataset),
        classes=classes,
        paired=pairs,
        output=output,
        arena=interpreter.arena if isinstance(interpreter, TFLM) else None,
        exits=use,
    )


def with_exits(reference: Reference, model: ir.Model) -> Reference:
    """The reference for artifacts that have the early exits of a float model; itself where that has none."""
    if not exits(model.graph):
        return reference
    return replace(reference, taken=taken(model, run_dataset(OnnxRuntime(model), reference.dataset)))


def _right(reference: Reference, output: np.ndarray) -> np.ndarray:
    """Whether the highest score of each of the first samples is where its label says, or as in the model that came
    in."""
    truth = reference.outputs[0].argmax(axis=1)
    if reference.measures and reference.metric == "top1" and reference.measures[0].labels.size == len(truth):
        truth = reference.measures[0].labels.reshape(-1)
    return output.argmax(axis=1) == truth[: len(output)]
