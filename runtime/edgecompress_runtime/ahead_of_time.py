"""A plan, compiled for one CPU: everything that a firmware project needs of it, as bytes and text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgecompress_runtime.archive import static_library
from edgecompress_runtime.c_header import example, header
from edgecompress_runtime.codegen import Program, generate
from edgecompress_runtime.cross import Machine, compiled
from edgecompress_runtime.object_size import section_sizes, stack_bytes
from edgecompress_runtime.plan import Plan
from edgecompress_runtime.primitives import family_of


@dataclass(frozen=True, eq=False)
class Compiled:
    """program: its Python text, arena and steps. object: ELF. flash: bytes of code and constants. text: bytes of
    code. stack: bytes that the invoke function needs, None for CPUs other than Arm's."""

    program: Program
    object: bytes
    flash: int
    text: int
    stack: int | None

    @property
    def files(self) -> dict[str, bytes]:
        """File name -> contents: object, static library, C header, C example, generated Python."""
        name = self.program.name
        return {
            f"{name}.o": self.object,
            f"lib{name}.a": static_library(f"{name}.o", self.object, [self.program.entry]),
            f"{name}.h": header(self.program, flash=self.flash, stack=self.stack).encode(),
            f"{name}_example.c": example(self.program).encode(),
            f"{name}.py": self.program.text.encode(),
        }


def compile_plan(
    plan: Plan, name: str, machine: Machine, *, profile: bool = False, coded: bool = True
) -> Compiled:
    """name: of the model; characters that C does not allow become underscores.

    profile: the code calls edgecompress_layer(step) between steps. coded: weights that were clustered stay entropy
    coded in flash, and are decoded as they are used (primitives/coding.py).
    Raises UnsupportedOperatorError, RuntimeError for a triple that LLVM does not know.
    """
    family = family_of(machine.triple, machine.features, coded=coded)
    program = generate(plan, identifier(name), family, profile=profile)
    data, assembly = compiled(machine, program.functions, program.constants)
    sizes = section_sizes(data)
    arm = machine.triple.startswith("thumb")
    stack = stack_bytes(assembly, program.entry) if arm else None
    return Compiled(program, data, sum(sizes.values()), sizes.get(".text", 0), stack)


def identifier(name: str) -> str:
    """A C identifier.

    >>> identifier("2nd model-int8")
    'm2nd_model_int8'
    """
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return plain if re.match(r"[A-Za-z]", plain) else f"m{plain}"
