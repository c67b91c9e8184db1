"""A program in LLVM's intermediate representation, for x86 and for this machine.

Each distinct layer is a function that calls its kernel with its shapes and quantization as literals: LLVM inlines
the kernel there and specializes it. `invoke` calls the layers in order; with several threads each has an `invoke` of
its own, which does its share of the layers that are divided (division.py), and they meet in between.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress_runtime.codegen.interface import HOOK, Interface
from edgecompress_runtime.codegen.meeting import entries, meeting
from edgecompress_runtime.codegen.memory import CACHE_LINE
from edgecompress_runtime.codegen.program import ARENA, Address, Call, Kernel, Layer, Program, program_of
from edgecompress_runtime.families.shared.family import Family
from edgecompress_runtime.llvm.typed_numba import leaves
from edgecompress_runtime.plan import Plan


@dataclass(frozen=True, eq=False, kw_only=True)
class LlvmProgram(Interface):
    """A model as LLVM's intermediate representation.

    text: functions of the layers and, whatever the program's name, meeting.ENTRY, void (arena, inputs..., outputs...),
    or with several threads those of meeting.py. kernels: which the text calls, by symbol. constants: data by symbol.
    threads: that it is for.
    """

    text: str
    kernels: Mapping[str, Kernel]
    constants: Mapping[str, np.ndarray]
    threads: int


def llvm_program(plan: Plan, name: str, family: Family, *, threads: int = 1, profile: bool = False) -> LlvmProgram:
    """The program of a plan for one variant of x86; name: a C identifier.

    family: of the variant, its layers divided for as many threads. profile: one thread calls `edgecompress_layer(step)`
    before each step and after the last.
    Raises UnsupportedOperatorError, naming every operator that has no kernel.
    """
    program = program_of(plan, name, family, CACHE_LINE)
    kernels = {kernel: f"kernel_{i}_{kernel.function.__name__}" for i, kernel in enumerate(program.kernels)}
    head = [f"declare void @{HOOK}(i32)"] if profile else []
    head += [f"declare void @{symbol}({', '.join(map(_type, leaves(k.kinds)))})" for k, symbol in kernels.items()]
    layers = [_layer(layer, kernels[layer.kernel]) for layer in program.layers]
    text = "\n".join([*head, *layers, *_invoke(program, threads, profile)])
    by_symbol = {symbol: kernel for kernel, symbol in kernels.items()}
    return LlvmProgram(
        **vars(program.interface), text=text, kernels=by_symbol, constants=program.constants, threads=threads
    )


def _type(kind: Any) -> str:
    if isinstance(kind, np.dtype):
        return "ptr"
    return "i32" if kind is int else "float"


def _layer(layer: Layer, symbol: str) -> str:
    literals: list[str] = []
    pointers: list[str] = []
    for literal in leaves(layer.literals):
        if isinstance(literal, np.dtype):
            pointers.append(f"ptr %p{len(pointers)}")
            literals.append(pointers[-1])
        elif isinstance(literal, int):
            literals.append(f"i32 {literal}")
        else:
            bits = struct.unpack("<Q", struct.pack("<d", float(np.float32(literal))))[0]
            literals.append(f"float 0x{bits:016X}")
    call = f"call void @{symbol}({', '.join(literals)})"
    return f"define void @{layer.name}({', '.join(pointers)}) noinline {{\n  {call}\n  ret void\n}}"


def _invoke(program: Program, threads: int, profile: bool) -> list[str]:
    bodies: list[list[str]] = [[] for _ in range(threads)]
    meetings = 0

    def meet() -> None:
        nonlocal meetings
        if threads > 1:
            meetings += 1
            for body in bodies:
                body += meeting(meetings, threads)

    apart = False  # whether threads did different work since they met
    for number, shares in enumerate(program.calls):
        if apart or (number and len(shares) > 1):
            meet()
        bodies[0] += _hook(profile, number)
        for body, share in zip(bodies, shares):
            _call(body, share)
        apart = len(shares) > 1
    meet()
    bodies[0] += _hook(profile, len(program.calls))
    return entries([f"%{name}" for name in (ARENA, *program.ends)], bodies, meetings)


def _hook(profile: bool, number: int) -> list[str]:
    return [f"call void @{HOOK}(i32 {number})"] if profile else []


def _call(body: list[str], call: Call) -> None:
    """Lines that compute the addresses, and the call."""
    pointers = ", ".join(f"ptr {_pointer(body, address)}" for address in call.addresses)
    body.append(f"call void @{call.layer.name}({pointers})")


def _pointer(body: list[str], address: Address) -> str:
    if address.constant:
        return f"@{address.base}"
    if address.offset == 0:
        return f"%{address.base}"
    name = f"%at_{len(body)}"
    body.append(f"{name} = getelementptr i8, ptr %{address.base}, i64 {address.offset}")
    return name
