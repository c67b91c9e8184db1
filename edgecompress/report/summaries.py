"""From what a run made and measured to the report's parts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from edgecompress.analysis.statistics import ModelStatistics
from edgecompress.conversion.steps import Emitted
from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.verify import Check as Measured
from edgecompress.ingest import Ingested
from edgecompress.lowering.tensor_io import Form, TensorIO
from edgecompress.record.report import Artifact, Check, Data, ModelSummary, TargetSummary, Tensor
from edgecompress_targets import Profile

SAME_LAYOUT = "as in the model"
LAYOUTS: dict[Form, str] = {(0, 2, 3, 1): "NHWC", (0, 2, 1): "NWC"}


def model_summary(ingested: Ingested, facts: ModelStatistics) -> ModelSummary:
    path = ingested.path
    return ModelSummary(
        path=None if path is None else str(path),
        format=ingested.format,
        opset=ingested.opset,
        sha256=None if path is None or path.is_dir() else _sha256(path.read_bytes()),
        bytes=None if path is None or ingested.format == "python" else _size_with_external_data(path, ingested.format),
        parameters=facts.parameters,
        macs=facts.macs,
        peak_activation_elements=facts.peak_activation_elements,
        max_relative_error=ingested.max_relative_error,
    )


def target_summary(profile: Profile) -> TargetSummary:
    return TargetSummary(
        name=profile.name,
        description=profile.description,
        integer_only=profile.integer_only,
        flash_bytes=profile.flash_bytes,
        ram_bytes=profile.ram_bytes,
    )


def data_summary(dataset: Dataset | None) -> Data | None:
    return None if dataset is None else Data(source=dataset.source, samples=len(dataset))


def artifact(emitted: Emitted, name: str, encoding: str, model: ir.Model, checks: Sequence[Measured]) -> Artifact:
    """model: the normalised one, whose inputs and outputs an ONNX artifact keeps."""
    if emitted.io is not None:
        inputs = [_tensor(t) for t in emitted.io.inputs]
        outputs = [_tensor(t) for t in emitted.io.outputs]
    else:
        inputs = [_value(v) for v in model.graph.inputs]
        outputs = [_value(v) for v in model.graph.outputs]
    return Artifact(
        path=name,
        format=emitted.format,
        encoding=encoding,
        bytes=len(emitted.data),
        sha256=_sha256(emitted.data),
        inputs=inputs,
        outputs=outputs,
        checks=[_check(c) for c in checks],
    )


def _check(measured: Measured) -> Check:
    snr = measured.snr_db
    return Check(
        interpreter=measured.interpreter,
        version=measured.version,
        metric=measured.metric,
        value=measured.value,
        reference_value=measured.reference_value,
        agreement_percent=measured.agreement_percent,
        snr_db=None if snr is None or not math.isfinite(snr) else round(snr, 2),  # JSON has no infinity
        samples=measured.samples,
        error=measured.error,
    )


def _tensor(io: TensorIO) -> Tensor:
    int8 = io.dtype == ir.DataType.INT8
    same = io.form == tuple(range(len(io.form)))
    return Tensor(
        name=io.name,
        shape=list(io.shape),
        dtype=io.dtype.numpy().name,
        layout=SAME_LAYOUT if same else LAYOUTS.get(io.form, f"axes {io.form}"),
        scale=io.scale if int8 else None,
        zero_point=io.zero_point if int8 else None,
    )


def _value(value: ir.Value) -> Tensor:
    assert value.shape is not None and value.dtype is not None
    shape = [int(d) for d in value.shape.numpy()]
    return Tensor(name=str(value.name), shape=shape, dtype=value.dtype.numpy().name, layout=SAME_LAYOUT)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _size_with_external_data(path: Path, format: str) -> int:
    """Bytes of the model file and, for ONNX, of the files beside it that hold its weights."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    total = path.stat().st_size
    if format == "onnx":
        tensors = onnx.load_model(path, load_external_data=False).graph.initializer
        locations = {e.value for t in tensors for e in t.external_data if e.key == "location"}
        total += sum((path.parent / location).stat().st_size for location in locations)
    return total
