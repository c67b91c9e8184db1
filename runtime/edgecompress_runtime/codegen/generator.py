"""Plan -> Python text: a function for each distinct layer, its shapes and quantisation as literals, and `invoke`.

The text is for Numba (cross.py compiles it for any CPU) and for people. Constants, which the text names, and
the static memory plan come with it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from edgecompress_runtime.codegen.interface import Interface
from edgecompress_runtime.codegen.memory import ALIGNMENT, Buffer, Layout, Overlap, arrange
from edgecompress_runtime.families.shared.step import Part, Scratch, Step
from edgecompress_runtime.families.table import Family
from edgecompress_runtime.kernels.movement import BITS
from edgecompress_runtime.kernels.registry import Raw
from edgecompress_runtime.llvm.cross import Function, constant, elements, external, inlined, pointer_type
from edgecompress_runtime.options import ReshapeOptions
from edgecompress_runtime.plan import Operator, Plan, Tensor

BYTES = pointer_type(np.dtype(np.int8))
HOOK = "edgecompress_layer"  # void (int32_t step), called before each step of a profiled program


@dataclass(frozen=True, eq=False, kw_only=True)
class Program(Interface):
    """A model as code. text: the Python module. functions: to be compiled. constants: read-only data by symbol."""

    text: str
    functions: tuple[Function, ...]
    constants: Mapping[str, np.ndarray]


def generate(plan: Plan, name: str, family: Family, *, profile: bool = False) -> Program:
    """The program of a plan for one family of CPUs; name: a C identifier.

    profile: call `edgecompress_layer(step)` before every step and after the last.
    Raises UnsupportedOperatorError, naming every operator that has no kernel.
    """
    return _Generator(with_outputs_of_their_own(plan), name, family, profile).program()


def with_outputs_of_their_own(plan: Plan) -> Plan:
    """The plan with a copy behind every output that is an input, a constant, or an output already: each output is
    memory of the caller's, which some step has to fill."""
    tensors, operators, outputs = list(plan.tensors), list(plan.operators), []
    for index in plan.outputs:
        tensor = tensors[index]
        if index in plan.inputs or index in outputs or tensor.data is not None:
            tensors.append(replace(tensor, data=None))
            operators.append(Operator("RESHAPE", (index,), (len(tensors) - 1,), ReshapeOptions()))
            index = len(tensors) - 1
        outputs.append(index)
    return replace(plan, tensors=tuple(tensors), operators=tuple(operators), outputs=tuple(outputs))


@dataclass
class _Generator:
    plan: Plan
    name: str
    family: Family
    profile: bool
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    symbols: dict[Any, str] = field(default_factory=dict)
    layers: dict[Any, str] = field(default_factory=dict)
    kernels: dict[str, tuple[Callable[..., None], tuple[types.Type, ...]]] = field(default_factory=dict)
    helpers: dict[str, Function] = field(default_factory=dict)
    bodies: list[str] = field(default_factory=list)
    signatures: dict[str, list[types.Type]] = field(default_factory=dict)

    def program(self) -> Program:
        self.owner = shared_storage(self.plan)
        steps = self._steps()
        self.layout = arranged_memory(self.plan, [s for _, s in steps], self.owner)
        body: list[str] = []
        named: list[tuple[str, str]] = []
        for operator, step in steps:
            outputs = [self.plan.tensors[i] for i in operator.outputs]
            if self.profile:
                body.append(f"layer_hook(i32({len(named)}))")
            body.append(self._layer(operator, step))
            named.append((operator.kind, outputs[0].name))
        if self.profile:
            body.append(f"layer_hook(i32({len(named)}))")
        ends = [
            *(f"input_{i}" for i in range(len(self.plan.inputs))),
            *(f"output_{i}" for i in range(len(self.plan.outputs))),
        ]
        invoke = f"def invoke({', '.join(['arena', *ends])}):\n" + "".join(f"    {line}\n" for line in body)
        text = "\n\n".join([self._head(), *self.bodies, invoke])
        return Program(
            name=self.name,
            plan=self.plan,
            layout=self.layout,
            alignment=ALIGNMENT,
            steps=tuple(named),
            family=self.family.name,
            saved=sum(step.saved for _, step in steps),
            skipping=sum(step.skips for _, step in steps),
            text=text,
            functions=self._functions(text, len(ends)),
            constants=self.constants,
        )

    def _steps(self) -> list[tuple[Any, Step]]:
        """Kernel calls in order; a reshape within the arena moves nothing."""
        steps = []
        for operator in self.plan.operators:
            inputs = [None if i < 0 else self.plan.tensors[i] for i in operator.inputs]
            outputs = [self.plan.tensors[i] for i in operator.outputs]
            if outputs[0] in self.owner:
                continue
            for step in self.family.steps(operator.kind, inputs, outputs, operator.options):
                steps.append((operator, step))
        return steps

    def _head(self) -> str:
        lines = [
            f'"""{self.name} for {self.family.name} CPUs, generated by edgecompress; arena of '
            f'{self.layout.size} bytes."""',
            "from numpy import float32 as f32",
            "from numpy import inf, nan",
            "from numpy import int32 as i32",
        ]
        imports = []
        for name, (kernel, _) in sorted(self.kernels.items()):
            alias = f" as {name}" if name != kernel.__name__ else ""
            imports.append(f"from {kernel.__module__} import {kernel.__name__}{alias}")
        return "\n".join([*lines, "", *imports]) + "\n"

    def _layer(self, operator: Any, step: Step) -> str:
        """The call of a step's function, which is written on its first use."""
        pointers: list[str] = []
        written = [self._argument(argument, pointers) for argument in step.arguments]
        self.helpers.update((helper.symbol, helper) for helper in step.helpers)
        literals, kinds = [text for text, _ in written], tuple(kind for _, kind in written)
        kernel = self._kernel(step.kernel, kinds)
        key = kernel, tuple(literals)
        if key not in self.layers:
            self.layers[key] = layer = f"layer_{len(self.layers)}"
            self.signatures[layer] = [k for kind in kinds for k in _pointers(kind)]
            title = f"{operator.kind} -> {list(self.plan.tensors[operator.outputs[0]].shape)}"
            formal = ", ".join(f"p{i}" for i in range(len(pointers)))
            self.bodies.append(f'def {layer}({formal}):\n    """{title}"""\n    {kernel}({", ".join(literals)})\n')
        return f"{self.layers[key]}({', '.join(pointers)})"

    def _kernel(self, kernel: Callable[..., None], kinds: tuple[types.Type, ...]) -> str:
        """The kernel's name in the text, for arguments of these types; Numba lowers it once for each."""
        used = {key: name for name, key in self.kernels.items()}
        if (kernel, kinds) not in used:
            count = sum(name.rstrip("0123456789").rstrip("_") == kernel.__name__ for name in self.kernels)
            used[kernel, kinds] = name = f"{kernel.__name__}_{count + 1}" if count else kernel.__name__
            self.kernels[name] = kernel, kinds
        return used[kernel, kinds]

    def _argument(self, argument: Any, pointers: list[str]) -> tuple[str, types.Type]:
        """How the layer's function writes an argument, and its type; pointers are handed in by `invoke`."""
        if isinstance(argument, tuple):
            inner = [self._argument(a, pointers) for a in argument]
            return f"({', '.join(text for text, _ in inner)},)", types.Tuple([kind for _, kind in inner])
        if isinstance(argument, (bool, int, np.integer)):
            return f"i32({int(argument)})", types.int32
        if isinstance(argument, (float, np.floating)):
            return f"f32({float(argument)!r})", types.float32  # "inf" and "nan" are names in the text
        pointers.append(self._address(argument))
        return f"p{len(pointers) - 1}", pointer_type(_dtype(argument))

    def _address(self, argument: Any) -> str:
        tensor = argument.tensor if isinstance(argument, Raw) else argument
        dtype = _dtype(argument)
        if isinstance(tensor, Tensor) and tensor.data is None:
            tensor = self.owner.get(tensor, tensor)
            for role, ends in (("input", self.plan.inputs), ("output", self.plan.outputs)):
                for position, index in enumerate(ends):
                    if self.plan.tensors[index] is tensor:
                        return f"at_{dtype}({role}_{position}, i32(0))"
        elif not isinstance(tensor, Scratch):
            array = tensor.data if isinstance(tensor, Tensor) else tensor
            return f"{self._constant(np.ascontiguousarray(array))}_{dtype}()"
        return f"at_{dtype}(arena, i32({self.layout.offsets[tensor]}))"

    def _constant(self, array: np.ndarray) -> str:
        content = array.dtype.str, array.tobytes()
        if content not in self.symbols:
            self.symbols[content] = symbol = f"data_{len(self.symbols)}"
            self.constants[f"{self.name}_{symbol}"] = array
        return self.symbols[content]

    def _functions(self, text: str, ends: int) -> tuple[Function, ...]:
        """The text, executed, with what it names from outside: constants, addresses, and layers as C functions."""
        space: dict[str, Any] = {}
        exec(compile(text, f"<{self.name}>", "exec"), space)
        layers = [
            Function(f"{self.name}_{n}", space[n], types.void(*kinds), hidden=True)
            for n, kinds in self.signatures.items()
        ]
        invoke = Function(f"{self.name}_invoke", space["invoke"], types.void(*[BYTES] * (1 + ends)))
        kernels = []
        for name, (kernel, kinds) in self.kernels.items():
            digest = hashlib.sha256(f"{kernel.__module__} {kinds}".encode()).hexdigest()[:16]
            symbol = f"{kernel.__name__}.{digest}"
            kernels.append(Function(symbol, kernel, types.void(*kinds), inlined=True))
            space[name] = inlined(symbol, kinds)
        for layer, function in zip(self.signatures, layers):
            space[layer] = external(function.symbol, function.signature)
        for name in set(re.findall(r"\b(?:at|data_\d+)_\w+\b", text)):
            stem, dtype = name.rsplit("_", 1)
            space[name] = at(np.dtype(dtype)) if stem == "at" else constant(f"{self.name}_{stem}", np.dtype(dtype))
        if self.profile:
            space["layer_hook"] = external(HOOK, types.void(types.int32))
        return *self.helpers.values(), *kernels, *layers, invoke


def _pointers(kind: types.Type) -> list[types.Type]:
    """The pointers in an argument."""
    if isinstance(kind, types.BaseTuple):
        return [k for part in elements(kind) for k in _pointers(part)]
    return [kind] if isinstance(kind, types.CPointer) else []


@cache
def at(dtype: np.dtype) -> Callable[..., Any]:
    """For use in Numba code: (int8 pointer, int32 byte offset) -> pointer to elements of `dtype`."""
    pointer = pointer_type(dtype)

    @intrinsic
    def address(typingctx: Any, base: Any, offset: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(builder.gep(args[0], [args[1]]), context.get_value_type(pointer))

        return pointer(BYTES, types.int32), generate

    return address


def _dtype(argument: Any) -> np.dtype:
    """Of the elements that a kernel sees."""
    if isinstance(argument, Scratch):
        return np.dtype(np.int8)
    if isinstance(argument, Raw):
        return np.dtype(BITS[argument.tensor.dtype.itemsize])
    return np.dtype(np.int8) if argument.dtype == bool else np.dtype(argument.dtype)


def shared_storage(plan: Plan) -> dict[Tensor, Tensor]:
    """Reshaped tensor -> the tensor whose bytes it is, where both lie in the arena."""
    ends = {plan.tensors[i] for i in (*plan.inputs, *plan.outputs)}
    owner: dict[Tensor, Tensor] = {}
    for operator in plan.operators:
        if operator.kind == "RESHAPE":
            x, y = plan.tensors[operator.inputs[0]], plan.tensors[operator.outputs[0]]
            if x.data is None and x not in ends and y not in ends:
                owner[y] = owner.get(x, x)
    return owner


def arranged_memory(
    plan: Plan, steps: Sequence[Step], owner: Mapping[Tensor, Tensor], alignment: int = ALIGNMENT
) -> Layout:
    ends = {plan.tensors[i] for i in (*plan.inputs, *plan.outputs)}
    life: dict[Tensor, tuple[int, int]] = {}
    buffers: list[Buffer] = []
    overlaps: list[Overlap] = []
    for number, step in enumerate(steps):
        seen = {owner.get(t, t) for t in _tensors(step.arguments)} - ends
        for tensor in seen:
            life[tensor] = life.get(tensor, (number, number))[0], number
        scratch = _scratch(step.arguments)
        buffers += [Buffer(s, s.size, number, number) for s in scratch]
        overlaps += [
            Overlap(owner.get(y, y), owner.get(x, x), distance)
            for x, distance in step.overlap.items()
            for y in _tensors(step.arguments)
            if y is not x
        ]
    buffers += [Buffer(t, t.size * t.dtype.itemsize, *span) for t, span in life.items()]
    return arrange(buffers, overlaps, alignment)


def _scratch(arguments: Sequence[Any]) -> list[Scratch]:
    found: list[Scratch] = []
    for argument in arguments:
        if isinstance(argument, tuple):
            found += _scratch(argument)
        elif isinstance(argument, Scratch):
            found.append(argument)
    return found


def _tensors(arguments: Sequence[Any]) -> list[Tensor]:
    tensors: list[Tensor] = []
    for argument in arguments:
        if isinstance(argument, tuple):
            tensors += _tensors(argument)
        elif isinstance(argument, (Raw, Part)):
            tensors.append(argument.tensor)
        elif isinstance(argument, Tensor):
            tensors.append(argument)
    return [t for t in tensors if t.data is None]
