"""The steps of post-training quantization in one call: equalise, calibrate, annotate, correct biases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.compress.quantize.assign import quantize_static
from edgecompress.compress.quantize.bias_correction import BiasCorrection, correct_bias
from edgecompress.compress.quantize.calibrate import Calibration, calibrate
from edgecompress.compress.quantize.equalize import Equalization, equalize
from edgecompress.compress.quantize.precision import require_integer
from edgecompress.graph.annotations import codebook, comes_quantized
from edgecompress.recipe import Quantize

if TYPE_CHECKING:
    from edgecompress.evaluate.dataset import Dataset


@dataclass(frozen=True)
class Quantized:
    """An annotated model and how it came about.

    reference: the float model with the same values and weights, equalised if that helped; `diagnose` compares
    with it. equalization, bias_correction: None when the settings don't ask for them.
    """

    model: ir.Model = field(repr=False)
    reference: ir.Model = field(repr=False)
    calibration: Calibration = field(repr=False)
    equalization: Equalization | None
    bias_correction: BiasCorrection | None


def quantize(model: ir.Model, dataset: Dataset, settings: Quantize, *, integer_only: bool = False) -> Quantized:
    """Quantize weights and activations with calibration data; the model passed in is not changed.

    A model that came quantized is neither equalised nor are its biases corrected.
    Raises UnsupportedModelError, before any data is read, when integer_only and a node has no int8 kernel;
    InputError for unusable data.
    """
    if integer_only:
        require_integer(model, settings)
    reference, equalization, correction = model, None, None
    if comes_quantized(model.graph):
        settings = settings.model_copy(update={"equalize": False, "bias_correction": False})
    clustered = any(codebook(value) is not None for value in model.graph.initializers.values())
    if settings.equalize and not clustered:  # which would give each input channel of a cluster a value of its own
        equalized = equalize(model, dataset, settings)
        reference, equalization = equalized.model, equalized.report
    calibration = calibrate(reference, dataset, settings)
    annotated = quantize_static(reference, calibration, settings, integer_only=integer_only)
    if settings.bias_correction:
        annotated, correction = correct_bias(reference, annotated, calibration)
    return Quantized(annotated, reference, calibration, equalization, correction)
