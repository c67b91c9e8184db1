"""What fuzzing under guard pages found: plans that read or wrote beside their arrays."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from layer_cases import FLOAT, Layers
from packs import header_of, with_header

from edgecompress_runtime.errors import MisfitError
from edgecompress_runtime.execute import Executor, calls
from edgecompress_runtime.operators import check_plan
from edgecompress_runtime.pack import PackError, read_pack, write_pack
from edgecompress_runtime.plan import Plan


@pytest.mark.parametrize("axes", [[1, 1], [0, 0, 0], [1, -2], [2, -1], [1, 1, 1, 1], [0, 1, 2, 0]])
def test_an_axis_is_reversed_once(axes: list[int]) -> None:
    made = Layers(0)
    x, y = (made.int8((3, 4, 5), 0.1, 0) for _ in range(2))
    made.layer("REVERSE_V2", [x, made.constant(np.array(axes, np.int32))], [y])
    with pytest.raises((PackError, MisfitError, ValueError), match="axis twice"):
        read_pack(write_pack(made.plan(), "twice")).plan()


def _convolution(made: Layers) -> None:
    made.convolution((4, 5, 6), 9, (3, 3))


def _float_depthwise(made: Layers) -> None:
    x, y = made.tensor((1, 4, 6, 3), FLOAT), made.tensor((1, 4, 6, 3), FLOAT)
    w, bias = (made.constant(made.random.normal(size=s).astype(np.float32)) for s in ((1, 3, 2, 3), (3,)))
    window = {"padding": 0, "strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    made.layer("DEPTHWISE_CONV_2D", [x, w, bias], [y], **window, depthMultiplier=1)


def _wide(made: Layers) -> None:
    made.wide = True
    made.depthwise((5, 6, 7), (3, 3))


LAYERS = {
    "convolution": _convolution,
    "depthwise": lambda made: made.depthwise((5, 6, 7), (3, 3)),
    "depthwise, two outputs": lambda made: made.depthwise((4, 4, 3), (3, 3), times=2),
    "depthwise, int16": _wide,
    "depthwise, float": _float_depthwise,
    "dense": lambda made: made.dense(3, 37, 5),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_without_a_bias_has_a_zero_for_each_channel(name: str) -> None:
    made = Layers(0)
    LAYERS[name](made)
    plan, operator = made.plan(), made.operators[0]
    tensors = list(plan.tensors)
    bias = tensors[operator.inputs[2]]
    assert bias.data is not None
    tensors[operator.inputs[2]] = replace(bias, data=np.zeros_like(bias.data))
    zero = Plan(tuple(tensors), plan.operators, plan.inputs, plan.outputs)
    without = replace(zero, operators=(replace(operator, inputs=operator.inputs[:2]),))
    check_plan(without)
    feeds = made.feeds()
    assert np.array_equal(Executor(without)(*feeds)[0], Executor(zero)(*feeds)[0])
    channels = plan.tensors[operator.outputs[0]].shape[-1]
    (call,) = calls(without)
    sizes = [a.size for argument in call.arguments for a in _arrays(argument)]
    assert sizes and min(sizes) == channels


def _arrays(argument: object) -> list[np.ndarray]:
    if isinstance(argument, tuple):
        return [a for part in argument for a in _arrays(part)]
    return [argument] if isinstance(argument, np.ndarray) else []


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb", "\udc00\ud800", "x" * 1000 + "\udbff", "\ud83d \ude00"])
@pytest.mark.parametrize("place", ["model", "tensor"])
def test_a_name_is_text(name: str, place: str) -> None:
    made = Layers(0)
    made.dense(1, 4, 2)
    data = write_pack(made.plan(), "dense")
    header = header_of(data)
    if place == "model":
        header["model"] = name
    else:
        header["tensors"][0]["name"] = name
    with pytest.raises(PackError, match="a string") as raised:
        read_pack(with_header(data, json.dumps(header).encode())).plan()
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("shape", [(1, 6, 8, 1, 3), (1, 6, 8, 8, 8, 3), (1, 6, 3), (6, 3), (1, 6, 1, 8, 3)])
def test_a_transposed_convolution_has_four_dimensions(shape: tuple[int, ...]) -> None:
    made = Layers(0)
    x, y = made.tensor((1, 3, 4, 4), FLOAT), made.tensor(shape, FLOAT)
    w = made.constant(np.zeros((3, 3, 3, 4), np.float32))
    window = {"padding": 0, "strideW": 2, "strideH": 2}
    made.layer("TRANSPOSE_CONV", [made.constant(np.array([1, 6, 8, 3], np.int32)), w, x], [y], **window)
    with pytest.raises((PackError, MisfitError, ValueError)):
        read_pack(write_pack(made.plan(), "grown")).plan()
