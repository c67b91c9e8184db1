"""Cross-layer equalization as a step of quantization, which is measured and kept only where it helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize.assign import quantize_static
from edgecompress.compress.quantize.calibrate import Calibration, Measuring
from edgecompress.compress.quantize.cross_layer import equalized, pairs
from edgecompress.compress.quantize.noise import WORTH_DB, measured_outputs, output_snr_db
from edgecompress.recipe import Quantize

if TYPE_CHECKING:
    from edgecompress.evaluate.dataset import Dataset


@dataclass(frozen=True)
class Equalization:
    """The signal-to-noise ratio (dB) of the quantized model's outputs without and with equalization.

    kept: whether it stayed. pairs: how many pairs of layers it applies to; both ratios are None when there is none. by:
    what was equalized with the weights of the second layer, the "weights" or the "activations" of the first.
    """

    kept: bool
    snr_before: float | None
    snr_after: float | None
    pairs: int
    by: str | None

    def __str__(self) -> str:
        if not self.pairs:
            return "no pair of layers to equalize"
        ratios = f"{self.snr_before:.1f} dB before, {self.snr_after:.1f} dB after"
        measured = f"{self.pairs} pairs by {self.by}, {ratios}"
        return f"{measured}: {'kept' if self.kept else 'not kept'}"


@dataclass(frozen=True)
class Equalized:
    """The model to go on with: the equalized one, or the given one when that is better."""

    model: ir.Model
    report: Equalization


def equalize(model: ir.Model, dataset: Dataset, settings: Quantize, measuring: Measuring | None = None) -> Equalized:
    """Equalizes channels if that brings the model, quantized with a part of the data, nearer to the float model.

    Both ways of `cross_layer.equalized` are tried, since neither is better for all models. measuring: the model's
    calibration on the data, which has not begun. Raises InputError for unusable data.
    """
    found = pairs(model)
    if not found:
        return Equalized(model, Equalization(False, None, None, 0, None))
    measuring = measuring or Measuring(model, dataset, settings)
    calibration, values = measuring.first([str(pair.between.name) for pair in found])
    ranges = {n: np.abs(a).max(axis=tuple(i for i in range(a.ndim) if i != 1)) for n, a in values.items()}
    del values
    before, best = _quantized_snr_db(model, calibration, settings), None
    for by, of_activations in (("weights", None), ("activations", ranges)):
        candidate = equalized(model, of_activations)  # one at a time: each has weights of its own
        own = Measuring(candidate, calibration.dataset, settings).first()[0]
        after = _quantized_snr_db(candidate, own, settings)
        if best is None or after > best[0]:
            best = after, by, candidate
    assert best is not None
    after, by, candidate = best
    kept = after > before + WORTH_DB
    return Equalized(candidate if kept else model, Equalization(kept, before, after, len(found), by))


def _quantized_snr_db(model: ir.Model, calibration: Calibration, settings: Quantize) -> float:
    """On all samples of the calibration, which are one batch."""
    annotated, dataset = quantize_static(model, calibration, settings), calibration.dataset
    outputs = calibration.known(model, measured_outputs(model), range(len(dataset)))
    return output_snr_db(model, annotated, next(dataset.batches(len(dataset))), outputs)
