"""The tests that come with the `onnx` package, as models that an exporter could have written.

In the package every operand of an operator is an input of its model. Here weights, shapes, axes, indices and other
parameters are initializers, and a float operand stays an input. Apart are kept: control flow, sequences, optional
values, strings, random numbers, losses, training, sparse tensors, other domains, empty tensors, and models without
input.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

Arrays = dict[str, np.ndarray]

# Positions of float operands that exporters write as initializers. Integers and booleans are, but for DATA.
PARAMETERS = {
    "Attention": {3}, "BatchNormalization": {1, 2, 3, 4}, "Clip": {1, 2}, "Conv": {1, 2}, "ConvTranspose": {1, 2},
    "DeformConv": {1, 3}, "DequantizeLinear": {1, 2}, "Dropout": {1, 2}, "Gemm": {2}, "GroupNormalization": {1, 2},
    "GRU": {1, 2, 3, 4, 5}, "InstanceNormalization": {1, 2}, "LayerNormalization": {1, 2},
    "LSTM": {1, 2, 3, 4, 5, 6, 7}, "MelWeightMatrix": {0, 1, 2, 3, 4}, "NonMaxSuppression": {2, 3, 4}, "OneHot": {1, 2},
    "Pad": {1, 2, 3}, "PRelu": {1}, "QuantizeLinear": {1, 2}, "Range": {0, 1, 2}, "Resize": {1, 2, 3},
    "RMSNormalization": {1}, "RNN": {1, 2, 3, 4, 5}, "RotaryEmbedding": {1, 2, 3}, "STFT": {1, 2, 3}, "Upsample": {1},
}  # fmt: skip
# Positions of integers and booleans that are data in real models.
DATA = {
    "And": {0, 1}, "Cast": {0}, "Compress": {1}, "Equal": {0, 1}, "Gather": {1}, "GatherElements": {1}, "GatherND": {1},
    "Identity": {0}, "NonZero": {0}, "Not": {0}, "OneHot": {0}, "Or": {0, 1}, "Scatter": {1}, "ScatterElements": {1},
    "ScatterND": {1}, "Shape": {0}, "Size": {0}, "Where": {0}, "Xor": {0, 1},
}  # fmt: skip
# Outputs that exporters ask for, of operators that have more.
OUTPUTS = {"Attention": 1, "BatchNormalization": 1, "Dropout": 1, "LayerNormalization": 1}
# Computed before a model runs: all operands are initializers, and the result is added to an input.
KNOWN = {
    "BlackmanWindow", "Constant", "ConstantOfShape", "EyeLike", "HammingWindow", "HannWindow", "MelWeightMatrix",
    "Range", "Shape", "Size",
}  # fmt: skip
LEFT_OUT = {
    "Bernoulli", "ConcatFromSequence", "If", "ImageDecoder", "Loop", "Multinomial", "NegativeLogLikelihoodLoss",
    "Optional", "OptionalGetElement", "OptionalHasElement", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike", "RegexFullMatch", "Scan", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat",
    "StringNormalizer", "StringSplit", "TfIdfVectorizer",
}  # fmt: skip
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
INTEGERS = {TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL}

GROUPS = {
    "float": "one operator on floats",
    "integer": "one operator on int32, int64 and bool alone",
    "other": "one operator on other types",
    "function": "one operator written out as its function",
    "model": "models of PyTorch's exporter and others",
}


@dataclass(frozen=True)
class Case:
    """One test. group: a key of GROUPS. operator: the one that it tests; of models, their name. feeds: input -> array.
    expected: an array for each output.
    """

    name: str
    group: str
    operator: str
    model: onnx.ModelProto
    feeds: Arrays
    expected: tuple[np.ndarray, ...]


class OutOfScope(Exception):
    """A test that is kept apart, with the reason."""


@dataclass(frozen=True)
class Cases:
    """cases: in a fixed order. apart: reason -> number of tests that are none."""

    cases: tuple[Case, ...]
    apart: dict[str, int]


def collect(share: int = 1) -> Cases:
    """Every `share`-th of the tests, the same ones on every machine that has the same `onnx` package."""
    cases, apart = [], {}
    for name, group, operator, read in [*_tests()][::share]:
        try:
            cases.append(_case(name, group, operator, *read()))
        except OutOfScope as reason:
            apart[str(reason)] = apart.get(str(reason), 0) + 1
    return Cases(tuple(cases), apart)


def _tests() -> Iterator[tuple[str, str, str, Any]]:
    """Name, group ("" for tests of one operator: by their types), operator, and a function that reads
    (model, inputs, outputs).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = load_model_tests(kind="node")
    operators = {test.name: test.model.graph.node[0].op_type for test in tests}
    for test in tests:
        name, expanded, _ = test.name.partition("_expanded")
        group, operator = ("function" if expanded else "", operators.get(name, operators[test.name]))
        yield test.name, group, operator, lambda test=test: (test.model, *test.data_sets[0])
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for folder in sorted(path.parent for path in (data / kind).glob("*/model.onnx")):
            yield folder.name, "model", kind, lambda folder=folder: _from_folder(folder)
    for path in sorted((data / "light").glob("*.onnx")):
        yield path.stem, "model", "light", lambda path=path: _light(path)


def _from_folder(folder: Path) -> tuple[onnx.ModelProto, list, list]:
    first = min(folder.glob("test_data_set_*"))
    files = (
        sorted(first.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.rpartition("_")[2]))
        for kind in ("input", "output")
    )
    inputs, outputs = ([TensorProto.FromString(path.read_bytes()) for path in group] for group in files)
    return onnx.load(folder / "model.onnx"), inputs, outputs


def _light(path: Path) -> tuple[onnx.ModelProto, list, list]:
    """A whole network whose weights are all alike. What is expected is what ONNX Runtime computes."""
    model = onnx.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    value = next(v for v in model.graph.input if v.name not in weights)
    shape = [dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim]
    x = np.random.default_rng(0).random(shape, np.float32)
    return model, [x], run(model.SerializeToString(), {value.name: x})


def run(model: bytes, feeds: Arrays) -> list[np.ndarray]:
    """The outputs in ONNX Runtime, on one thread and without any optimization of the graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: feeds[i.name].astype(NUMPY[i.type], copy=False) for i in session.get_inputs()})


NUMPY = {  # by the names of ONNX Runtime
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(bool)": np.bool_,
    **{f"tensor({kind}{bits})": np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}  # fmt: skip


NARROW = ("int4", "uint4", "int2", "uint2")


def _case(name: str, group: str, operator: str, model: onnx.ModelProto, inputs: Sequence, outputs: Sequence) -> Case:
    """Raises OutOfScope."""
    arrays, expected = [_array(x) for x in inputs], [_array(x) for x in outputs]
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    _require_in_scope(copy, operator, arrays, expected)
    if operator in ("Cast", "CastLike") and expected[0].dtype.name in NARROW:
        arrays[0], expected[0] = _within(arrays[0], expected[0])
    if len(copy.graph.node) == 1 and operator in OUTPUTS:
        count = OUTPUTS[operator]
        del copy.graph.node[0].output[count:], copy.graph.output[count:], expected[count:]
    weights = {tensor.name for tensor in copy.graph.initializer}
    values = [v for v in copy.graph.input if v.name not in weights]
    feeds = {v.name: array for v, array in zip(values, arrays)}
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    if operator in KNOWN and len(expected) == 1:
        feeds, expected = _known(copy, feeds, expected[0])
        types = dict.fromkeys(feeds, TensorProto.FLOAT)
    for parameter in _parameters(copy, operator, types):
        copy.graph.initializer.append(numpy_helper.from_array(feeds.pop(parameter), parameter))
    left = [v for v in copy.graph.input if v.name in feeds or v.name in weights]
    del copy.graph.input[:]
    copy.graph.input.extend(left)
    if not feeds:
        raise OutOfScope("no input")
    kinds = {types[name] for name in feeds} | {v.type.tensor_type.elem_type for v in copy.graph.output}
    by_type = "other" if kinds - FLOATS - INTEGERS else "float" if kinds & FLOATS else "integer"
    return Case(name, group or by_type, operator, copy, feeds, tuple(expected))


def _within(x: np.ndarray, cast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that the type of `cast` holds, and what they become: the standard leaves open what others do, and the
    package's own test has what ml_dtypes makes of them, which is 0 since its version 0.7."""
    if x.dtype not in (np.float32, np.float16):
        return x, cast
    limits = ml_dtypes.iinfo(cast.dtype)
    inside = np.clip(x, limits.min, limits.max)
    return inside, np.where(x == inside, cast.astype(np.int8), inside.astype(np.int8)).astype(cast.dtype)


def _array(given: Any) -> np.ndarray:
    """Raises OutOfScope for what NumPy has no array for."""
    try:
        array = numpy_helper.to_array(given) if isinstance(given, TensorProto) else given
    except Exception as error:
        raise OutOfScope("not a tensor") from error
    if not isinstance(array, np.ndarray | np.generic):
        raise OutOfScope("not a tensor")
    return np.asarray(array)


def _require_in_scope(
    model: onnx.ModelProto, operator: str, inputs: list[np.ndarray], outputs: list[np.ndarray]
) -> None:
    graph = model.graph
    kinds = {operator, *(node.op_type for node in graph.node)}
    if kinds & LEFT_OUT or any(kind.startswith("Sequence") for kind in kinds):
        raise OutOfScope("control flow, sequences, strings, random numbers, losses")
    if {node.domain for node in graph.node} - {"", "ai.onnx"}:
        raise OutOfScope("other domains")
    values = [*graph.input, *graph.output]
    if graph.sparse_initializer or not all(v.type.HasField("tensor_type") for v in values):
        raise OutOfScope("not a tensor")
    if any(v.type.tensor_type.elem_type == TensorProto.STRING for v in values):
        raise OutOfScope("control flow, sequences, strings, random numbers, losses")
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    trains = any(attribute.name == "training_mode" and attribute.i for attribute in attributes)
    if trains or (operator == "Dropout" and len(inputs) > 2 and bool(inputs[2])):
        raise OutOfScope("training")
    if any(array.size == 0 for array in (*inputs[:1], *outputs)):
        raise OutOfScope("empty tensors")


def _known(model: onnx.ModelProto, feeds: Arrays, expected: np.ndarray) -> tuple[Arrays, list[np.ndarray]]:
    """The model's result as float32, added to an input of ones. Changes the model."""
    graph, last = model.graph, model.graph.output[0].name
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in feeds.items())
    graph.node.append(helper.make_node("Cast", [last], ["as_float"], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("Add", ["as_float", "ones"], ["sum"]))
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info("ones", TensorProto.FLOAT, expected.shape))
    graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, expected.shape))
    return {"ones": np.ones(expected.shape, np.float32)}, [expected.astype(np.float32) + 1]


def _parameters(model: onnx.ModelProto, operator: str, types: dict[str, int]) -> list[str]:
    """The inputs that become initializers; one stays in any case."""
    names, node = [*types], model.graph.node[0]
    if names == ["ones"]:
        return []
    alone = len(model.graph.node) == 1 and all(name in node.input for name in names)
    places = {name: (list(node.input) if alone else names).index(name) for name in names}
    found = [
        name
        for name, place in places.items()
        if place not in DATA.get(operator, ())
        and (place in PARAMETERS.get(operator, ()) or (place > 0 and types[name] not in FLOATS))
    ]
    return found if len(found) < len(names) else found[1:]


def difference(expected: np.ndarray, found: np.ndarray) -> str:
    """What is wrong with `found`, or "". Values may differ by 1e-3 and by 1e-5 of the largest; float16, bfloat16 and
    double are computed in float32. Integers of any size are good for each other.
    """
    if expected.shape != found.shape:
        return f"shape {list(found.shape)} instead of {list(expected.shape)}"
    if (expected.dtype.kind in "iub") != (found.dtype.kind in "iub") and expected.dtype.kind != "V":
        return f"{found.dtype} instead of {expected.dtype}"
    half = expected.dtype.itemsize == 2 and expected.dtype.kind not in "iub"
    relative, absolute = (1e-2, 1e-2) if half else (1e-3, 1e-5)
    with np.errstate(over="ignore", invalid="ignore"):
        a = expected.astype(np.float32 if expected.dtype.kind not in "iub" else expected.dtype).astype(np.float64)
        b = found.astype(np.float64)
        scale = max(np.abs(a[np.isfinite(a)]).max(initial=0.0), 1.0)
        bad = ~((a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= absolute * scale + relative * np.abs(a)))
    if not bad.any():
        return ""
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    values = f"{b[place]:.6g} instead of {a[place]:.6g}"
    return f"{int(bad.sum())} of {bad.size} values differ, first at {list(place)}: {values}"
