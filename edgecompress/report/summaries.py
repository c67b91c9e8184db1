"""Parts of the report, made from what a run wrote and measured."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import onnx
import onnx_ir as ir

from edgecompress.compress.early_exit.thresholds import Operation
from edgecompress.compress.quantize.search import Tried
from edgecompress.conversion.artifacts import Emitted
from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.file_count import FileCount
from edgecompress.evaluate.quality import Quality
from edgecompress.evaluate.taken_exits import costs
from edgecompress.evaluate.verify import Check as Measured
from edgecompress.graph.annotations import EXIT_STEPS, exit_output, exits
from edgecompress.lowering.tensor_io import QUANTIZED, Form, TensorIO, TFLiteModel
from edgecompress.record.report import (
    Artifact,
    Check,
    Cure,
    Data,
    EarlyExits,
    ExitThreshold,
    ExitUse,
    SliceQuality,
    TargetSummary,
    Tensor,
)
from edgecompress_targets import Profile

SAME_LAYOUT = "as in the model"
LAYOUTS: dict[Form, str] = {(0, 2, 3, 1): "NHWC", (0, 2, 1): "NWC"}


def target_summary(profile: Profile) -> TargetSummary:
    """The profile as the report has it."""
    return TargetSummary(
        name=profile.name,
        description=profile.description,
        integer_only=profile.integer_only,
        flash_bytes=profile.flash_bytes,
        ram_bytes=profile.ram_bytes,
    )


def data_summary(dataset: Dataset | None) -> Data | None:
    """Where a dataset comes from, and its samples; None for None."""
    return None if dataset is None else Data(source=dataset.source, samples=len(dataset))


@dataclass(frozen=True)
class Counted:
    """What an artifact's file is called, and what was counted in it."""

    name: str
    encoding: str
    count: FileCount


def artifact(
    emitted: Emitted, counted: Counted, model: ir.Model, checks: Sequence[Measured], fitted: Measured | None
) -> Artifact:
    """model: the annotated one, whose inputs and outputs an ONNX artifact keeps. fitted: on data that calibrated."""
    if emitted.io is not None:
        inputs = [_tensor(t) for t in emitted.io.inputs]
        outputs = [_tensor(t) for t in emitted.io.outputs]
    else:
        inputs = [_value(v) for v in model.graph.inputs]
        outputs = [_value(v) for v in model.graph.outputs]
        if emitted.tail is not None:
            outputs = [_of_tail(v) for v in emitted.tail.graph.output]
        elif exits(model.graph):
            which = Tensor(name=exit_output(model.graph), shape=[1], dtype="int32", layout=SAME_LAYOUT)
            outputs = [outputs[0], which]
    return Artifact(
        path=counted.name,
        format=emitted.format,
        encoding=counted.encoding,
        macs_by_type=counted.count.macs,
        weight_bytes_by_type=dict(counted.count.weight_bytes),
        bytes=len(emitted.file),
        sha256=hashlib.sha256(emitted.file).hexdigest(),
        inputs=inputs,
        outputs=outputs,
        shapes=list(emitted.shapes),
        checks=[check(c) for c in checks],
        calibration_check=None if fitted is None else check(fitted),
    )


def output_parts(io: TFLiteModel) -> list[str]:
    """Which outputs of the model come in parts, each with its own scale, and what makes the outputs of them."""
    if io.join is None:
        return []
    graph, parts = io.join.graph, {t.name for t in io.outputs}
    notes = []
    for end in (v for v in graph.outputs if v.name not in parts):
        steps, queue = [], [end]
        while queue:
            node = queue.pop().producer()
            if node is not None and node not in steps:
                steps.append(node)
                queue += [v for v in node.inputs if v is not None]
        read = [str(v.name) for node in reversed(steps) for v in node.inputs if v is not None and v.name in parts]
        how = ", ".join(_step(node) for node in graph if node in steps)
        listed = ", ".join(map(repr, dict.fromkeys(read)))
        notes.append(
            f"int8 outputs have one scale each, so output {end.name!r}, which holds unlike quantities, comes in parts: "
            f"{listed}; the model joins them with {how}"
        )
    return notes


def _step(node: ir.Node) -> str:
    axis = node.attributes.get_int("axis", None)
    return node.op_type if axis is None else f"{node.op_type} along axis {axis}"


def cure(tried: Tried) -> Cure:
    """What the search tried, as the report has it."""
    before, after = (None if not math.isfinite(x) else round(x, 2) for x in (tried.before, tried.after))
    return Cure(
        what=tried.what,
        snr_before=before,
        snr_after=after,
        kept=tried.kept,
        names=list(tried.names),
        macs=tried.macs,
        bytes=tried.bytes,
    )


def check(measured: Measured) -> Check:
    """How an artifact compares with the float model in one interpreter, as the report has it."""
    qualities = [_quality(q) for q in measured.qualities]
    return Check(
        interpreter=measured.interpreter,
        version=measured.version,
        metric=measured.metric,
        output=measured.output,
        value=measured.value,
        reference_value=measured.reference_value,
        agreement_percent=measured.agreement_percent,
        snr_db=_finite(measured.snr_db),
        exact=bool(qualities) and all(q.exact for q in qualities),
        equal_percent=measured.equal_percent,
        qualities=qualities,
        samples=measured.samples,
        arena_head_bytes=None if measured.arena is None else measured.arena.head,
        arena_persistent_bytes=None if measured.arena is None else measured.arena.persistent,
        exits=None if measured.exits is None else ExitUse(**asdict(measured.exits)),
        shape=measured.shape,
        error=measured.error,
    )


def early_exits(model: ir.Model, operations: Sequence[Operation]) -> EarlyExits | None:
    """The exits of a model, and what thresholds cost; None where it has none."""
    places = exits(model.graph)
    if not places:
        return None
    return EarlyExits(
        after=[e.after for e in places],
        chosen=[e.threshold / EXIT_STEPS for e in places],
        macs=list(costs(model.graph)),
        thresholds=[
            ExitThreshold(
                thresholds=None if o.thresholds is None else [t / EXIT_STEPS for t in o.thresholds],
                value=o.value,
                macs=o.macs,
                shares=[100 * share for share in o.shares],
            )
            for o in operations
        ],
    )


def _quality(measured: Quality) -> SliceQuality:
    snr, equal = measured.snr_db, measured.equal_percent
    exact = snr == math.inf or equal == 100.0
    return SliceQuality(slice=str(measured.slice), snr_db=_finite(snr), exact=exact, equal_percent=equal)


def _finite(decibels: float | None) -> float | None:
    """JSON has no infinity: other fields say whether all is equal or nothing left."""
    return None if decibels is None or not math.isfinite(decibels) else round(decibels, 2)


def _tensor(io: TensorIO) -> Tensor:
    stored = io.dtype in QUANTIZED
    same = io.form == tuple(range(len(io.form)))
    return Tensor(
        name=io.name,
        shape=list(io.shape),
        dtype=io.dtype.numpy().name,
        layout=SAME_LAYOUT if same else LAYOUTS.get(io.form, f"axes {io.form}"),
        scale=io.scale if stored else None,
        zero_point=io.zero_point if stored else None,
    )


def _of_tail(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return Tensor(name=value.name, shape=shape, dtype=dtype, layout=SAME_LAYOUT)


def _value(value: ir.Value) -> Tensor:
    assert value.shape is not None and value.dtype is not None
    shape = [int(d) for d in value.shape.numpy()]
    return Tensor(name=str(value.name), shape=shape, dtype=value.dtype.numpy().name, layout=SAME_LAYOUT)
