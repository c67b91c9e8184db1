"""Layers with 80 % zeros against the same layers with none, on this machine, one thread.

    python tests/bench/sparse.py [VARIANT]

Zeros lie in blocks of 16 outputs by 4 inputs; so that one of every 5 inputs is left (N:M); or anywhere. Times are
the compiled code's, in a loop of machine code: a call from Python takes as long as a small layer. The layers of a line
are timed in turn, in the same run, and the fastest rounds compared. Every output is compared with the plain kernels'.
Exits 1 when a line misses its limit or an output differs.
"""

from __future__ import annotations

import ctypes
import sys
import time

import llvmlite.binding as llvm
import numpy as np
from rich.console import Console
from rich.table import Table

from edgecompress_runtime.codegen.llvm_writer import llvm_program
from edgecompress_runtime.codegen.meeting import ENTRY, PREFIX
from edgecompress_runtime.codegen.memory import CACHE_LINE
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.families.x86.variants import VARIANTS, Variant, available
from edgecompress_runtime.families.x86.x86_family import x86_family
from edgecompress_runtime.loading.compile_for_host import build
from edgecompress_runtime.loading.native import Native
from edgecompress_runtime.operators import options_of
from edgecompress_runtime.plan import Operator, Plan, Tensor

ROUNDS, SECONDS = 30, 300e-6  # a round
FASTER = 2.0  # for zeros in blocks or N:M, in layers that are not mostly requantization
LARGE = 128  # inputs
CONVOLUTIONS = tuple(("CONV_2D", (n, n), channels, channels) for channels in (64, 128, 256) for n in (8, 16, 32))
DENSE = tuple(("FULLY_CONNECTED", (), *size) for size in ((256, 256), (512, 1024), (1024, 1024), (1024, 4096)))
LOOP = """
define void @repeat(ptr %function, i64 %count, ptr %arena, ptr %x, ptr %y) {
entry:
  br label %body
body:
  %i = phi i64 [0, %entry], [%next, %body]
  call void %function(ptr %arena, ptr %x, ptr %y)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %body, label %done
done:
  ret void
}
"""


def main() -> int:
    variant = VARIANTS[sys.argv[1]] if len(sys.argv) > 1 else available()[0]
    repeat, rng = Loop(), np.random.default_rng(0)
    patterns = ("16x4 blocks", "1 of 5", "anywhere")
    columns = ("layer", "dense", *(f"{p}: us, times faster" for p in patterns))
    table, failed = Table(*columns, title=f"80 % zeros, {variant.name}"), 0
    for kind, pixels, outputs, inputs in CONVOLUTIONS + DENSE:
        w = rng.integers(1, 128, (outputs, inputs)).astype(np.int8)
        layers = [Layer(repeat, variant, plan(kind, pixels, w * kept)) for kept in (1, *masks(w.shape, rng))]
        dense, *sparse = fastest(layers)
        good = all(layer.exact for layer in layers)
        good &= inputs < LARGE or all(dense / us >= FASTER for us in sparse[:2])
        failed += not good
        cells = [
            f"{us:.2f}, {dense / us:.2f}{'' if layer.skips else ' (as dense)'}" for us, layer in zip(sparse, layers[1:])
        ]
        name = f"{kind} {outputs} x {inputs}" + (f", {pixels[0]}x{pixels[1]}" if pixels else "")
        table.add_row(name, f"{dense:.2f} us", *cells, style=None if good else "red")
    Console(width=130).print(table)
    return 1 if failed else 0


def masks(shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    outputs, inputs = shape
    blocks = np.kron(rng.random((outputs // 16, inputs // 4)) < 0.2, np.ones((16, 4), bool))
    one = np.arange(inputs) % 5 == rng.integers(0, 5, (outputs, -(-inputs // 5))).repeat(5, 1)[:, :inputs]
    return blocks, one, rng.random(shape) < 0.2


def plan(kind: str, pixels: tuple[int, ...], w: np.ndarray) -> Plan:
    outputs, inputs = w.shape
    scales, zero = np.full(outputs, 0.002, np.float32), np.zeros(1, np.int32)
    convolution = kind == "CONV_2D"
    w = w.reshape(outputs, 1, 1, inputs) if convolution else w
    tensors = (
        Tensor("x", (1, *pixels, inputs), np.dtype(np.int8), np.array([0.05], np.float32), zero),
        Tensor("w", w.shape, w.dtype, scales, np.zeros(outputs, np.int32), 0, w),
        Tensor("b", (outputs,), np.dtype(np.int32), data=np.zeros(outputs, np.int32)),
        Tensor("y", (1, *pixels, outputs), np.dtype(np.int8), np.array([0.5], np.float32), zero),
    )
    options = {"padding": 1, "strideH": 1, "strideW": 1} if convolution else {"keepNumDims": False}
    return Plan(tensors, (Operator(kind, (0, 1, 2), (3,), options_of(kind, options)),), (0,), (3,))


class Loop:
    """Calls a function of a compiled layer many times."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(LOOP), machine)  # owns the code
        self._engine.finalize_object()
        pointer = ctypes.c_void_p
        kind = ctypes.CFUNCTYPE(None, pointer, ctypes.c_int64, *[pointer] * 3)
        self._function = kind(self._engine.get_function_address("repeat"))

    def __call__(self, native: Native, count: int) -> float:
        """Seconds of one call."""
        places = [array.ctypes.data for array in (native._arena, *native._into, *native._out)]
        start = time.perf_counter()
        self._function(native._engine.get_function_address(ENTRY), count, *places)
        return (time.perf_counter() - start) / count


class Layer:
    """exact: its output is the plain kernels'. skips: its kernel skips zeros."""

    def __init__(self, repeat: Loop, variant: Variant, plan: Plan) -> None:
        code = llvm_program(plan, PREFIX, x86_family(variant), alignment=CACHE_LINE)
        made = build(code, variant)
        assert made is not None
        self.repeat, self.native = repeat, Native(made)
        self.skips = "blocked" not in next(iter(code.kernels))
        x = np.random.default_rng(0).integers(-128, 128, plan.tensors[0].shape).astype(np.int8)
        self.exact = np.array_equal(self.native(x)[0], Executor(plan)(x)[0])
        self.count = max(1, int(SECONDS / repeat(self.native, 3)))

    def time(self) -> float:
        return self.repeat(self.native, self.count)


def fastest(layers: list[Layer]) -> list[float]:
    """Microseconds of each."""
    times = [[layer.time() for layer in layers] for _ in range(ROUNDS)]
    return [1e6 * min(column) for column in zip(*times)]


if __name__ == "__main__":
    sys.exit(main())
