"""What an artifact is made of, counted in its own bytes: types of weights and of the arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema

from edgecompress.emit.tflite.exit_signatures import METADATA as EARLY_EXITS
from edgecompress.graph.few_bits import BITS, narrowest
from edgecompress.graph.inner_graphs import with_branches
from edgecompress.recipe.effective import Encoding

# Names of types in reports. Unsigned ones are an interchange of signs, which ONNX Runtime's kernels ask for.
TYPES = {
    "int8": "int8", "uint8": "int8", "int16": "int16", "uint16": "int16", "int4": "int4", "uint4": "int4",
    "float16": "float16", "float32": "float32",
}  # fmt: skip
INTEGERS = frozenset({"int8", "int16"})
HALF = 0.5  # share that gives a file its name


@dataclass(frozen=True)
class Operation:
    """One operator that multiplies. names: its own, if it has one, and those of what it reads; made: of its outputs.
    computes: the type of its activations. stores: that of its weights, by the whole numbers that are there where these
    take fewer than 8 bits; None where both factors are computed.
    """

    kind: str
    names: tuple[str, ...]
    made: tuple[str, ...]
    macs: int
    computes: str
    stores: str | None


@dataclass(frozen=True)
class FileCount:
    """operations: those that multiply, in order. weight_bytes: by type, as many as the values take without further
    coding, which for a .pack is 1, 2 or 4 bits where that is enough; biases of integer layers and scales are none.
    float_constants: bytes of each that is float32, by name. on_integers: whether any computed value is int8 or int16.
    """

    operations: tuple[Operation, ...]
    weight_bytes: Mapping[str, int]
    float_constants: Mapping[str, int]
    on_integers: bool

    @property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates by the type that they are computed in."""
        total: Counter[str] = Counter()
        for operation in self.operations:
            total[operation.computes] += operation.macs
        return dict(total)

    @property
    def encoding(self) -> Encoding:
        """What most of its arithmetic is: "int8", "dynamic" (float, of int8 weights), "float16" or "float32".

        Where nothing multiplies, it is "int8" if any value is, and "float32" otherwise.
        """
        if not self.operations:
            return "int8" if self.on_integers else "float32"
        total = sum(operation.macs for operation in self.operations)
        integer = sum(o.macs for o in self.operations if o.computes in INTEGERS)
        stored: Counter[str | None] = Counter()
        for operation in self.operations:
            stored[operation.stores] += operation.macs
        if integer >= HALF * total:
            return "int8"
        if sum(stored[kind] for kind in BITS) >= HALF * total:
            return "dynamic"
        return "float16" if stored["float16"] >= HALF * total else "float32"


def count_file(data: bytes, format: str, macs: Mapping[str, int]) -> FileCount:
    """The count of an artifact's bytes. macs: of the model's nodes by name, which nodes of an .onnx file keep."""
    return (
        _count_onnx(data, macs) if format == "onnx" else _count_lowered(_READERS[format](data), packed=format == "pack")
    )


# .tflite and .pack ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    type: str
    is_constant: bool
    values: Callable[[], np.ndarray]

    @property
    def weight_type(self) -> str:
        """Its type as a weight."""
        return narrowest(self.values()) if self.type == "int8" else TYPES.get(self.type, self.type)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class _Operator:
    kind: str
    inputs: tuple[_Tensor | None, ...]
    outputs: tuple[_Tensor, ...]


# plan operator -> (place of the data, place of the weights, multiply-accumulates of output, data and weights)
_Macs = Callable[[_Tensor, _Tensor, _Tensor], int]
_MULTIPLY: dict[str, tuple[int, int, _Macs]] = {
    "CONV_2D": (0, 1, lambda y, x, w: y.size * math.prod(w.shape[1:])),
    "DEPTHWISE_CONV_2D": (0, 1, lambda y, x, w: y.size * math.prod(w.shape[1:3])),
    "FULLY_CONNECTED": (0, 1, lambda y, x, w: y.size * w.shape[-1]),
    "TRANSPOSE_CONV": (2, 1, lambda y, x, w: x.size * math.prod(w.shape[:3])),
    "BATCH_MATMUL": (0, 1, lambda y, x, w: y.size * x.shape[-1]),
}


def _tflite(data: bytes) -> tuple[list[_Tensor], list[_Operator]]:
    """Of the first graph, which is the network for its largest shape, or of all where they are stages of one network; a
    constant that several hold is counted once."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    types = {number: name.lower() for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
    kinds = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    constants: dict[tuple[str, int], _Tensor] = {}
    computed: list[_Tensor] = []
    operators: list[_Operator] = []
    in_stages = any(entry.name == EARLY_EXITS.encode() for entry in model.metadata or ())
    for graph in model.subgraphs if in_stages else model.subgraphs[:1]:
        tensors = []
        for t in graph.tensors:
            buffer = model.buffers[t.buffer]
            is_constant, shape = buffer.data is not None, tuple(map(int, t.shape if t.shape is not None else ()))
            made = _Tensor(t.name.decode(), shape, types[t.type], is_constant, partial(_bytes_of, buffer))
            tensors.append(constants.setdefault((made.name, t.buffer), made) if is_constant else made)
        computed += [t for t in tensors if not t.is_constant]
        operators += [
            _Operator(
                kinds[model.operatorCodes[o.opcodeIndex].builtinCode],
                tuple(tensors[i] if i >= 0 else None for i in o.inputs),
                tuple(tensors[i] for i in o.outputs),
            )
            for o in graph.operators
        ]
    return [*constants.values(), *computed], operators


def _pack(data: bytes) -> tuple[list[_Tensor], list[_Operator]]:
    from edgecompress_runtime.pack import read_pack

    pack = read_pack(data)
    pairs = zip(pack.graph.tensors, pack.encoded, strict=True)
    tensors = [
        _Tensor(t.name, t.shape, t.dtype.name, encoded is not None, partial(pack.array, index))
        for index, (t, encoded) in enumerate(pairs)
    ]
    operators = [
        _Operator(o.kind, tuple(tensors[i] if i >= 0 else None for i in o.inputs), tuple(tensors[i] for i in o.outputs))
        for o in pack.graph.operators
    ]
    return tensors, operators


def _bytes_of(buffer: schema.BufferT) -> np.ndarray:
    return np.asarray(buffer.data, np.uint8).view(np.int8)


_READERS = {"tflite": _tflite, "pack": _pack}


def _count_lowered(read: tuple[list[_Tensor], list[_Operator]], *, packed: bool) -> FileCount:
    """packed: whether the file can hold weights in fewer than 8 bits."""
    tensors, operators = read
    weights: dict[str, str] = {}
    widened = {o.outputs[0].name: o.inputs[0] for o in operators if o.kind == "DEQUANTIZE" and o.inputs[0] is not None}
    operations = []
    for operator in operators:
        if operator.kind not in _MULTIPLY:
            continue
        data_place, weight_place, macs = _MULTIPLY[operator.kind]
        data, weight, result = operator.inputs[data_place], operator.inputs[weight_place], operator.outputs[0]
        assert data is not None and weight is not None  # neither is optional
        stored = weight if weight.is_constant else widened.get(weight.name)
        names = [t.name for t in operator.inputs if t is not None]
        if stored is not None and stored.is_constant:
            weights.setdefault(stored.name, stored.weight_type)
        operations.append(
            Operation(
                operator.kind,
                (*names, *([stored.name] if stored is not None else [])),
                tuple(t.name for t in operator.outputs),
                macs(result, data, weight),
                TYPES.get(data.type, data.type),
                None if stored is None else weights.get(stored.name),
            )
        )
    constants = [t for t in tensors if t.is_constant and t.type in TYPES]
    rows = []
    for tensor in constants:
        kind = weights.get(tensor.name, TYPES[tensor.type])
        few = packed and kind in BITS and tensor.type == "int8"
        bits = BITS[kind] if few or tensor.type == "int4" else 8 * np.dtype(tensor.type).itemsize
        rows.append((tensor.name, kind, math.ceil(tensor.size * bits / 8)))
    computed = {TYPES.get(t.type) for t in tensors if not t.is_constant}
    return _file_count(operations, rows, on_integers=not INTEGERS.isdisjoint(computed))


# .onnx ------------------------------------------------------------------------------------------------

_WIDENING = {"DequantizeLinear", "Cast", "Mul", "Gather"}
_WITH_PARAMETERS = {"QuantizeLinear", "DequantizeLinear", "BitwiseAnd", "BitShift"}  # behind their first input


def _count_onnx(data: bytes, macs: Mapping[str, int]) -> FileCount:
    graphs = list(with_branches(onnx.load_model_from_string(data).graph))
    nodes = [node for graph in graphs for node in graph.node]
    constants = {t.name: t for graph in graphs for t in graph.initializer}
    makers = {name: node for node in nodes for name in node.output}
    operations, weights = [], dict[str, str]()
    for node in nodes:
        if not macs.get(node.name):
            continue
        stored = [s for name in node.input[1:] if (s := _stored(name, constants, makers)) is not None]
        names, computes = (node.name, *node.input, *(name for name, _ in stored)), _computed(node, makers, constants)
        weights |= dict(stored)
        stores = stored[0][1] if stored else None
        operations.append(Operation(node.op_type, names, tuple(node.output), macs[node.name], computes, stores))
    parameters = {name for node in nodes if node.op_type in _WITH_PARAMETERS for name in node.input[1:]}
    kept = [t for name, t in constants.items() if name not in parameters and _type(t) in TYPES]
    halves = _tables_of_halves(nodes)
    kinds = weights | dict.fromkeys(halves, "int4")
    rows = [(t.name, kinds.get(t.name, TYPES[_type(t)]), _bytes(t)) for t in kept]
    return _file_count(operations, rows, on_integers=any(node.op_type == "QuantizeLinear" for node in nodes))


def _tables_of_halves(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Tables that hold two int4 weights in each byte: the upper half of what Gather picks is shifted down."""
    shifted = {node.input[0] for node in nodes if node.op_type == "BitShift"}
    return {node.input[0] for node in nodes if node.op_type == "Gather" and node.output[0] in shifted}


def _computed(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> str:
    """The type that ONNX Runtime computes in: integer where both factors come through DequantizeLinear."""
    types = []
    for name in node.input[:2]:
        maker = makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return "float32"
        zero = constants.get(maker.input[2]) if len(maker.input) > 2 else None
        types.append("int8" if zero is None else TYPES.get(_type(zero), "float32"))
    return types[0]


def _stored(
    name: str, constants: Mapping[str, onnx.TensorProto], makers: Mapping[str, onnx.NodeProto]
) -> tuple[str, str] | None:
    """(name, type) of the constant behind a value, through the nodes that widen it; None for one that is computed.

    What indices look up is what counts for them.
    """
    while name not in constants:
        maker = makers.get(name)
        if maker is None or maker.op_type not in _WIDENING:
            return None
        name = maker.input[0]
    kind = _type(constants[name])
    if kind in ("int8", "uint8"):
        array = onnx.numpy_helper.to_array(constants[name])
        return name, narrowest(array if kind == "int8" else (array.astype(np.int16) - 128).astype(np.int8))
    return name, TYPES.get(kind, kind)


def _type(tensor: onnx.TensorProto) -> str:
    name = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
    return "float32" if name == "float" else name


def _bytes(tensor: onnx.TensorProto) -> int:
    size = math.prod(tensor.dims)
    if _type(tensor) in ("int4", "uint4"):
        return (size + 1) // 2
    return size * np.dtype(_type(tensor)).itemsize


def _file_count(operations: list[Operation], constants: list[tuple[str, str, int]], *, on_integers: bool) -> FileCount:
    """constants: (name, type, bytes) of each."""
    total: Counter[str] = Counter()
    for _, kind, size in constants:
        total[kind] += size
    floats = {name: size for name, kind, size in constants if kind == "float32"}
    return FileCount(tuple(operations), dict(total), floats, on_integers)
