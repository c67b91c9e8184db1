"""Annotated model -> ONNX bytes in QDQ form (QuantizeLinear/DequantizeLinear around float operators).

ONNX Runtime turns `DequantizeLinear -> operator -> QuantizeLinear` into the operator's integer kernel;
other consumers of ONNX (TensorRT, OpenVINO, QNN) read the same form. So every int8 value is a pair of the
two, weights are integers behind one DequantizeLinear, and nothing stands inside a fused layer.

Activations are written as uint8 (zero point + 128: the same real values). ONNX Runtime on x86 turns int8
ones into uint8 by itself, but not those with two consumers, and then leaves both sides of each unfused:
ResNet-8 takes 319 us in int8 and 137 us in uint8 (1.31, one thread). Weights are int8 in either case.
"""
from __future__ import annotations

import itertools
import string
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import INTEGER_RANGE, Quantization, is_int8, quantization
from edgecompress.graph.fusion import Layer, constant, layers

IR_VERSION = 10  # came with opset 21; ONNX Runtime before 1.20 refuses a newer one
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}  # input 1 is the weight, if constant
CLIPPED = {"Conv", "Gemm", "Add", "Mul", "AveragePool"}  # have an integer kernel, none with an activation


def emit(model: ir.Model) -> bytes:
    """Canonical model with annotations -> serialised ModelProto (opset 21, IR version 10).

    Weights with a Quantization are stored as it says; int8 activations pass through QuantizeLinear and
    DequantizeLinear. Inputs, outputs and surviving values keep their names (an int8 value's name is that
    of its DequantizeLinear). A model without annotations is written in float. `model` is not changed.
    """
    writer = _QDQWriter(model.clone())
    writer.write()
    proto = ir.to_proto(writer.model)
    del proto.graph.value_info[:]  # whoever loads the file infers it again
    return proto.SerializeToString(deterministic=True)


class _QDQWriter:
    """Rewrites one model in place.

    1. An activation that its output's int8 range implies (Relu with zero point -128) is taken out.
    2. One that is not implied gets a pair in front, so that the layer before it is still fused.
    3. Values of int8 layers, and what int8 layers read from elsewhere, pass through a pair.
    4. Identity in int8 only says where to requantise: the pairs on both sides of it remain.
    5. A layer that ONNX Runtime must not fuse is kept from the pair behind it by a Max of one input.
    6. Constants are stored as integers or halves, and widened by one or two nodes.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model, self.graph = model, model.graph
        self._names = _unused_names({v.name for v in _values(model.graph)})
        self._unfused: set[ir.Value] = set()
        self._added: list[ir.Node] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def write(self) -> None:
        self._unfused = {layer.output for layer in layers(self.graph) if _must_not_fuse(layer.node)}
        groups = [layer for layer in layers(self.graph) if is_int8(layer.node)]
        int8_nodes = {node for layer in groups for node in layer.nodes}
        for layer in groups:
            self._settle_activation(layer)
        idle = [n for n in int8_nodes if n.graph is not None and _changes_nothing(n)]
        for value in list(_values(self.graph)):
            if value.is_initializer():
                self._store_constant(value, int8_nodes)
            elif quantization(value) is not None:
                self._pair_value(value, int8_nodes)
        for node in idle:
            self._take_out(node)
        self._strip()

    # activations ----------------------------------------------------------------------------------

    def _settle_activation(self, layer: Layer) -> None:
        q = quantization(layer.output)
        if layer.activation is None or q is None:
            return
        source = layer.activation.inputs[0]
        assert source is not None
        if _changes_nothing(layer.activation):
            source.name = layer.output.name
            source.meta.update(layer.output.meta)
            self._take_out(layer.activation)
        elif layer.node.op_type in CLIPPED:
            self._insert_pair(source, q, [(layer.activation, 0)])

    def _pair_value(self, value: ir.Value, int8_nodes: set[ir.Node]) -> None:
        q = quantization(value)
        assert q is not None
        if value.producer() in int8_nodes:
            uses = [(use.node, use.idx) for use in value.uses()]
            paired = self._insert_pair(value, q, uses)
            for index, output in enumerate(self.graph.outputs):
                if output is value:
                    self.graph.outputs[index] = paired
            value.name, paired.name = paired.name, value.name
        else:  # float in memory: only int8 layers read it rounded
            uses = [(use.node, use.idx) for use in value.uses() if use.node in int8_nodes]
            if uses:
                self._insert_pair(value, q, uses)

    def _insert_pair(self, value: ir.Value, q: Quantization, uses: list[tuple[ir.Node, int]]) -> ir.Value:
        """value -> QuantizeLinear -> DequantizeLinear -> uses; returns the last one's output."""
        parameters, axis = self._parameters(q, unsigned=True), _axis(q)
        shield = [self._node("Max", [value])] if value in self._unfused else []
        source = shield[0].outputs[0] if shield else value
        quantize = self._node("QuantizeLinear", [source, *parameters], axis)
        dequantize = self._node("DequantizeLinear", [quantize.outputs[0], *parameters], axis)
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], [quantize, dequantize])
        else:
            self.graph.insert_after(producer, [*shield, quantize, dequantize])
        result = dequantize.outputs[0]
        result.shape, result.type = value.shape, value.type
        for node, index in uses:
            node.replace_input_with(index, result)
        return result

    def _take_out(self, node: ir.Node) -> None:
        source = node.inputs[0]
        assert source is not None
        node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)

    # constants ------------------------------------------------------------------------------------

    def _store_constant(self, value: ir.Value, int8_nodes: set[ir.Node]) -> None:
        """Replaces a float initializer by what its Quantization stores and the nodes that widen it.

        ONNX Runtime leaves DequantizeLinear for its integer kernels to find, and would run it on every
        inference in a float layer; Cast and Mul it folds once, when it loads the model.
        """
        q, real = quantization(value), constant(value)
        if q is None or real is None:
            return
        uses = [(use.node, use.idx) for use in value.uses()]
        unsigned = any(node.op_type not in WEIGHTED or index == 0 for node, index in uses)
        array = _unsigned(q.quantize(real)) if unsigned else q.quantize(real)
        stored = ir.Value(name=value.name, const_value=ir.tensor(array, name=value.name))
        self.graph.initializers.pop(str(value.name))
        self.graph.register_initializer(stored)
        if any(node in int8_nodes for node, _ in uses):
            chain = [self._node("DequantizeLinear", [stored, *self._parameters(q, unsigned)], _axis(q))]
        else:
            chain = [self._node("Cast", [stored], [ir.AttrInt64("to", ir.DataType.FLOAT)])]
            if q.dtype != ir.DataType.FLOAT16:
                scale = q.scale.astype(np.float32).reshape(_broadcast_shape(q, real.ndim))
                chain.append(self._node("Mul", [chain[0].outputs[0], self._constant(scale)]))
        self.graph.insert_before(self.graph[0], chain)
        for node, index in uses:
            node.replace_input_with(index, chain[-1].outputs[0])

    def _parameters(self, q: Quantization, unsigned: bool) -> list[ir.Value]:
        shape = _broadcast_shape(q, 1)
        zero_point = q.zero_point.astype(q.dtype.numpy()).reshape(shape)
        scale = self._constant(q.scale.astype(np.float32).reshape(shape))
        return [scale, self._constant(_unsigned(zero_point) if unsigned else zero_point)]

    def _constant(self, array: np.ndarray) -> ir.Value:
        """An initializer with this content; equal ones are one."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = next(self._names)
            self._constants[key] = ir.Value(name=name, const_value=ir.tensor(array, name=name))
            self.graph.register_initializer(self._constants[key])
        return self._constants[key]

    # ----------------------------------------------------------------------------------------------

    def _node(self, op_type: str, inputs: list[ir.Value], attributes: list[ir.Attr] | None = None) -> ir.Node:
        node = ir.Node("", op_type, inputs, attributes or [])
        node.outputs[0].name = next(self._names)
        self._added.append(node)
        return node

    def _strip(self) -> None:
        """Takes out what no runtime reads: it can be a tenth of a small model's file."""
        model, graph = self.model, self.graph
        model.ir_version, model.producer_name, model.producer_version = IR_VERSION, "edgecompress", None
        for holder in (model, graph, *graph, *_values(graph)):
            holder.doc_string = None
            holder.metadata_props.clear()
        for node in graph:
            if node.op_type == "AveragePool" and not _dilated(node):
                node.attributes.pop("dilations", None)  # QLinearAveragePool refuses even ones
        for node in self._added:
            node.name = None  # the graph had given it one
        for value in [v for v in graph.initializers.values() if not v.uses() and not v.is_graph_output()]:
            graph.initializers.pop(str(value.name))


def _must_not_fuse(node: ir.Node) -> bool:
    """Whether ONNX Runtime would go wrong between the pairs on both sides of a node.

    It quantises a float layer's weights by itself when the layer stands between int8 ones (1.31), which
    undoes mixed precision; and it has no dilated QLinearAveragePool, but makes one all the same.
    """
    return (node.op_type in WEIGHTED and not is_int8(node)) or (node.op_type == "AveragePool" and _dilated(node))


def _dilated(node: ir.Node) -> bool:
    return any(step != 1 for step in node.attributes.get_ints("dilations", ()))


def _changes_nothing(node: ir.Node) -> bool:
    """Whether an int8 node is the identity before its output's rounding and saturation.

    Rounding is monotone: where both bounds round to the ends of the int8 range, clipping to them first
    makes no difference.
    """
    q = quantization(node.outputs[0])
    bounds = _bounds(node)
    if q is None or bounds is None or q.dtype not in INTEGER_RANGE:
        return False
    return tuple(q.quantize(np.array([bound]))[0] for bound in bounds) == INTEGER_RANGE[q.dtype]


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    """Lowest and highest output of a node that is the identity in between, else None."""
    if node.op_type == "Identity":
        return -np.inf, np.inf
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type == "Clip":
        given = [constant(v) for v in node.inputs[1:]] + [None, None]
        if any(v is not None and constant(v) is None for v in node.inputs[1:]):
            return None
        low, high = given[0], given[1]
        return -np.inf if low is None else float(low), np.inf if high is None else float(high)
    return None


def _unsigned(stored: np.ndarray) -> np.ndarray:
    """int8 -> uint8 that means the same with a zero point 128 higher; other types as they are."""
    return (stored.astype(np.int16) + 128).astype(np.uint8) if stored.dtype == np.int8 else stored


def _axis(q: Quantization) -> list[ir.Attr]:
    return [] if q.axis is None else [ir.AttrInt64("axis", q.axis)]


def _broadcast_shape(q: Quantization, rank: int) -> tuple[int, ...]:
    """Shape in which scales meet a value of `rank` axes: () per tensor, else channels along the axis."""
    if q.axis is None:
        return ()
    return tuple(-1 if axis == min(q.axis, rank - 1) else 1 for axis in range(rank))


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _unused_names(taken: set[str | None]) -> Iterator[str]:
    """"a", "b", ... "aa", ...: short, since each is written two or three times."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            if (name := "".join(letters)) not in taken:
                yield name
