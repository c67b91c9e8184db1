"""Instructions of layers with zeros on emulated Cortex-M boards and 64-bit Arm, beside the same layers with none.

    python tests/bench/skipping.py [CPU or target...]

Zeros lie anywhere, or so that 16 neighbouring inputs of a channel go together. raspberry-pi has no dot product,
raspberry-pi-5 has; their counts are with a program's start and end. Needs qemu-system-arm, qemu-aarch64 and their
linkers. Every output is compared with the plain kernels', bit for bit. An emulator counts instructions: it says nothing
of cycles. Exits 1 when an output differs or a layer with zeros takes more than one without.
"""

from __future__ import annotations

import sys

import aarch64
import numpy as np
from cortex_m import emulated
from rich.console import Console
from rich.table import Table

from edgecompress_runtime.building.ahead_of_time import Compiled
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.operators import options_of
from edgecompress_runtime.plan import Operator, Plan, Tensor
from edgecompress_targets.connection.driver import Measured

CPUS = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m55")
LINUX = ("raspberry-pi", "raspberry-pi-5")
# height, width and channels of x, window, output channels
LAYERS = (
    ("CONV_2D", (8, 8, 64), (1, 1), 64),
    ("CONV_2D", (8, 8, 128), (1, 1), 128),
    ("CONV_2D", (8, 8, 32), (3, 3), 32),
    ("FULLY_CONNECTED", (1, 1, 256), (1, 1), 128),
)
KEPT = (("80 % zeros", 0.2, 1), ("90 %", 0.1, 1), ("95 %", 0.05, 1), ("80 %, 16 together", 0.2, 16))


def main() -> int:
    failed, console = 0, Console(width=120)
    for cpu in sys.argv[1:] or CPUS + LINUX:
        table = Table("layer", "no zeros", *(f"{name}: times fewer" for name, _, _ in KEPT), title=cpu)
        for kind, size, window, outputs in LAYERS:
            random = np.random.default_rng(0)
            w = random.integers(1, 128, (outputs, *window, size[-1])).astype(np.int8)
            dense, good = measured(cpu, kind, size, w)
            cells = [f"{dense:,}"]
            for _, share, run in KEPT:
                mask = np.repeat(random.random((*w.shape[:3], -(-size[-1] // run))) < share, run, -1)
                count, exact = measured(cpu, kind, size, w * mask[..., : size[-1]])
                good &= exact and count <= dense
                cells.append(f"{count:,}, {dense / count:.2f}")
            failed += not good
            shape = "x".join(map(str, w.shape[::-1] if kind == "CONV_2D" else (size[-1], outputs)))
            table.add_row(f"{kind} {shape}", *cells, style=None if good else "red")
        console.print(table)
    return 1 if failed else 0


def measured(cpu: str, kind: str, size: tuple[int, ...], w: np.ndarray) -> tuple[int, bool]:
    """(instructions, whether the output is the plain kernels')"""
    _, run, exact = emulated_layer(cpu, kind, size, w)
    return run.instructions, exact


def emulated_layer(cpu: str, kind: str, size: tuple[int, ...], w: np.ndarray) -> tuple[Compiled, Measured, bool]:
    """A program of one layer, its run, and whether the output is the plain kernels'; size: of x, height, width and
    channels. w: int8 [outputs, height, width, channels] of a window."""
    plan = layer_plan(kind, size, w)
    x = np.random.default_rng(1).integers(-128, 128, plan.tensors[0].shape).astype(np.int8)
    compiled, run = (aarch64.emulated if cpu in LINUX else emulated)(plan, x, cpu)
    (expected,) = Executor(plan)(x)
    return compiled, run, run.outputs == expected.tobytes()


def layer_plan(kind: str, size: tuple[int, ...], w: np.ndarray) -> Plan:
    """Of the arguments of `emulated_layer`."""
    outputs, none = len(w), np.zeros(0)
    scale, zero = np.array([0.05], np.float32), np.array([3], np.int32)
    y_scale = np.array([0.05 * np.sqrt(w.size / outputs)], np.float32)
    flat = kind == "FULLY_CONNECTED"
    shapes = ((1, size[-1]), (1, outputs)) if flat else ((1, *size), (1, *size[:2], outputs))
    weights = w.reshape(outputs, -1) if flat else w
    tensors = (
        Tensor("x", shapes[0], np.dtype(np.int8), scale, zero),
        Tensor(
            "w",
            weights.shape,
            np.dtype(np.int8),
            np.full(outputs, 0.01, np.float32),
            np.zeros(outputs, np.int32),
            0,
            weights,
        ),
        Tensor("b", (outputs,), np.dtype(np.int32), none, none, 0, np.arange(outputs, dtype=np.int32)),
        Tensor("y", shapes[1], np.dtype(np.int8), y_scale, zero),
    )
    options = {} if flat else {"padding": 0, "strideH": 1, "strideW": 1}
    return Plan(tensors, (Operator(kind, (0, 1, 2), (3,), options_of(kind, options)),), (0,), (3,))


if __name__ == "__main__":
    sys.exit(main())
