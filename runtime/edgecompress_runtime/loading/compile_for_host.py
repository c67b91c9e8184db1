"""A program -> machine code for this CPU. Takes seconds, and loads Numba."""

from __future__ import annotations

from dataclasses import replace

import llvmlite.binding as llvm

from edgecompress_runtime.codegen.llvm_writer import LlvmProgram
from edgecompress_runtime.codegen.x86_compiler import object_of, target_machine
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.loading.code_cache import Artifact

REACH = (1 << 31) - (1 << 26)  # bytes of constants that instructions reach, with room for the code


def build(program: LlvmProgram, variant: Variant) -> Artifact | None:
    """None where the code would need C functions that this process does not have, or have more constants than an
    instruction reaches."""
    if sum(array.nbytes for array in program.constants.values()) > REACH:
        return None
    code, needed = object_of(program, target_machine(variant))
    if any(llvm.address_of_symbol(name) is None for name in needed):
        return None
    plan = program.plan
    inputs, outputs = (tuple(replace(plan.tensors[i], data=None) for i in ends) for ends in (plan.inputs, plan.outputs))
    ordinary = tuple(map(str, program.ordinary))
    return Artifact(code, program.layout.size, inputs, outputs, program.threads, ordinary, program.states)
