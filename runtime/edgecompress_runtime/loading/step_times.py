"""How long each step of a program takes on this machine."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass

import llvmlite.binding as llvm
import numpy as np

from edgecompress_runtime.codegen.interface import HOOK, Interface
from edgecompress_runtime.codegen.llvm_writer import llvm_program
from edgecompress_runtime.codegen.meeting import PREFIX
from edgecompress_runtime.codegen.memory import CACHE_LINE
from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.families.x86.variants import available
from edgecompress_runtime.families.x86.x86_family import x86_family
from edgecompress_runtime.loading.compile_for_host import build
from edgecompress_runtime.loading.forks import COMPILING
from edgecompress_runtime.loading.native import Native
from edgecompress_runtime.plan import Plan

# The function that a profiled program calls before each step: it writes down the time, as struct timespec has it.
CLOCK = """
@{hook}_times = global [{places} x [2 x i64]] zeroinitializer
declare i32 @clock_gettime(i32, ptr)
define void @{hook}(i32 %step) {{
  %place = getelementptr [2 x i64], ptr @{hook}_times, i32 %step
  %done = call i32 @clock_gettime(i32 {clock}, ptr %place)
  ret void
}}
"""


@dataclass(frozen=True, eq=False)
class StepTimes:
    """program: what was run. nanoseconds: int64 [runs, steps], of one thread."""

    program: Interface
    nanoseconds: np.ndarray


def step_times(plan: Plan, samples: Sequence[Sequence[np.ndarray]], *, warmup: int = 3) -> StepTimes:
    """Compiles the plan for this CPU with a look at the clock (some 25 ns) in front of each step, and runs it.

    samples: the arrays of each inference, in the order of the plan's inputs. warmup: inferences of the first sample
    before them. Raises UnsupportedOperatorError, and RuntimeModelError where this machine can't compile the plan.
    """
    variant = available()[0]
    with COMPILING:
        program = llvm_program(plan, PREFIX, x86_family(variant), alignment=CACHE_LINE, profile=True)
        engine = _clock(len(program.steps) + 1)
        llvm.add_symbol(HOOK, engine.get_function_address(HOOK))
        made = build(program, variant)
        if made is None:
            raise RuntimeModelError(
                "this machine runs the model without compiling it, step by step: nothing to measure"
            )
        run = Native(made)
    address = engine.get_global_value_address(f"{HOOK}_times")
    places = (ctypes.c_int64 * (2 * len(program.steps) + 2)).from_address(address)
    clock = np.ctypeslib.as_array(places).reshape(-1, 2)  # seconds, nanoseconds
    rows = []
    for arrays in [*[samples[0]] * warmup, *samples]:
        run(*arrays)
        rows.append(np.diff(clock @ [1_000_000_000, 1]))
    return StepTimes(program, np.stack(rows[warmup:]))


def _clock(places: int) -> llvm.ExecutionEngine:
    """HOOK as machine code, with room for as many times."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    text = CLOCK.format(hook=HOOK, places=places, clock=int(time.CLOCK_MONOTONIC))
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine, use_lmm=True)
    engine.finalize_object()
    return engine
