"""Small networks in ONNX's text form that show what an operator does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper, parser

OPSET = 21
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Example:
    """nodes: such as "y = Conv(x, w)"; the output is `y`, or those that `outputs` names.

    inputs: name -> shape of a float32 input. weights: name -> shape of a float32 constant of random numbers.
    constants: name -> the array itself.
    """

    nodes: str
    inputs: Mapping[str, Shape] = field(default_factory=lambda: {"x": (1, 4, 6, 5)})
    weights: Mapping[str, Shape] = field(default_factory=dict)
    constants: Mapping[str, object] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("y",)
    opset: int = OPSET

    def model(self) -> onnx.ModelProto:
        """The network; its weights are the same on every call."""
        inputs = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in self.inputs.items())
        outputs = ", ".join(f"float {name}" for name in self.outputs)
        text = f'<ir_version: 10, opset_import: ["" : {self.opset}]> g ({inputs}) => ({outputs}) {{ {self.nodes} }}'
        proto = parser.parse_model(text)
        for value in proto.graph.output:  # inferred when the model is read
            value.type.tensor_type.ClearField("shape")
        rng = np.random.default_rng(0)
        arrays = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in self.weights.items()}
        arrays |= {name: np.asarray(given) for name, given in self.constants.items()}
        proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
        return proto
