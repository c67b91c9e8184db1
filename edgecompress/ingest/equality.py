"""Whether the normalised model computes what the original does: both run in ONNX Runtime on one input."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError

LIMIT = 1e-5  # largest max|a - b| / max|a| over an output


def max_relative_error(original: bytes, model: ir.Model, seed: int = 0) -> float:
    """Largest over the outputs of max|a - b| / max|a|, on one seeded random input.

    original: serialised ModelProto. Raises UnsupportedModelError when it is above LIMIT.
    """
    normalised = ir.to_proto(model).SerializeToString()
    feeds = random_inputs(model, seed)
    expected = _run(original, feeds)
    found = _run(normalised, feeds)
    worst = 0.0
    for value, a, b in zip(model.graph.outputs, expected, found):
        error = relative_error(a, b)
        if not error <= LIMIT:
            raise UnsupportedModelError(
                f"output {value.name!r} of the normalised model differs from the original's by {error:.1e} of its "
                f"largest value (limit {LIMIT:.0e}); please report the model"
            )
        worst = max(worst, error)
    return worst


def relative_error(expected: np.ndarray, found: np.ndarray) -> float:
    """max|a - b| / max|a|; infinite when the shapes differ."""
    if expected.shape != found.shape:
        return float("inf")
    if expected.size == 0:
        return 0.0
    a, b = expected.astype(np.float64), found.astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(a).max(), np.finfo(np.float32).tiny))


def random_inputs(model: ir.Model, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {v.name: rng.normal(size=tuple(v.shape)).astype(np.float32) for v in model.graph.inputs}


def _run(model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)
