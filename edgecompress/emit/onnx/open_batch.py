"""A model whose batch size is open as ONNX, made of the same model for two and for three samples."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from edgecompress.graph.nodes import optional_parameter
from edgecompress.ingest.batch_size import FixedBatchError
from edgecompress.ingest.passes.edit import Edit, static_shape

BATCH = "batch"  # the name of the dimension
TWO, THREE = 2, 3  # samples
TO_THE_END = np.iinfo(np.int64).max


def with_scales(model: ir.Model) -> ir.Model:
    """The model, changed in place, whose Resizes have scales where these say exactly the same as sizes.

    Sizes of some axes (`axes`) say it too, but ONNX Runtime 1.32 can't load int8 models with these.
    """
    edit = Edit(model.graph)
    for node in model.graph:
        sizes = optional_parameter(node, 3) if node.op_type == "Resize" else None
        before = static_shape(node.inputs[0])
        if sizes is None or before is None or len(sizes) != len(before):
            continue
        scales = np.asarray(sizes / np.array(before), np.float32)
        if np.array_equal(scales.astype(np.float64) * before, sizes):
            node.replace_input_with(2, edit.constant(f"{node.outputs[0].name}/scales", scales))
            node.replace_input_with(3, None)
    return model


def with_open_batch(two: onnx.ModelProto, three: onnx.ModelProto) -> onnx.ModelProto:
    """The first, changed in place. Where they differ, they say how many samples there are. Raises FixedBatchError where
    that can't be left open."""
    if two.graph.node != three.graph.node:
        raise FixedBatchError("its nodes depend on the batch size")
    for value, larger in (*_pairs(two, three, "input"), *_pairs(two, three, "output")):
        _open_dimensions(value, larger)
    readers = defaultdict(list)
    for node in two.graph.node:
        for position, name in enumerate(node.input):
            readers[name].append((node, position))
    for tensor, larger in _pairs(two, three, "initializer"):
        if tensor != larger:
            _open_constant(tensor, numpy_helper.to_array(larger), readers[tensor.name])
    return two


def _pairs(a: onnx.ModelProto, b: onnx.ModelProto, what: str) -> list[tuple[Any, Any]]:
    """What both graphs have under one name, in order."""
    others = {x.name: x for x in getattr(b.graph, what)}
    if [x.name for x in getattr(a.graph, what)] != list(others):
        raise FixedBatchError("its constants depend on the batch size")
    return [(x, others[x.name]) for x in getattr(a.graph, what)]


def _open_dimensions(value: onnx.ValueInfoProto, larger: onnx.ValueInfoProto) -> None:
    """A dimension that holds more than the samples stays without a name."""
    for dim, other in zip(value.type.tensor_type.shape.dim, larger.type.tensor_type.shape.dim, strict=True):
        if dim.dim_value != other.dim_value:
            name = BATCH if dim.dim_value == TWO else ""
            dim.Clear()
            dim.dim_param = name


def _open_constant(tensor: onnx.TensorProto, larger: np.ndarray, readers: list[tuple[onnx.NodeProto, int]]) -> None:
    array = numpy_helper.to_array(tensor)
    kinds = {(node.op_type, position) for node, position in readers}
    is_size = array.shape == larger.shape and array.ndim == 1
    grown = np.flatnonzero(array != larger) if is_size else np.zeros(0, np.intp)
    if len(grown) != 1 or len(kinds) != 1:
        raise FixedBatchError(f"constant {tensor.name!r} depends on the batch size")
    axis, kind = int(grown[0]), kinds.pop()
    if kind == ("Resize", 3):
        others = [i for i in range(len(array)) if i != axis]
        for node, _ in readers:
            node.attribute.append(helper.make_attribute("axes", others))
        opened = array[others]
    elif kind in SIZES:
        opened = array.copy()
        opened[axis] = SIZES[kind]
    else:
        raise FixedBatchError(f"an input of {kind[0]} depends on the batch size")
    tensor.CopyFrom(numpy_helper.from_array(opened, tensor.name))


# operator and position of an input -> what says in it that a dimension is as long as it happens to be
SIZES = {("Reshape", 1): -1, ("Expand", 1): 1, ("Slice", 2): TO_THE_END}
