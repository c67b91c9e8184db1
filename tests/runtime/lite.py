"""Runs a TFLite file, or one operator, with TensorFlow Lite Micro, with LiteRT's reference kernels, and with the
runtime's."""

from __future__ import annotations

import importlib.util
from copy import copy
from functools import partial
from typing import TYPE_CHECKING

import flatbuffers
import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import settings
from hypothesis import strategies as st

from edgecompress.graph.annotations import Quantization
from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import FlatBuffer
from edgecompress.lowering.tensors import Operator as FileOperator
from edgecompress.lowering.tensors import Tensor as FileTensor
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.operators import options_of
from edgecompress_runtime.options import Options
from edgecompress_runtime.plan import Operator, Plan, Tensor

if TYPE_CHECKING:
    from tflite_micro.python.tflite_micro.runtime import Interpreter as Micro

KINDS = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.BOOL: np.bool_,
}


def plan_of(data: bytes) -> Plan:
    """The runtime's plan of a TFLite file."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = model.subgraphs[0]
    operators = [
        Operator(
            KINDS[model.operatorCodes[o.opcodeIndex].builtinCode],
            tuple(int(i) for i in o.inputs),
            tuple(int(i) for i in o.outputs),
            _options(o, KINDS[model.operatorCodes[o.opcodeIndex].builtinCode]),
        )
        for o in graph.operators
    ]
    tensors = tuple(_tensor(t, model.buffers[t.buffer].data) for t in graph.tensors)
    return Plan(tensors, tuple(operators), tuple(map(int, graph.inputs)), tuple(map(int, graph.outputs)))


def _options(operator: schema.OperatorT, kind: str) -> Options:
    fields = {} if operator.builtinOptions is None else vars(operator.builtinOptions)
    return options_of(kind, {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in fields.items()})


def _tensor(tensor: schema.TensorT, stored: np.ndarray | None) -> Tensor:
    shape, dtype = tuple(int(n) for n in tensor.shape), np.dtype(DTYPES[tensor.type])
    array = None if stored is None else np.frombuffer(bytes(stored), dtype).reshape(shape)
    q = tensor.quantization
    if q is None or q.scale is None:
        return Tensor(tensor.name.decode(), shape, dtype, data=array)
    zero_point = np.asarray(q.zeroPoint, np.int32)
    return Tensor(
        tensor.name.decode(), shape, dtype, np.asarray(q.scale, np.float32), zero_point, q.quantizedDimension, array
    )


# What LiteRT 2.3 registers no reference kernel for (of int8); its reference SUM of int8 returns -1 for almost anything.
OPTIMISED_ONLY = {"ELU", "TILE", "DEPTH_TO_SPACE", "SUM"}
MICRO = importlib.util.find_spec("tflite_micro") is not None
# What TFLM has no kernel for: of any type, of int8.
MICRO_LACKS = {"GELU", "POW", "RELU_0_TO_1", "RELU_N1_TO_1", "TILE"}
MICRO_LACKS_INT8 = {"EXP", "LOG", "RSQRT", "SQRT"}
# Whose int8 kernels round once in LiteRT's reference, divide scales in float32, or are tables of float32: halves come
# out otherwise there.
OTHERWISE = {"FULLY_CONNECTED", "BATCH_MATMUL", "ABS", "LEAKY_RELU", "MUL", "PRELU", "RELU", "LOGISTIC", "TANH"}
OTHERWISE_INT16 = OTHERWISE - {"LOGISTIC", "TANH"} | {"SOFTMAX"}  # a table of float64 there, of float32 in TFLM
OPTIONS = {"FLOOR": None, "REDUCE_MIN": schema.ReducerOptionsT}  # that the emitter's table lacks


def run_reference(data: bytes, inputs: list[np.ndarray], *, optimised: bool = False) -> list[np.ndarray]:
    """LiteRT's reference kernels; `optimised`: its other built-in ones, without XNNPACK."""
    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if optimised else OpResolverType.BUILTIN_REF
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


def micro(data: bytes, inputs: list[np.ndarray], *, keep: bool = False) -> Micro | None:
    """TensorFlow Lite Micro's interpreter after a run; None without its package, and where it lacks an operator.
    keep: every tensor, for `GetTensor`."""
    plan = plan_of(data)
    if not MICRO or any(_lacks(plan, operator) for operator in plan.operators):
        return None
    from tflite_micro.python.tflite_micro.runtime import Interpreter as Micro
    from tflite_micro.python.tflite_micro.runtime import InterpreterConfig

    kind = InterpreterConfig.kPreserveAllTensors if keep else InterpreterConfig.kAllocationRecording
    arena = 1 << 17 | 8 * sum(t.size for t in plan.tensors)
    interpreter = Micro.from_bytes(data, arena_size=arena, intrepreter_config=kind)
    for index, array in enumerate(inputs):
        interpreter.set_input(array, index)
    interpreter.invoke()
    return interpreter


def _lacks(plan: Plan, operator: Operator) -> bool:
    ends = [plan.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
    types = {t.dtype for t in ends if t.data is None or t.dtype == np.float16}  # biases may be int64
    lacking = MICRO_LACKS | (MICRO_LACKS_INT8 if np.dtype(np.int8) in types else set())
    grids = [(*t.scale, *t.zero_point) for t in ends]
    unlike = operator.kind == "RELU6" and grids[0] != grids[1]  # it clamps, and scales nothing
    return operator.kind in lacking or unlike or bool(types & {np.dtype(np.int64), np.dtype(np.float16)})


def run_micro(data: bytes, inputs: list[np.ndarray]) -> list[np.ndarray] | None:
    """TensorFlow Lite Micro's outputs, or None as `micro`."""
    if (interpreter := micro(data, inputs)) is None:
        return None
    plan = plan_of(data)
    return [interpreter.get_output(k).reshape(plan.tensors[i].shape) for k, i in enumerate(plan.outputs)]


def every_tensor(data: bytes, inputs: list[np.ndarray]) -> dict[int, np.ndarray]:
    """What the computed tensors of a file hold after a run, by index: in TFLM, or where that lacks an operator, one
    operator after the other, each in TFLM if that has it, else in LiteRT's reference kernels."""
    plan = plan_of(data)
    if (found := micro(data, inputs, keep=True)) is not None:
        return {i: found.GetTensor(i, 0)["tensor_data"] for o in plan.operators for i in o.outputs}
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    values = dict(zip(plan.inputs, inputs, strict=True))
    for number, operator in enumerate(plan.operators):
        alone = _one_operator(model, number)
        feeds = [values[i] for i in dict.fromkeys(operator.inputs) if i in values]
        made = run_micro(alone, feeds) or run_reference(alone, feeds, optimised=operator.kind in OPTIMISED_ONLY)
        values |= zip(operator.outputs, made, strict=True)
    return values


def yardstick(data: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """A file's outputs as `every_tensor` finds them."""
    values = every_tensor(data, inputs)
    return [values[i] for i in plan_of(data).outputs]


def _one_operator(model: schema.ModelT, number: int) -> bytes:
    """A file of one operator of a model, whose inputs are its computed ones."""
    whole = model.subgraphs[0]
    made = {int(i) for o in whole.operators for i in o.outputs} | set(map(int, whole.inputs))
    operator = copy(whole.operators[number])
    used = list(dict.fromkeys(int(i) for i in (*operator.inputs, *operator.outputs) if i >= 0))
    place = {-1: -1} | {i: n for n, i in enumerate(used)}
    buffers = [schema.BufferT()]
    tensors = []
    for i in used:
        tensor = copy(whole.tensors[i])
        buffers.append(model.buffers[tensor.buffer])
        tensor.buffer = len(buffers) - 1
        tensors.append(tensor)
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = tensors, [operator]
    graph.inputs = [place[i] for i in used if i in made and i not in operator.outputs]
    graph.outputs = [place[int(i)] for i in operator.outputs]
    operator.inputs, operator.outputs = ([place[int(i)] for i in ends] for ends in (operator.inputs, operator.outputs))
    alone = schema.ModelT()
    alone.version, alone.operatorCodes = 3, [model.operatorCodes[operator.opcodeIndex]]
    alone.subgraphs, alone.buffers, operator.opcodeIndex = [graph], buffers, 0
    builder = flatbuffers.Builder(0)
    builder.Finish(alone.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run_ours(data: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    return Executor(plan_of(data))(*inputs)


# ---- one operator ----

# what hypothesis draws from
# round ones as well, whose ratios make halves, on which ways to compute them disagree
SCALES = st.floats(0.004, 0.25) | st.sampled_from([k / d for d in (40, 64) for k in range(1, 10)])
ZEROS = st.integers(-128, 127)
SEEDS = st.integers(0, 2**32 - 1)
examples = partial(settings, deadline=None, print_blob=False)


def quantized(shape, scale: float, zero_point: int = 0, data: np.ndarray | None = None) -> FileTensor:
    """An int8 tensor."""
    q = Quantization(np.array([scale], np.float32), np.array([zero_point], np.int32))
    return FileTensor("t", tuple(shape), ir.DataType.INT8, q, 0, data)


def quantized_int16(shape, scale: float) -> FileTensor:
    """An int16 tensor."""
    q = Quantization(np.array([scale], np.float32), np.zeros(1, np.int32), None, ir.DataType.INT16)
    return FileTensor("t", tuple(shape), ir.DataType.INT16, q)


def per_channel(data: np.ndarray, scales: np.ndarray, axis: int) -> FileTensor:
    """Constant int8 weights or, for int32 data, a bias."""
    q = Quantization(scales.astype(np.float32), np.zeros(scales.size, np.int32), axis)
    return FileTensor("w", data.shape, ir.DataType.from_numpy(data.dtype), q, axis, data)


def plain(shape, dtype=np.float32) -> FileTensor:
    return FileTensor("t", tuple(shape), ir.DataType.from_numpy(np.dtype(dtype)))


def constant(array) -> FileTensor:
    array = np.asarray(array)
    return FileTensor("c", array.shape, ir.DataType.from_numpy(array.dtype), data=array)


def file_of(kind: str, inputs: list[FileTensor | None], outputs: list[FileTensor], **options) -> bytes:
    """A TFLite file with one operator; its inputs are the tensors without data."""
    buffer = FlatBuffer()
    into = [-1 if t is None else buffer.add_tensor(t) for t in inputs]
    out = [buffer.add_tensor(t) for t in outputs]
    if kind in OPTIONS:
        table = OPTIONS[kind]() if OPTIONS[kind] else None
        for field, value in options.items():
            setattr(table, field, value)
        buffer.add_operator(FileOperator(kind, tuple(into), tuple(out), table))
    else:
        Context(buffer).op(kind, into, out, **options)
    fed = [(f"x{i}", i) for i, t in zip(into, inputs) if t is not None and t.data is None]
    return buffer.finish(fed, [(f"y{i}", i) for i in out], "one operator")


def random_inputs(inputs: list[FileTensor | None], seed: int) -> list[np.ndarray]:
    """All of int8's and int16's range; floats normal; booleans; small whole numbers."""
    rng = np.random.default_rng(seed)
    draw = {
        ir.DataType.INT8: lambda shape: rng.integers(-128, 128, shape, np.int8),
        ir.DataType.INT16: lambda shape: rng.integers(-32768, 32768, shape, np.int16),
        ir.DataType.FLOAT: lambda shape: rng.normal(0, 2, shape).astype(np.float32),
        ir.DataType.BOOL: lambda shape: rng.integers(0, 2, shape).astype(bool),
        ir.DataType.INT32: lambda shape: rng.integers(-5, 6, shape).astype(np.int32),
        ir.DataType.INT64: lambda shape: rng.integers(-5, 6, shape).astype(np.int64),
    }
    return [np.asarray(draw[t.dtype](t.shape)) for t in inputs if t is not None and t.data is None]


def check(
    kind: str,
    inputs: list[FileTensor | None],
    outputs: list[FileTensor],
    *,
    tolerance: float = 0.0,
    steps: int = 0,
    seed: int = 0,
    feeds: list[np.ndarray] | None = None,
    **options,
) -> None:
    """Equal bits from all: TFLM where it has the operator, and LiteRT's reference kernels. int8 may differ by `steps`,
    from LiteRT by one where that computes `OTHERWISE`; float32 by tolerance * max(1, |reference|)."""
    data = file_of(kind, inputs, outputs, **options)
    feeds = random_inputs(inputs, seed) if feeds is None else feeds
    ours = run_ours(data, feeds)
    if (micro := run_micro(data, feeds)) is not None:
        _compare(ours, micro, tolerance, steps)
    otherwise: dict[type, set[str]] = {np.int8: OTHERWISE, np.int16: OTHERWISE_INT16}
    near = max(steps, 1) if kind in otherwise.get(ours[0].dtype.type, ()) else steps
    _compare(ours, run_reference(data, feeds, optimised=kind in OPTIMISED_ONLY), tolerance, near)


def _compare(ours: list[np.ndarray], theirs: list[np.ndarray], tolerance: float, steps: int) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if steps:
            assert np.abs(a.astype(int) - b).max() <= steps
        elif tolerance:
            assert np.all(np.abs(a - b) <= tolerance * np.maximum(1, np.abs(b)))
        else:
            np.testing.assert_array_equal(a, b)
