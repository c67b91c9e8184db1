"""Where ONNX's Resize samples its input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# where output position i (float array) lies in the input; scale = output / input length (ONNX Resize)
COORDINATES: dict[str, Callable[[np.ndarray, float, int, int], np.ndarray]] = {
    "half_pixel": lambda i, scale, n, out: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale, n, out: (i + 0.5) / scale - 0.5 if out > 1 else i * 0.0,
    "align_corners": lambda i, scale, n, out: i * (n - 1) / (out - 1) if out > 1 else i * 0.0,
    "asymmetric": lambda i, scale, n, out: i / scale,
}
ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}
