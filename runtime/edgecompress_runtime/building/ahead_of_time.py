"""Compiles a plan for one CPU to everything that a firmware project needs, as bytes and text."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress_runtime.building.archive import static_library
from edgecompress_runtime.building.c_header import example, header
from edgecompress_runtime.building.object_size import section_sizes
from edgecompress_runtime.building.stack_use import stack_bytes
from edgecompress_runtime.codegen.llvm_writer import LlvmProgram, llvm_program
from edgecompress_runtime.codegen.memory import CACHE_LINE
from edgecompress_runtime.codegen.x86_compiler import optimized
from edgecompress_runtime.families.table import family_of
from edgecompress_runtime.llvm.cross import Machine, compiled, target_machine
from edgecompress_runtime.plan import Plan

DECODER = 1024  # bytes that it takes at most, and the kernels of coded weights more than others


@dataclass(frozen=True, eq=False)
class Compiled:
    """object: ELF. flash: bytes of code and constants. text: bytes of code. stack: bytes that the invoke function
    needs, functions of the C library aside; None where that is not known."""

    program: LlvmProgram
    object: bytes
    flash: int
    text: int
    stack: int | None

    @property
    def files(self) -> dict[str, bytes]:
        """File name -> contents: object, static library, C header, C example, generated text."""
        name = self.program.name
        return {
            f"{name}.o": self.object,
            f"lib{name}.a": static_library(f"{name}.o", self.object, [self.program.entry]),
            f"{name}.h": header(self.program, flash=self.flash, stack=self.stack).encode(),
            f"{name}_example.c": example(self.program).encode(),
            f"{name}.ll": self.program.text.encode(),
        }


def compile_plan(plan: Plan, name: str, machine: Machine, *, profile: bool = False, coded: bool = True) -> Compiled:
    """name: a C identifier (`c_identifier.identifier`).

    profile: the code calls edgecompress_layer(step) between steps. coded: weights that were clustered stay entropy
    coded in flash, and are decoded as they are used (families/shared/coding.py), if the whole takes less flash then.
    Raises UnsupportedOperatorError, RuntimeError for a triple that LLVM does not know.
    """
    if machine.triple.startswith("x86_64"):
        return _for_x86(plan, name, machine, profile)
    found = _for_family(plan, name, machine, profile, coded)
    if not found.program.saved:
        return found
    # the decoder takes flash as well, and lists of weights may do without it
    family = family_of(machine.triple, machine.features, coded=False)
    lists = llvm_program(plan, name, family).skipping > found.program.skipping
    if found.program.saved >= DECODER and not lists:
        return found
    plain = _for_family(plan, name, machine, profile, False)
    return found if found.flash < plain.flash else plain


def _for_family(plan: Plan, name: str, machine: Machine, profile: bool, coded: bool) -> Compiled:
    family = family_of(machine.triple, machine.features, coded=coded)
    program = llvm_program(plan, name, family, profile=profile)
    data, assembly = compiled(machine, (*program.helpers, *program.kernels), program.constants, program.text)
    sizes = section_sizes(data)
    stack = stack_bytes(assembly, program.entry, machine.triple)
    return Compiled(program, data, sum(sizes.values()), sizes.get(".text", 0), stack)


def _for_x86(plan: Plan, name: str, machine: Machine, profile: bool) -> Compiled:
    """The program that `load` compiles for this machine, for any other x86: its kernels are the ones that are fast
    there. Weights are plain: memory is not what is short."""
    family = family_of(machine.triple, machine.features)
    program = llvm_program(plan, name, family, alignment=CACHE_LINE, profile=profile)
    target = target_machine(machine)
    module = optimized(program, target)
    data, stack = target.emit_object(module), stack_bytes(target.emit_assembly(module), program.entry, machine.triple)
    sizes = section_sizes(data)
    return Compiled(program, data, sum(sizes.values()), sizes[".text"], stack)
