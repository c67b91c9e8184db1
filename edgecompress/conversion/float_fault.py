"""Finds where a float artifact computes something else than the model: a fault of the conversion itself.

A float32 artifact follows the model that it was made of to FLOAT_SNR in every slice of every output, and a float16 one
the same model with weights rounded to float16. What misses that is bisected to the first node that differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgecompress.conversion.artifacts import EMITTERS, Emitted
from edgecompress.conversion.conversion import Conversion
from edgecompress.errors import UnsupportedModelError
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.quality import qualities, worst_snr_db
from edgecompress.evaluate.verify import Check, Reference, reference, run_dataset, verify
from edgecompress.graph.annotations import quantization
from edgecompress.graph.provenance import label
from edgecompress.ingest.equality import with_roundings
from edgecompress.ingest.several_shapes import in_other_shapes, in_own_shape
from edgecompress.recipe.effective import encoding

FLOAT_SNR = 60.0  # dB
ROUNDING_MARGIN = 12.0  # dB: four times what single roundings inside the model change
SAMPLES = 16


@dataclass(frozen=True)
class Fault:
    """A value that differs: its signal-to-noise ratio in an interpreter."""

    value: ir.Value
    snr_db: float
    interpreter: str


def require_faithful(
    conversion: Conversion, model: ir.Model, artifacts: Sequence[Emitted], checks: Sequence[Sequence[Check]]
) -> None:
    """Raises UnsupportedModelError, which names the first node that differs, when a float artifact is at fault.

    model: the annotated model that the artifacts were made of. checks: of each artifact, against the model as it came
    in, which training may have changed; so those below FLOAT_SNR are run again.
    """
    if encoding(conversion.recipe) not in ("float32", "float16"):
        return
    for artifact, its in zip(artifacts, checks, strict=True):
        for shape in dict.fromkeys(c.shape for c in its if c.error is None and _is_below(c.snr_db, FLOAT_SNR)):
            _require_artifact(*_in_shape(conversion, model, shape), artifact, shape)


def _in_shape(conversion: Conversion, model: ir.Model, shape: str | None) -> tuple[Conversion, ir.Model]:
    """The model alone in one of its shapes, with data for it."""
    for sizes, other in in_other_shapes(model):
        if sizes.key == shape:
            return replace(conversion, data=conversion.data.cut_to(sizes.inputs)), in_own_shape(other)
    return conversion, in_own_shape(model)


def _require_artifact(conversion: Conversion, model: ir.Model, artifact: Emitted, shape: str | None) -> None:
    exact = _as_stored(model)
    samples = conversion.data.check.head(SAMPLES).without_labels()
    expected = reference(exact, samples)
    io = artifact.io if shape is None else artifact.io_of(shape)
    checks = [c for c in verify(artifact.data, artifact.format, expected, io) if c.error is None]
    worst = min(checks, key=lambda c: np.inf if c.snr_db is None else c.snr_db, default=None)
    if worst is None or not _is_below(worst.snr_db, FLOAT_SNR) or not _is_below(worst.snr_db, _limit(exact, expected)):
        return
    quality = min((q for q in worst.qualities if q.snr_db is not None), key=lambda q: q.snr_db or 0.0)
    fault = _first_fault(conversion, model, artifact.format)
    where = "" if fault is None else f"; the first node that differs is {_node(fault)} ({_decibels(fault.snr_db)})"
    others = [name for name in conversion.recipe.emit.formats or [] if name != artifact.format]
    for_shape = f" for {shape}" if shape else ""
    remedy = f", or convert with --format {others[0]} alone" if others else ""
    raise UnsupportedModelError(
        f"the .{artifact.format} file computes something else than the model{for_shape}: {quality.slice} has "
        f"{_decibels(quality.snr_db)} in {worst.interpreter} {worst.version}, and a float file has at least "
        f"{FLOAT_SNR:g} dB{where}. This is a fault of edgecompress: please report the model{remedy}"
    )


def _limit(model: ir.Model, expected: Reference) -> float:
    """The ratio that single float32 roundings inside the model leave, less a margin; never more than FLOAT_SNR."""
    rng = np.random.default_rng(0)
    rounded = OnnxRuntime(with_roundings(ir.to_proto(model), rng).SerializeToString(), optimize=False)
    found = run_dataset(rounded, expected.dataset)
    snr = worst_snr_db(qualities(expected.slices, expected.outputs, found))
    return FLOAT_SNR if snr is None else min(FLOAT_SNR, snr - ROUNDING_MARGIN)


def _first_fault(conversion: Conversion, model: ir.Model, format: str) -> Fault | None:
    """The first float value in the order of the nodes that differs, when every value is an output of the artifact."""
    open_model = _with_all_values(model)
    try:
        artifact = EMITTERS[format](open_model, conversion.recipe, conversion.profile)
    except UnsupportedModelError:
        return None
    expected = reference(_as_stored(open_model), conversion.data.check.head(SAMPLES).without_labels())
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    order = {name: place for place, name in enumerate(values)}
    faults = [
        Fault(values[q.slice.output], q.snr_db, check.interpreter)
        for check in verify(artifact.data, format, expected, artifact.io)
        for q in check.qualities
        if q.snr_db is not None and q.snr_db < FLOAT_SNR and q.slice.output in values
    ]
    return min(faults, key=lambda f: (order[str(f.value.name)], f.snr_db), default=None)


def _with_all_values(model: ir.Model) -> ir.Model:
    clone = model.clone()
    for node in clone.graph:
        for value in node.outputs:
            if value.name and value.dtype == ir.DataType.FLOAT and not value.is_graph_output():
                clone.graph.outputs.append(value)
    return clone


def _as_stored(model: ir.Model) -> ir.Model:
    """The model with weights rounded as the artifact holds them."""
    clone = model.clone()
    for value in clone.graph.initializers.values():
        q = quantization(value)
        if q is not None and q.dtype == ir.DataType.FLOAT16 and value.const_value is not None:
            rounded = value.const_value.numpy().astype(np.float16).astype(np.float32)
            value.const_value = ir.tensor(rounded, name=value.name)
    return clone


def _node(fault: Fault) -> str:
    node = fault.value.producer()
    return repr(fault.value.name) if node is None else label(node)


def _is_below(snr: float | None, limit: float) -> bool:
    return snr is not None and snr < limit


def _decibels(snr: float | None) -> str:
    return f"{snr:.1f} dB" if snr is not None and np.isfinite(snr) else "nothing of the signal left"
