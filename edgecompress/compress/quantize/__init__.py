"""Post-training quantization: calibrates, chooses scales, corrects biases, and diagnoses what it costs."""

from edgecompress.compress.quantize.assign import quantize_static
from edgecompress.compress.quantize.bias_correction import BiasCorrection, correct_bias
from edgecompress.compress.quantize.calibrate import Calibration, calibrate
from edgecompress.compress.quantize.diagnose import LayerDiagnosis, diagnose
from edgecompress.compress.quantize.dynamic import quantize_dynamic, to_float16
from edgecompress.compress.quantize.equalize import Equalization, Equalized, equalize
from edgecompress.compress.quantize.given_scales import knows_scales
from edgecompress.compress.quantize.post_training import Quantized, quantize, quantize_again
from edgecompress.compress.quantize.precision import require_integer
from edgecompress.compress.quantize.simulate import simulation

__all__ = [
    "BiasCorrection", "Calibration", "Equalization", "Equalized", "LayerDiagnosis", "Quantized", "calibrate",
    "correct_bias", "diagnose", "equalize", "knows_scales", "quantize", "quantize_again", "quantize_dynamic",
    "quantize_static", "require_integer", "simulation", "to_float16",
]  # fmt: skip
