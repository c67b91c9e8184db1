"""A float model that rounds where the quantized model does: for measuring, not for shipping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize.names import Names
from edgecompress.graph.annotations import INTEGER_RANGE, Quantization, is_integer, quantization


def simulation(model: ir.Model) -> ir.Model:
    """Annotated model -> float model with the same value names and the quantized model's results.

    Constants hold what their integers stand for. A value stored as int8 is rounded where it is made, and its
    name is that of the rounded value; a float value is rounded on its way to int8 layers only. Differs from
    an integer runtime by that one's rounding of multipliers, a step at most for each layer.
    """
    return Simulation(model).model


@dataclass(frozen=True)
class Rounding:
    """A value of the simulated graph before and after it is rounded."""

    exact: ir.Value
    rounded: ir.Value


class Simulation:
    """A simulated model under construction, and access to the values inside it.

    model: the simulated model. roundings: by the name that the value has in the annotated model. steps: by that name,
    the names of the constants with its scale, and with the lowest and the highest multiple of it.
    """

    def __init__(self, annotated: ir.Model, simulated: ir.Model | None = None) -> None:
        """simulated: an earlier simulation of the same model, to share its constants."""
        known = {} if simulated is None else simulated.graph.initializers
        self.model = annotated.clone()
        self.graph = self.model.graph
        self.roundings: dict[str, Rounding] = {}
        self.steps: dict[str, tuple[str, str, str]] = {}
        self._names = Names(self.graph)
        for value in list(self.graph.initializers.values()):
            if (q := quantization(value)) is not None and value.const_value is not None:
                if (same := known.get(str(value.name))) is not None:
                    value.const_value = same.const_value
                    continue
                array = q.dequantize(q.quantize(value.const_value.numpy()))
                value.const_value = ir.tensor(array, name=value.name)
        for value in [*self.graph.inputs, *(v for node in self.graph for v in node.outputs)]:
            if (q := quantization(value)) is not None:
                self._round(value, q)

    def _round(self, value: ir.Value, q: Quantization) -> None:
        name, producer, uses = str(value.name), value.producer(), list(value.uses())
        stored = producer is None or is_integer(producer)
        rounded = self.round_trip(value, q)
        for node, index in uses:
            if stored or is_integer(node):
                node.replace_input_with(index, rounded)
        if producer is not None and stored:
            for index, output in enumerate(self.graph.outputs):
                if output is value:
                    self.graph.outputs[index] = rounded
            value.name, rounded.name = rounded.name, value.name
        self.roundings[name] = Rounding(value, rounded)

    def round_trip(self, value: ir.Value, q: Quantization) -> ir.Value:
        """Inserts nodes behind a value that quantize and dequantize it; returns the rounded value.

        They compute scale * clip(round(x / scale)) in plain arithmetic: ONNX Runtime would fuse QuantizeLinear and
        DequantizeLinear into integer kernels, which not all operators get with all attributes.
        """
        low, high = (float(end) - float(q.zero_point[0]) for end in INTEGER_RANGE[q.dtype])
        scale = self.constant("scale", q.scale[0])
        scaled = self.node("Div", [value, scale])
        whole = self.node("Round", [scaled.outputs[0]])
        bounds = [self.constant("bound", np.float32(bound)) for bound in (low, high)]
        clipped = self.node("Clip", [whole.outputs[0], *bounds])
        widened = self.node("Mul", [clipped.outputs[0], scale])
        self.steps[str(value.name)] = (str(scale.name), str(bounds[0].name), str(bounds[1].name))
        self.insert(value, [scaled, whole, clipped, widened])
        for made in (scaled, whole, clipped, widened):  # without shapes no other batch size could be set
            made.outputs[0].shape, made.outputs[0].type = value.shape, value.type
        return widened.outputs[0]

    def add_float_model(self, reference: ir.Model) -> dict[str, ir.Value]:
        """Puts the float model's nodes in front, on the same inputs, so that both models run at once.

        Returns the float model's inputs and computed values by their names in `reference`; in the simulated graph they
        have other names.
        """
        model = reference.clone()
        inputs = {str(v.name): v for v in self.graph.inputs}
        for value in model.graph.inputs:
            value.replace_all_uses_with(inputs[str(value.name)])
        nodes, constants = list(model.graph), list(model.graph.initializers.values())
        computed = {str(v.name): v for node in nodes for v in node.outputs}
        model.graph.outputs.clear()
        model.graph.initializers.clear()
        for node in nodes:
            model.graph.remove(node)
            node.name = self._names(f"float/{node.name}")
        for value in (*computed.values(), *constants):
            value.name = self._names(f"float/{value.name}")
        for value in constants:
            self.graph.register_initializer(value)
        if len(self.graph):
            self.graph.insert_before(self.graph[0], nodes)
        else:  # constants alone
            self.graph.extend(nodes)
        return inputs | computed

    def node(self, op_type: str, inputs: list[ir.Value | None], **attributes: int) -> ir.Node:
        """A node with one output, which is not in the graph yet."""
        node = ir.node(op_type, inputs, attributes=attributes, name=self._names(f"simulated {op_type}"))
        node.outputs[0].name = self._names(f"simulated {op_type}")
        return node

    def constant(self, name: str, array: np.ndarray | np.generic) -> ir.Value:
        """Adds an initializer to the graph."""
        unused = self._names(f"simulated {name}")
        value = ir.Value(name=unused, const_value=ir.tensor(np.asarray(array), name=unused))
        self.graph.register_initializer(value)
        return value

    def insert(self, value: ir.Value, nodes: list[ir.Node]) -> None:
        """Puts nodes behind the one that computes `value`, or in front of all others when it is an input."""
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], nodes)
        else:
            self.graph.insert_after(producer, nodes)
