"""Rules about channels against ONNX Runtime, one node at a time: what the rule lets go can be taken away.

The rules promise that a node without some positions computes what it computes with zeros in their place. So each set of
coupled positions is removed from the node's inputs, and the outputs are compared with the original's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, RuntimeException

from edgecompress.graph.channel_axes import ChannelAxes, shape
from edgecompress.graph.channel_reshape import couple_split
from edgecompress.graph.fusion import constant
from edgecompress.operators import record_of

Arrays = dict[str, np.ndarray]
Masks = dict[tuple[str, int], np.ndarray]  # (value, axis) -> whether each position goes

CLOSE = 1e-5  # of the largest value: sums in another order


def values_of(model: ir.Model, feeds: Arrays) -> Arrays:
    """All values of the model by name: inputs, constants and what each node computes."""
    proto = ir.to_proto(model)
    names = [str(v.name) for node in model.graph for v in node.outputs if v.name]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    constants = {str(name): v.const_value.numpy() for name, v in model.graph.initializers.items()}
    return {**feeds, **constants, **dict(zip(names, _run(proto, feeds), strict=True))}


def channel_faults(model: ir.Model, place: int, values: Arrays) -> Iterator[str]:
    """A sentence for each set of positions that the rule of the node at `place` lets go, but ONNX Runtime doesn't."""
    node = model.graph[place]
    inputs = {str(v.name): values[str(v.name)] for v in node.inputs if v is not None}
    for gone, is_exact in _removable(model.graph, node):
        zeroed = {name: _without(array, name, gone, zeros=True) for name, array in inputs.items()}
        expected = [_without(y, name, gone) for name, y in _computed(model, node, zeroed).items()]
        where = ", ".join(f"{np.flatnonzero(mask).tolist()} along axis {a} of {v}" for (v, a), mask in gone.items())
        try:
            smaller, parameters = _shortened(model, place, gone)
            left = {name: _without(array, name, gone) for name, array in inputs.items()} | parameters
            found = list(_computed(model, smaller, left).values())
        except (Fail, InvalidArgument, InvalidGraph, RuntimeException, RuntimeError, ValueError) as error:
            yield f"without {where} there is no such network: {error}"
            continue
        for y, e in zip(found, expected, strict=True):
            if y.shape != e.shape:
                yield f"without {where} the output has shape {list(y.shape)}, not {list(e.shape)}"
            elif is_exact and not _are_close(y, e):
                yield f"without {where} the rest of the output isn't what it is with zeros there"


def _removable(graph: ir.Graph, node: ir.Node) -> Iterator[tuple[Masks, bool]]:
    """Sets of positions that the node's rule couples and doesn't fix, and whether what is left is to be exact."""
    axes = ChannelAxes(graph)
    named = (v for v in (*node.inputs, *node.outputs) if v is not None and v in axes)
    values = list(dict.fromkeys(v for v in named if not _is_setting(v)))
    for value in values:
        for axis, size in enumerate(shape(value)):
            if size == 1:
                axes.fix(axes.ids(value, axis), "there is only one")
    record_of(node).channels(node, axes)
    if node.op_type == "Reshape":
        couple_split(node, axes)
    component, fixed, approximated = axes.components(), axes.fixed(), axes.approximated()
    lines = {(str(v.name), axis): axes.ids(v, axis) for v in values for axis in range(len(shape(v)))}
    for label in np.unique(np.concatenate([component[ids] for ids in lines.values()])):
        gone = {line: component[ids] == label for line, ids in lines.items() if (component[ids] == label).any()}
        if not fixed[label] and not any(mask.all() for mask in gone.values()):
            yield gone, not approximated[label]


def _is_setting(value: ir.Value) -> bool:
    """Whether the value is a constant of whole numbers, such as a Reshape's shape: the record's `change` renews it."""
    array = constant(value)
    return array is not None and array.dtype.kind in "iu"


def _shortened(model: ir.Model, place: int, gone: Masks) -> tuple[ir.Node, Arrays]:
    """The node with the attributes that it has without these positions, and its renewed constants."""
    node, renewed = model.clone().graph[place], Arrays()

    def kept(value: ir.Value, axis: int) -> np.ndarray:
        mask = gone.get((str(value.name), axis % len(shape(value))))
        return np.ones(shape(value)[axis], bool) if mask is None else ~mask

    def renew(changed: ir.Node, position: int, array: np.ndarray) -> None:
        value = changed.inputs[position]
        assert value is not None
        renewed[str(value.name)] = array.astype(value.dtype.numpy())

    change = record_of(node).change
    if change is not None:
        change(node, kept, renew)
    return node, renewed


def _without(array: np.ndarray, name: str, gone: Masks, zeros: bool = False) -> np.ndarray:
    """The value without the positions, or with zeros there."""
    for axis in range(array.ndim):
        mask = gone.get((name, axis))
        if mask is not None and zeros:
            array = np.where(mask.reshape(-1, *(1,) * (array.ndim - 1 - axis)), array.dtype.type(0), array)
        elif mask is not None:
            array = np.compress(~mask, array, axis)
    return array


def _computed(model: ir.Model, node: ir.Node, inputs: Arrays) -> Arrays:
    """The node's outputs by name, of a network that has nothing else."""
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in inputs.items()
    ]
    names = [str(v.name) for v in node.outputs if v.name and v.shape is not None]
    graph = onnx.helper.make_graph([ir.to_proto(node)], "g", infos, [onnx.ValueInfoProto(name=n) for n in names])
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return dict(zip(names, _run(proto, inputs), strict=True))


def _run(proto: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def _are_close(found: np.ndarray, expected: np.ndarray) -> bool:
    largest = float(np.abs(expected).max(initial=1.0))
    return np.allclose(found, expected, rtol=0, atol=CLOSE * largest, equal_nan=True)
