"""The layers that every backend of the runtime is tested on: execute against LiteRT, generated code on this machine, in
variants for x86, and on emulated CPUs, all of them against execute.

CASES has groups of them by name; a backend takes a group as one plan of layers side by side, since compiling takes
longer than all of their arithmetic. Every operator that a plan may have is in some case (test_layer_cases.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edgecompress_runtime.operators import options_of
from edgecompress_runtime.plan import EXIT, Operator, Plan, Tensor

SAME, VALID, NONE, RELU, RELU6 = 0, 1, 0, 1, 3
INT8, FLOAT, BOOL, INT32 = np.dtype(np.int8), np.dtype(np.float32), np.dtype(bool), np.dtype(np.int32)
INT16, INT64 = np.dtype(np.int16), np.dtype(np.int64)
FLOAT_TYPE, INT32_TYPE = 0, 2  # of schema.fbs TensorType
Shape = tuple[int, ...]


class Layers:
    """Builds a plan of layers side by side, each with inputs of its own."""

    def __init__(self, seed: int, values: int = 255) -> None:
        """values: how many different weights a layer has; few of them occur unevenly, as in a clustered layer. Layers
        that are added while `wide` is set have int16 activations."""
        self.wide = False
        self.random = np.random.default_rng(seed)
        self.values = values
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self.inputs: list[int] = []

    def plan(self) -> Plan:
        """Where it may end early, the last operator's output is the only one; what others read is none."""
        ends, read = [o.kind == EXIT for o in self.operators], {i for o in self.operators for i in o.inputs}
        last = self.operators[-1 if any(ends) else 0 :]
        outputs = tuple(i for o in last for i in o.outputs if i not in read)
        return Plan(tuple(self.tensors), tuple(self.operators), tuple(self.inputs), outputs)

    def feeds(self) -> list[np.ndarray]:
        """All of int8's range; small numbers of other types, above zero where a function is defined there alone."""
        readers = {i: o.kind for o in self.operators for i in o.inputs}
        return [self._feed(self.tensors[i], readers[i]) for i in self.inputs]

    def _feed(self, tensor: Tensor, reader: str) -> np.ndarray:
        if tensor.dtype == INT8:
            return self.random.integers(-128, 128, tensor.shape).astype(np.int8)
        if tensor.dtype == INT16:
            return self.random.integers(-32768, 32768, tensor.shape).astype(np.int16)
        if tensor.dtype == FLOAT:
            drawn = self.random.normal(0, 2, tensor.shape).astype(np.float32)
            return np.abs(drawn) + np.float32(0.01) if reader in POSITIVE else drawn
        return self.random.integers(0, 2 if tensor.dtype == BOOL else 3, tensor.shape).astype(tensor.dtype)

    def layer(self, kind: str, inputs: Sequence[int], outputs: Sequence[int], **options: object) -> None:
        """One operator; inputs that are no constants, and that no operator before it makes, are the plan's."""
        made = {*self.inputs, *(i for o in self.operators for i in o.outputs)}
        self.inputs += [i for i in inputs if self.tensors[i].data is None and i not in made]
        self.operators.append(Operator(kind, tuple(inputs), tuple(outputs), options_of(kind, options)))

    def convolution(
        self,
        size: tuple[int, int, int],
        out: int,
        kernel: tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int = SAME,
        activation: int = NONE,
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> None:
        (height, width, channels), strides = size, (stride, stride) if isinstance(stride, int) else stride
        effective = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
        spare = [0 if padding == SAME else e - 1 for e in effective]
        shape = [-(-(n - s) // by) for n, s, by in zip((height, width), spare, strides)]
        x = self.activation((1, *size))
        depth = kernel[0] * kernel[1] * channels // groups
        w, bias = self.weights((out, *kernel, channels // groups), out), self.bias(out)
        y = self.activation((1, *shape, out), 0.02 * depth**0.5)
        dilations = {"dilationHFactor": dilation[0], "dilationWFactor": dilation[1]}
        window = {"padding": padding, "strideH": strides[0], "strideW": strides[1], **dilations}
        self.layer("CONV_2D", [x, w, bias], [y], fusedActivationFunction=activation, **window)

    def depthwise(
        self,
        size: tuple[int, int, int],
        kernel: tuple[int, int],
        stride: int = 1,
        times: int = 1,
        padding: int = SAME,
        dilation: int = 1,
    ) -> None:
        """dilation: of rows."""
        *image, channels = size
        x, out = self.activation((1, *size)), channels * times
        w, bias = self.weights((1, *kernel, out), out), self.bias(out)
        reach = (kernel[0] - 1) * dilation, kernel[1] - 1
        shape = [-(-(n - (0 if padding == SAME else r)) // stride) for n, r in zip(image, reach)]
        y = self.activation((1, *shape, out), 0.02 * (kernel[0] * kernel[1]) ** 0.5)
        window = {"padding": padding, "strideH": stride, "strideW": stride, "depthMultiplier": times}
        self.layer("DEPTHWISE_CONV_2D", [x, w, bias], [y], dilationHFactor=dilation, **window)

    def dense(self, rows: int, depth: int, units: int, scale: float = 0.02, activation: int = NONE) -> None:
        x = self.activation((rows, depth))
        w, bias = self.weights((units, depth), units), self.bias(units)
        y = self.activation((rows, units), scale * depth**0.5)
        self.layer("FULLY_CONNECTED", [x, w, bias], [y], fusedActivationFunction=activation)

    def sum(self, shape: Shape, kind: str = "ADD", activation: int = NONE) -> None:
        self.pair(kind, shape, shape, activation)

    def pair(self, kind: str, a: Shape, b: Shape, activation: int = NONE, scale: float = 0.05) -> None:
        """Of two operands, which are broadcast. scale: of the output."""
        operands, y = [self.activation(a), self.activation(b)], self.activation(np.broadcast_shapes(a, b), scale)
        self.layer(kind, operands, [y], fusedActivationFunction=activation)

    def table(self, shape: Shape) -> None:
        x, y = self.activation(shape), self.activation(shape)
        entries = self.random.integers(-128, 128, 256).astype(np.int8)
        scale, zero = self.tensors[y].scale, self.tensors[y].zero_point
        self.layer("TABLE", [x, self.tensor((256,), INT8, scale, zero, entries)], [y])

    def thin_out(self, share: float, run: int, last: int) -> None:
        """Of the last layer's weights a share of the runs is left; of the second channel nothing, of the third but the
        last weight, which is `last`."""
        w = self.tensors[self.operators[-1].inputs[1]].data
        assert w is not None
        w[np.repeat(self.random.random(w.shape), run, -1)[..., : w.shape[-1]] > share] = 0
        w[1:3] = 0
        w[2].reshape(-1)[-1] = last

    def limit(self, *values: int) -> None:
        """The last layer's weights become these values, with scales that let outputs vary; where zero is one of them,
        the second channel has no other."""
        _, weights, bias = self.operators[-1].inputs
        self.tensors[weights] = tensor = replace(self.tensors[weights], scale=self.tensors[weights].scale * 64)
        (w, b) = tensor.data, self.tensors[bias].data
        assert w is not None and b is not None
        w[:], b[:] = self.random.choice(values, w.shape), b // 64
        if 0 in values:
            w[1:2] = 0

    def unlike(self, *sizes: str) -> None:
        """The first, middle and last channels of the last layer become of these sizes, of UNLIKE."""
        x, weights, bias = self.operators[-1].inputs
        tensor, b = self.tensors[weights], self.tensors[bias].data
        assert tensor.data is not None and b is not None
        rows, scale = np.moveaxis(tensor.data, tensor.axis, 0), tensor.scale.copy()
        unit = float(self.tensors[self.operators[-1].outputs[0]].scale[0] / self.tensors[x].scale[0])
        for channel, size in zip((0, len(rows) // 2, len(rows) - 1), sizes):
            factor, most, kept, value = UNLIKE[size]
            scale[channel], b[channel] = factor * unit, value
            row = self.random.integers(-most, most + 1, rows[channel].shape)
            row.reshape(-1)[self.random.permutation(row.size)[kept:]] = 0
            rows[channel] = row
        self.tensors[weights] = replace(tensor, scale=scale)

    def tensor(
        self,
        shape: Shape,
        dtype: np.dtype,
        scale: np.ndarray | None = None,
        zero: np.ndarray | None = None,
        data: np.ndarray | None = None,
    ) -> int:
        scale = np.zeros(0, np.float32) if scale is None else scale.astype(np.float32)
        zero = np.zeros(scale.size, np.int32) if zero is None else zero.astype(np.int32)
        axis = shape.index(len(scale)) if len(scale) > 1 else 0
        self.tensors.append(Tensor(f"t{len(self.tensors)}", shape, dtype, scale, zero, axis, data))
        return len(self.tensors) - 1

    def constant(self, array: object) -> int:
        data = np.asarray(array)
        return self.tensor(data.shape, data.dtype, data=data)

    def ints(self, *numbers: int) -> int:
        return self.constant(np.array(numbers, np.int32))

    def activation(self, shape: Shape, scale: float = 0.05) -> int:
        scale *= self.random.uniform(0.5, 2)
        return (
            self.int16(shape, scale / 256)
            if self.wide
            else self.int8(shape, scale, int(self.random.integers(-128, 128)))
        )

    def int16(self, shape: Shape, scale: float) -> int:
        return self.tensor(shape, INT16, np.array([scale]), np.array([0]))

    def int8(self, shape: Shape, scale: float, zero: int) -> int:
        return self.tensor(shape, INT8, np.array([scale]), np.array([zero]))

    def weights(self, shape: Shape, channels: int) -> int:
        scale = self.random.uniform(0.001, 0.01, channels)
        choice = self.random.permutation(np.arange(-127, 128))[: self.values]
        shares = 1.0 / (np.arange(self.values) + 2) if self.values < 255 else np.ones(255)
        data = self.random.choice(choice, shape, p=shares / shares.sum()).astype(np.int8)
        return self.tensor(shape, INT8, scale, np.zeros(channels), data)

    def bias(self, n: int) -> int:
        if self.wide:
            return self.constant(self.random.integers(-1_000_000, 1_000_000, n))
        return self.constant(self.random.integers(-5000, 5000, n).astype(np.int32))


# s_x * s_w / s_y of a channel, its largest weight, how many are not zero at most, and its bias: all but zero, with a
# bias of any size; a half or more; sums that turn an output into the next far from 0; more than 1, for weights that can
# be larger, and that can't
UNLIKE = {
    "zero": (1e-12, 0, 0, -(2**30)), "tiny": (1e-8, 127, 999, 2**30 - 1), "clipped": (0.003, 5, 3, 2**20),
    "half": (0.516, 2, 2, -7), "most": (0.999999, 1, 2, 5), "far": (2.0**-24, 127, 999, 3 * 2**25),
    "one": (1.0, 1, 1, 3), "two": (2.5, 1, 1, 1), "large": (1.3, 127, 1, 0),
}  # fmt: skip
Add = Callable[[Layers], None]
POSITIVE = {"LOG", "SQRT", "RSQRT", "DIV", "POW"}

# ---- what the blocks of a family have to cope with: odd sizes, one column, borders, strides, groups of channels that
# overlap

BLOCKS: dict[str, Add] = {
    "3x3 of 3 channels": lambda made: made.convolution((5, 7, 3), 5, (3, 3)),
    "3x3, stride 2": lambda made: made.convolution((6, 6, 8), 4, (3, 3), stride=2, activation=RELU),
    "1x1": lambda made: made.convolution((4, 5, 16), 6, (1, 1)),
    "one column": lambda made: made.convolution((8, 1, 4), 3, (3, 1), padding=VALID),
    "one row": lambda made: made.convolution((1, 9, 2), 7, (1, 5), stride=2),
    "dilated rows": lambda made: made.convolution((9, 6, 4), 4, (3, 2), dilation=(2, 1)),
    "dilated columns": lambda made: made.convolution((6, 9, 4), 4, (2, 3), dilation=(1, 2)),
    "one output": lambda made: made.convolution((3, 3, 4), 1, (3, 3)),
    "depthwise": lambda made: made.depthwise((5, 6, 7), (3, 3)),
    "depthwise, stride 2": lambda made: made.depthwise((7, 4, 8), (3, 2), stride=2),
    "depthwise, two outputs a channel": lambda made: made.depthwise((4, 4, 3), (3, 3), times=2),
    "dense": lambda made: made.dense(1, 64, 10),
    "dense, three rows": lambda made: made.dense(3, 37, 5, activation=RELU),
    "dense, three units": lambda made: made.dense(1, 20, 3),
    "dense, saturated": lambda made: made.dense(2, 18, 9, scale=0.001),
    "sum": lambda made: made.sum((1, 3, 5, 7)),
    "difference": lambda made: made.sum((1, 4, 4, 4), "SUB", RELU),
    "table": lambda made: made.table((1, 3, 5, 7)),
}


def _overflowing(made: Layers) -> None:
    """Weights of -128, whose products in pairs exceed int16."""
    made.convolution((3, 6, 16), 8, (3, 3))
    data = made.tensors[made.operators[-1].inputs[1]].data
    assert data is not None
    data[:] = -128


# whole vectors and parts of them, several pixels
WIDE: dict[str, Add] = {
    "1x1 of 20 channels": lambda made: made.convolution((4, 9, 20), 9, (1, 1)),
    "3x3 of 37 channels": lambda made: made.convolution((6, 10, 37), 18, (3, 3), stride=2),
    "depthwise of 20 channels": lambda made: made.depthwise((5, 9, 20), (3, 3), stride=2),
    "depthwise of 12 channels": lambda made: made.depthwise((4, 4, 12), (5, 5)),
    "depthwise of 48 channels": lambda made: made.depthwise((4, 5, 48), (3, 1)),
    "dense of 70 inputs": lambda made: made.dense(2, 70, 6),
    "sum of 225": lambda made: made.sum((1, 5, 5, 9)),
    "weights of -128": _overflowing,
}


def gated(
    made: Layers,
    channels: tuple[int, int, int],
    block: int,
    kernel: tuple[int, int] = (3, 3),
    size: tuple[int, int] = (5, 7),
    above: int = 0,
    depthwise: bool = False,
    stride: int = 1,
) -> None:
    """A convolution whose blocks of channels an input opens where it is more than `above`, and one that reads it.
    channels: of the input, of what is gated, and of the result. depthwise: whether there is one in between."""
    first, inner, last = channels
    numbers, row, grid = made.int8((1, inner // block), 0.05, 0), (1, inner), (1 / 255, -128)
    entries = np.where(np.arange(-128, 128) > above, 127, -128).astype(np.int8)
    opens, repeated = made.int8((1, inner // block), *grid), made.int8(row, *grid)
    table = made.tensor((256,), INT8, np.array(grid[:1]), np.array(grid[1:]), entries)
    made.layer("TABLE", [numbers, table], [opens])
    made.layer("GATHER", [opens, made.ints(*np.repeat(np.arange(inner // block), block))], [repeated], axis=1)
    factor = made.int8((1, 1, 1, inner), *grid)
    made.layer("RESHAPE", [repeated, made.ints(1, 1, 1, inner)], [factor], newShape=[1, 1, 1, inner])
    window = {"padding": SAME, "strideH": 1, "strideW": 1}
    x, y = made.activation((1, *size, first)), made.int8((1, *size, inner), 0.1, -20)
    w, bias = made.weights((inner, *kernel, first), inner), made.bias(inner)
    made.layer("CONV_2D", [x, w, bias], [y], fusedActivationFunction=RELU, **window)
    if depthwise:
        z = made.int8((1, *size, inner), 0.03, -15)
        taps, bias = made.weights((1, 3, 3, inner), inner), made.bias(inner)
        made.layer("DEPTHWISE_CONV_2D", [y, taps, bias], [z], depthMultiplier=1, **window)
        y = z
    product = made.tensor(made.tensors[y].shape, INT8, made.tensors[y].scale, made.tensors[y].zero_point)
    made.layer("MUL", [y, factor], [product])
    shape = (1, *(-(-n // stride) for n in size), last)
    w, bias = made.weights((last, *kernel, inner), last), made.bias(last)
    window = {"padding": SAME, "strideH": stride, "strideW": stride}
    made.layer("CONV_2D", [product, w, bias], [made.activation(shape, 0.2)], **window)


# gates that are open for some blocks, for all and for none; rows shorter than a block of pixels; parts of a bank
GATED: dict[str, Add] = {
    "some": lambda made: gated(made, (8, 16, 6), 4),
    "all": lambda made: gated(made, (4, 16, 5), 8, above=-129),
    "none": lambda made: gated(made, (4, 16, 4), 8, above=127),
    "1x1": lambda made: gated(made, (16, 24, 9), 8, (1, 1)),
    "stride 2": lambda made: gated(made, (8, 8, 4), 4, stride=2),
    "one column": lambda made: gated(made, (4, 8, 4), 4, (3, 1), (6, 1)),
    "depthwise": lambda made: gated(made, (8, 24, 8), 8, (1, 1), depthwise=True),
    "many channels": lambda made: gated(made, (32, 64, 40), 8, size=(3, 4)),
}

# few distinct weights: odd sizes, several parts to a bank, several rows, no multiple of a vector
CLUSTERED: dict[str, Add] = {
    "3x3 of 64 channels": lambda made: made.convolution((5, 5, 64), 67, (3, 3)),
    "3x3, stride 2": lambda made: made.convolution((4, 6, 11), 9, (3, 3), stride=2, activation=RELU),
    "1x1": lambda made: made.convolution((6, 7, 32), 10, (1, 1)),
    "depthwise of 39 channels": lambda made: made.depthwise((5, 6, 39), (3, 3)),
    "depthwise of 64 channels": lambda made: made.depthwise((4, 4, 64), (3, 3), stride=2),
    "dense": lambda made: made.dense(1, 130, 18),
    "dense, three rows": lambda made: made.dense(3, 77, 13, activation=RELU),
}


def _thin(share: float, run: int, add: Add, last: int = -128) -> Add:
    def thin(made: Layers) -> None:
        add(made)
        made.thin_out(share, run, last)

    return thin


# mostly zeros, anywhere and in runs of inputs: channels of none, ways of more than a byte, borders, strides, one pixel,
# two and odd numbers of them, inputs that are no multiple of a vector
SKIPPING: dict[str, Add] = {
    "1x1": _thin(0.08, 1, lambda made: made.convolution((4, 6, 64), 33, (1, 1))),
    "two pixels": _thin(0.08, 1, lambda made: made.convolution((1, 2, 48), 5, (1, 3))),
    "dense": _thin(0.08, 1, lambda made: made.dense(1, 800, 10, activation=RELU)),
    "dense, saturated": _thin(0.08, 1, lambda made: made.dense(5, 64, 3, scale=0.001)),
    "3x3, stride 2": _thin(0.08, 1, lambda made: made.convolution((5, 7, 9), 11, (3, 3), stride=2, activation=RELU)),
    "dilated rows": _thin(0.08, 1, lambda made: made.convolution((9, 6, 32), 16, (3, 2), dilation=(2, 1))),
    "one pixel": _thin(0.08, 1, lambda made: made.convolution((1, 1, 96), 8, (3, 3))),
    "dense, three rows": _thin(0.08, 1, lambda made: made.dense(3, 137, 6)),
    "1x1 in runs": _thin(0.1, 16, lambda made: made.convolution((4, 6, 64), 33, (1, 1))),
    "two pixels in runs": _thin(0.1, 16, lambda made: made.convolution((1, 2, 48), 5, (1, 3))),
    "dense in runs": _thin(0.1, 16, lambda made: made.dense(1, 800, 10, activation=RELU)),
    "dense in runs, saturated": _thin(0.1, 16, lambda made: made.dense(5, 64, 3, scale=0.001)),
}

# for lists of sixteen channels: four pixels, two and one, channels that are no multiple of 16, windows that end with
# the inputs; the last has a weight of -128
SKIPPING_WIDE: dict[str, Add] = {
    "1x1": _thin(0.1, 1, lambda made: made.convolution((4, 6, 64), 33, (1, 1)), -127),
    "3x3, stride 2": _thin(
        0.1, 1, lambda made: made.convolution((5, 7, 9), 18, (3, 3), stride=2, activation=RELU), -127
    ),
    "dilated rows": _thin(0.1, 1, lambda made: made.convolution((9, 6, 32), 16, (3, 2), dilation=(2, 1)), -127),
    "two pixels": _thin(0.1, 1, lambda made: made.convolution((1, 2, 48), 17, (1, 3)), -127),
    "one pixel": _thin(0.1, 1, lambda made: made.convolution((1, 1, 96), 20, (3, 3)), -127),
    "dense": _thin(0.1, 1, lambda made: made.dense(1, 800, 19, activation=RELU), -127),
    "dense, three rows": _thin(0.1, 1, lambda made: made.dense(3, 137, 16), -127),
    "dense, saturated": _thin(0.1, 1, lambda made: made.dense(5, 64, 40, scale=0.001), -127),
    "1x1 of 70 channels": _thin(0.1, 1, lambda made: made.convolution((4, 4, 70), 16, (1, 1))),
}


def _limited(values: tuple[int, ...], add: Add) -> Add:
    def limited(made: Layers) -> None:
        add(made)
        made.limit(*values)

    return limited


# for tables of sums: columns that fill no word of codes and no group, rows of one pixel to 13, strides beyond the
# window, windows in parts, odd channels
FEW_VALUES: dict[str, Add] = {
    "3x3": lambda made: made.convolution((4, 9, 16), 19, (3, 3)),
    "3x3, stride 2": lambda made: made.convolution((7, 13, 5), 32, (3, 3), stride=2, activation=RELU),
    "3x3 in parts": lambda made: made.convolution((3, 5, 80), 17, (3, 3)),
    "1x1": lambda made: made.convolution((2, 7, 33), 35, (1, 1)),
    "1x1, stride 2": lambda made: made.convolution((3, 11, 20), 32, (1, 1), stride=2),
    "one row": lambda made: made.convolution((1, 12, 6), 33, (1, 5)),
    "one column": lambda made: made.convolution((8, 1, 24), 30, (3, 1), padding=VALID),
    "dilated rows": lambda made: made.convolution((9, 6, 16), 32, (3, 2), dilation=(2, 1)),
    "dense": lambda made: made.dense(1, 336, 37),
    "dense in parts": lambda made: made.dense(1, 2570, 41),
    "dense, five rows": lambda made: made.dense(5, 77, 43, activation=RELU),
    "dense, saturated": lambda made: made.dense(3, 64, 41, scale=0.005),
    "depthwise": lambda made: made.depthwise((4, 5, 9), (3, 3)),
}
BINARY = {name: _limited((-1, 1), add) for name, add in FEW_VALUES.items()}
OF_THREE = ("3x3", "3x3 in parts", "1x1", "one column", "dense", "dense, five rows")
TERNARY = {name: _limited((-1, 0, 1), FEW_VALUES[name]) for name in OF_THREE}


def unlike(kind: str, *sizes: str) -> Add:
    """A layer of OF_ALL_KINDS whose first, middle and last channels are of these sizes, of UNLIKE."""

    def add(made: Layers) -> None:
        OF_ALL_KINDS[kind](made)
        made.unlike(*sizes)

    return add


OF_ALL_KINDS: dict[str, Add] = {
    "1x1": lambda made: made.convolution((4, 5, 16), 22, (1, 1)),
    "3x3": lambda made: made.convolution((6, 7, 9), 21, (3, 3), stride=2, activation=RELU),
    "depthwise": lambda made: made.depthwise((5, 6, 20), (3, 3), stride=2),
    "dense": lambda made: made.dense(3, 37, 18),
}
# of which none may keep a layer from its fast kernel
UNLIKE_CHANNELS: dict[str, Add] = {
    "1x1": unlike("1x1", "zero", "half", "tiny"),
    "1x1, apart": unlike("1x1", "most", "far", "large"),
    "3x3": unlike("3x3", "one", "clipped", "two"),
    "depthwise": unlike("depthwise", "two", "zero", "one"),
    "depthwise, apart": unlike("depthwise", "large", "half", "tiny"),
    "dense": unlike("dense", "half", "large", "zero"),
}


def _large_quantize(made: Layers) -> None:
    made.layer("QUANTIZE", [made.tensor((1, 20001), FLOAT)], [made.int8((1, 20001), 0.1, -3)])


# large enough for threads to share: odd rows, padding, strides, dilation, groups, a few rows and only one
LARGE: dict[str, Add] = {
    "3x3": lambda made: made.convolution((31, 33, 16), 40, (3, 3)),
    "3x3, stride 2 by 1": lambda made: made.convolution((31, 33, 16), 40, (3, 3), stride=(2, 1)),
    "dilated groups": lambda made: made.convolution((31, 33, 16), 64, (3, 3), 1, VALID, dilation=(3, 2), groups=2),
    "1x1": lambda made: made.convolution((31, 33, 33), 17, (1, 1)),
    "depthwise": lambda made: made.depthwise((33, 33, 40), (3, 3)),
    "depthwise, stride 2": lambda made: made.depthwise((67, 67, 40), (3, 3), stride=2),
    "dense": lambda made: made.dense(1, 700, 777),
    "dense, 19 rows": lambda made: made.dense(19, 700, 37),
    "sum": lambda made: made.sum((1, 20001)),
    "QUANTIZE": _large_quantize,
}


def _padded(sides: tuple[tuple[int, int], tuple[int, int]], add: Add, others: int = 0, image: int = 0) -> Add:
    """A layer that reads a padded image, and `others` more that do. sides: of rows and of columns. image: the number of
    the operand."""

    def padded(made: Layers) -> None:
        add(made)
        layer = made.operators.pop()
        y, amounts = layer.inputs[image], made.constant(np.array([[0, 0], *sides, [0, 0]], np.int32))
        tensor = made.tensors[y]
        rows, columns = (n - sum(side) for n, side in zip(tensor.shape[1:3], sides))
        x = made.tensor((1, rows, columns, tensor.shape[3]), INT8, tensor.scale, tensor.zero_point)
        made.inputs.remove(y)
        made.layer("PAD", [x, amounts], [y])
        made.operators.append(layer)
        for _ in range(others):
            made.tensors.append(replace(made.tensors[layer.outputs[0]], name="again"))
            made.operators.append(replace(layer, outputs=(len(made.tensors) - 1,)))

    return padded


EVEN = ((1, 1), (1, 1))  # as PyTorch pads
PADDED: dict[str, Add] = {
    "3x3, stride 2": _padded(EVEN, lambda made: made.convolution((10, 8, 5), 9, (3, 3), 2, VALID, RELU)),
    "of whole vectors": _padded(EVEN, lambda made: made.convolution((8, 8, 16), 16, (3, 3), 2, VALID)),
    "uneven": _padded(((2, 0), (0, 3)), lambda made: made.convolution((7, 9, 4), 6, (3, 2), 1, VALID)),
    "dilated": _padded(((4, 1), (0, 1)), lambda made: made.convolution((12, 6, 4), 4, (3, 2), 1, VALID, NONE, (2, 1))),
    "depthwise": _padded(EVEN, lambda made: made.depthwise((9, 8, 20), (3, 3), 2, padding=VALID)),
    "two readers": _padded(EVEN, lambda made: made.convolution((6, 6, 8), 4, (3, 3), 2, VALID), 1),
    "one channel": _padded(EVEN, lambda made: made.convolution((7, 7, 1), 8, (3, 3), 2, VALID)),
}

# ---- all other operators


def _function(kind: str, scale: float = 0.03, zero: int = -7, **options: object) -> Add:
    """An int8 function of one value; scale, zero: of the output."""
    return lambda made: made.layer(kind, [made.int8((3, 101), 0.04, 5)], [made.int8((3, 101), scale, zero)], **options)


def _real(kind: str, **options: object) -> Add:
    """A float32 function of one value."""
    return lambda made: made.layer(kind, [made.tensor((3, 20), FLOAT)], [made.tensor((3, 20), FLOAT)], **options)


def _typed(kind: str, x: np.dtype, y: np.dtype, **options: object) -> Add:
    """Of one value, between types that have no scales."""
    return lambda made: made.layer(kind, [made.tensor((3, 20), x)], [made.tensor((3, 20), y)], **options)


def _pair(kind: str, a: Shape, b: Shape, x: np.dtype, y: np.dtype, **options: object) -> Add:
    """Two operands, broadcast, of types that have no scales."""
    shape = np.broadcast_shapes(a, b)
    return lambda made: made.layer(kind, [made.tensor(a, x), made.tensor(b, x)], [made.tensor(shape, y)], **options)


def _product(made: Layers) -> None:
    a, b = made.activation((2, 3, 4, 5)), made.activation((3, 1, 5))
    made.layer("MUL", [a, b], [made.activation((2, 3, 4, 5), 0.2)], fusedActivationFunction=RELU)


def _broadcast_sum(made: Layers) -> None:
    made.layer("ADD", [made.activation((2, 3, 4)), made.activation((4,))], [made.activation((2, 3, 4), 0.1)])


def _prelu(made: Layers) -> None:
    slope = made.tensor((4,), INT8, np.array([0.01]), np.array([3]), np.array([-100, -3, 7, 120], np.int8))
    made.layer("PRELU", [made.activation((1, 3, 5, 4)), slope], [made.activation((1, 3, 5, 4))])


def _moved(
    kind: str, shape: Shape, y_shape: Shape, *operands: object, dtype: np.dtype = INT8, **options: object
) -> Add:
    """An operator that moves elements, or picks them: its scale stays. operands: constants behind x."""

    def add(made: Layers) -> None:
        def end(size: Shape) -> int:
            return made.int8(size, 0.05, -3) if dtype == INT8 else made.tensor(size, dtype)

        behind = [made.constant(np.array(operand, np.int32)) for operand in operands]
        made.layer(kind, [end(shape), *behind], [end(y_shape)], **options)

    return add


def _padded_with_a_value(made: Layers) -> None:
    value = made.tensor((1,), INT8, np.array([0.05]), np.array([-3]), np.array([77], np.int8))
    x, y = made.int8((2, 3), 0.05, -3), made.int8((3, 6), 0.05, -3)
    made.layer("PADV2", [x, made.constant(np.array([[1, 0], [1, 2]], np.int32)), value], [y])


def _parts(kind: str) -> Add:
    def add(made: Layers) -> None:
        sizes = (2, 2, 2) if kind == "SPLIT" else (1, 3, 2)
        x, parts = made.int8((2, 6, 3), 0.05, -3), [made.int8((2, n, 3), 0.05, -3) for n in sizes]
        inputs = (
            [made.constant(np.int32(1)), x] if kind == "SPLIT" else [x, made.ints(*sizes), made.constant(np.int32(1))]
        )
        made.layer(kind, inputs, parts, numSplits=3)

    return add


def _largest(made: Layers) -> None:
    x, y = made.activation((2, 9, 3)), made.tensor((2, 3), INT32)
    made.layer("ARG_MAX", [x, made.ints(1)], [y], outputType=INT32_TYPE)


def _joined(made: Layers) -> None:
    parts = [made.int8((2, n, 3), 0.05, -3) for n in (1, 4, 2)]
    made.layer("CONCATENATION", parts, [made.int8((2, 7, 3), 0.05, -3)], axis=1)


def _selected(made: Layers) -> None:
    a, b = made.int8((2, 3, 4), 0.05, -3), made.int8((2, 3, 4), 0.05, -3)
    made.layer("SELECT_V2", [made.tensor((2, 3, 4), BOOL), a, b], [made.int8((2, 3, 4), 0.05, -3)])


def _between(kind: str) -> Add:
    """QUANTIZE or DEQUANTIZE."""

    def add(made: Layers) -> None:
        ends = [made.tensor((3, 50), FLOAT), made.int8((3, 50), 0.013, -3)]
        x, y = ends if kind == "QUANTIZE" else ends[::-1]
        made.layer(kind, [x], [y])

    return add


def _matrices(dtype: np.dtype) -> Add:
    def add(made: Layers) -> None:
        a, b = (made.activation(s) if dtype == INT8 else made.tensor(s, dtype) for s in ((2, 3, 5, 7), (1, 3, 4, 7)))
        y = made.activation((2, 3, 5, 4), 0.3) if dtype == INT8 else made.tensor((2, 3, 5, 4), dtype)
        made.layer("BATCH_MATMUL", [a, b], [y], adjY=True)

    return add


def _attention(a: Shape, b: Shape, **options: bool) -> Add:
    """BATCH_MATMUL of int8, whose sums reach all of int8."""

    def add(made: Layers) -> None:
        rows, depth = a[-2:] if not options.get("adjX") else (a[-1], a[-2])
        columns = b[-2] if options.get("adjY") else b[-1]
        y = (*np.broadcast_shapes(a[:-2], b[:-2]), rows, columns)
        ends = made.activation(a), made.activation(b), made.activation(y, 0.2 * depth**0.5)
        made.layer("BATCH_MATMUL", ends[:2], ends[2:], **options)

    return add


def _pool(kind: str, dtype: np.dtype) -> Add:
    window = {"padding": SAME, "strideH": 2, "strideW": 1, "filterHeight": 3, "filterWidth": 2}
    return _moved(kind, (1, 5, 6, 5), (1, 3, 6, 5), dtype=dtype, **window)


def _upconvolution(dtype: np.dtype) -> Add:
    def add(made: Layers) -> None:
        shape, window = made.ints(1, 6, 8, 3), {"padding": SAME, "strideH": 2, "strideW": 2}
        if dtype == FLOAT:
            w = made.constant(made.random.normal(0, 1, (3, 3, 3, 4)).astype(np.float32))
            ends = made.tensor((1, 3, 4, 4), FLOAT), made.tensor((1, 6, 8, 3), FLOAT)
            made.layer("TRANSPOSE_CONV", [shape, w, ends[0]], [ends[1]], **window)
            return
        x, y = made.activation((1, 3, 4, 4)), made.activation((1, 6, 8, 3), 0.1)
        made.layer("TRANSPOSE_CONV", [shape, made.weights((3, 3, 3, 4), 3), x, made.bias(3)], [y], **window)

    return add


def _upscaled(x: Shape, kernel: tuple[int, int], stride: int, outputs: int, padding: int) -> Add:
    """TRANSPOSE_CONV of int8."""

    def add(made: Layers) -> None:
        size = [n * stride if padding == SAME else (n - 1) * stride + k for n, k in zip(x[1:3], kernel)]
        y, window = (1, *size, outputs), {"padding": padding, "strideH": stride, "strideW": stride}
        w, bias = made.weights((outputs, *kernel, x[3]), outputs), made.bias(outputs)
        ends = made.activation(x), made.activation(y, 0.02 * (x[3] * kernel[0] * kernel[1]) ** 0.5)
        made.layer("TRANSPOSE_CONV", [made.ints(*y), w, ends[0], bias], [ends[1]], **window)

    return add


# products of two matrices that are computed: whole vectors and parts of them, one row, odd numbers of rows and columns,
# columns and rows that don't follow one another, matrices that several share, a bank in parts
MATRICES: dict[str, Add] = {
    "keys": _attention((1, 2, 7, 16), (1, 2, 9, 16), adjY=True),
    "keys, turned": _attention((1, 2, 6, 16), (1, 2, 16, 19)),
    "values": _attention((2, 5, 9), (2, 9, 16)),
    "one row": _attention((1, 48), (48, 11)),
    "two columns": _attention((3, 4, 5), (1, 5, 2)),
    "one column": _attention((3, 4, 5), (1, 5, 1)),
    "depth of 37": _attention((2, 1, 3, 37), (1, 4, 6, 37), adjY=True),
    "rows apart": _attention((2, 18, 5), (18, 4), adjX=True),
    "both apart": _attention((20, 3), (9, 20), adjX=True, adjY=True),
    "in parts": _attention((3, 300), (91, 300), adjY=True),
}

# two operands: one number for many, one for each row, one row for all, runs of whole vectors and parts of them
PAIRS: dict[str, Add] = {
    "product": lambda made: made.pair("MUL", (2, 3, 4, 5), (2, 3, 4, 5), scale=0.2),
    "product with one": lambda made: made.pair("MUL", (3, 37), (1,), scale=0.3),
    "one times a product": lambda made: made.pair("MUL", (1, 1), (5, 16), RELU6, 0.2),
    "product by rows": lambda made: made.pair("MUL", (4, 21), (4, 1), RELU, 0.2),
    "product by columns": lambda made: made.pair("MUL", (3, 5, 18), (18,), scale=0.2),
    "product across": lambda made: made.pair("MUL", (2, 1, 6), (1, 5, 6), scale=0.2),
    "product of few": lambda made: made.pair("MUL", (7, 3), (7, 1), scale=0.3),
    "product, saturated": lambda made: made.pair("MUL", (2, 20), (2, 20), scale=0.004),
    "product, coarse": lambda made: made.pair("MUL", (2, 20), (2, 20), scale=5.0),
    "sum by rows": lambda made: made.pair("ADD", (4, 1), (4, 21), RELU),
    "sum by columns": lambda made: made.pair("ADD", (3, 5, 18), (18,)),
    "difference by rows": lambda made: made.pair("SUB", (2, 3, 20), (2, 3, 1)),
    "difference from one": lambda made: made.pair("SUB", (1,), (3, 19), RELU6),
}

# depthwise windows of one vector to four, and of more; rows of few pixels, parts of eight channels
WINDOWS: dict[str, Add] = {
    "3x3": lambda made: made.depthwise((4, 9, 11), (3, 3)),
    "3x3, stride 2": lambda made: made.depthwise((7, 13, 8), (3, 3), stride=2, padding=VALID),
    "4x4": lambda made: made.depthwise((6, 6, 16), (4, 4)),
    "5x5": lambda made: made.depthwise((6, 8, 10), (5, 5)),
    "5x5, stride 2": lambda made: made.depthwise((9, 9, 24), (5, 5), stride=2),
    "6x7": lambda made: made.depthwise((8, 9, 9), (6, 7), padding=VALID),
    "7x7": lambda made: made.depthwise((5, 5, 17), (7, 7)),
    "7x7, stride 2": lambda made: made.depthwise((9, 10, 8), (7, 7), stride=2),
    "9x9": lambda made: made.depthwise((5, 6, 8), (9, 9)),
    "two pixels": lambda made: made.depthwise((4, 2, 12), (3, 3)),
    "one row": lambda made: made.depthwise((1, 21, 9), (1, 5)),
    "dilated rows": lambda made: made.depthwise((9, 6, 8), (3, 3), padding=VALID, dilation=2),
    "few channels": lambda made: made.depthwise((4, 6, 6), (3, 3)),
}


def _largest_of(size: Shape, window: tuple[int, int], stride: int, activation: int = NONE) -> Add:
    """MAX_POOL_2D of int8."""
    shape = (1, *(-(-n // stride) for n in size[:2]), size[2])
    options = {"strideH": stride, "strideW": stride, "filterHeight": window[0], "filterWidth": window[1]}
    return _moved("MAX_POOL_2D", (1, *size), shape, padding=SAME, fusedActivationFunction=activation, **options)


# runs of bytes that move, of whole words and vectors and parts of them; pools of as many channels
MOVES: dict[str, Add] = {
    "TRANSPOSE": _moved("TRANSPOSE", (2, 5, 3, 16), (2, 3, 5, 16), [0, 2, 1, 3]),
    "TRANSPOSE of 7": _moved("TRANSPOSE", (4, 3, 7), (3, 4, 7), [1, 0, 2]),
    "TRANSPOSE of 3": _moved("TRANSPOSE", (4, 3, 3), (3, 4, 3), [1, 0, 2]),
    "SLICE": _moved("SLICE", (3, 4, 40), (2, 4, 37), [1, 0, 2], [2, 4, 37]),
    "PAD": _moved("PAD", (3, 19), (5, 24), [[1, 1], [2, 3]]),
    "DEPTH_TO_SPACE": _moved("DEPTH_TO_SPACE", (1, 2, 3, 80), (1, 4, 6, 20), blockSize=2),
    "BROADCAST_TO": _moved("BROADCAST_TO", (3, 1, 18), (2, 3, 4, 18), [2, 3, 4, 18]),
    "MAX_POOL_2D of 20": _largest_of((6, 6, 20), (2, 2), 2),
    "MAX_POOL_2D of 16": _largest_of((5, 7, 16), (3, 3), 1, RELU6),
    "MAX_POOL_2D of 9": _largest_of((5, 6, 9), (3, 2), 2),
    "MAX_POOL_2D of 6": _largest_of((4, 5, 6), (2, 3), 2, RELU),
}

UPSCALED: dict[str, Add] = {
    "2x2, stride 2": _upscaled((1, 3, 4, 16), (2, 2), 2, 8, VALID),
    "3x3, stride 2": _upscaled((1, 4, 3, 9), (3, 3), 2, 5, SAME),
    "4x4, stride 2": _upscaled((1, 3, 5, 8), (4, 4), 2, 6, VALID),
    "4x4, stride 2, SAME": _upscaled((1, 3, 5, 8), (4, 4), 2, 6, SAME),
    "5x3, stride 1": _upscaled((1, 4, 5, 8), (5, 3), 1, 6, SAME),
    "3x3, stride 3": _upscaled((1, 2, 3, 4), (3, 3), 3, 4, VALID),
    "2x2, stride 3": _upscaled((1, 2, 3, 4), (2, 2), 3, 4, SAME),
    "5x5, stride 2": _upscaled((1, 3, 2, 4), (5, 5), 2, 1, SAME),
    "behind a PAD": _padded(EVEN, _upscaled((1, 5, 4, 4), (4, 4), 2, 3, SAME), image=2),
}


def _float_weights(kind: str, x: Shape, w: Shape, y: Shape, **options: object) -> Add:
    def add(made: Layers) -> None:
        drawn = [made.random.normal(0, 1, shape).astype(np.float32) for shape in (w, (y[-1],))]
        ends = made.tensor(x, FLOAT), made.tensor(y, FLOAT)
        made.layer(kind, [ends[0], *map(made.constant, drawn)], [ends[1]], **options)

    return add


def _cumulative(**options: bool) -> Add:
    def add(made: Layers) -> None:
        x, y = (made.tensor((2, 5, 3), FLOAT) for _ in range(2))
        made.layer("CUMSUM", [x, made.constant(np.array(1, np.int32))], [y], **options)

    return add


def _reduced(kind: str, dtype: np.dtype, scale: float = 0.05, zero: int = -3) -> Add:
    def add(made: Layers) -> None:
        x = made.int8((2, 3, 4, 5), 0.05, -3) if dtype == INT8 else made.tensor((2, 3, 4, 5), dtype)
        y = made.int8((2, 1, 1, 5), scale, zero) if dtype == INT8 else made.tensor((2, 1, 1, 5), dtype)
        made.layer(kind, [x, made.ints(1, -2)], [y], keepDims=True)

    return add


WINDOW = {"padding": SAME, "strideH": 1, "strideW": 2, "fusedActivationFunction": RELU6}
# exact in any order of arithmetic, so the same on every CPU
EXACT: dict[str, Add] = {
    "RELU": _function("RELU"),
    "RELU6": _function("RELU6"),
    "RELU_N1_TO_1": _function("RELU_N1_TO_1"),
    "RELU_0_TO_1": _function("RELU_0_TO_1"),
    "LEAKY_RELU": _function("LEAKY_RELU", alpha=0.3),
    "HARD_SWISH": _function("HARD_SWISH"),
    "ABS": _function("ABS"),
    "LOGISTIC": _function("LOGISTIC", 1 / 256, -128),
    "TANH": _function("TANH", 1 / 128, 0),
    "ELU": _function("ELU"),
    "EXP": _function("EXP"),
    "GELU": _function("GELU"),
    "GELU by tanh": _function("GELU", approximate=True),
    "LOG": _function("LOG"),
    "QUANTIZE int8": _function("QUANTIZE"),
    "SOFTMAX": _function("SOFTMAX", 1 / 256, -128, beta=1.0),
    "LOG_SOFTMAX": _function("LOG_SOFTMAX", 16 / 256, 127),
    "ADD, broadcast": _broadcast_sum,
    "MUL, broadcast": _product,
    "PRELU": _prelu,
    "REDUCE_MIN": _moved("REDUCE_MIN", (2, 3, 4), (2, 4), [1]),
    "BATCH_MATMUL": _matrices(INT8),
    "AVERAGE_POOL_2D": _pool("AVERAGE_POOL_2D", INT8),
    "MAX_POOL_2D": _pool("MAX_POOL_2D", INT8),
    "TRANSPOSE_CONV": _upconvolution(INT8),
    "grouped CONV_2D": lambda made: made.convolution((4, 5, 6), 9, (3, 3), groups=3),
    "MEAN": _reduced("MEAN", INT8, 0.02, 4),
    "SUM": _reduced("SUM", INT8, 0.3, 4),
    "REDUCE_MAX": _reduced("REDUCE_MAX", INT8),
    "ARG_MAX": _largest,
    "CONCATENATION": _joined,
    "SPLIT": _parts("SPLIT"),
    "SPLIT_V": _parts("SPLIT_V"),
    "SLICE": _moved("SLICE", (3, 4, 5), (2, 4, 3), [1, 0, 2], [2, 4, 3]),
    "STRIDED_SLICE": _moved("STRIDED_SLICE", (3, 4, 5), (2, 4, 3), [0, 0, 0], [3, 4, 5], [2, 1, 2]),
    "REVERSE_V2": _moved("REVERSE_V2", (3, 4, 5), (3, 4, 5), [1]),
    "TRANSPOSE": _moved("TRANSPOSE", (3, 4, 5), (5, 3, 4), [2, 0, 1]),
    "RESHAPE": _moved("RESHAPE", (3, 4, 5), (5, 12), [5, 12], newShape=[5, 12]),
    "BROADCAST_TO": _moved("BROADCAST_TO", (3, 1, 5), (2, 3, 4, 5), [2, 3, 4, 5]),
    "TILE": _moved("TILE", (2, 3), (4, 9), [2, 3]),
    "PAD": _moved("PAD", (2, 3), (3, 6), [[1, 0], [1, 2]]),
    "PADV2": _padded_with_a_value,
    "MIRROR_PAD": _moved("MIRROR_PAD", (3, 4), (5, 7), [[1, 1], [2, 1]], mode=1),
    "GATHER": _moved("GATHER", (3, 4, 5), (3, 2, 5), [3, 0], axis=1),
    "DEPTH_TO_SPACE": _moved("DEPTH_TO_SPACE", (1, 2, 3, 8), (1, 4, 6, 2), blockSize=2),
    "SPACE_TO_DEPTH": _moved("SPACE_TO_DEPTH", (1, 4, 6, 2), (1, 2, 3, 8), blockSize=2),
    "RESIZE_BILINEAR": _moved("RESIZE_BILINEAR", (1, 3, 4, 5), (1, 5, 7, 5), [5, 7], halfPixelCenters=True),
    "RESIZE_NEAREST_NEIGHBOR": _moved("RESIZE_NEAREST_NEIGHBOR", (1, 3, 4, 5), (1, 5, 7, 5), [5, 7], alignCorners=True),
    "SELECT_V2": _selected,
    "QUANTIZE": _between("QUANTIZE"),
    "LOGICAL_NOT": _typed("LOGICAL_NOT", BOOL, BOOL),
    "LOGICAL_AND": _pair("LOGICAL_AND", (3, 4), (4,), BOOL, BOOL),
    "LOGICAL_OR": _pair("LOGICAL_OR", (3, 4), (4,), BOOL, BOOL),
    "CAST": _typed("CAST", INT32, FLOAT, inDataType=INT32_TYPE, outDataType=FLOAT_TYPE),
    **{
        kind: _pair(kind, (2, 3, 4), (3, 1), INT32, BOOL)
        for kind in ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL")
    },
    "MAXIMUM": _pair("MAXIMUM", (2, 3, 4), (4,), INT32, INT32),
    "MINIMUM": _pair("MINIMUM", (2, 3, 4), (4,), INT32, INT32),
}
FUNCTIONS = (
    "ABS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LOG", "LOGISTIC", "NEG", "RELU", "RSQRT", "SQRT", "TANH",
)  # fmt: skip
# of float32: functions of math.h are a rounding apart from one CPU to the next
REAL: dict[str, Add] = {
    **{kind: _real(kind) for kind in FUNCTIONS},
    "LEAKY_RELU": _real("LEAKY_RELU", alpha=0.3),
    "SOFTMAX": _real("SOFTMAX", beta=1.0),
    "LOG_SOFTMAX": _real("LOG_SOFTMAX"),
    "DEQUANTIZE": _between("DEQUANTIZE"),
}
ARITHMETIC: dict[str, Add] = {
    "CUMSUM": _cumulative(),
    "CUMSUM, from the end": _cumulative(exclusive=True, reverse=True),
    "ADD": _pair("ADD", (2, 3, 4), (4,), FLOAT, FLOAT, fusedActivationFunction=RELU),
    "SUB": _pair("SUB", (2, 3, 4), (4,), FLOAT, FLOAT),
    "MUL": _pair("MUL", (2, 3, 4), (3, 1), FLOAT, FLOAT),
    "DIV": _pair("DIV", (2, 3, 4), (3, 1), FLOAT, FLOAT),
    "POW": _pair("POW", (2, 3, 4), (3, 1), FLOAT, FLOAT),
    "PRELU": _pair("PRELU", (1, 2, 3, 4), (4,), FLOAT, FLOAT),
    "CONV_2D": _float_weights("CONV_2D", (1, 4, 6, 3), (5, 3, 2, 3), (1, 4, 3, 5), **WINDOW),
    "DEPTHWISE_CONV_2D": _float_weights(
        "DEPTHWISE_CONV_2D", (1, 4, 6, 3), (1, 3, 2, 3), (1, 4, 3, 3), **WINDOW, depthMultiplier=1
    ),
    "TRANSPOSE_CONV": _upconvolution(FLOAT),
    "FULLY_CONNECTED": _float_weights("FULLY_CONNECTED", (3, 17), (5, 17), (3, 5)),
    "BATCH_MATMUL": _matrices(FLOAT),
    "AVERAGE_POOL_2D": _pool("AVERAGE_POOL_2D", FLOAT),
    "MAX_POOL_2D": _pool("MAX_POOL_2D", FLOAT),
    "MEAN": _reduced("MEAN", FLOAT),
    "SUM": _reduced("SUM", FLOAT),
    "RESIZE_BILINEAR": _moved(
        "RESIZE_BILINEAR", (1, 3, 4, 5), (1, 5, 7, 5), [5, 7], dtype=FLOAT, halfPixelCenters=True
    ),
}


# ---- int16 activations: zero points of 0


def _wide(add: Add) -> Add:
    def wide(made: Layers) -> None:
        made.wide = True
        add(made)
        made.wide = False

    return wide


def _wide_function(kind: str, x: float = 0.0003, y: float = 0.0002, **options: object) -> Add:
    """Of one value; x, y: scales."""
    return lambda made: made.layer(kind, [made.int16((3, 101), x)], [made.int16((3, 101), y)], **options)


def _wide_moved(kind: str, shape: Shape, y_shape: Shape, *operands: object, **options: object) -> Add:
    def add(made: Layers) -> None:
        behind = [made.constant(np.array(operand, np.int32)) for operand in operands]
        made.layer(kind, [made.int16(shape, 0.001), *behind], [made.int16(y_shape, 0.001)], **options)

    return add


def _wide_sum(kind: str, a: Shape, b: Shape, **options: object) -> Add:
    def add(made: Layers) -> None:
        operands, shape = [made.activation(a), made.activation(b)], np.broadcast_shapes(a, b)
        made.layer(kind, operands, [made.activation(shape)], potScaleInt16=False, **options)

    return _wide(add)


def _wide_product(activation: int) -> Add:
    def add(made: Layers) -> None:
        ends = made.int16((2, 3, 4, 5), 0.001), made.int16((3, 1, 5), 0.0005), made.int16((2, 3, 4, 5), 0.009)
        made.layer("MUL", ends[:2], ends[2:], fusedActivationFunction=activation)

    return add


def _wide_extreme(kind: str) -> Add:
    def add(made: Layers) -> None:
        shapes: tuple[Shape, ...] = (2, 3, 4), (4,), (2, 3, 4)
        ends = [made.int16(shape, 0.001) for shape in shapes]
        made.layer(kind, ends[:2], ends[2:])

    return add


def _wide_mean(made: Layers) -> None:
    x, y = made.int16((2, 3, 4, 5), 0.001), made.int16((2, 1, 1, 5), 0.0004)
    made.layer("MEAN", [x, made.ints(1, -2)], [y], keepDims=True)


def _wide_matrices(a: Shape, b: Shape, y: Shape, **options: object) -> Add:
    return lambda made: made.layer(
        "BATCH_MATMUL", [made.int16(a, 0.001), made.int16(b, 0.0007)], [made.int16(y, 0.03)], **options
    )


def _wide_upconvolution(made: Layers) -> None:
    shape, window = made.ints(1, 6, 8, 3), {"padding": SAME, "strideH": 2, "strideW": 2}
    x, y = made.activation((1, 3, 4, 4)), made.activation((1, 6, 8, 3), 0.1)
    made.layer("TRANSPOSE_CONV", [shape, made.weights((3, 3, 3, 4), 3), x, made.bias(3)], [y], **window)


def _wide_conversion(x: str, y: str) -> Add:
    def add(made: Layers) -> None:
        make = {
            "float": lambda: made.tensor((3, 50), FLOAT),
            "int8": lambda: made.int8((3, 50), 0.04, -3),
            "int16": lambda: made.int16((3, 50), 0.00017),
            "coarse": lambda: made.int16((3, 50), 0.0002),
        }
        made.layer("DEQUANTIZE" if y == "float" else "QUANTIZE", [make[x]()], [make[y]()])

    return add


def _wide_select(made: Layers) -> None:
    a, b, y = (made.int16((2, 3, 4), 0.001) for _ in range(3))
    made.layer("SELECT_V2", [made.tensor((2, 3, 4), BOOL), a, b], [y])


def _wide_padding(made: Layers) -> None:
    value = made.tensor((1,), INT16, np.array([0.001]), np.array([0]), np.array([777], np.int16))
    x, y = made.int16((2, 3), 0.001), made.int16((3, 6), 0.001)
    made.layer("PADV2", [x, made.constant(np.array([[1, 0], [1, 2]], np.int32)), value], [y])


def _wide_join(made: Layers) -> None:
    parts = [made.int16((2, n, 3), 0.001) for n in (1, 4, 2)]
    made.layer("CONCATENATION", parts, [made.int16((2, 7, 3), 0.001)], axis=1)


def _wide_parts(made: Layers) -> None:
    x, parts = made.int16((2, 6, 3), 0.001), [made.int16((2, 2, 3), 0.001) for _ in range(3)]
    made.layer("SPLIT", [made.constant(np.int32(1)), x], parts, numSplits=3)


POOL_WINDOW = {"padding": SAME, "strideH": 2, "strideW": 1, "filterHeight": 3, "filterWidth": 2}
WIDE_ACTIVATIONS: dict[str, Add] = {
    "CONV_2D": _wide(lambda made: made.convolution((5, 7, 3), 5, (3, 3))),
    "CONV_2D, stride 2": _wide(lambda made: made.convolution((6, 6, 8), 4, (3, 3), stride=2, activation=RELU)),
    "CONV_2D, dilated": _wide(lambda made: made.convolution((9, 6, 4), 4, (3, 2), 1, VALID, RELU6, (2, 1))),
    "CONV_2D, grouped": _wide(lambda made: made.convolution((4, 5, 6), 9, (3, 3), groups=3)),
    "DEPTHWISE_CONV_2D": _wide(lambda made: made.depthwise((5, 6, 7), (3, 3), stride=2)),
    "DEPTHWISE_CONV_2D, two outputs": _wide(lambda made: made.depthwise((4, 4, 3), (3, 3), times=2)),
    "TRANSPOSE_CONV": _wide(_wide_upconvolution),
    "FULLY_CONNECTED": _wide(lambda made: made.dense(3, 37, 5, activation=RELU)),
    "FULLY_CONNECTED, saturated": _wide(lambda made: made.dense(2, 18, 9, scale=0.001)),
    "BATCH_MATMUL": _wide_matrices((2, 3, 5, 7), (1, 3, 4, 7), (2, 3, 5, 4), adjY=True),
    "BATCH_MATMUL, straight": _wide_matrices((3, 5, 7), (3, 7, 4), (3, 5, 4)),
    "ADD": _wide_sum("ADD", (2, 3, 4), (4,)),
    "ADD, clipped": _wide_sum("ADD", (1, 3, 5, 7), (1, 3, 5, 7), fusedActivationFunction=RELU6),
    "SUB": _wide_sum("SUB", (2, 3, 4), (2, 3, 4), fusedActivationFunction=RELU),
    "MUL": _wide_product(NONE),
    "MUL, clipped": _wide_product(RELU),
    "MAXIMUM": _wide_extreme("MAXIMUM"),
    "MINIMUM": _wide_extreme("MINIMUM"),
    "RELU": _wide_function("RELU"),
    "LEAKY_RELU": _wide_function("LEAKY_RELU", alpha=0.3),
    "LEAKY_RELU, falling": _wide_function("LEAKY_RELU", 0.0002, 0.0007, alpha=-0.7),
    "LOGISTIC": _wide_function("LOGISTIC", y=2**-15),
    "LOGISTIC, narrow": _wide_function("LOGISTIC", 0.00002, 2**-15),
    "LOGISTIC, a power of two": _wide_function("LOGISTIC", 2**-12, 2**-15),
    "LOGISTIC, large": _wide_function("LOGISTIC", 3.0, 2**-15),
    "TANH": _wide_function("TANH", y=2**-15),
    "TANH, a power of two": _wide_function("TANH", 2**-11, 2**-15),
    "TANH, narrow": _wide_function("TANH", 0.00002, 2**-15),
    "SOFTMAX": _wide_function("SOFTMAX", y=2**-15, beta=1.0),
    "SOFTMAX, narrow": _wide_function("SOFTMAX", 0.00002, 2**-15, beta=1.0),
    "SOFTMAX, beta": _wide_function("SOFTMAX", 0.001, 2**-15, beta=0.3),
    "AVERAGE_POOL_2D": _wide_moved("AVERAGE_POOL_2D", (1, 5, 6, 5), (1, 3, 6, 5), **POOL_WINDOW),
    "MAX_POOL_2D": _wide_moved("MAX_POOL_2D", (1, 5, 6, 5), (1, 3, 6, 5), **POOL_WINDOW),
    "MEAN": _wide_mean,
    "CONCATENATION": _wide_join,
    "SPLIT": _wide_parts,
    "SLICE": _wide_moved("SLICE", (3, 4, 5), (2, 4, 3), [1, 0, 2], [2, 4, 3]),
    "STRIDED_SLICE": _wide_moved("STRIDED_SLICE", (3, 4, 5), (2, 4, 3), [0, 0, 0], [3, 4, 5], [2, 1, 2]),
    "REVERSE_V2": _wide_moved("REVERSE_V2", (3, 4, 5), (3, 4, 5), [1]),
    "TRANSPOSE": _wide_moved("TRANSPOSE", (3, 4, 5), (5, 3, 4), [2, 0, 1]),
    "RESHAPE": _wide_moved("RESHAPE", (3, 4, 5), (5, 12), [5, 12], newShape=[5, 12]),
    "BROADCAST_TO": _wide_moved("BROADCAST_TO", (3, 1, 5), (2, 3, 4, 5), [2, 3, 4, 5]),
    "PAD": _wide_moved("PAD", (2, 3), (3, 6), [[1, 0], [1, 2]]),
    "PADV2": _wide_padding,
    "SELECT_V2": _wide_select,
    "QUANTIZE": _wide_conversion("float", "int16"),
    "QUANTIZE from int8": _wide_conversion("int8", "int16"),
    "QUANTIZE to int8": _wide_conversion("int16", "int8"),
    "QUANTIZE between scales": _wide_conversion("int16", "coarse"),
}
WIDE_REAL: dict[str, Add] = {"DEQUANTIZE": _wide_conversion("int16", "float")}


def _exit(probabilities: Callable[[Layers], int], share: int) -> Add:
    """Whether to end with a value, or to go on to the next case, or else to a layer that reverses another. share: of
    256."""

    def add(made: Layers) -> None:
        first = probabilities(made)
        value, x, y = (made.int8((1, 7), 0.05, -3) for _ in range(3))
        made.layer("EXIT", [first, value], [made.tensor((1,), BOOL)], threshold=share)
        made.layer("REVERSE_V2", [x, made.ints(1)], [y])

    return add


# a plan that may end early: its output is that of its last layer
EXITS: dict[str, Add] = {
    "EXIT": _exit(lambda made: made.int8((1, 5), 1 / 256, -128), 250),
    "EXIT of int16": _exit(lambda made: made.int16((1, 3), 2**-15), 100),
    "EXIT of float32": _exit(lambda made: made.tensor((1, 2), FLOAT), 200),
}

CASES: dict[str, dict[str, Add]] = {
    "blocks": BLOCKS,
    "wide": WIDE,
    "gated": GATED,
    "clustered": CLUSTERED,
    "skipping": SKIPPING,
    "skipping wide": SKIPPING_WIDE,
    "binary": BINARY,
    "ternary": TERNARY,
    "unlike": UNLIKE_CHANNELS,
    "padded": PADDED,
    "upscaled": UPSCALED,
    "large": LARGE,
    "matrices": MATRICES,
    "pairs": PAIRS,
    "moves": MOVES,
    "windows": WINDOWS,
    "exact": EXACT,
    "real": REAL,
    "arithmetic": ARITHMETIC,
    "int16": WIDE_ACTIVATIONS,
    "int16 real": WIDE_REAL,
    "exits": EXITS,
}
VALUES = {"clustered": 13}  # different weights


def layers(*groups: str, seed: int) -> Layers:
    """All cases of these groups, side by side."""
    made = Layers(seed, VALUES.get(groups[0], 255))
    for group in groups:
        for add in CASES[group].values():
            add(made)
    return made
