"""Post-training quantisation of weights and activations."""
from __future__ import annotations

import onnx_ir as ir

from edgecompress.compress.quantize.assign import annotate
from edgecompress.compress.quantize.calibrate import Calibration
from edgecompress.recipe import Quantize


def quantize_static(
    model: ir.Model, calibration: Calibration, settings: Quantize, *, integer_only: bool = False
) -> ir.Model:
    """A clone annotated for int8 weights and activations, int32 biases; see `assign.annotate`.

    Raises UnsupportedModelError when integer_only and a node has no int8 kernel, naming all of them.
    """
    clone = model.clone()
    annotate(clone, calibration.histograms, settings, integer_only=integer_only)
    return clone
