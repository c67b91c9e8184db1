"""Operators in the forms that exporters write beside the plain ones: other attributes, shapes and dtypes. Each network
computes in every format what ONNX Runtime (or the reference evaluator of the onnx package) computes of the original.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

import quantizing
from edgecompress.emit import pack, tflite
from edgecompress.errors import UnsupportedModelError
from edgecompress.ingest import load
from edgecompress.operators.example import Example
from formats import FORMATS, check_close, feeds, int8, original

LEAST_DB = 20.0  # of int8 against float


def pools() -> list[Example]:
    """ceil_mode: the divisor of an average leaves out cells that it adds, and a window that begins in the padding at
    the end does not exist."""
    windows = [  # kernel, stride, padding of all sides, size
        ("[2,2]", "[2,2]", 0, (7, 9)),
        ("[3,3]", "[2,2]", 1, (12, 10)),
        ("[2,2]", "[2,2]", 1, (7, 9)),
        ("[2,2]", "[3,3]", 1, (7, 10)),
        ("[2,2]", "[4,4]", 0, (11, 14)),
        ("[4,3]", "[3,2]", 1, (9, 8)),
    ]
    averages = ("AveragePool<count_include_pad=1, ", "AveragePool<count_include_pad=0, ")
    found = [
        Example(
            f"y = {pool}kernel_shape={kernel}, strides={stride}, pads={[pad] * 4}, ceil_mode=1>(x)", {"x": (1, 3, *n)}
        )
        for kernel, stride, pad, n in windows
        for pool in ("MaxPool<", *averages)
    ]
    norms = [Example(f"y = GlobalLpPool<p={power}>(x)") for power in (1, 2, 3)]
    line = Example("y = AveragePool<kernel_shape=[4], strides=[4], ceil_mode=1>(x)", {"x": (1, 3, 13)})
    return [*found, *norms, line]


def transposed_convolutions() -> list[Example]:
    """Two samples, output_padding, output_shape, auto_pad."""
    attributes = (
        "strides=[2,2], output_padding=[1,1]",
        "strides=[3,2], output_shape=[10,8]",  # longer than the sums reach
        "strides=[2,2], output_shape=[5,6]",
        "strides=[2,3], auto_pad='SAME_UPPER'".replace("'", '"'),
        "strides=[3,2], auto_pad='SAME_LOWER', output_shape=[8,6]".replace("'", '"'),
        "strides=[3,3], pads=[1,0,0,1], output_padding=[2,1]",
        "strides=[2,2], output_shape=[8,8], output_padding=[1,1]",
    )
    weights = {"w": (3, 2, 3, 3), "b": (2,)}
    return [
        Example(f"y = ConvTranspose<{text}>(x, w, b)", {"x": (batch, 3, 3, 3)}, weights)
        for text in attributes
        for batch in (1, 2)
    ]


def attentions() -> list[Example]:
    """Attention of opset 23, as torch's exporter writes it, and of 24: masks, heads, and second outputs."""
    images = {"q": (1, 2, 6, 4), "k": (1, 2, 6, 4), "v": (1, 2, 6, 4)}
    rows = {"q": (1, 6, 16), "k": (1, 5, 8), "v": (1, 5, 8)}
    causal = np.tril(np.ones((6, 6), bool))
    return [
        Example("y = Attention(q, k, v)", images, opset=23),
        Example("y = Attention<is_causal=1, scale=0.3>(q, k, v)", images, opset=23),
        Example("y = Attention<is_causal=1>(q, k, v)", images, opset=24),
        Example("y = Attention(q, k, v, m)", images, constants={"m": causal}, opset=23),
        Example("y = Attention(q, k, v, m)", images, constants={"m": mask(causal, -np.inf)}, opset=23),
        Example("y = Attention(q, k, v, m)", images, constants={"m": mask(causal, LOWEST)}, opset=24),
        Example("y = Attention<softcap=2.0>(q, k, v)", images, opset=23),
        Example("y = Attention<q_num_heads=4, kv_num_heads=2>(q, k, v)", rows, opset=23),
        Example("y = Attention<q_num_heads=4, kv_num_heads=2, softmax_precision=11>(q, k, v)", rows, opset=24),
        Example("y = Attention(q, k, v)", {**images, "q": (1, 4, 6, 4)}, opset=23),
        Example("y, , , z = Attention<qk_matmul_output_mode=3>(q, k, v)", images, outputs=("y", "z"), opset=23),
        Example("y, , , z = Attention(q, k, v)", images, outputs=("y", "z"), opset=23),
    ]


def mask(allowed: np.ndarray, fill: float) -> np.ndarray:
    return np.where(allowed, 0, fill).astype(np.float32)


def grouped_transposed_convolutions() -> list[Example]:
    """Each group by itself, one channel to each, and more outputs than inputs."""
    forms = (
        ("group=4, strides=[2,2], pads=[1,1,1,1]", (4, 1, 4, 4)),  # as decoders upsample
        ("group=2", (4, 3, 3, 3)),
        ("group=4, strides=[2,1]", (4, 2, 2, 3)),
        ("group=2, strides=[2,2], output_padding=[1,1]", (4, 1, 3, 3)),
        ("group=2, pads=[1,0,0,1], strides=[1,3]", (4, 2, 2, 3)),
        ("group=2", (4, 3, 1, 1)),
    )
    return [
        Example(f"y = ConvTranspose<{text}>(x, w)", {"x": (1 + number % 2, 4, 5, 3)}, {"w": shape})
        for number, (text, shape) in enumerate(forms)
    ]


def slopes() -> list[Example]:
    """PRelu whose slopes are those of single values, rows, columns or channels, or one for all, below zero too; and
    slopes that are inputs, or that the model computes."""
    shapes = ((4, 6, 5), (4, 1, 1), (1,), (5,), (6, 1), (4, 6, 1))
    given = (((3, 4, 5), (3, 4, 5)), ((1, 4, 5), (1, 4, 1)), ((1, 4, 3, 5), (1, 4, 1, 1)), ((2, 4, 3, 5), (2, 1, 3, 5)))
    computed = (
        "s = Tanh(x)",
        "m = ReduceMean<axes=[2, 3]>(x) s = Sigmoid(m)",
        "n = Neg(x) s = MaxPool<kernel_shape=[1, 1]>(n)",
    )
    return [
        *(Example("y = PRelu(x, s)", {"x": x, "s": s}) for x, s in given),
        *(Example(f"{slope} y = PRelu(x, s)", opset=17) for slope in computed),
        *(Example("y = PRelu(x, s)", weights={"s": shape}) for shape in shapes),
        Example("y = PRelu(x, s)", {"x": (3, 7)}, {"s": (3, 7)}),
        Example("y = PRelu(x, s)", {"x": (1, 4, 9)}, {"s": (4, 1)}),
    ]


def reductions() -> list[Example]:
    """The standard defines these in double precision."""
    return [
        Example(f"y = {kind}<keepdims={keep}>(x, a)", constants={"a": np.array(axes)})
        for kind in ("ReduceLogSumExp", "ReduceSumSquare", "ReduceL2")
        for keep, axes in ((1, [1]), (0, [2, 3]))
    ]


def last_indices() -> list[Example]:
    """Equal values everywhere: half of Relu's outputs are zero."""
    return [
        Example(
            f"r = Relu(x) n = Neg(r) a = {kind}<axis={axis}, keepdims={keep}, select_last_index=1>(n) y = Cast<to=1>(a)"
        )
        for kind, axis, keep in (("ArgMax", 1, 1), ("ArgMax", -1, 0), ("ArgMax", 2, 1))
    ] + [
        Example(f"r = Relu(x) a = ArgMin<axis={axis}, keepdims={keep}, select_last_index=1>(r) y = Cast<to=1>(a)")
        for axis, keep in ((1, 1), (3, 0), (-2, 1))
    ]


def dtypes() -> list[Example]:
    """Integers and booleans in between. x + 3 is at least 1, for powers."""
    nodes = (
        "n = Cast<to=7>(x) y = Pow(f, n)",  # an exponent of another type than the base
        "n = Cast<to=6>(x) y = Pow(f, n)",
        "n = Cast<to=7>(f) p = Pow(n, h) y = Cast<to=1>(p)",
        "y = Pow(f, i)",
        "b = Greater(x, h) m = ReduceMax<keepdims=0>(b, a) y = Cast<to=1>(m)",
        "b = Greater(x, h) m = ReduceMin(b, a) y = Cast<to=1>(m)",
        "n = Cast<to=6>(x) m = ReduceMin(n, a) y = Cast<to=1>(m)",
        "n = Cast<to=7>(f) m = Mul(n, n) s = Sub(m, i) y = Cast<to=1>(s)",
        "b = Less(x, h) c = Not(b) d = And(b, c) e = Or(b, d) y = Cast<to=1>(e)",
    )
    constants = {"h": np.float32(0.5), "a": np.array([1]), "i": np.array(3)}
    return [
        Example(
            f"f0 = Abs(x) f = Add(f0, h) {text}",
            constants={k: v for k, v in constants.items() if k == "h" or f"{k})" in text},
        )
        for text in nodes
    ]


def coordinates() -> list[Example]:
    """GatherND of constant coordinates: along one dimension or several, negative ones, all of them in order."""
    every = np.stack(np.meshgrid([0], np.arange(4), indexing="ij"), -1)
    picked = ([[[0], [0]]], [[0, 3], [0, 1]], [[0, -1, 2]], [[[0, 1, 2, 3]], [[0, 3, 5, -1]]], every)
    return [Example("y = GatherND(x, i)", constants={"i": np.array(i, np.int64)}) for i in picked]


def computed_positions() -> list[Example]:
    """Positions of a Gather that the model computes, of which those below 0 count from the end."""
    nodes = (
        "p = ArgMax<axis=1, keepdims=0>(x) q = Sub(p, two) y = Gather<axis=0>(t, q)",
        "p = ArgMax<axis=3, keepdims=0>(x) q = Sub(p, four) y = Gather<axis=0>(t, q)",
        "p = ArgMax<axis=2, keepdims=0>(x) q = Mul(p, below) y = Gather<axis=1>(t, q)",
        "c = Clip(x, low, high) p = Cast<to=6>(c) y = Gather<axis=0>(t, p)",
        "c = Clip(x, low, high) p = Cast<to=7>(c) q = Reshape(p, flat) y = Gather<axis=1>(t, q)",
        "p = ArgMax<axis=1, keepdims=0>(x) q = Sub(two, p) y = Gather<axis=0>(t, q)",
        "p = ArgMax<axis=1, keepdims=0, select_last_index=1>(x) y = Gather<axis=0>(t, p)",
    )
    constants = {
        "t": np.arange(42, dtype=np.float32).reshape(6, 7),
        "two": np.array(2),
        "four": np.array(4),
        "below": np.array(-1),
        "low": np.float32(-3),
        "high": np.float32(3),
        "flat": np.array([-1]),
    }
    return [
        Example(text, constants={k: v for k, v in constants.items() if k in re.findall(r"\w+", text)}) for text in nodes
    ]


def samples() -> list[Example]:
    """Places between pixels and beyond the image, in two samples and in volumes; and weights that are computed."""
    modes, paddings = ("linear", "nearest", "cubic"), ("zeros", "border", "reflection")
    attributes = [
        f'mode="{mode}", padding_mode="{padding}", align_corners={(i + j) % 2}'
        for i, mode in enumerate(modes)
        for j, padding in enumerate(paddings)
    ]
    images, volumes = {"x": (2, 3, 5, 4), "g": (2, 3, 4, 2)}, {"x": (1, 2, 3, 4, 5), "g": (1, 2, 3, 2, 3)}
    found = [Example(f"y = GridSample<{text}>(x, g)", images) for text in attributes]
    found.append(Example('y = GridSample<mode="linear", padding_mode="border">(x, g)', volumes))
    offsets = {"x": (2, 4, 5, 6), "o": (2, 16, 3, 3), "m": (2, 8, 3, 3)}
    text = "y = DeformConv<group=2, offset_group=2, strides=[2,2], pads=[1,0,1,1]>(x, w, o, , m)"
    weights = Example("w = Relu(z) y = Conv<group=2, strides=[2,1]>(x, w)", {"x": (1, 4, 9, 8), "z": (6, 2, 3, 2)})
    return [*found, Example(text, offsets, {"w": (6, 2, 2, 2)}), weights]


def volumes() -> list[Example]:
    """Three dimensions, and dilated pools."""
    volume, image = {"x": (2, 4, 5, 6, 7)}, {"x": (1, 4, 9, 8)}
    return [
        Example("y = Conv<group=2, dilations=[2,1,1], pads=[1,1,0,2,0,1]>(x, w)", volume, {"w": (6, 2, 2, 3, 3)}),
        Example("y = MaxPool<kernel_shape=[3,2,2], strides=[2,2,3], pads=[1,0,0,1,1,1], ceil_mode=1>(x)", volume),
        Example("y = AveragePool<kernel_shape=[2,3,2], pads=[0,1,1,1,1,0], count_include_pad=1>(x)", volume),
        Example("y = AveragePool<kernel_shape=[3,2], dilations=[2,3], pads=[2,0,1,1]>(x)", image, opset=22),
    ]


LOWEST = float(np.finfo(np.float32).min)
FORMS = {
    "pools": pools(),
    "transposed convolutions": transposed_convolutions(),
    "grouped transposed convolutions": grouped_transposed_convolutions(),
    "slopes": slopes(),
    "attentions": attentions(),
    "reductions": reductions(),
    "last indices": last_indices(),
    "dtypes": dtypes(),
    "coordinates": coordinates(),
    "computed positions": computed_positions(),
    "samples": samples(),
    "volumes": volumes(),
}
ONLY_FLOAT = {
    "last indices",
    "dtypes",
    "computed positions",
    "samples",
}  # which of nearly equal values is the largest is another question on int8
CASES = [pytest.param(e, id=f"{kind}-{i}") for kind, examples in FORMS.items() for i, e in enumerate(examples)]
ON_INT8 = [case for case in CASES if str(case.id).rsplit("-", 1)[0] not in ONLY_FLOAT]


@pytest.mark.parametrize("example", CASES)
def test_every_format_computes_what_the_original_does(example: Example) -> None:
    model = load(example.model()).model
    inputs = feeds(model)
    expected = original(example, inputs)
    for kind, run in FORMATS.items():
        check_close(run(model, inputs), expected, f"{example.nodes} as .{kind}")


@pytest.mark.parametrize("example", ON_INT8)
def test_int8_is_near_and_equal_in_all_formats(example: Example) -> None:
    model = load(example.model()).model
    inputs, quantized = feeds(model), int8(model)
    expected = original(example, inputs)
    found = {kind: run(quantized, inputs) for kind, run in FORMATS.items()}
    for kind, outputs in found.items():
        for y, e in zip(outputs, expected, strict=True):
            snr = quantizing.snr_db(np.asarray(e, np.float64), y)
            assert snr > LEAST_DB, f"{example.nodes} as int8 .{kind}: {snr:.1f} dB"
    check_close(found["pack"], found["tflite"], f"{example.nodes}: .pack and .tflite")


NO_KERNEL = {
    "Abs of int64": ("n = Cast<to=7>(x) m = Abs(n) y = Cast<to=1>(m)", {"tflite"}),
    "Pow of int64": ("n = Cast<to=7>(x) m = Pow(n, n) y = Cast<to=1>(m)", {"tflite", "pack"}),
    "Relu of int32": ("n = Cast<to=6>(x) m = Relu(n) y = Cast<to=1>(m)", {"tflite"}),
    "Split of bool": ("n = Cast<to=9>(x) m, z = Split<axis=1, num_outputs=2>(n) y = Cast<to=1>(m)", {"tflite"}),
    "ArgMax of int64": ("n = Cast<to=7>(x) m = ArgMax(n) y = Cast<to=1>(m)", {"tflite"}),
    "Clip of int32": ("n = Cast<to=6>(x) m = Clip(n, low, high) y = Cast<to=1>(m)", {"tflite"}),
    "ReduceSum of int32": ("n = Cast<to=6>(x) m = ReduceSum(n, a) y = Cast<to=1>(m)", {"pack"}),
}


@pytest.mark.parametrize("name", NO_KERNEL)
def test_dtypes_without_a_kernel_are_refused_by_node_and_for_that_format_alone(name: str) -> None:
    nodes, refusing = NO_KERNEL[name]
    constants = {"low": np.int32(-1), "high": np.int32(1), "a": np.array([1])}
    example = Example(nodes, constants={k: v for k, v in constants.items() if f", {k}" in nodes})
    model = load(example.model()).model
    inputs = feeds(model)
    for kind, emit in {"tflite": tflite.emit, "pack": pack.emit}.items():
        if kind in refusing:
            with pytest.raises(UnsupportedModelError, match=r"'m'.* cast them to .*float32 in front of this node"):
                emit(model)
        else:
            check_close(FORMATS[kind](model, inputs), original(example, inputs), f"{nodes} as .{kind}")
    check_close(FORMATS["onnx"](model, inputs), original(example, inputs), f"{nodes} as .onnx")
