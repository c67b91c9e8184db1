"""A model whose batch size is open as TFLite, made of the same model for two and for three samples."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgecompress.ingest.batch_size import FixedBatchError
from edgecompress.lowering.flatbuffer import FlatBuffer
from edgecompress.lowering.tensors import Operator, Tensor

TWO, THREE = 2, 3  # samples
# operator and position of an input that holds sizes -> what says in it that one is as long as it happens to be
SIZES = {("RESHAPE", 1): -1, ("SLICE", 2): -1}

END = 2  # position of the ends among the inputs of STRIDED_SLICE


def open_samples(two: FlatBuffer, three: FlatBuffer) -> None:
    """Changes the first into one for one sample whose tensors say where there may be more. Where the two differ, they
    say how many samples there are. Raises FixedBatchError where that can't be left open.
    """
    kinds = [[(o.kind, o.inputs, o.outputs) for o in buffer.operators] for buffer in (two, three)]
    if kinds[0] != kinds[1] or len(two.tensors) != len(three.tensors):
        raise FixedBatchError("its operators depend on the batch size")
    several = list(zip(two.tensors, three.tensors))
    two.operators = [_opened(two, operator, several) for operator in two.operators]
    for index, (tensor, larger) in enumerate(several):
        if tensor.data is None:
            two.tensors[index] = _for_one(tensor, larger.shape)


def _repeated(buffer: FlatBuffer, operator: Operator, several: Sequence[tuple[Tensor, Tensor]]) -> Operator:
    """BROADCAST_TO takes a shape, TILE how often something is repeated."""
    x, y = (several[index] for index in (operator.inputs[0], operator.outputs[0]))
    times = [[m // n for n, m in zip(before.shape, after.shape, strict=True)] for before, after in zip(x, y)]
    if times[0] != times[1]:
        raise FixedBatchError(f"{operator.origin} repeats something for each sample")
    multiples = Tensor(f"{y[0].name}/multiples", (len(times[0]),), ir.DataType.INT32, data=np.array(times[0], np.int32))
    inputs = operator.inputs[0], buffer.add_tensor(multiples)
    return replace(operator, kind="TILE", inputs=inputs, options=schema.TileOptionsT())


def _for_one(tensor: Tensor, larger: tuple[int, ...]) -> Tensor:
    grown = [axis for axis, (n, m) in enumerate(zip(tensor.shape, larger, strict=True)) if n != m]
    if not grown:
        return tensor
    if len(grown) > 1:
        raise FixedBatchError(f"value {tensor.name!r} has the batch size in two dimensions")
    shape = tuple(n // TWO if axis in grown else n for axis, n in enumerate(tensor.shape))
    return replace(tensor, shape=shape, open_axis=grown[0])


def _opened(buffer: FlatBuffer, operator: Operator, several: Sequence[tuple[Tensor, Tensor]]) -> Operator:
    """The operator with constants and options that leave the number of samples open."""
    if operator.kind == "BROADCAST_TO":
        return _repeated(buffer, operator, several)
    inputs, options = list(operator.inputs), copy.copy(operator.options)
    for position, index in enumerate(operator.inputs):
        tensor, larger = several[index] if index >= 0 else (None, None)
        if tensor is None or larger is None or tensor.data is None or larger.data is None:
            continue
        if tensor.data.shape == larger.data.shape and np.array_equal(tensor.data, larger.data):
            continue
        if isinstance(options, schema.StridedSliceOptionsT) and position == END:
            options.endMask |= sum(1 << int(axis) for axis in np.flatnonzero(tensor.data != larger.data))
            continue
        size = SIZES.get((operator.kind, position))
        is_size = tensor.data.shape == larger.data.shape
        grown = np.flatnonzero(tensor.data != larger.data) if is_size else np.zeros(0, np.intp)
        if size is None or len(grown) != 1:
            raise FixedBatchError(f"{operator.kind} (for {operator.origin}) takes the batch size as a constant")
        data = tensor.data.copy()
        data[grown] = size
        inputs[position] = buffer.add_tensor(replace(tensor, data=data))
        if isinstance(options, schema.ReshapeOptionsT):
            options.newShape = data.tolist()
    return replace(operator, inputs=tuple(inputs), options=options)
