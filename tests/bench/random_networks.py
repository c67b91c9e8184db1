"""Random int8 networks, bit for bit: TFLM (or LiteRT where that lacks an operator), `execute`, and compiled programs.

    python tests/bench/random_networks.py [NETWORKS [SEED]] [--everywhere]

Every network is compared, tensor by tensor, in TFLM or LiteRT's reference kernels and in `execute`. GROUP networks side
by side make one program: it is compiled for this machine, and for one of the emulated CPUs, in turn; with --everywhere,
for all of them, with coded weights where it is their turn. Prints one line for a group, one for each network that
differs, and at the end what ran where. Exit code 1 if any output differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import lite
from ahead import on_board, split
from ai_edge_litert import schema_py_generated as schema
from lite import constant, per_channel, quantized

from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import FlatBuffer
from edgecompress.lowering.tensors import Operator as FileOperator
from edgecompress.lowering.tensors import Tensor as FileTensor
from edgecompress_runtime import load
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.pack import write_pack
from edgecompress_runtime.plan import Operator, Plan, Tensor

GROUP, RECORDS, DEPTH = 50, 2, (2, 6)
BOARDS = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")
EMULATED = (*BOARDS, "riscv32", "raspberry-pi")
NONE_TO_RELU6 = (0, 1, 2, 3)
Shape = tuple[int, ...]
Step = Callable[["Network"], None]


class Network:
    """A chain with branches; `shape`, `scale` and `zero` are of its last tensor."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.buffer = FlatBuffer()
        self.ctx = Context(self.buffer)
        self.last: list[tuple[int, Shape, float, int]] = []
        self.fed: list[int] = []
        shape = (1, *(int(n) for n in self.random.integers(1, 9, 2)), int(self.random.choice([1, 2, 3, 4, 8, 13, 16])))
        self.input(shape)

    # ---- tensors ----

    def input(self, shape: Shape) -> int:
        index = self.add(shape, self.a_scale(), self.a_zero())
        self.fed.append(index)
        return index

    def a_scale(self) -> float:
        if self.random.random() < 0.3:
            return float(self.random.choice([0.25, 0.1, 0.05, 0.125, 0.02, 1 / 255, 1.0]))
        return float(np.exp(self.random.uniform(np.log(0.003), np.log(0.3))))

    def a_zero(self) -> int:
        return int(self.random.choice([0, -128, 127, int(self.random.integers(-128, 128))]))

    def add(self, shape: Shape, scale: float, zero: int) -> int:
        index = self.buffer.add_tensor(quantized(shape, scale, zero))
        self.last.append((index, tuple(shape), scale, zero))
        return index

    def held(self, tensor: FileTensor) -> int:
        return self.buffer.add_tensor(tensor)

    def ints(self, *numbers: int) -> int:
        return self.held(constant(np.array(numbers, np.int32)))

    @property
    def shape(self) -> Shape:
        return self.last[-1][1]

    def step(
        self,
        kind: str,
        shape: Shape,
        *operands: int,
        scale: float | None = None,
        zero: int | None = None,
        **options: object,
    ) -> None:
        """One operator on the last tensor, which is its first operand; scale, zero: of its output, else the input's."""
        x, _, own_scale, own_zero = self.last[-1]
        y = self.add(shape, own_scale if scale is None else scale, own_zero if zero is None else zero)
        if kind == "REDUCE_MIN":  # the emitter's table lacks it
            table = schema.ReducerOptionsT()
            table.keepDims = True
            self.buffer.add_operator(FileOperator(kind, (x, *operands), (y,), table))
        else:
            self.ctx.op(kind, [x, *operands], [y], **options)

    def activation(self) -> dict[str, int]:
        return {"fusedActivationFunction": int(self.random.choice(NONE_TO_RELU6))}

    def int8(self, shape: Shape) -> np.ndarray:
        data = self.random.integers(-127, 128, shape).astype(np.int8)
        if self.random.random() < 0.25:  # mostly zeros
            data[self.random.random(shape) < 0.9] = 0
        return data

    def weights(self, data: np.ndarray, channels: int, axis: int) -> tuple[int, int, float]:
        """Of a layer: weights, bias, and a scale for its output."""
        scales = (self.random.uniform(0.5, 1, channels) * np.exp(self.random.uniform(-7, -3))).astype(np.float32)
        x_scale = np.float32(self.last[-1][2])
        bias = self.random.integers(-3000, 3000, channels).astype(np.int32)
        depth = data.size / channels
        y_scale = float(x_scale * scales.max() * 127 * depth**0.5 * np.exp(self.random.uniform(-1, 1)))
        return self.held(per_channel(data, scales, axis)), self.held(per_channel(bias, x_scale * scales, 0)), y_scale

    def finish(self) -> bytes:
        used = {i for o in self.buffer.operators for i in o.inputs}
        made = [i for o in self.buffer.operators for i in o.outputs]
        ends = [i for i in made if i not in used]
        return self.buffer.finish([(f"x{i}", i) for i in self.fed], [(f"y{i}", i) for i in ends], "random")


# ---- operators: each adds itself to a network whose last tensor is [1, h, w, c], or returns without ----


def convolution(net: Network) -> None:
    _, h, w, c = net.shape
    kh, kw = (int(net.random.integers(1, 4)) for _ in range(2))
    out, stride, same = int(net.random.integers(1, 20)), int(net.random.integers(1, 3)), bool(net.random.integers(2))
    dilation = int(net.random.integers(1, 3)) if stride == 1 else 1
    spans = [(k - 1) * dilation + 1 for k in (kh, kw)]
    if not same and (spans[0] > h or spans[1] > w):
        return
    size = [-(-n // stride) if same else (n - s) // stride + 1 for n, s in zip((h, w), spans)]
    weights, bias, scale = net.weights(net.int8((out, kh, kw, c)), out, 0)
    options = {"padding": int(not same), "strideH": stride, "strideW": stride}
    options |= {"dilationHFactor": dilation, "dilationWFactor": dilation} | net.activation()
    net.step("CONV_2D", (1, *size, out), weights, bias, scale=scale, zero=net.a_zero(), **options)


def depthwise(net: Network) -> None:
    _, h, w, c = net.shape
    k, stride, times = int(net.random.integers(1, 4)), int(net.random.integers(1, 3)), int(net.random.integers(1, 3))
    weights, bias, scale = net.weights(net.int8((1, k, k, c * times)), c * times, 3)
    options = {"padding": 0, "strideH": stride, "strideW": stride, "depthMultiplier": times}
    options |= {"dilationHFactor": 1, "dilationWFactor": 1} | net.activation()
    shape = (1, -(-h // stride), -(-w // stride), c * times)
    net.step("DEPTHWISE_CONV_2D", shape, weights, bias, scale=scale, zero=net.a_zero(), **options)


def upconvolution(net: Network) -> None:
    _, h, w, c = net.shape
    k, out = int(net.random.integers(1, 4)), int(net.random.integers(1, 9))
    weights, bias, scale = net.weights(net.int8((out, k, k, c)), out, 0)
    x, _, _, _ = net.last[-1]
    y = net.add((1, 2 * h, 2 * w, out), scale, net.a_zero())
    options = {"padding": 0, "strideH": 2, "strideW": 2}
    net.ctx.op("TRANSPOSE_CONV", [net.ints(1, 2 * h, 2 * w, out), weights, x, bias], [y], **options)


def dense(net: Network) -> None:
    *lead, c = net.shape
    units = int(net.random.integers(1, 40))
    weights, bias, scale = net.weights(net.int8((units, c)), units, 0)
    options = {"keepNumDims": True} | net.activation()
    net.step("FULLY_CONNECTED", (*lead, units), weights, bias, scale=scale, zero=net.a_zero(), **options)


def flat_dense(net: Network) -> None:
    size, units = int(np.prod(net.shape)), int(net.random.integers(1, 40))
    net.step("RESHAPE", (1, size), net.ints(1, size), newShape=np.array([1, size], np.int32))
    w_scale = float(np.exp(net.random.uniform(-7, -3)))
    w = net.held(quantized((units, size), w_scale, 0, net.int8((units, size))))
    scale = net.last[-1][2] * w_scale * 127 * size**0.5 * float(np.exp(net.random.uniform(-1, 1)))
    net.step(
        "FULLY_CONNECTED", (1, units), w, -1, scale=scale, zero=net.a_zero(), keepNumDims=False, **net.activation()
    )
    net.step("RESHAPE", (1, 1, 1, units), net.ints(1, 1, 1, units), newShape=np.array([1, 1, 1, units], np.int32))


def product(net: Network) -> None:
    _, h, w, c = net.shape
    columns = int(net.random.integers(1, 12))
    other = net.held(quantized((1, h, columns, c), net.a_scale(), net.a_zero(), net.int8((1, h, columns, c))))
    scale = net.last[-1][2] * 0.1 * 127 * c**0.5
    net.step("BATCH_MATMUL", (1, h, w, columns), other, scale=scale, zero=net.a_zero(), adjX=False, adjY=True)


def pool(kind: str) -> Step:
    def step(net: Network) -> None:
        _, h, w, c = net.shape
        k, stride = int(net.random.integers(1, 4)), int(net.random.integers(1, 3))
        options = {"padding": 0, "strideH": stride, "strideW": stride, "filterHeight": k, "filterWidth": k}
        net.step(kind, (1, -(-h // stride), -(-w // stride), c), **options, **net.activation())

    return step


def unary(kind: str, scale: float | None = None, zero: int | None = None, **options: object) -> Step:
    def step(net: Network) -> None:
        if kind in ("LOGISTIC", "TANH") and net.last[-1][2] >= 8:  # where TFLM has 0 saturate
            return
        # TFLM refuses a HARD_SWISH whose output is much finer than its input
        free = max(net.a_scale(), net.last[-1][2] / 64) if kind == "HARD_SWISH" else net.a_scale()
        own = (free, net.a_zero()) if scale is None else (scale, zero)
        net.step(kind, net.shape, scale=own[0], zero=own[1], **options)

    return step


def same_grid(kind: str) -> Step:
    return lambda net: net.step(kind, net.shape)


def leaky(net: Network) -> None:
    alpha = float(np.float32(net.random.choice([0.01, 0.1, 0.3, net.random.normal()])))
    net.step("LEAKY_RELU", net.shape, scale=net.a_scale(), zero=net.a_zero(), alpha=alpha)


def prelu(net: Network) -> None:
    slope = net.held(quantized((1, 1, net.shape[3]), net.a_scale(), net.a_zero(), net.int8((1, 1, net.shape[3]))))
    net.step("PRELU", net.shape, slope, scale=net.a_scale(), zero=net.a_zero())


def pair(kind: str) -> Step:
    """With an earlier tensor of the same shape, a constant, or an input of its own; of one grid where it must be."""

    def step(net: Network) -> None:
        x, shape, scale, zero = net.last[-1]
        like = [t for t in net.last[:-1] if t[1] == shape]
        free = kind in ("ADD", "SUB", "MUL")
        grid = (net.a_scale(), net.a_zero()) if free else (scale, zero)
        if like and free and net.random.random() < 0.5:
            other = like[int(net.random.integers(len(like)))][0]
        else:
            small = (1, 1, 1, shape[3]) if net.random.random() < 0.5 else shape
            other = net.held(quantized(small, *grid, net.int8(small)))
        operands = [x, other] if net.random.random() < 0.5 else [other, x]
        end = (net.a_scale(), net.a_zero()) if free else (scale, zero)
        y = net.add(shape, *end)
        net.ctx.op(kind, operands, [y], **(net.activation() if free else {}))

    return step


def reduced(kind: str) -> Step:
    def step(net: Network) -> None:
        axes = sorted(net.random.choice([1, 2, 3], int(net.random.integers(1, 3)), replace=False).tolist())
        shape = tuple(1 if i in axes else n for i, n in enumerate(net.shape))
        own = {} if kind.startswith("REDUCE") else {"scale": net.a_scale(), "zero": net.a_zero()}
        net.step(kind, shape, net.ints(*axes), keepDims=True, **own)

    return step


def resized(kind: str) -> Step:
    def step(net: Network) -> None:
        c = net.shape[3]
        size = tuple(int(n) for n in net.random.integers(1, 17, 2))
        align, half = [(False, False), (True, False), (False, True)][int(net.random.integers(3))]
        net.step(kind, (1, *size, c), net.ints(*size), alignCorners=align, halfPixelCenters=half)

    return step


def padded(net: Network) -> None:
    pads = net.random.integers(0, 3, (4, 2)).astype(np.int32)
    pads[[0, 3]] = 0
    shape = tuple(n + int(p.sum()) for n, p in zip(net.shape, pads))
    net.step("PAD", shape, net.held(constant(pads)))


def mirrored(net: Network) -> None:
    _, h, w, _ = net.shape
    mode = int(net.random.integers(2))
    pads = np.zeros((4, 2), np.int32)
    for axis, n in ((1, h), (2, w)):
        pads[axis] = net.random.integers(0, min(n + mode, 4), 2)
    shape = tuple(n + int(p.sum()) for n, p in zip(net.shape, pads))
    net.step("MIRROR_PAD", shape, net.held(constant(pads)), mode=mode)


def transposed(net: Network) -> None:
    order = [0, *(1 + net.random.permutation(3)).tolist()]
    net.step("TRANSPOSE", tuple(net.shape[i] for i in order), net.ints(*order))


def reshaped(net: Network) -> None:
    _, h, w, c = net.shape
    shape = (1, w, h, c) if net.random.random() < 0.5 else (1, h * w, 1, c)
    net.step("RESHAPE", shape, net.ints(*shape), newShape=np.array(shape, np.int32))


def joined(net: Network) -> None:
    x, shape, scale, zero = net.last[-1]
    extra = (*shape[:3], int(net.random.integers(1, 5)))
    other = net.held(quantized(extra, scale, zero, net.int8(extra)))
    y = net.add((*shape[:3], shape[3] + extra[3]), scale, zero)
    net.ctx.op("CONCATENATION", [x, other] if net.random.random() < 0.5 else [other, x], [y], axis=3)


def sliced(net: Network) -> None:
    begin = [int(net.random.integers(n)) for n in net.shape]
    size = [int(net.random.integers(1, n - b + 1)) for n, b in zip(net.shape, begin)]
    net.step("SLICE", tuple(size), net.ints(*begin), net.ints(*size))


def strided(net: Network) -> None:
    by = [1, *(int(n) for n in net.random.integers(1, 3, 3))]
    shape = tuple(-(-n // s) for n, s in zip(net.shape, by))
    masks = {"beginMask": 0, "endMask": 0, "ellipsisMask": 0, "newAxisMask": 0, "shrinkAxisMask": 0}
    net.step("STRIDED_SLICE", shape, net.ints(0, 0, 0, 0), net.ints(*net.shape), net.ints(*by), **masks)


def split_in_two(net: Network) -> None:
    x, shape, scale, zero = net.last[-1]
    if shape[3] % 2:
        return
    half = (*shape[:3], shape[3] // 2)
    outs = [net.add(half, scale, zero) for _ in range(2)]
    net.ctx.op("SPLIT", [net.held(constant(np.int32(3))), x], outs, numSplits=2)


def split_unevenly(net: Network) -> None:
    x, shape, scale, zero = net.last[-1]
    if shape[3] < 2:
        return
    first = int(net.random.integers(1, shape[3]))
    outs = [net.add((*shape[:3], n), scale, zero) for n in (first, shape[3] - first)]
    net.ctx.op("SPLIT_V", [x, net.ints(first, shape[3] - first), net.held(constant(np.int32(3)))], outs, numSplits=2)


def space_to_depth(net: Network) -> None:
    _, h, w, c = net.shape
    if h % 2 == 0 and w % 2 == 0:
        net.step("SPACE_TO_DEPTH", (1, h // 2, w // 2, 4 * c), blockSize=2)


def depth_to_space(net: Network) -> None:
    _, h, w, c = net.shape
    if c % 4 == 0:
        net.step("DEPTH_TO_SPACE", (1, 2 * h, 2 * w, c // 4), blockSize=2)


def gathered(net: Network) -> None:
    picked = [int(n) for n in net.random.integers(0, net.shape[3], 5)]
    net.step("GATHER", (*net.shape[:3], 5), net.ints(*picked), axis=3, batchDims=0)


def reversed_(net: Network) -> None:
    net.step("REVERSE_V2", net.shape, net.ints(int(net.random.integers(1, 4))))


def tiled(net: Network) -> None:
    times = (1, *(int(n) for n in net.random.integers(1, 3, 3)))
    net.step("TILE", tuple(n * t for n, t in zip(net.shape, times)), net.ints(*times))


def spread(net: Network) -> None:
    if 1 in net.shape[1:3]:
        shape = tuple(4 if n == 1 and i in (1, 2) else n for i, n in enumerate(net.shape))
        net.step("BROADCAST_TO", shape, net.ints(*shape))


STEPS: dict[str, Step] = {
    "CONV_2D": convolution, "DEPTHWISE_CONV_2D": depthwise, "TRANSPOSE_CONV": upconvolution, "FULLY_CONNECTED": dense,
    "FULLY_CONNECTED, flat": flat_dense, "BATCH_MATMUL": product, "AVERAGE_POOL_2D": pool("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": pool("MAX_POOL_2D"), "RELU": unary("RELU"), "RELU6": same_grid("RELU6"),
    "RELU_N1_TO_1": unary("RELU_N1_TO_1"), "RELU_0_TO_1": unary("RELU_0_TO_1"), "LEAKY_RELU": leaky, "PRELU": prelu,
    "HARD_SWISH": unary("HARD_SWISH"), "LOGISTIC": unary("LOGISTIC", 1 / 256, -128), "TANH": unary("TANH", 1 / 128, 0),
    "ELU": unary("ELU"), "EXP": unary("EXP"), "GELU": unary("GELU", approximate=False), "ABS": unary("ABS"),
    "QUANTIZE": unary("QUANTIZE"), "SOFTMAX": unary("SOFTMAX", 1 / 256, -128, beta=1.0),
    "LOG_SOFTMAX": unary("LOG_SOFTMAX", 16 / 256, 127), "ADD": pair("ADD"), "SUB": pair("SUB"), "MUL": pair("MUL"),
    "MINIMUM": pair("MINIMUM"), "MAXIMUM": pair("MAXIMUM"), "MEAN": reduced("MEAN"), "SUM": reduced("SUM"),
    "REDUCE_MAX": reduced("REDUCE_MAX"), "REDUCE_MIN": reduced("REDUCE_MIN"),
    "RESIZE_BILINEAR": resized("RESIZE_BILINEAR"), "RESIZE_NEAREST_NEIGHBOR": resized("RESIZE_NEAREST_NEIGHBOR"),
    "PAD": padded, "MIRROR_PAD": mirrored, "TRANSPOSE": transposed, "RESHAPE": reshaped, "CONCATENATION": joined,
    "SLICE": sliced, "STRIDED_SLICE": strided, "SPLIT": split_in_two, "SPLIT_V": split_unevenly,
    "SPACE_TO_DEPTH": space_to_depth, "DEPTH_TO_SPACE": depth_to_space, "GATHER": gathered, "REVERSE_V2": reversed_,
    "TILE": tiled, "BROADCAST_TO": spread,
}  # fmt: skip


def network(seed: int) -> bytes:
    """A .tflite file of a few operators."""
    net = Network(seed)
    wanted = int(net.random.integers(*DEPTH, endpoint=True))
    while len(net.buffer.operators) < wanted:
        STEPS[str(net.random.choice(list(STEPS)))](net)
        if np.prod(net.shape) > 4000:
            shape = tuple(min(n, most) for n, most in zip(net.shape, (1, 4, 4, 16)))
            net.step("SLICE", shape, net.ints(0, 0, 0, 0), net.ints(*shape))
    return net.finish()


def side_by_side(plans: list[Plan]) -> Plan:
    """One plan of several."""
    tensors: list[Tensor] = []
    operators: list[Operator] = []
    inputs: list[int] = []
    outputs: list[int] = []
    for plan in plans:
        first = len(tensors)

        def moved(ends: tuple[int, ...], first: int = first) -> tuple[int, ...]:
            return tuple(i if i < 0 else i + first for i in ends)

        tensors += plan.tensors
        operators += [Operator(o.kind, moved(o.inputs), moved(o.outputs), o.options) for o in plan.operators]
        inputs += moved(plan.inputs)
        outputs += moved(plan.outputs)
    return Plan(tuple(tensors), tuple(operators), tuple(inputs), tuple(outputs))


def interpreted(seed: int, kinds: Counter[str], seen: Counter[str]) -> tuple[Plan, list[np.ndarray], bool]:
    """The network's plan, its inputs, and whether `execute` gives each tensor as TFLM or LiteRT does."""
    data = network(seed)
    plan, random = lite.plan_of(data), np.random.default_rng(seed)
    kinds.update(o.kind for o in plan.operators)
    feeds = [random.integers(-128, 128, plan.tensors[i].shape).astype(np.int8) for i in plan.inputs]
    executor = Executor(plan)
    executor(*feeds)
    whole = not any(lite._lacks(plan, o) for o in plan.operators)
    seen["TFLM, whole" if whole and lite.MICRO else "operator by operator in TFLM and LiteRT"] += 1
    equal = True
    for index, theirs in lite.every_tensor(data, feeds).items():
        ours = executor.tensor(index)
        if not np.array_equal(ours.reshape(-1), theirs.reshape(-1)):
            makers = [o.kind for o in plan.operators if index in o.outputs]
            most = np.abs(ours.astype(int).reshape(-1) - theirs.astype(int).reshape(-1)).max()
            print(f"network {seed}: {makers[0]} differs by {most}", flush=True)
            equal = False
    return plan, feeds, equal


def emulated(
    cpu: str, plan: Plan, records: list[list[np.ndarray]], folder: Path, coded: bool
) -> list[list[np.ndarray]]:
    if cpu in BOARDS:
        return on_board(cpu, plan, records, folder / "model.elf", coded=coded)[0]
    if cpu == "riscv32":
        import test_codegen_riscv as riscv

        stream = b"".join(a.tobytes() for record in records for a in record)
        return split(plan, riscv.EMULATORS[cpu].run(riscv.built(plan, cpu, folder, coded=coded), stream).outputs)
    import test_codegen_aarch64 as aarch64

    aarch64.built(plan, folder, cpu, coded=coded)
    stream = b"".join(a.tobytes() for record in records for a in record)
    return split(plan, aarch64.emulator_of(aarch64.load_target(cpu)).run(folder / "model_run", stream).outputs)


def compared(where: str, expected: list[list[np.ndarray]], found: list[list[np.ndarray]]) -> bool:
    equal = all(np.array_equal(a, b) for e, f in zip(expected, found, strict=True) for a, b in zip(e, f, strict=True))
    if not equal:
        print(f"{where}: differs", flush=True)
    return equal


def groups(count: int, seed: int) -> Iterator[range]:
    for first in range(seed, seed + count, GROUP):
        yield range(first, min(first + GROUP, seed + count))


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare random networks.")
    parser.add_argument("networks", type=int, nargs="?", default=1000)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--everywhere", action="store_true")
    given = parser.parse_args()
    count, seed = given.networks, given.seed
    kinds: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    start = time.time()
    for number, seeds in enumerate(groups(count, seed)):
        found = [interpreted(s, kinds, seen) for s in seeds]
        failed["execute"] += sum(not equal for *_, equal in found)
        plan = side_by_side([plan for plan, *_ in found])
        random = np.random.default_rng(seeds[0])
        records = [[a for _, feeds, _ in found for a in feeds]]
        for _ in range(RECORDS - 1):
            records.append([random.integers(-128, 128, a.shape).astype(np.int8) for a in records[0]])
        executor = Executor(plan)
        expected = [executor(*record) for record in records]
        model = load(write_pack(plan, "random"))
        here = [model(*record) for record in records]
        here = [list(y) if isinstance(y, tuple) else [y] for y in here]
        seen["this machine"] += len(seeds)
        failed["this machine"] += not compared(f"networks {seeds} on this machine", expected, here)
        turn = EMULATED[number % len(EMULATED)]
        for cpu in EMULATED if given.everywhere else (turn,):
            with tempfile.TemporaryDirectory() as folder:
                outputs = emulated(cpu, plan, records, Path(folder), cpu == turn)
            seen[cpu] += len(seeds)
            failed[cpu] += not compared(f"networks {seeds} on {cpu}", expected, outputs)
        print(f"{seeds[-1] + 1 - seed} networks, {time.time() - start:.0f} s, turn of {turn}", flush=True)
    print(f"{len(kinds)} kinds of operators: " + ", ".join(f"{k} {n}" for k, n in sorted(kinds.items())))
    print("networks: " + ", ".join(f"{n} {where}" for where, n in seen.items()))
    print("different: " + (", ".join(f"{n} {where}" for where, n in failed.items() if n) or "none"))
    return int(any(failed.values()))


if __name__ == "__main__":
    sys.exit(main())
