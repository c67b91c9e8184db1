"""A plan as steps for this machine, and the code that calls their kernels, in LLVM's intermediate representation.

Each distinct layer is a function that calls its kernel with its shapes and quantisation as literals: LLVM inlines
the kernel there and specialises it. `invoke` calls the layers in order; with several threads each has an `invoke` of
its own, which does its share of the layers that are divided (division.py), and they meet in between.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecompress_runtime.codegen.generator import arranged_memory, shared_storage
from edgecompress_runtime.codegen.meeting import entries, meeting
from edgecompress_runtime.codegen.memory import Layout
from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.families.shared.division import Divided
from edgecompress_runtime.families.shared.step import Part, Scratch, Step
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_family import host_family
from edgecompress_runtime.kernels.movement import BITS
from edgecompress_runtime.kernels.registry import KERNELS, Raw
from edgecompress_runtime.loading.native import ALIGNMENT
from edgecompress_runtime.plan import Plan, Tensor


@dataclass(frozen=True, eq=False)
class Kernel:
    """function: to be lowered as `symbol`. types: of its arguments, a dtype for a pointer to elements of it, "i" or
    "f" for a number of 32 bits, tuples of these."""

    symbol: str
    function: Callable[..., None]
    types: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """text: functions of the layers and `ENTRY`, void (arena, inputs..., outputs...), or with several threads those of
    meeting.py. kernels: which the text calls. constants: data by symbol. layout: of the arena. steps: (operator kind,
    output's name) of each call. skipping: layers that leave out weights that are zero."""

    text: str
    kernels: tuple[Kernel, ...]
    constants: dict[str, np.ndarray]
    layout: Layout
    steps: tuple[tuple[str, str], ...]
    threads: int
    skipping: int


def program(plan: Plan, variant: Variant, threads: int = 1, *, hook: str = "") -> Program:
    """hook: a C function void (int32_t step), which one thread calls before each step and after the last, to measure
    them.

    Raises UnsupportedOperatorError, naming every operator that has no kernel.
    """
    if missing := sorted({o.kind for o in plan.operators} - KERNELS.keys()):
        raise UnsupportedOperatorError(f"no kernel for {', '.join(missing)}")
    return _Writer(plan, variant, threads, hook).program()


@dataclass
class _Writer:
    plan: Plan
    variant: Variant
    threads: int
    hook: str
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    symbols: dict[Any, str] = field(default_factory=dict)
    kernels: dict[Any, Kernel] = field(default_factory=dict)
    layers: dict[Any, str] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    bodies: list[list[str]] = field(default_factory=list)
    meetings: int = 0

    def program(self) -> Program:
        self.owner = shared_storage(self.plan)
        steps = self._steps()
        self.layout = arranged_memory(self.plan, [step for _, _, step in steps], self.owner, ALIGNMENT)
        self.bodies = [[] for _ in range(self.threads)]
        apart = False  # whether threads did different work since they met
        for number, (_, _, step) in enumerate(steps):
            shares = step.shares if isinstance(step, Divided) else (step,)
            if apart or (number and len(shares) > 1):
                self._meet()
            self._mark(number)
            for body, share in zip(self.bodies, shares):
                self._call(body, share)
            apart = len(shares) > 1
        self._meet()
        self._mark(len(steps))
        ends = [f"%input_{i}" for i in range(len(self.plan.inputs))]
        ends += [f"%output_{i}" for i in range(len(self.plan.outputs))]
        head = [f"declare void @{self.hook}(i32)"] if self.hook else []
        head += [f"declare void @{k.symbol}({', '.join(_flat(k.types))})" for k in self.kernels.values()]
        invoke = entries(["%arena", *ends], self.bodies, self.meetings)
        text = "\n".join([*head, *self.text, *invoke])
        done = tuple((kind, name) for kind, name, _ in steps)
        skipping = sum(any(s.skips for s in (step, *getattr(step, "shares", ()))) for _, _, step in steps)
        return Program(text, tuple(self.kernels.values()), self.constants, self.layout, done, self.threads, skipping)

    def _mark(self, number: int) -> None:
        if self.hook:
            self.bodies[0].append(f"call void @{self.hook}(i32 {number})")

    def _meet(self) -> None:
        if self.threads > 1:
            self.meetings += 1
            for body in self.bodies:
                body += meeting(self.meetings, self.threads)

    def _steps(self) -> list[tuple[str, str, Step]]:
        """(kind, name, kernel call) in order; a reshape within the arena moves nothing."""
        family, steps = host_family(self.variant, self.threads), []
        for operator in self.plan.operators:
            inputs = [None if i < 0 else self.plan.tensors[i] for i in operator.inputs]
            outputs = [self.plan.tensors[i] for i in operator.outputs]
            if outputs[0] not in self.owner:
                made = family.steps(operator.kind, inputs, outputs, operator.options)
                steps += [(operator.kind, outputs[0].name, step) for step in made]
        return steps

    def _call(self, body: list[str], step: Step) -> None:
        """The call of a step's layer, whose function is written on its first use."""
        self.body, pointers, literals = body, [], []
        kinds = tuple(self._argument(argument, pointers, literals) for argument in step.arguments)
        known = step.kernel, kinds
        if known not in self.kernels:
            self.kernels[known] = Kernel(f"kernel_{len(self.kernels)}_{step.kernel.__name__}", step.kernel, kinds)
        kernel = self.kernels[known]
        key = kernel, tuple(literals)
        formal = ", ".join(f"ptr %p{i}" for i in range(len(pointers)))
        if key not in self.layers:
            self.layers[key] = layer = f"layer_{len(self.layers)}"
            self.text.append(
                f"define void @{layer}({formal}) noinline {{\n"
                f"  call void @{kernel.symbol}({', '.join(literals)})\n  ret void\n}}"
            )
        actual = ", ".join(f"ptr {pointer}" for pointer in pointers)
        self.body.append(f"call void @{self.layers[key]}({actual})")

    def _argument(self, argument: Any, pointers: list[str], literals: list[str]) -> Any:
        """Its type for Numba; its literals, or its address for `invoke` to hand in."""
        if isinstance(argument, tuple):
            return tuple(self._argument(a, pointers, literals) for a in argument)
        if isinstance(argument, (bool, int, np.integer)):
            literals.append(f"i32 {int(argument)}")
            return "i"
        if isinstance(argument, (float, np.floating)):
            bits = struct.unpack("<Q", struct.pack("<d", float(np.float32(argument))))[0]
            literals.append(f"float 0x{bits:016X}")
            return "f"
        literals.append(f"ptr %p{len(pointers)}")
        pointers.append(self._address(argument))
        return _dtype(argument)

    def _address(self, argument: Any) -> str:
        tensor = argument.tensor if isinstance(argument, (Raw, Part)) else argument
        start = argument.start if isinstance(argument, Part) else 0
        if isinstance(tensor, Tensor) and tensor.data is None:
            tensor = self.owner.get(tensor, tensor)
            for role, ends in (("input", self.plan.inputs), ("output", self.plan.outputs)):
                for position, index in enumerate(ends):
                    if self.plan.tensors[index] is tensor:
                        return self._on(f"%{role}_{position}", start)
        elif not isinstance(tensor, Scratch):
            return self._constant(np.ascontiguousarray(tensor.data if isinstance(tensor, Tensor) else tensor))
        return self._on("%arena", self.layout.offsets[tensor] + start)

    def _on(self, pointer: str, distance: int) -> str:
        """The address so many bytes on."""
        if distance == 0:
            return pointer
        name = f"%at_{len(self.body)}"
        self.body.append(f"{name} = getelementptr i8, ptr {pointer}, i64 {distance}")
        return name

    def _constant(self, array: np.ndarray) -> str:
        content = array.dtype.str, array.tobytes()
        if content not in self.symbols:
            self.symbols[content] = symbol = f"data_{len(self.symbols)}"
            self.constants[symbol] = array
        return f"@{self.symbols[content]}"


def _flat(types: Sequence[Any]) -> list[str]:
    """LLVM's types of a kernel's arguments; tuples arrive as their elements."""
    found = []
    for kind in types:
        if isinstance(kind, tuple):
            found += _flat(kind)
        else:
            found.append({"i": "i32", "f": "float"}[kind] if isinstance(kind, str) else "ptr")
    return found


def _dtype(argument: Any) -> np.dtype:
    """Of the elements that a kernel sees."""
    if isinstance(argument, Scratch):
        return np.dtype(np.int8)
    if isinstance(argument, Part):
        return argument.tensor.dtype
    if isinstance(argument, Raw):
        return np.dtype(BITS[argument.tensor.dtype.itemsize])
    return np.dtype(np.int8) if argument.dtype == bool else np.dtype(argument.dtype)
