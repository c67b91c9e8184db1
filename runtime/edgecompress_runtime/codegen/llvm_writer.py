"""A program as text: LLVM's intermediate representation.

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
from numba import types

from edgecompress_runtime.codegen.interface import HOOK, Interface
from edgecompress_runtime.codegen.meeting import entries, leaving, meeting
from edgecompress_runtime.codegen.memory import ALIGNMENT
from edgecompress_runtime.codegen.program import ARENA, Address, Call, Ending, Layer, Program, program_of
from edgecompress_runtime.families.shared.family import Family
from edgecompress_runtime.llvm.cross import Function
from edgecompress_runtime.llvm.typed_numba import leaves
from edgecompress_runtime.plan import Plan


@dataclass(frozen=True, eq=False, kw_only=True)
class LlvmProgram(Interface):
    """A model as LLVM's intermediate representation.

    text: functions of the layers and the entry, or with several threads those of meeting.py. kernels: which the text
    calls; they and their helpers are not part of it. constants: data by symbol. threads: that it is for.
    """

    text: str
    kernels: tuple[Function, ...]
    helpers: tuple[Function, ...]
    constants: Mapping[str, np.ndarray]
    threads: int


def llvm_program(
    plan: Plan, name: str, family: Family, *, alignment: int = ALIGNMENT, threads: int = 1, profile: bool = False
) -> LlvmProgram:
    """The program of a plan for one family of CPUs; name: a C identifier. alignment: of the arena, in bytes.

    threads: for as many the family's layers are divided. profile: one thread calls `edgecompress_layer(step)` before
    each step and after the last.
    Raises UnsupportedOperatorError, naming every operator that has no kernel.
    """
    program = program_of(plan, name, family, alignment)
    kernels = {kernel: f"kernel_{i}_{kernel.function.__name__}" for i, kernel in enumerate(program.kernels)}
    head = [f"declare void @{HOOK}(i32)"] if profile else []
    head += [f"declare void @{symbol}({', '.join(map(_type, leaves(k.kinds)))})" for k, symbol in kernels.items()]
    head += [f"@{_symbol(name, symbol)} = external constant i8" for symbol in program.constants]
    layers = [_layer(layer, name, kernels[layer.kernel]) for layer in program.layers]
    return LlvmProgram(
        **vars(program.interface),
        text="\n".join([*head, *layers, *_invoke(program, threads, profile)]),
        kernels=tuple(
            Function(symbol, kernel.function, types.void(*kernel.types), inlined=True)
            for kernel, symbol in kernels.items()
        ),
        helpers=program.helpers,
        constants={_symbol(name, symbol): array for symbol, array in program.constants.items()},
        threads=threads,
    )


def _symbol(program: str, own: str) -> str:
    return f"{program}_{own}"


def _type(kind: Any) -> str:
    if isinstance(kind, np.dtype):
        return "ptr"
    return "i32" if kind is int else "float"


def _layer(layer: Layer, program: str, kernel: str) -> str:
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
    head = f"define hidden void @{_symbol(program, layer.name)}({', '.join(pointers)}) noinline {{"
    return f"; {layer.title}\n{head}\n  call void @{kernel}({', '.join(literals)})\n  ret void\n}}"


def _invoke(program: Program, threads: int, profile: bool) -> list[str]:
    name = program.interface.name
    bodies: list[list[str]] = [[] for _ in range(threads)]
    meetings, start, end = 0, -1, -1  # the steps behind `start` up to `end` are done only if the program ends there

    def meet() -> None:
        nonlocal meetings
        if threads > 1:
            meetings += 1
            for body in bodies:
                body += meeting(meetings, threads)

    apart = False  # whether threads did different work since they met
    for number, shares in enumerate(program.calls):
        if apart or (number > end + 1 and len(shares) > 1):
            meet()
        bodies[0] += _hook(profile, number)
        for body, share in zip(bodies[:1] * len(shares) if number <= end else bodies, shares):
            _call(body, share, name)
        apart = len(shares) > 1 and number > end
        if number in program.endings:
            meet()  # when it is known whether to end
            for body in bodies:
                _compare(body, program.endings[number], number, name)
            meet()  # when all have read it, and its memory can be written over
            for body in bodies:
                body += [f"br i1 %ends_{number}, label %end_{number}, label %on_{number}", f"end_{number}:"]
            start, end = number, number + program.endings[number].steps
        if number == end:
            bodies[0] += [line for n in range(end + 1, len(program.calls) + 1) for line in _hook(profile, n)]
            for thread, body in enumerate(bodies):
                body += [*leaving(start, meetings, thread, threads), f"on_{start}:"]
    meet()
    bodies[0] += _hook(profile, len(program.calls))
    return entries(program.interface.entry, [f"%{end}" for end in (ARENA, *program.ends)], bodies, meetings)


def _compare(body: list[str], ending: Ending, number: int, program: str) -> None:
    """Lines that make %ends_number of whether the program ends."""
    body += [
        f"%reached_{number} = load i8, ptr {_pointer(body, ending.reached, program)}",
        f"%ends_{number} = icmp ne i8 %reached_{number}, 0",
    ]


def _hook(profile: bool, number: int) -> list[str]:
    return [f"call void @{HOOK}(i32 {number})"] if profile else []


def _call(body: list[str], call: Call, program: str) -> None:
    """Lines that compute the addresses, and the call."""
    pointers = ", ".join(f"ptr {_pointer(body, address, program)}" for address in call.addresses)
    body.append(f"call void @{_symbol(program, call.layer.name)}({pointers})")


def _pointer(body: list[str], address: Address, program: str) -> str:
    base = f"@{_symbol(program, address.base)}" if address.constant else f"%{address.base}"
    if address.offset == 0:
        return base
    name = f"%at_{len(body)}"
    body.append(f"{name} = getelementptr i8, ptr {base}, i64 {address.offset}")
    return name
