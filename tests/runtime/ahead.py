"""Running compiled plans here (LLVM's JIT) and on QEMU's boards."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
from layer_cases import Layers

from edgecompress.targets import load_target
from edgecompress_runtime.building.ahead_of_time import Compiled, compile_plan
from edgecompress_runtime.building.c_header import bench_header, needed_alignment
from edgecompress_runtime.codegen.interface import Interface
from edgecompress_runtime.codegen.llvm_writer import llvm_program
from edgecompress_runtime.families.shared.family import Family
from edgecompress_runtime.families.table import FAMILIES
from edgecompress_runtime.llvm import cross
from edgecompress_runtime.plan import Plan
from edgecompress_targets.connection.driver import Measured
from edgecompress_targets.cortex_m import emulator
from edgecompress_targets.cortex_m.boards import BOARDS
from edgecompress_targets.cortex_m.firmware_image import link


def here(plan: Plan, feeds: list[np.ndarray], family: str = "generic") -> list[np.ndarray]:
    """Outputs of the program for `family`, compiled for this machine; the arena is filled with junk."""
    program = llvm_program(plan, "model", FAMILIES[family])
    functions = *program.helpers, *program.kernels
    _engine, addresses = compiled_here(functions, program.constants, program.text)
    outputs = [np.zeros(plan.tensors[i].shape, plan.tensors[i].dtype) for i in plan.outputs]
    arena = np.full(program.layout.size + 64, 0x55, np.int8)
    start = -arena.ctypes.data % 16  # NumPy promises less
    arrays = [arena[start:], *feeds, *outputs]
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays))(addresses(program.entry))
    function(*[a.ctypes.data for a in arrays])
    assert (arena[start + program.layout.size :] == 0x55).all(), "wrote behind the arena"
    return outputs


def kernels_for(plan: Plan, family: Family) -> set[str]:
    """The names of the kernels that its program calls."""
    return {kernel.function.__name__ for kernel in llvm_program(plan, "model", family).kernels}


def compiled_here(
    functions: Iterable[cross.Function], constants: Mapping[str, np.ndarray], text: str = ""
) -> tuple[llvm.ExecutionEngine, Callable[[str], int]]:
    """(what has to live as long as the code, symbol -> address) of functions compiled for this machine."""
    machine = cross.Machine(llvm.get_process_triple(), llvm.get_host_cpu_name())
    data, _ = cross.compiled(machine, functions, constants, text)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(machine.triple).create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    return engine, engine.get_function_address


def on_board(
    cpu: str, plan: Plan, records: list[list[np.ndarray]], elf: Path, *, soft: bool = False, coded: bool = True
) -> tuple[list[list[np.ndarray]], Measured]:
    """Outputs for each record, from QEMU's board with this CPU. soft: as if it had no FPU. coded: of
    `compile_plan`."""
    profile = load_target(cpu)
    triple, features = profile.triple, profile.features
    if soft:
        triple, features = triple.removesuffix("hf"), (*(f for f in features if "fp" not in f), "+soft-float")
    compiled = compile_plan(plan, "model", cross.Machine(triple, profile.cpu, features), coded=coded)
    hard_float = triple.endswith("hf")
    link(compiled.object, tight_header(compiled.program), BOARDS[cpu], cpu=cpu, hard_float=hard_float, to=elf)
    run = emulator.run(elf, b"".join(a.tobytes() for record in records for a in record), BOARDS[cpu])
    return split(plan, run.outputs), run


def tight_header(program: Interface) -> str:
    """`bench_header`, with an arena at a multiple of what the model's header asks for, and of no more."""
    more = needed_alignment(program) % program.alignment
    size, text = max(program.layout.size, 1), bench_header(program)
    text = text.replace(f"MODEL_ARENA_BYTES {size}\n", f"MODEL_ARENA_BYTES {size + more}\n")
    assert f"{program.entry}(a, " in text
    return text.replace(f"{program.entry}(a, ", f"{program.entry}((a) + {more}, ")


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
