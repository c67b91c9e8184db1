"""All steps of post-training quantization in one call: equalize, calibrate, annotate, correct biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.compress.quantize.assign import quantize_static
from edgecompress.compress.quantize.attention_masks import bounded
from edgecompress.compress.quantize.bias_correction import BiasCorrection, correct_bias
from edgecompress.compress.quantize.calibrate import Calibration, Measuring
from edgecompress.compress.quantize.choose_method import BestMethod, with_best_method
from edgecompress.compress.quantize.equalize import Equalization, equalize
from edgecompress.compress.quantize.given_scales import knows_scales, values_with_scales
from edgecompress.compress.quantize.gptq import Rounded, with_rounded
from edgecompress.compress.quantize.precision import require_integer
from edgecompress.compress.quantize.rescale import rescaled
from edgecompress.compress.quantize.tuning import Judge, Measured, judge_of, judging_samples
from edgecompress.graph.annotations import codebook, comes_quantized, forget_given
from edgecompress.recipe import Quantize

if TYPE_CHECKING:
    from edgecompress.evaluate.dataset import Dataset


WORTH_FLOAT = 0.3  # dB above which layers that the model came with in float stay so
WORTH_FEW = 0.3  # dB above which calibrated scales replace those that a model came with for few of its weights


@dataclass(frozen=True)
class Quantized:
    """An annotated model and a record of how it was made.

    reference: the float model with the same values and weights, equalized if that helped, for `diagnose` to compare
    with. equalization, bias_correction: None when the settings don't ask for them. rounded: weights that were not just
    rounded to the nearest, by name. as_it_came: whether only layers are int8 whose scales the model came with.
    replaces_given: whether calibrated scales took the place of those that it came with. best: the method for ranges
    that was chosen by measurement, with the model that it gave.
    """

    model: ir.Model = field(repr=False)
    reference: ir.Model = field(repr=False)
    calibration: Calibration = field(repr=False)
    equalization: Equalization | None
    bias_correction: BiasCorrection | None
    rounded: Mapping[str, Rounded] = field(default_factory=dict, repr=False)
    as_it_came: bool = False
    replaces_given: bool = False
    best: BestMethod | None = field(default=None, repr=False)

    @property
    def measured(self) -> Measured | None:
        """The quality of its outputs on the samples of `tuning.judge_of`, where it is known."""
        return self.best.measured if self.best is not None and self.best.model is self.model else None


def quantize(
    model: ir.Model, dataset: Dataset, settings: Quantize, *, integer_only: bool = False, typical: bool = True
) -> Quantized:
    """Quantizes weights and activations with calibration data; the model passed in is not changed.

    The channels and biases of a model that came quantized are left as they are. If it came with most scales, so are its
    layers without, unless integer_only, where int8 would make the outputs worse. If it came with few, it is quantized
    as a float model where that makes them better. typical: whether ranges can be learned from the data; otherwise only
    layers with scales are int8. Raises UnsupportedModelError, before any data is read, when integer_only is set and a
    node has no int8 kernel, and InputError for unusable data.
    """
    if integer_only:
        require_integer(model, settings)
    model = bounded(model)
    kept = _quantized(model, dataset, settings, integer_only=integer_only, typical=typical)
    has_few = comes_quantized(model.graph) and not knows_scales(model, every=False) and not knows_scales(model)
    if not has_few or not typical:
        return kept
    plain = model.clone()
    forget_given(plain.graph)
    made = _quantized(plain, dataset, settings, integer_only=integer_only, typical=True)
    judge = Judge(model, judging_samples(dataset, model))
    better = judge.of(made.model).mean > judge.of(kept.model).mean + WORTH_FEW
    return replace(made, replaces_given=True) if better else kept


def _quantized(
    model: ir.Model, dataset: Dataset, settings: Quantize, *, integer_only: bool, typical: bool
) -> Quantized:
    """With the scales that the model came with, if it did."""
    reference, equalization, correction = model, None, None
    if comes_quantized(model.graph):
        settings = settings.model_copy(update={"equalize": False, "bias_correction": False})
    clustered = any(codebook(value) is not None for value in model.graph.initializers.values())
    measuring = Measuring(model, dataset, settings)
    if settings.equalize and not clustered:  # which would give each input channel of a cluster a value of its own
        equalized = equalize(model, dataset, settings, measuring)
        reference, equalization = equalized.model, equalized.report
        if reference is not model:
            measuring = Measuring(reference, dataset, settings)
    if not integer_only and typical and not clustered and not comes_quantized(reference.graph):
        other = rescaled(reference, dataset, set(settings.float_layers))
        if other is not reference:
            reference, measuring = other, Measuring(other, dataset, settings)
    calibration = measuring.all()
    del measuring  # its session
    partly = None
    if not integer_only and knows_scales(reference, every=False):
        partly = _as_it_came(reference, calibration, settings)
    if partly is not None and not typical:
        return partly
    best = None
    if settings.calibration == "auto" and typical:
        best = with_best_method(reference, calibration, settings, integer_only=integer_only)
        calibration, annotated = best.calibration, best.model
    else:
        annotated = quantize_static(reference, calibration, settings, integer_only=integer_only)
    if settings.bias_correction:
        annotated, correction = correct_bias(reference, annotated, calibration)
    if partly is not None:
        judge = judge_of(reference, calibration)
        if judge.of(partly.model).mean > judge.of(annotated).mean + WORTH_FLOAT:
            return partly
    return Quantized(annotated, reference, calibration, equalization, correction, best=best)


def quantize_again(before: Quantized, settings: Quantize, *, integer_only: bool = False) -> Quantized:
    """The same float model and calibration with other settings; weights keep how they were rounded."""
    model, correction = quantize_static(before.reference, before.calibration, settings, integer_only=integer_only), None
    model = with_rounded(model, before.rounded)
    if settings.bias_correction and not comes_quantized(model.graph):
        model, correction = correct_bias(before.reference, model, before.calibration)
    return replace(before, model=model, bias_correction=correction)


def _as_it_came(reference: ir.Model, calibration: Calibration, settings: Quantize) -> Quantized | None:
    """The model with those layers as int8 whose scales it came with; None if these are all."""
    scales = values_with_scales(reference.graph)
    histograms = {name: h for name, h in calibration.histograms.items() if name in scales}
    if len(histograms) == len(calibration.histograms):
        return None
    own = replace(calibration, histograms=histograms)
    return Quantized(quantize_static(reference, own, settings), reference, own, None, None, as_it_came=True)
