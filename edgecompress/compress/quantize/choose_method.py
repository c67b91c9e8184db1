"""Chooses by measurement how the ranges of activations are found."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from edgecompress.compress.quantize.assign import quantize_static
from edgecompress.compress.quantize.calibrate import Calibration
from edgecompress.compress.quantize.ranges import METHODS
from edgecompress.compress.quantize.tuning import Step, Tuner, judge_of
from edgecompress.graph.annotations import quantization
from edgecompress.recipe import Quantize


def with_best_method(
    reference: ir.Model, calibration: Calibration, settings: Quantize, *, integer_only: bool
) -> tuple[Calibration, ir.Model]:
    """The calibration with the method whose scales bring the outputs nearest to the float model's, and the model that
    it annotates.

    Each is measured on a part of the calibration data; of equals, the first in the list of methods stays.
    """
    candidates = {name: replace(calibration, method=name) for name in METHODS}
    annotated = {
        name: quantize_static(reference, c, settings, integer_only=integer_only) for name, c in candidates.items()
    }
    steps = {name: steps_of(model) for name, model in annotated.items()}
    best = next(iter(candidates))
    if any(found != steps[best] for found in steps.values()):
        tuner = Tuner(judge_of(reference, calibration), annotated[best])
        measured = {name: tuner.measure(found) for name, found in steps.items()}
        best = max(measured, key=lambda name: measured[name].mean)
    return candidates[best], annotated[best]


def steps_of(annotated: ir.Model) -> dict[str, Step]:
    """The steps of all activations, by name."""
    values = [*annotated.graph.inputs, *(v for node in annotated.graph for v in node.outputs)]
    return {str(v.name): Step.of(q) for v in values if (q := quantization(v)) is not None}
