"""Whether the normalised model computes what the original does: both run in ONNX Runtime on one input."""
from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from edgecompress.errors import InputError, UnsupportedModelError

LIMIT = 1e-5  # largest max|a - b| / max|a| over an output
READABLE_IR_VERSION = 10  # by every onnxruntime that we allow
OLDEST_OPSET_TRIED = 21

Arrays = dict[str, np.ndarray]


def max_relative_error(original: onnx.ModelProto, model: ir.Model, seed: int = 0) -> float:
    """Largest over the outputs of max|a - b| / max|a|, on seeded random input.

    Input: floats from a normal distribution, or, where the original gives nothing finite on those, from (0.1, 1);
    integers small enough to be indices. Raises InputError when ONNX Runtime can't run the original,
    UnsupportedModelError when the error is above LIMIT.
    """
    run_original = _session_of_original(original)
    run_normalised = _session(ir.to_proto(model).SerializeToString())
    for draw in (_normal, _positive):
        feeds = random_inputs(model, np.random.default_rng(seed), draw)
        expected = run_original(feeds)
        if all(np.isfinite(a).all() for a in expected):
            break
    worst = 0.0
    for value, a, b in zip(model.graph.outputs, expected, run_normalised(feeds), strict=True):
        error = relative_error(a, b)
        if not error <= LIMIT:
            raise UnsupportedModelError(
                f"output {value.name!r} of the normalised model differs from the original's by {error:.1e} of its "
                f"largest value (limit {LIMIT:.0e}); please report the model"
            )
        worst = max(worst, error)
    return worst


def relative_error(expected: np.ndarray, found: np.ndarray) -> float:
    """max|a - b| / max|a|; equal infinities and NaN count as equal; infinite when the shapes differ."""
    if expected.shape != found.shape:
        return float("inf")
    a, b = expected.astype(np.float64), found.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    largest = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    return float(np.abs(a - b)[~same].max() / max(largest, np.finfo(np.float32).tiny))


def random_inputs(model: ir.Model, rng: np.random.Generator, draw=None) -> Arrays:
    """One array for each input of the model, of its shape and dtype."""
    return {v.name: _random(v, rng, draw or _normal) for v in model.graph.inputs}


def _random(value: ir.Value, rng: np.random.Generator, draw) -> np.ndarray:
    shape, dtype = tuple(int(d) for d in value.shape), value.dtype.numpy()
    if value.dtype == ir.DataType.BOOL:
        return rng.random(shape) < 0.5
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, _index_limit(value), shape).astype(dtype)
    return draw(rng, shape).astype(dtype)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape)


def _positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.1, 1.0, size=shape)


def _index_limit(value: ir.Value) -> int:
    """The smallest table that the integers index, found through what computes with integers; else 2."""
    limits, frontier, seen = [], [value], {value}
    while frontier:
        for use in frontier.pop().uses():
            node = use.node
            if node.op_type == "Gather" and use.idx == 1:
                axis = node.attributes.get_int("axis", 0)
                limits.append(int(node.inputs[0].shape[axis]))
                continue
            for output in node.outputs:
                if output.dtype in (ir.DataType.INT64, ir.DataType.INT32) and output not in seen:
                    seen.add(output)
                    frontier.append(output)
    return max(min(limits, default=2), 1)


def _session_of_original(original: onnx.ModelProto):
    """As `_session`; an opset newer than ONNX Runtime's is read as the newest that it has."""
    head = onnx.ModelProto()
    head.CopyFrom(original)
    head.ir_version = min(head.ir_version, READABLE_IR_VERSION)
    default = next((o for o in head.opset_import if o.domain in ("", "ai.onnx")), None)
    while True:
        try:
            return _session(head.SerializeToString())
        except Exception as error:
            if default is not None and default.version > OLDEST_OPSET_TRIED and "opset" in str(error).lower():
                default.version -= 1
                continue
            raise InputError(f"ONNX Runtime can't load the model: {_first_line(error)}") from error


def _session(model: bytes):
    """A function from named inputs to the list of outputs, without any graph optimisation."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    dtypes = {i.name: _NUMPY.get(i.type, np.float32) for i in session.get_inputs()}

    def run(feeds: Arrays) -> list[np.ndarray]:
        try:
            return session.run(None, {k: v.astype(dtypes[k], copy=False) for k, v in feeds.items() if k in dtypes})
        except Exception as error:
            raise InputError(f"ONNX Runtime can't run the model: {_first_line(error)}") from error

    return run


_NUMPY = {
    "tensor(bool)": np.bool_, "tensor(double)": np.float64, "tensor(float)": np.float32,
    "tensor(float16)": np.float16, "tensor(int32)": np.int32, "tensor(int64)": np.int64,
    "tensor(int8)": np.int8, "tensor(uint8)": np.uint8,
}  # fmt: skip


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
