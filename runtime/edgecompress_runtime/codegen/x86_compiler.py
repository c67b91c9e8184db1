"""A plan -> an object file for an x86 CPU or for this machine, by Numba and the LLVM inside llvmlite."""

from __future__ import annotations

import re
from functools import cache

import llvmlite.binding as llvm
import numpy as np

from edgecompress_runtime.codegen.llvm_writer import LlvmProgram
from edgecompress_runtime.codegen.meeting import PREFIX
from edgecompress_runtime.codegen.memory import CACHE_LINE
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.llvm import cross

ESCAPES = np.array([list(f"\\{byte:02x}".encode()) for byte in range(256)], np.uint8)  # of bytes in LLVM's text
# MCJIT writes the addresses of C functions into a table, for which llvmlite's memory manager reserves room only where
# an object has data that can be written.
WRITABLE = f"@{PREFIX}_writable = hidden global i64 1"


def object_of(program: LlvmProgram, target: llvm.TargetMachine) -> tuple[bytes, tuple[str, ...]]:
    """(object file with constants and the functions of meeting.py, C functions that it needs)."""
    module = optimized(program, target)
    needed = (f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm."))
    module.link_in(llvm.parse_assembly(WRITABLE))
    return target.emit_object(module), tuple(needed)


def optimized(program: LlvmProgram, target: llvm.TargetMachine) -> llvm.ModuleRef:
    """The whole program as one module, in which the kernels are inlined."""
    module = llvm.parse_assembly(program.text)
    public = {f.name for f in module.functions if not f.is_declaration}
    for symbol, array in program.constants.items():  # one after the other: their text is three times as long, and more
        module.link_in(llvm.parse_assembly(_constant(symbol, array, target)))
    for kernel in program.kernels:
        text = cross.lowered(kernel)
        text = re.sub(r"target triple = .*", f'target triple = "{target.triple}"', text)
        text = re.sub(r"target datalayout = .*", f'target datalayout = "{target.target_data}"', text)
        module.link_in(llvm.parse_assembly(text.replace(" noinline {", " {")))
    for function in module.functions:
        if not function.is_declaration and not function.name.startswith(program.entry):
            function.linkage = "internal"
            if function.name not in public:
                function.add_function_attribute("alwaysinline")
    for variable in module.global_variables:
        variable.linkage = "internal"
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = True
    builder = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(module, builder)
    return module


@cache
def target_machine(variant: Variant) -> llvm.TargetMachine:
    """What LLVM compiles a variant's program for, to be run in this process."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu = variant.cpu or llvm.get_host_cpu_name()
    features = variant.features if variant.cpu else llvm.get_host_cpu_features().flatten()
    triple = llvm.get_process_triple()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="pic", codemodel="small", jit=True
    )


def _constant(symbol: str, array: np.ndarray, target: llvm.TargetMachine) -> str:
    """A module with one constant."""
    text = ESCAPES[np.frombuffer(array.tobytes(), np.uint8)].tobytes().decode("ascii")
    return (
        f'target datalayout = "{target.target_data}"\ntarget triple = "{target.triple}"\n'
        f'@{symbol} = constant [{array.nbytes} x i8] c"{text}", align {CACHE_LINE}'
    )
