"""Checks that the normalised model computes what the original does: both run in ONNX Runtime on the same input."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.graph.annotations import only_in_onnx
from edgecompress.ingest.passes.edit import static_shape
from edgecompress.support.interrupt import reraise_interrupt

LIMIT = 1e-5  # largest max|a - b| / max|a| over an output
# Where an output is more sensitive than that (a saturated Sigmoid, a difference of nearly equal values), it may differ
# by so many times as much as the original itself does when values inside it are rounded once.
SENSITIVITY, ROUNDINGS = 4.0, 4
ULP = float(np.finfo(np.float32).eps)
# ONNX Runtime computes these with terms near 1, whose rounding is what a small result is off by.
ROUNDED_NEAR_ONE = frozenset(
    ("Erf", "Gelu", "HardSigmoid", "HardSwish", "Mish", "Sigmoid", "Softmax", "Softplus", "Tanh")
)
READABLE_IR_VERSION = 10  # every onnxruntime that is allowed can read it
OLDEST_OPSET_TRIED = 21
LARGEST_BY_REFERENCE = 2**18  # elements of the inputs: the reference evaluator is slow

INDEXED = frozenset(("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"))  # by their input 1

Arrays = dict[str, np.ndarray]
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
PIXELS = frozenset(map(np.dtype, (np.int8, np.int16, np.uint8, np.uint16)))


def max_relative_error(original: onnx.ModelProto, model: ir.Model, *, batch: int = 1, seed: int = 0) -> float:
    """The largest relative error of any output, max|a - b| / max|a|, on seeded random input.

    Float inputs are drawn from a normal distribution or, where the original then computes something that is not
    finite, evenly from 0.1 to 1; integer inputs are small enough to be indices. batch: the only batch size that the
    original can run with; it gets the same sample that many times. The ir_version of `original` may be lowered.
    A larger error is accepted, and still returned, where single roundings change the original's output as much.

    Raises InputError when ONNX Runtime can't run the original, and UnsupportedModelError when it can't run the model or
    the error is above LIMIT.
    """
    run_original = _runner_of_original(original)
    for draw in (_normal, _positive):
        feeds = random_inputs(model, np.random.default_rng(seed), draw, run_original.dtypes)
        expected = run_original({k: np.repeat(v, batch, axis=0) if batch > 1 else v for k, v in feeds.items()})
        if all(np.isfinite(a).all() for a in expected):
            break
    del run_original  # its copy of the weights
    found = _run_normalised(model, feeds)
    worst = 0.0
    for value, a, b in zip(model.graph.outputs, expected, found, strict=True):
        a = a if batch == 1 else a[: len(b)]
        if (np.isinf(a) & np.isfinite(b)).any():
            raise UnsupportedModelError(
                f"output {value.name!r} is infinite in places, because a constant is; infinities are converted to the "
                "largest float32. Leave this output out, or make the constant finite"
            )
        error = relative_error(a, b)
        if not error <= LIMIT and not _is_rounding(original, feeds, batch, str(value.name), error):
            raise UnsupportedModelError(
                f"output {value.name!r} of the normalised model differs from the original's by {error:.1e} "
                f"of its largest value (limit {LIMIT:.0e}); please report the model"
            )
        worst = max(worst, error)
    return worst


def _run_normalised(model: ir.Model, feeds: Arrays) -> list[np.ndarray]:
    try:
        return _Runner(ir.to_proto(model).SerializeToString())(feeds)
    except Exception as error:
        reraise_interrupt(error)
        kept = sorted({f"operator {node.op_type}" for node in model.graph if only_in_onnx(node)})
        if kept:
            raise UnsupportedModelError(
                f"no other format than .onnx can have {', '.join(kept)}, and ONNX Runtime can't run the model: "
                f"{_first_line(error)}"
            ) from error
        # what the model was made of ran, so a pass is at fault
        raise UnsupportedModelError(
            f"ONNX Runtime can't run the normalised model: {_first_line(error)}; please report the model"
        ) from error


def _is_rounding(original: onnx.ModelProto, feeds: Arrays, batch: int, output: str, error: float) -> bool:
    """Whether single roundings inside the original change its output nearly as much as the error."""
    index = [o.name for o in original.graph.output].index(output)
    repeated = {k: np.repeat(v, batch, axis=0) if batch > 1 else v for k, v in feeds.items()}
    exact = _runner_of_original(original)(repeated)[index]
    rng, most = np.random.default_rng(0), 0.0
    for _ in range(ROUNDINGS):
        changed = {
            k: (v * (1 + rng.choice((-ULP, ULP), v.shape))).astype(v.dtype) if v.dtype.kind == "f" else v
            for k, v in repeated.items()
        }
        rounded = _runner_of_original(with_roundings(original, rng))
        most = max(most, relative_error(exact, rounded(changed)[index]))
    return bool(np.isfinite(most) and error <= SENSITIVITY * most)


def with_roundings(original: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The model with every float32 result of a node rounded once, up or down: by one unit of float32 at its own value,
    or at 1 for ROUNDED_NEAR_ONE. What is known beforehand is exact: an exponent, or the scales of a Resize."""
    graph = onnx.shape_inference.infer_shapes(original).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    model, nodes = onnx.ModelProto(), []
    known = {"", *(tensor.name for tensor in original.graph.initializer)}
    model.CopyFrom(original)
    for node in model.graph.node:
        nodes.append(node)
        if known.issuperset(node.input):
            known.update(node.output)
            continue
        for place, result in enumerate(node.output):
            if types.get(result) != onnx.TensorProto.FLOAT:
                continue
            near_one = node.op_type in ROUNDED_NEAR_ONE
            node.output[place], factor = f"{result}/exact", f"{result}/rounding"
            unit = np.array(rng.choice((-ULP, ULP)) + (0 if near_one else 1), np.float32)
            model.graph.initializer.append(numpy_helper.from_array(unit, factor))
            nodes.append(helper.make_node("Add" if near_one else "Mul", [node.output[place], factor], [result]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def relative_error(expected: np.ndarray, found: np.ndarray) -> float:
    """max|a - b| / max|a|. Equal infinities and two NaN count as equal; different shapes give infinity."""
    if expected.shape != found.shape:
        return float("inf")
    a, b = expected.astype(np.float64), found.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    largest = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    return float(np.abs(a - b)[~same].max() / max(largest, np.finfo(np.float32).tiny))


def random_inputs(
    model: ir.Model, rng: np.random.Generator, draw: Draw, dtypes: Mapping[str, np.dtype] | None = None
) -> Arrays:
    """One array for each input of the model, of its shape and of its dtype or the one that `dtypes` names."""
    found: Arrays = {}
    for value in model.graph.inputs:
        name = str(value.name)
        dtype = (dtypes or {}).get(name) or (value.dtype or ir.DataType.FLOAT).numpy()
        found[name] = _random(value, np.dtype(dtype), rng, draw)
    return found


def _random(value: ir.Value, dtype: np.dtype, rng: np.random.Generator, draw: Draw) -> np.ndarray:
    assert value.shape is not None
    shape = value.shape.numpy()
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if dtype in PIXELS:
        return rng.integers(0, 128, shape).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, _index_limit(value), shape).astype(dtype)
    return np.asarray(draw(rng, shape), dtype)  # NumPy draws a scalar as a number of its own


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def _positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.random(shape, np.float32) * np.float32(0.9) + np.float32(0.1)


def _index_limit(value: ir.Value) -> int:
    """The length of the smallest table that is indexed by the value or by integers computed from it; 2 without any."""
    limits, frontier, seen = [], [value], {value}
    while frontier:
        for use in frontier.pop().uses():
            node = use.node
            if node.op_type in INDEXED and use.idx == 1:
                shape = static_shape(node.inputs[0])
                assert shape is not None
                whole = node.op_type.endswith("ND")
                limits.append(min(shape) if whole else shape[node.attributes.get_int("axis", 0)])
                continue
            for output in node.outputs:
                if output.dtype in (ir.DataType.INT64, ir.DataType.INT32) and output not in seen:
                    seen.add(output)
                    frontier.append(output)
    return max(min(limits, default=2), 1)


def _runner_of_original(original: onnx.ModelProto) -> _Runner | _ReferenceRunner:
    """Runs the original in ONNX Runtime, which reads an opset that is too new for it as the newest that it knows.

    What ONNX Runtime can't load or run although the standard allows it runs in the onnx package's reference evaluator.
    """
    original.ir_version = min(original.ir_version, READABLE_IR_VERSION)
    default = next((o for o in original.opset_import if o.domain in ("", "ai.onnx")), None)
    while True:
        try:
            return _Runner(original.SerializeToString(), original)
        except Exception as error:
            reraise_interrupt(error)
            if default is not None and default.version > OLDEST_OPSET_TRIED and "opset" in str(error).lower():
                default.version -= 1
                continue
            return _ReferenceRunner(original, error)


class _Runner:
    """Named inputs -> list of outputs, in ONNX Runtime without any graph optimization."""

    def __init__(self, model: bytes, reference: onnx.ModelProto | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._reference = reference
        self.dtypes = {i.name: np.dtype(_NUMPY[i.type]) for i in self._session.get_inputs() if i.type in _NUMPY}

    def __call__(self, feeds: Arrays) -> list[np.ndarray]:
        feeds = {k: v.astype(self.dtypes[k], copy=False) for k, v in feeds.items() if k in self.dtypes}
        try:
            return self._session.run(None, feeds)
        except Exception as error:
            reraise_interrupt(error)
            slow = None if self._reference is None else _by_reference(self._reference, feeds)
            if slow is None:
                raise InputError(f"ONNX Runtime can't run the model: {_first_line(error)}") from error
            return slow


class _ReferenceRunner:
    """Like _Runner, for a model that ONNX Runtime can't load, as `error` says."""

    def __init__(self, model: onnx.ModelProto, error: Exception) -> None:
        self._model, self._error = model, error
        types = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
        self.dtypes = {name: np.dtype(helper.tensor_dtype_to_np_dtype(kind)) for name, kind in types.items() if kind}

    def __call__(self, feeds: Arrays) -> list[np.ndarray]:
        feeds = {k: v.astype(self.dtypes[k], copy=False) for k, v in feeds.items() if k in self.dtypes}
        slow = _by_reference(self._model, feeds)
        if slow is None:
            raise InputError(f"ONNX Runtime can't load the model: {_first_line(self._error)}") from self._error
        return slow


def _by_reference(model: onnx.ModelProto, feeds: Arrays) -> list[np.ndarray] | None:
    """What the onnx package's evaluator computes; None where it can't either, or takes too long."""
    if sum(v.size for v in feeds.values()) > LARGEST_BY_REFERENCE:
        return None
    try:
        with np.errstate(all="ignore"):
            return [np.asarray(y) for y in ReferenceEvaluator(model).run(None, feeds)]
    except Exception as error:  # then what ONNX Runtime said is the better message
        reraise_interrupt(error)
        return None


_NUMPY = {
    "tensor(bool)": np.bool_,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int16)": np.int16,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
}


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
