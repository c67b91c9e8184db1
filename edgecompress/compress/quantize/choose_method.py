"""Chooses by measurement how the ranges of activations are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgecompress.compress.quantize.assign import quantize_static
from edgecompress.compress.quantize.calibrate import Calibration
from edgecompress.compress.quantize.ranges import METHODS
from edgecompress.compress.quantize.tuning import Judge, Measured, Step, Tuner, biases_of, judge_of
from edgecompress.graph.annotations import quantization
from edgecompress.recipe import Quantize

MANY, FIRST = 4, 2  # batches of a large model: so many are, and those that every method is measured on
FAR = 1.0  # dB behind the best on the first batches: such a method is not measured on the others


@dataclass(frozen=True)
class BestMethod:
    """A calibration with the method whose scales bring the outputs nearest to the float model's.

    model: what it annotates. measured: that model's quality; None where all methods give the same scales.
    """

    calibration: Calibration
    model: ir.Model
    measured: Measured | None


def with_best_method(
    reference: ir.Model, calibration: Calibration, settings: Quantize, *, integer_only: bool
) -> BestMethod:
    """Each method is measured on a part of the calibration data, with the same biases; of equals, the first in the list
    stays."""
    candidates = {name: replace(calibration, method=name) for name in METHODS}
    annotated = {
        name: quantize_static(reference, c, settings, integer_only=integer_only) for name, c in candidates.items()
    }
    steps = {name: steps_of(model) for name, model in annotated.items()}
    first = next(iter(candidates))
    if all(found == steps[first] for found in steps.values()):
        return BestMethod(candidates[first], annotated[first], None)
    judge = judge_of(reference, calibration)
    tuner = Tuner(judge, annotated[first])
    left = _promising(tuner, judge, steps)
    measured = {name: tuner.measure(steps[name]) for name in left} if len(left) > 1 or left[0] == first else {}
    best = max(measured, key=lambda name: measured[name].mean) if measured else left[0]
    exactly = measured[best] if best == first else tuner.measure(steps[best], others=biases_of(annotated[best]))
    return BestMethod(candidates[best], annotated[best], exactly)


def _promising(tuner: Tuner, judge: Judge, steps: Mapping[str, Mapping[str, Step]]) -> list[str]:
    """The methods that are not far behind on the first samples, where these are many batches of a large model."""
    if len(judge.batches) < MANY:
        return list(steps)
    part = judge.part(FIRST)
    found = {name: tuner.measure(of_method, judge=part).mean for name, of_method in steps.items()}
    return [name for name, mean in found.items() if mean >= max(found.values()) - FAR]


def steps_of(annotated: ir.Model) -> dict[str, Step]:
    """The steps of all activations, by name."""
    values = [*annotated.graph.inputs, *(v for node in annotated.graph for v in node.outputs)]
    return {str(v.name): Step.of(q) for v in values if (q := quantization(v)) is not None}
