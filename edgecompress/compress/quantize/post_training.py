"""All steps of post-training quantization in one call: equalize, calibrate, annotate, correct biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.compress.quantize.assign import quantize_static
from edgecompress.compress.quantize.attention_masks import bounded
from edgecompress.compress.quantize.bias_correction import BiasCorrection, correct_bias
from edgecompress.compress.quantize.calibrate import Calibration, calibrate
from edgecompress.compress.quantize.choose_method import with_best_method
from edgecompress.compress.quantize.equalize import Equalization, equalize
from edgecompress.compress.quantize.gptq import Rounded, with_rounded
from edgecompress.compress.quantize.precision import require_integer
from edgecompress.graph.annotations import codebook, comes_quantized
from edgecompress.recipe import Quantize

if TYPE_CHECKING:
    from edgecompress.evaluate.dataset import Dataset


@dataclass(frozen=True)
class Quantized:
    """An annotated model and a record of how it was made.

    reference: the float model with the same values and weights, equalized if that helped, for `diagnose` to compare
    with. equalization, bias_correction: None when the settings don't ask for them. rounded: weights that were not just
    rounded to the nearest, by name.
    """

    model: ir.Model = field(repr=False)
    reference: ir.Model = field(repr=False)
    calibration: Calibration = field(repr=False)
    equalization: Equalization | None
    bias_correction: BiasCorrection | None
    rounded: Mapping[str, Rounded] = field(default_factory=dict, repr=False)


def quantize(model: ir.Model, dataset: Dataset, settings: Quantize, *, integer_only: bool = False) -> Quantized:
    """Quantizes weights and activations with calibration data; the model passed in is not changed.

    The channels and biases of a model that came quantized are left as they are. Raises UnsupportedModelError, before
    any data is read, when integer_only is set and a node has no int8 kernel, and InputError for unusable data.
    """
    if integer_only:
        require_integer(model, settings)
    model = bounded(model)
    reference, equalization, correction = model, None, None
    if comes_quantized(model.graph):
        settings = settings.model_copy(update={"equalize": False, "bias_correction": False})
    clustered = any(codebook(value) is not None for value in model.graph.initializers.values())
    if settings.equalize and not clustered:  # which would give each input channel of a cluster a value of its own
        equalized = equalize(model, dataset, settings)
        reference, equalization = equalized.model, equalized.report
    calibration = calibrate(reference, dataset, settings)
    if settings.calibration == "auto":
        calibration = with_best_method(reference, calibration, settings, integer_only=integer_only)
    annotated = quantize_static(reference, calibration, settings, integer_only=integer_only)
    if settings.bias_correction:
        annotated, correction = correct_bias(reference, annotated, calibration)
    return Quantized(annotated, reference, calibration, equalization, correction)


def quantize_again(before: Quantized, settings: Quantize, *, integer_only: bool = False) -> Quantized:
    """The same float model and calibration with other settings; weights keep how they were rounded."""
    model, correction = quantize_static(before.reference, before.calibration, settings, integer_only=integer_only), None
    model = with_rounded(model, before.rounded)
    if settings.bias_correction and not comes_quantized(model.graph):
        model, correction = correct_bias(before.reference, model, before.calibration)
    return replace(before, model=model, bias_correction=correction)
