"""What XNNPACK refuses is refused before it is written, by node; LiteRT itself is asked what that is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgecompress.emit import tflite
from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.annotations import quantization, set_quantization
from edgecompress.ingest import load
from edgecompress.operators.example import Example
from formats import int8

LAYERS = {
    "Conv": ("c = Conv(s, w)", (8, 4, 3, 3)),
    "depthwise Conv": ("c = Conv<group=4>(s, w)", (4, 1, 3, 3)),
    "Conv with steps": ("c = Conv<strides=[2,2], pads=[1,1,1,1]>(s, w)", (8, 4, 3, 3)),
    "Conv of one pixel": ("c = Conv(s, w)", (8, 4, 1, 1)),
    "Gemm": ("f = Flatten(s) c = Gemm(f, w)", (120, 8)),
    "MatMul of rows": ("c = MatMul(s, w)", (5, 8)),
}


@pytest.mark.parametrize("factor", [1.0, 30.0, 1e4, 1e6])
@pytest.mark.parametrize("name", LAYERS)
def test_sums_that_clip_far_below_their_size(name: str, factor: float) -> None:
    """Relu6 of sums in the thousands: one step of a sum is many steps of the output."""
    layer, shape = LAYERS[name]
    nodes = f"s = Mul(x, k) {layer} y = Clip(c, low, high)"
    constants = {"k": np.float32(factor), "low": np.float32(0), "high": np.float32(6)}
    model = int8(load(Example(nodes, weights={"w": shape}, constants=constants).model()).model)
    try:
        Interpreter(model_content=tflite.emit(model).data).allocate_tensors()
    except RuntimeError:
        with pytest.raises(UnsupportedModelError, match=r"'c'.* steps of its output.*quantize\.float_layers"):
            tflite.emit(model, for_xnnpack=True)
        assert factor > 100
    else:
        tflite.emit(model, for_xnnpack=True)
        assert factor < 1e6


@pytest.mark.parametrize("step", [1.0, 0.1, 1e-2, 5e-3, 1e-4])
@pytest.mark.parametrize("options", ["", "<strides=[2,2]>", "<strides=[1,2], pads=[1,1,1,1]>"])
def test_transposed_convolutions_whose_outputs_have_small_steps(options: str, step: float) -> None:
    """As a model that comes quantized may say."""
    example = Example(f"y = ConvTranspose{options}(x, w)", weights={"w": (4, 8, 3, 3)})
    model = int8(load(example.model()).model)
    y = model.graph.outputs[0]
    q = quantization(y)
    assert q is not None
    set_quantization(y, replace(q, scale=np.float32([step * 0.001])))
    try:
        Interpreter(model_content=tflite.emit(model).data).allocate_tensors()
    except RuntimeError:
        with pytest.raises(UnsupportedModelError, match=r"'y'.* steps of its output.*quantize\.float_layers"):
            tflite.emit(model, for_xnnpack=True)
        assert step < 0.1
    else:
        tflite.emit(model, for_xnnpack=True)
        assert step > 1e-3
