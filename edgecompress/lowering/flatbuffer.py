"""A TFLite FlatBuffer, written with the object API that LiteRT ships, without TensorFlow.

Two things the generated `Pack` methods do not do, and a device needs: constant data is aligned to
16 bytes (schema.fbs, `force_align: 16`; a Cortex-M faults on an unaligned 32-bit load), and equal
vectors (shapes, zero points, scales) are stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import flatbuffers
import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgecompress.graph.annotations import Quantization
from edgecompress.lowering.tensors import Operator, Tensor
from edgecompress.lowering.versions import minimum_runtime, operator_version

TENSOR_TYPES = {
    ir.DataType.FLOAT: schema.TensorType.FLOAT32,
    ir.DataType.FLOAT16: schema.TensorType.FLOAT16,
    ir.DataType.INT4: schema.TensorType.INT4,
    ir.DataType.INT8: schema.TensorType.INT8,
    ir.DataType.INT16: schema.TensorType.INT16,
    ir.DataType.INT32: schema.TensorType.INT32,
    ir.DataType.INT64: schema.TensorType.INT64,
    ir.DataType.BOOL: schema.TensorType.BOOL,
}
FILE_IDENTIFIER = b"TFL3"
ALIGNMENT = 16


class FlatBuffer:
    """Collects tensors and operators, then becomes bytes."""

    def __init__(self) -> None:
        """Without tensors and operators."""
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []

    def add_tensor(self, tensor: Tensor) -> int:
        """Appends a tensor and returns its index."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add_operator(self, operator: Operator) -> None:
        """Appends an operator, which runs after all that are there."""
        self.operators.append(operator)

    def prune(self, outputs: Sequence[int]) -> None:
        """Drop operators that no output depends on (a layout that was prepared and then not used)."""
        needed, kept = set(outputs), []
        for operator in reversed(self.operators):
            if needed.intersection(operator.outputs):
                needed.update(operator.inputs)
                kept.append(operator)
        self.operators = kept[::-1]

    def used(self, ends: Sequence[int]) -> list[int]:
        """Indices of the tensors that an operator or one of `ends` (the graph's inputs and outputs) refers to."""
        return _used(self.operators, ends)

    def finish(self, inputs: Sequence[tuple[str, int]], outputs: Sequence[tuple[str, int]], description: str) -> bytes:
        """(signature name, tensor index) of inputs and outputs -> the file's bytes."""
        return self.finish_signatures([Signature("serving_default", inputs, outputs, self.operators)], description)

    def finish_signatures(
        self, signatures: Sequence[Signature], description: str, metadata: Mapping[str, bytes] = MappingProxyType({})
    ) -> bytes:
        """A file with a graph for each signature, which share their constants and are run by the caller.

        metadata: by name, beside the oldest runtime that reads the file.
        """
        packed, codes = _Packed(self.tensors), dict[tuple[str, int], int]()
        for signature in signatures:
            packed.add(signature, codes)
        model = schema.ModelT()
        model.version = 3
        model.description = description
        model.operatorCodes = [_operator_code(kind, version) for kind, version in codes]
        model.subgraphs, model.buffers, model.signatureDefs = packed.graphs, packed.buffers, packed.signatures
        oldest = {"min_runtime_version": minimum_runtime(codes).encode().ljust(16, b"\0")}
        model.metadata = [packed.metadata(name, data) for name, data in {**oldest, **metadata}.items()]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())


@dataclass(frozen=True, eq=False)
class Signature:
    """A graph of a file and what callers name it by. inputs, outputs: (name, tensor index). operators: in order."""

    key: str
    inputs: Sequence[tuple[str, int]]
    outputs: Sequence[tuple[str, int]]
    operators: Sequence[Operator]


class _Packed:
    """The graphs of a file, and the buffers of their data; buffer 0 is empty by convention, and equal data is one
    buffer."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors, self.pack = tensors, _Packer()
        self.graphs: list[schema.SubGraphT] = []
        self.signatures: list[schema.SignatureDefT] = []
        self.buffers = [_Buffer(None)]
        self._buffer_of: dict[tuple[ir.DataType, bytes], int] = {}

    def add(self, signature: Signature, codes: dict[tuple[str, int], int]) -> None:
        """codes: the place of each operator's (name, version), to which those of this graph are added."""
        ends = [i for _, i in (*signature.inputs, *signature.outputs)]
        order = _used(signature.operators, ends)
        index = {old: new for new, old in enumerate(order)} | {-1: -1}
        graph = schema.SubGraphT()
        graph.name = signature.key if self.graphs else "main"
        graph.tensors = [_PackedTensor(t, self._buffer(t), self.pack) for t in (self.tensors[i] for i in order)]
        graph.operators = [self._operator(operator, index, codes) for operator in signature.operators]
        graph.inputs = np.array([index[i] for _, i in signature.inputs], np.int32)
        graph.outputs = np.array([index[i] for _, i in signature.outputs], np.int32)
        self.signatures.append(_signature(signature, index, len(self.graphs)))
        self.graphs.append(graph)

    def metadata(self, name: str, data: bytes) -> schema.MetadataT:
        self.buffers.append(_Buffer(np.frombuffer(data, np.uint8)))
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, len(self.buffers) - 1
        return entry

    def _buffer(self, tensor: Tensor) -> int:
        if tensor.data is None:
            return 0
        key = (tensor.dtype, tensor.data.tobytes())
        number = self._buffer_of.setdefault(key, len(self.buffers))
        if number == len(self.buffers):
            self.buffers.append(_Buffer(np.frombuffer(key[1], np.uint8)))
        return number

    def _operator(
        self, operator: Operator, index: dict[int, int], codes: dict[tuple[str, int], int]
    ) -> schema.OperatorT:
        """index: of a tensor -> its place in the graph."""
        get = [self.tensors[i] if i >= 0 else None for i in operator.inputs]
        out = [self.tensors[i] for i in operator.outputs]
        version = operator_version(operator.kind, get, out, operator.options)
        return _packed_operator(operator, codes.setdefault((operator.kind, version), len(codes)), index)


def _used(operators: Sequence[Operator], ends: Sequence[int]) -> list[int]:
    return sorted({i for o in operators for i in (*o.inputs, *o.outputs) if i >= 0}.union(ends))


class _Packer:
    """Writes a vector once per content; later uses refer to the same place in the file."""

    def __init__(self) -> None:
        self._offsets: dict[tuple, int] = {}

    def vector(self, builder: flatbuffers.Builder, array: np.ndarray) -> int:
        return self.shared(("vector", array.dtype.str, array.tobytes()), lambda: builder.CreateNumpyVector(array))

    def shared(self, key: tuple, write: Callable[[], int]) -> int:
        if key not in self._offsets:
            self._offsets[key] = write()
        return self._offsets[key]


class _Buffer:
    """Stands in for schema.BufferT: its data vector starts at a multiple of 16 bytes."""

    def __init__(self, data: np.ndarray | None) -> None:
        self.data = data

    def Pack(self, builder: flatbuffers.Builder) -> int:
        vector = None
        if self.data is not None:
            builder.StartVector(1, self.data.size, ALIGNMENT)
            builder.head = builder.Head() - self.data.size
            builder.Bytes[builder.Head() : builder.Head() + self.data.size] = self.data.tobytes()
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class _PackedTensor:
    """Stands in for schema.TensorT, with shared vectors."""

    def __init__(self, tensor: Tensor, buffer: int, pack: _Packer) -> None:
        self.tensor, self.buffer, self.pack = tensor, buffer, pack

    def Pack(self, builder: flatbuffers.Builder) -> int:
        tensor = self.tensor
        name = builder.CreateString(tensor.name)
        shape = self.pack.vector(builder, np.array(tensor.shape, np.int32))
        signature = None
        if tensor.open_axis is not None:
            signature = self.pack.vector(builder, np.array(_signature_of(tensor), np.int32))
        quantization = None
        if tensor.quantization is not None and tensor.dtype != ir.DataType.FLOAT16:
            quantization = self._pack_quantization(builder, tensor.quantization)
        schema.TensorStart(builder)
        schema.TensorAddShape(builder, shape)
        schema.TensorAddType(builder, TENSOR_TYPES[tensor.dtype])
        schema.TensorAddBuffer(builder, self.buffer)
        schema.TensorAddName(builder, name)
        if quantization is not None:
            schema.TensorAddQuantization(builder, quantization)
        schema.TensorAddHasRank(builder, True)
        if signature is not None:
            schema.TensorAddShapeSignature(builder, signature)
        return schema.TensorEnd(builder)

    def _pack_quantization(self, builder: flatbuffers.Builder, q: Quantization) -> int:
        scales, zero_points = q.scale.astype(np.float32), q.zero_point.astype(np.int64)
        axis = self.tensor.axis if scales.size > 1 else 0

        def write() -> int:
            scale = self.pack.vector(builder, scales)
            zero_point = self.pack.vector(builder, zero_points)
            schema.QuantizationParametersStart(builder)
            schema.QuantizationParametersAddScale(builder, scale)
            schema.QuantizationParametersAddZeroPoint(builder, zero_point)
            schema.QuantizationParametersAddQuantizedDimension(builder, axis)
            return schema.QuantizationParametersEnd(builder)

        return self.pack.shared(("quantization", axis, scales.tobytes(), zero_points.tobytes()), write)


def _signature_of(tensor: Tensor) -> list[int]:
    """The shape with -1 where it is open (schema.fbs, `shape_signature`)."""
    return [-1 if axis == tensor.open_axis else n for axis, n in enumerate(tensor.shape)]


def _packed_operator(operator: Operator, code: int, index: dict[int, int]) -> schema.OperatorT:
    packed = schema.OperatorT()
    packed.opcodeIndex = code
    packed.inputs = np.array([index[i] for i in operator.inputs], np.int32)
    packed.outputs = np.array([index[i] for i in operator.outputs], np.int32)
    if operator.options is not None:
        packed.builtinOptions = operator.options
        packed.builtinOptionsType = getattr(schema.BuiltinOptions, type(operator.options).__name__.removesuffix("T"))
    return packed


def _operator_code(kind: str, version: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    number = getattr(schema.BuiltinOperator, kind)
    code.builtinCode, code.version = number, version
    # readers older than the 32-bit field look at this one (schema.fbs, OperatorCode)
    code.deprecatedBuiltinCode = min(number, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    return code


def _signature(signature: Signature, index: dict[int, int], graph: int) -> schema.SignatureDefT:
    def entries(pairs: Sequence[tuple[str, int]]) -> list[schema.TensorMapT]:
        result = []
        for name, tensor in pairs:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, index[tensor]
            result.append(entry)
        return result

    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = signature.key, graph
    made.inputs, made.outputs = entries(signature.inputs), entries(signature.outputs)
    return made
