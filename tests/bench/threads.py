"""One thread against two on this machine: MobileNet v1 for images of 96x96 (random weights), and ResNet-8.

    EDGECOMPRESS_BENCH_DATA=FOLDER python tests/bench/threads.py

FOLDER: as for resnet8.py; without it ResNet-8 is skipped. Both are timed in turn, in the same run, from Python, and
the fastest calls compared. The threads are bound to a core each: where other programs run, Linux may have both take
turns on one. Outputs must be the same. Exits 1 where they are not.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import measure
import numpy as np
from resnet8 import _module, _one
from rich.console import Console
from rich.table import Table

import edgecompress_runtime
from edgecompress_runtime.operators import options_of
from edgecompress_runtime.options import ReductionOptions
from edgecompress_runtime.pack import write_pack
from edgecompress_runtime.plan import Operator, Plan, Tensor

ROUNDS, CALLS = 60, 20
# (output channels, stride) of a depthwise and a 1x1 convolution
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def main() -> int:
    table, failed = Table("network", "one thread", "two threads", "times faster", "same outputs"), 0
    with tempfile.TemporaryDirectory() as work:
        os.environ["NUMBA_CACHE_DIR"] = work
        for name, pack in networks(Path(work)):
            one, two = (edgecompress_runtime.load(pack, threads=n) for n in (1, 2))
            shape, dtype = one.inputs[0].shape, one.inputs[0].dtype
            x = np.random.default_rng(0).integers(-128, 128, shape).astype(dtype)
            same = np.array_equal(one(x), two(x))
            bind()
            alone, together = fastest(lambda: one(x), lambda: two(x))  # noqa: B023 (called here)
            times = f"{alone:.0f} us", f"{together:.0f} us", f"{alone / together:.2f}"
            table.add_row(name, *times, "yes" if same else "NO")
            failed += not same
    Console(width=110).print(table)
    return 1 if failed else 0


def bind() -> None:
    """This thread and the models' own to the first cores."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        for thread in threading.enumerate():
            if thread.native_id is not None:
                os.sched_setaffinity(thread.native_id, {0 if thread is threading.main_thread() else 1})


def fastest(*calls) -> list[float]:
    """Microseconds of each."""
    best = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for i, call in enumerate(calls):
            for _ in range(CALLS):
                start = time.perf_counter()
                call()
                best[i] = min(best[i], (time.perf_counter() - start) * 1e6)
    return best


def networks(work: Path) -> Iterator[tuple[str, bytes]]:
    yield "MobileNet v1, 96x96", write_pack(mobilenet(), "mobilenet")
    if folder := os.environ.get("EDGECOMPRESS_BENCH_DATA"):
        images, _ = _module(Path(folder) / "data" / "datasets.py").load("cifar10", "train", 200)
        np.savez(work / "calib.npz", x=images)
        measure.convert(
            Path(folder) / "models" / "ic_resnet8.onnx",
            "--target",
            "android",
            "--format",
            "pack",
            "--calib",
            work / "calib.npz",
            "-o",
            work / "out",
        )
        yield "ResNet-8, 32x32", _one(work / "out", "pack").read_bytes()


def mobilenet() -> Plan:
    """Howard et al. 2017, without its classifier's softmax."""
    rng = np.random.default_rng(0)
    tensors = [activation((1, 96, 96, 3))]
    operators: list[Operator] = []

    def layer(kind: str, w: np.ndarray, axis: int, shape: tuple[int, ...], fan_in: int, options: dict) -> None:
        channels = w.shape[axis]
        scales = np.full(channels, 0.5 / 74 / fan_in**0.5, np.float32)  # 74: standard deviation of the weights
        first = len(tensors)
        tensors.extend(
            [
                Tensor("w", w.shape, w.dtype, scales, np.zeros(channels, np.int32), axis, w),
                Tensor("b", (channels,), np.dtype(np.int32), data=np.zeros(channels, np.int32)),
                activation(shape),
            ]
        )
        operators.append(Operator(kind, (first - 1, first, first + 1), (first + 2,), options_of(kind, options)))

    def convolution(out: int, kernel: int, stride: int, kind: str = "CONV_2D") -> None:
        _, height, width, channels = tensors[-1].shape
        deep = kind == "CONV_2D"
        w = rng.integers(-127, 128, (out, kernel, kernel, channels) if deep else (1, kernel, kernel, out))
        options = {"padding": 0, "strideH": stride, "strideW": stride, "fusedActivationFunction": 3}
        shape = 1, -(-height // stride), -(-width // stride), out
        layer(
            kind,
            w.astype(np.int8),
            0 if deep else 3,
            shape,
            kernel * kernel * (channels if deep else 1),
            options | ({} if deep else {"depthMultiplier": 1}),
        )

    convolution(32, 3, 2)
    for out, stride in BLOCKS:
        convolution(tensors[-1].shape[3], 3, stride, "DEPTHWISE_CONV_2D")
        convolution(out, 1, 1)
    axes = Tensor("axes", (2,), np.dtype(np.int32), data=np.array([1, 2], np.int32))
    tensors.extend([axes, activation((1, 1024))])
    operators.append(Operator("MEAN", (len(tensors) - 3, len(tensors) - 2), (len(tensors) - 1,), ReductionOptions()))
    layer("FULLY_CONNECTED", rng.integers(-127, 128, (1000, 1024)).astype(np.int8), 0, (1, 1000), 1024, {})
    return Plan(tuple(tensors), tuple(operators), (0,), (len(tensors) - 1,))


def activation(shape: tuple[int, ...]) -> Tensor:
    return Tensor("t", shape, np.dtype(np.int8), np.array([0.05], np.float32), np.zeros(1, np.int32))


if __name__ == "__main__":
    sys.exit(main())
