"""Plans of single int8 layers, and running compiled plans here (LLVM's JIT) and on QEMU's boards."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

from edgecompress.targets import load_target
from edgecompress_runtime.building.ahead_of_time import Compiled, compile_plan
from edgecompress_runtime.building.c_header import bench_header
from edgecompress_runtime.codegen.generator import generate
from edgecompress_runtime.families.table import FAMILIES
from edgecompress_runtime.llvm import cross
from edgecompress_runtime.plan import Operator, Plan, Tensor
from edgecompress_targets.cortex_m import emulator
from edgecompress_targets.cortex_m.boards import BOARDS
from edgecompress_targets.cortex_m.firmware_image import link
from edgecompress_targets.drivers.driver import Measured

SAME, VALID, NONE, RELU = 0, 1, 0, 1


class Layers:
    """Builds a plan of layers side by side, each with an input of its own."""

    def __init__(self, seed: int, values: int = 255) -> None:
        """values: how many different weights a layer has; few of them occur unevenly, as in a clustered layer."""
        self.random = np.random.default_rng(seed)
        self.values = values
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self.inputs: list[int] = []

    def plan(self) -> Plan:
        outputs = tuple(o.outputs[0] for o in self.operators)
        return Plan(tuple(self.tensors), tuple(self.operators), tuple(self.inputs), outputs)

    def feeds(self) -> list[np.ndarray]:
        return [self.random.integers(-128, 128, self.tensors[i].shape).astype(np.int8) for i in self.inputs]

    def convolution(
        self,
        size: tuple[int, int, int],
        out: int,
        kernel: tuple[int, int],
        stride: int = 1,
        padding: int = SAME,
        activation: int = NONE,
        dilation: tuple[int, int] = (1, 1),
    ) -> None:
        height, width, channels = size
        effective = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
        spare = [0 if padding == SAME else e - 1 for e in effective]
        shape = [-(-(n - s) // stride) for n, s in zip((height, width), spare)]
        x = self._activation((1, *size))
        depth = kernel[0] * kernel[1] * channels
        w, bias = self._weights((out, *kernel, channels), out), self._bias(out)
        y = self._activation((1, *shape, out), 0.02 * depth**0.5)
        options = {
            "padding": padding,
            "strideH": stride,
            "strideW": stride,
            "fusedActivationFunction": activation,
            "dilationHFactor": dilation[0],
            "dilationWFactor": dilation[1],
        }
        self._operator("CONV_2D", x, [w, bias], y, options)

    def depthwise(self, size: tuple[int, int, int], kernel: tuple[int, int], stride: int = 1, times: int = 1) -> None:
        height, width, channels = size
        x, out = self._activation((1, *size)), channels * times
        w, bias = self._weights((1, *kernel, out), out), self._bias(out)
        y = self._activation((1, -(-height // stride), -(-width // stride), out), 0.02 * (kernel[0] * kernel[1]) ** 0.5)
        options = {
            "padding": SAME,
            "strideH": stride,
            "strideW": stride,
            "depthMultiplier": times,
            "fusedActivationFunction": NONE,
        }
        self._operator("DEPTHWISE_CONV_2D", x, [w, bias], y, options)

    def dense(self, rows: int, depth: int, units: int, scale: float = 0.02, activation: int = NONE) -> None:
        x = self._activation((rows, depth))
        w, bias = self._weights((units, depth), units), self._bias(units)
        y = self._activation((rows, units), scale * depth**0.5)
        self._operator("FULLY_CONNECTED", x, [w, bias], y, {"fusedActivationFunction": activation})

    def sum(self, shape: tuple[int, ...], kind: str = "ADD", activation: int = NONE) -> None:
        x, b = self._activation(shape), self._activation(shape)
        self.inputs.append(b)
        self._operator(kind, x, [b], self._activation(shape), {"fusedActivationFunction": activation})

    def table(self, shape: tuple[int, ...]) -> None:
        x, y = self._activation(shape), self._activation(shape)
        entries = self.random.integers(-128, 128, 256).astype(np.int8)
        table = self._add((256,), np.int8, self.tensors[y].scale, self.tensors[y].zero_point, entries)
        self._operator("TABLE", x, [table], y, {})

    def _operator(self, kind: str, x: int, more: list[int], y: int, options: dict[str, int]) -> None:
        self.inputs.append(x)
        self.operators.append(Operator(kind, (x, *more), (y,), options))

    def _add(
        self, shape: tuple[int, ...], dtype: type, scale: np.ndarray, zero: np.ndarray, data: np.ndarray | None
    ) -> int:
        name, axis = f"t{len(self.tensors)}", shape.index(len(scale)) if len(scale) > 1 else 0
        scale, zero = scale.astype(np.float32), zero.astype(np.int32)
        self.tensors.append(Tensor(name, shape, np.dtype(dtype), scale, zero, axis, data))
        return len(self.tensors) - 1

    def _activation(self, shape: tuple[int, ...], scale: float = 0.05) -> int:
        scales = np.array([scale * self.random.uniform(0.5, 2)])
        return self._add(shape, np.int8, scales, self.random.integers(-128, 128, 1), None)

    def _weights(self, shape: tuple[int, ...], channels: int) -> int:
        scale = self.random.uniform(0.001, 0.01, channels)
        choice = self.random.permutation(np.arange(-127, 128))[: self.values]
        shares = 1.0 / (np.arange(self.values) + 2) if self.values < 255 else np.ones(255)
        data = self.random.choice(choice, shape, p=shares / shares.sum()).astype(np.int8)
        return self._add(shape, np.int8, scale, np.zeros(channels), data)

    def _bias(self, n: int) -> int:
        values = self.random.integers(-5000, 5000, n).astype(np.int32)
        return self._add((n,), np.int32, np.zeros(0), np.zeros(0), values)


def here(plan: Plan, feeds: list[np.ndarray], family: str = "generic") -> list[np.ndarray]:
    """Outputs of the program for `family`, compiled for this machine; the arena is filled with junk."""
    program = generate(plan, "model", FAMILIES[family])
    _engine, addresses = compiled_here(program.functions, program.constants)
    outputs = [np.zeros(plan.tensors[i].shape, plan.tensors[i].dtype) for i in plan.outputs]
    arena = np.full(program.layout.size + 64, 0x55, np.int8)
    start = -arena.ctypes.data % 16  # NumPy promises less
    arrays = [arena[start:], *feeds, *outputs]
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays))(addresses(program.entry))
    function(*[a.ctypes.data for a in arrays])
    assert (arena[start + program.layout.size :] == 0x55).all(), "wrote behind the arena"
    return outputs


def compiled_here(
    functions: Iterable[cross.Function], constants: Mapping[str, np.ndarray]
) -> tuple[llvm.ExecutionEngine, Callable[[str], int]]:
    """(what has to live as long as the code, symbol -> address) of functions compiled for this machine."""
    machine = cross.Machine(llvm.get_process_triple(), llvm.get_host_cpu_name())
    data, _ = cross.compiled(machine, functions, constants)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(machine.triple).create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    return engine, engine.get_function_address


def on_board(
    cpu: str, plan: Plan, records: list[list[np.ndarray]], elf: Path, *, soft: bool = False
) -> tuple[list[list[np.ndarray]], Measured]:
    """Outputs for each record, from QEMU's board with this CPU. soft: as if it had no FPU."""
    profile = load_target(cpu)
    triple, features = profile.triple, profile.features
    if soft:
        triple, features = triple.removesuffix("hf"), (*(f for f in features if "fp" not in f), "+soft-float")
    compiled = compile_plan(plan, "model", cross.Machine(triple, profile.cpu, features))
    hard_float = triple.endswith("hf")
    link(compiled.object, bench_header(compiled.program), BOARDS[cpu], cpu=cpu, hard_float=hard_float, to=elf)
    run = emulator.run(elf, b"".join(a.tobytes() for record in records for a in record), BOARDS[cpu])
    return split(plan, run.outputs), run


PAINTED = """#include <stdint.h>
#include <stdio.h>
#include "model.h"
enum { DEPTH = 65536, PAINT = 0x5a };
static int8_t a[MODEL_ARENA_BYTES] __attribute__((aligned(MODEL_ARENA_ALIGNMENT)));
static int8_t i[MODEL_INPUT_BYTES], o[MODEL_OUTPUT_BYTES];
__attribute__((noinline)) static uintptr_t paint(void) {
    volatile uint8_t below[DEPTH];
    for (int n = 0; n < DEPTH; n++) below[n] = PAINT;
    return (uintptr_t)below;
}
int main(void) {
    volatile uint8_t *lowest = (volatile uint8_t *)paint();
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    MODEL_INVOKE(a, i, o);
    while (*lowest == PAINT) lowest++;
    printf("%d", (int)(here - (uintptr_t)lowest));
}
"""


def one_layer() -> Plan:
    """What takes some stack, and few arguments."""
    made = Layers(0)
    made.convolution((6, 10, 37), 18, (3, 3), stride=2)
    return made.plan()


def stack_used(compiled: Compiled, compiler: str, work: Path, *prefix: str) -> int:
    """Bytes below the top of the frame of a program that calls it once, of a painted stack. prefix: words that run a
    program."""
    (work / "model.h").write_text(bench_header(compiled.program))
    (work / "painted.c").write_text(PAINTED)
    (work / "model.o").write_bytes(compiled.object)
    command = [compiler, "-O1", "-static", "painted.c", "model.o", "-lm", "-o", "painted"]
    subprocess.run(command, cwd=work, check=True)
    return int(subprocess.run([*prefix, work / "painted"], capture_output=True, check=True).stdout)


def split(plan: Plan, stream: bytes) -> list[list[np.ndarray]]:
    """The records of an emulated program's outputs as arrays."""
    tensors = [plan.tensors[i] for i in plan.outputs]
    record = np.dtype([(str(i), t.dtype, t.shape) for i, t in enumerate(tensors)])
    return [[row[str(i)] for i in range(len(tensors))] for row in np.frombuffer(stream, record)]
