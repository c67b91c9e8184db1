"""Runs a TFLite file, or one operator, with LiteRT's reference kernels and with the runtime's."""

from __future__ import annotations

from functools import partial

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


def every_tensor(data: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """What each tensor of the file holds after LiteRT's reference kernels ran, by index."""
    interpreter = Interpreter(
        model_content=data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(i) for i in range(len(plan_of(data).tensors))]


def run_ours(data: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    return Executor(plan_of(data))(*inputs)


# ---- one operator ----

# what hypothesis draws from
SCALES = st.floats(0.004, 0.25)
ZEROS = st.integers(-128, 127)
SEEDS = st.integers(0, 2**32 - 1)
examples = partial(settings, deadline=None, print_blob=False)


def quantized(shape, scale: float, zero_point: int = 0, data: np.ndarray | None = None) -> FileTensor:
    """An int8 tensor."""
    q = Quantization(np.array([scale], np.float32), np.array([zero_point], np.int32))
    return FileTensor("t", tuple(shape), ir.DataType.INT8, q, 0, data)


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
    """All of int8's range; floats normal; booleans; small whole numbers."""
    rng = np.random.default_rng(seed)
    draw = {
        ir.DataType.INT8: lambda shape: rng.integers(-128, 128, shape, np.int8),
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
    """Equal bits from both. int8 may differ by `steps`, float32 by tolerance * max(1, |reference|)."""
    data = file_of(kind, inputs, outputs, **options)
    feeds = random_inputs(inputs, seed) if feeds is None else feeds
    reference = run_reference(data, feeds, optimised=kind in OPTIMISED_ONLY)
    for ours, theirs in zip(run_ours(data, feeds), reference, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        if steps:
            assert np.abs(ours.astype(int) - theirs).max() <= steps
        elif tolerance:
            assert np.all(np.abs(ours - theirs) <= tolerance * np.maximum(1, np.abs(theirs)))
        else:
            np.testing.assert_array_equal(ours, theirs)
