"""`inspect`: what is in a model, and which targets it fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Group
from rich.text import Text

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.quantize import require_integer
from edgecompress.conversion.memory_fit import memory_need
from edgecompress.emit.tflite import emit
from edgecompress.errors import UnsupportedModelError
from edgecompress.ingest import GivenShapes, load
from edgecompress.operators.rewriting import integer_parts
from edgecompress.recipe import Quantize
from edgecompress.record.units import count, size
from edgecompress.report.tables import Shown, in_words, table
from edgecompress.targets import all_targets
from edgecompress_targets import OPERATOR_SETS, Profile


class Value(BaseModel):
    """An input or output of the model."""

    name: str
    shape: list[int]
    dtype: str


class LayerFacts(BaseModel):
    """One node of the normalised model, and what it costs."""

    name: str
    op: str
    input_shape: list[int]
    output_shape: list[int]
    parameters: int
    macs: int


class TargetFit(BaseModel):
    """Whether a target has room for the model and kernels for all of it."""

    name: str
    encoding: str = Field(description="encoding that the other fields assume: int8 where the target needs it")
    weight_bytes: int = Field(description="bytes that the weights take at least")
    activation_bytes: int = Field(description="bytes that the activations take at least")
    fits: bool
    reasons: list[str] = Field(description="why it does not fit; empty when it does")


class Inspection(Shown, BaseModel):
    """Figures of the normalised model. Shows itself as tables in terminals and notebooks."""

    model_config = ConfigDict(extra="forbid")

    path: str | None
    format: str
    opset: int
    inputs: list[Value]
    outputs: list[Value]
    operators: dict[str, int] = Field(description="number of nodes for each operator, most frequent first")
    parameters: int
    macs: int
    peak_activation_elements: int = Field(description="largest number of values that are alive at once")
    max_relative_error: float = Field(description="normalised model against the input, in ONNX Runtime")
    layers: list[LayerFacts]
    targets: list[TargetFit]
    notes: list[str]

    def to_json(self) -> str:
        """JSON text, as `edgecompress inspect --json` prints it."""
        return self.model_dump_json(indent=2) + "\n"

    def __rich__(self) -> Group:
        peak = self.peak_activation_elements
        head = Text.assemble(
            (self.path or f"{self.format} model", "bold"),
            f"  ({self.format}, opset {self.opset})\n"
            f"{count(self.parameters)} parameters, {count(self.macs)} MACs, peak activation memory "
            f"{size(peak)} as int8, {size(4 * peak)} as float32\n",
            "Operators: " + ", ".join(f"{name} x{n}" for name, n in self.operators.items()),
        )
        values = [("input", v) for v in self.inputs] + [("output", v) for v in self.outputs]
        layers = [(x.name, x.op, _shape(x.output_shape), count(x.parameters), count(x.macs)) for x in self.layers]
        fits = [(t.name, in_words(t.encoding), "yes" if t.fits else "no", "; ".join(t.reasons)) for t in self.targets]
        return Group(
            head,
            table(
                "\nInputs and outputs",
                ("", "Name", "Shape", "Type"),
                [(kind, v.name, _shape(v.shape), v.dtype) for kind, v in values],
            ),
            table("\nLayers", ("Name", "Operator", " Output", " Parameters", " MACs"), layers),
            table("\nTargets", ("Name", "As", "Fits", "Why not"), fits),
            Text("\n".join(f"- {note}" for note in self.notes)),
        )


def inspect(
    model: Any,
    *,
    weights: str | Path | None = None,
    trust_code: bool = False,
    input_shapes: GivenShapes | None = None,
    batch: int | None = None,
    constants: Mapping[str, object] | None = None,
) -> Inspection:
    """Read a model (anything `convert` takes) and say what it needs. Raises as `convert` does."""
    ingested = load(
        model, weights=weights, input_shapes=input_shapes, batch=batch, constants=constants, trust_code=trust_code
    )
    facts = statistics(ingested.model)
    peak = facts.peak_activation_elements
    return Inspection(
        path=str(ingested.path) if ingested.path else None,
        format=ingested.format,
        opset=ingested.opset,
        inputs=[_value(v) for v in ingested.model.graph.inputs],
        outputs=[_value(v) for v in ingested.model.graph.outputs],
        operators=dict(facts.operators.most_common()),
        parameters=facts.parameters,
        macs=facts.macs,
        peak_activation_elements=peak,
        max_relative_error=ingested.max_relative_error,
        layers=[
            LayerFacts(
                name=x.name,
                op=x.op_type,
                input_shape=list(x.input_shape),
                output_shape=list(x.output_shape),
                parameters=x.parameters,
                macs=x.macs,
            )
            for x in facts.layers
        ],
        targets=[_target_fit(ingested.model, peak, profile) for profile in all_targets()],
        notes=list(ingested.notes),
    )


def _target_fit(model: ir.Model, peak: int, profile: Profile) -> TargetFit:
    encoding = "int8" if profile.integer_only else "dynamic"
    need = memory_need(model, peak, profile, encoding)
    reasons = [*need.reasons, *_refusals(model, profile)]
    return TargetFit(
        name=profile.name,
        encoding=encoding,
        weight_bytes=need.weight_bytes,
        activation_bytes=need.activation_bytes,
        fits=not reasons,
        reasons=reasons,
    )


def _refusals(model: ir.Model, profile: Profile) -> Iterator[str]:
    """The reasons for which a conversion would refuse the model."""
    try:
        if profile.integer_only:
            require_integer(integer_parts(model.clone()), Quantize())
        if "tflite" in profile.formats:
            emit(model, operators=OPERATOR_SETS[profile.operators])
    except UnsupportedModelError as error:
        yield str(error)


def _value(value: ir.Value) -> Value:
    assert value.shape is not None and value.dtype is not None
    shape = [int(d) for d in value.shape.numpy()]
    return Value(name=str(value.name), shape=shape, dtype=value.dtype.numpy().name)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
