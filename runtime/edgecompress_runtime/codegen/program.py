"""A plan -> the calls that run it: which kernels, with which numbers, at which addresses.

This is all that a program consists of; llvm_writer.py prints it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numba import types

from edgecompress_runtime.codegen.gated_plan import gated
from edgecompress_runtime.codegen.interface import Interface
from edgecompress_runtime.codegen.joined_parts import places, steps_in_place
from edgecompress_runtime.codegen.ordinary_layers import ordinary_layers
from edgecompress_runtime.codegen.padded_layers import with_pads_in_layers
from edgecompress_runtime.codegen.placement import arranged_memory, shared_storage, states_in_place
from edgecompress_runtime.codegen.transposed_layers import with_convolutions
from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.families.shared.division import Divided
from edgecompress_runtime.families.shared.family import Family
from edgecompress_runtime.families.shared.step import Part, Scratch, Step
from edgecompress_runtime.kernels.movement import BITS
from edgecompress_runtime.kernels.registry import KERNELS, Raw
from edgecompress_runtime.llvm.cross import Function, pointer_type
from edgecompress_runtime.llvm.typed_numba import leaves
from edgecompress_runtime.options import ReshapeOptions
from edgecompress_runtime.plan import EXIT, KeptState, Operator, Plan, Tensor

ARENA, CONSTANT = "arena", "data_"  # a base of addresses, and how those that are constants start


@dataclass(frozen=True)
class Address:
    """An address that a kernel is given.

    base: ARENA, the name of an input or output of the program, or the symbol of a constant. offset: bytes behind it.
    dtype: of the elements that the kernel sees there.
    """

    base: str
    offset: int
    dtype: np.dtype

    @property
    def constant(self) -> bool:
        """Whether it is the address of a constant."""
        return self.base.startswith(CONSTANT)


@dataclass(frozen=True)
class Kernel:
    """A kernel for arguments of certain kinds, which Numba lowers once.

    kinds: int, float, the dtype of what a pointer points to, or a tuple of such, for each argument.
    """

    function: Callable[..., None]
    kinds: tuple[Any, ...]

    @property
    def types(self) -> tuple[types.Type, ...]:
        """Numba's types of its arguments: numbers have 32 bits."""
        return tuple(_numba_type(kind) for kind in self.kinds)


@dataclass(frozen=True, eq=False)
class Layer:
    """A kernel and its numbers; layers that are alike are one.

    literals: the arguments, int, float, or a tuple of such, with the dtype of what it points to in place of each
    pointer. title: says to people what it computes.
    """

    name: str
    kernel: Kernel
    literals: tuple[Any, ...]
    title: str


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer. addresses: for the pointers among its literals, in order."""

    layer: Layer
    addresses: tuple[Address, ...]


@dataclass(frozen=True)
class Ending:
    """Where a program may end early: if the byte at `reached` isn't zero, it does `steps` steps more, and ends; else it
    passes these over."""

    reached: Address
    steps: int


@dataclass(frozen=True, eq=False)
class Program:
    """All that a compiled plan consists of.

    calls: of each step; where threads share a step, one for each. endings: by the number of the step behind which the
    program may end. kernels, layers: in the order in which they are first used. constants: by symbol. helpers:
    functions that kernels call.
    """

    interface: Interface
    calls: tuple[tuple[Call, ...], ...]
    endings: Mapping[int, Ending]
    kernels: tuple[Kernel, ...]
    layers: tuple[Layer, ...]
    constants: dict[str, np.ndarray]
    helpers: tuple[Function, ...]

    @property
    def ends(self) -> list[str]:
        """The names of its inputs and outputs."""
        plan = self.interface.plan
        return [f"input_{i}" for i in range(len(plan.inputs))] + [f"output_{i}" for i in range(len(plan.outputs))]


def program_of(plan: Plan, name: str, family: Family, alignment: int) -> Program:
    """The program of a plan with the kernels of a family of CPUs; name: a C identifier. alignment: of the arena.

    Raises UnsupportedOperatorError, naming every operator that has no kernel.
    """
    if missing := sorted({o.kind for o in plan.operators} - KERNELS.keys()):
        raise UnsupportedOperatorError(f"no kernel for {', '.join(missing)}")
    return _Walk(with_outputs_of_their_own(plan), name, family, alignment).program()


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
class _Walk:
    plan: Plan
    name: str
    family: Family
    alignment: int
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    symbols: dict[tuple[str, bytes], str] = field(default_factory=dict)
    kernels: dict[Kernel, Kernel] = field(default_factory=dict)
    layers: dict[tuple[Kernel, str], Layer] = field(default_factory=dict)

    def program(self) -> Program:
        made = gated(with_pads_in_layers(with_convolutions(self.plan)), self.family)
        self.plan, self.gated = made.plan, made.steps
        self.owner = shared_storage(self.plan)
        self.ends = {
            self.plan.tensors[index]: f"{role}_{position}"
            for role, ends in (("output", self.plan.taken), ("input", self.plan.given))
            for position, index in reversed(list(enumerate(ends)))
        }
        steps = self._with_states(list(self._steps()))
        self.layout = arranged_memory(self.plan, [step for _, step in steps], self.owner, self.alignment)
        shares = [(operator, step.shares if isinstance(step, Divided) else (step,)) for operator, step in steps]
        calls = tuple(tuple(self._call(operator, share) for share in own) for operator, own in shares)
        interface = Interface(
            name=self.name,
            plan=replace(self.plan, inputs=self.plan.given, outputs=self.plan.taken, states=()),
            layout=self.layout,
            alignment=self.alignment,
            steps=tuple(operator for operator, _ in steps),
            family=self.family.name,
            saved=sum(step.saved for _, step in steps),
            skipping=sum(any(share.skips for share in own) for _, own in shares),
            ordinary=ordinary_layers(self.plan, steps, self.family),
            states=tuple(self._kept(self.plan.tensors[self.plan.inputs[place]]) for place, _ in self.plan.states),
        )
        helpers = {helper.symbol: helper for _, step in steps for helper in step.helpers}
        kernels, layers = tuple(self.kernels.values()), tuple(self.layers.values())
        endings = self._endings([operator for operator, _ in steps])
        return Program(interface, calls, endings, kernels, layers, self.constants, tuple(helpers.values()))

    def _endings(self, operators: Sequence[Operator]) -> dict[int, Ending]:
        """operators: of each step."""
        firsts = {o: number for number, o in reversed(list(enumerate(operators))) if o.kind == EXIT}
        return {
            number: Ending(self._address(self.plan.tensors[o.outputs[0]]), operators.count(o) - 1)
            for o, number in sorted(firsts.items(), key=lambda pair: pair[1])
        }

    def _steps(self) -> Iterator[tuple[Operator, Step]]:
        """Kernel calls in order; a reshape of bytes that are its own moves nothing."""
        joined = places(self.plan)
        for operator in self.plan.operators:
            inputs = [None if i < 0 else self.plan.tensors[i] for i in operator.inputs]
            outputs = [self.plan.tensors[i] for i in operator.outputs]
            if operator.kind != "RESHAPE" or self._moves(inputs[0], outputs[0]):
                steps = self.gated.get(operator) or steps_in_place(self.plan, operator, joined)
                if steps is None:
                    steps = self.family.steps(operator.kind, inputs, outputs, operator.options)
                yield from ((operator, step) for step in steps)
            if operator.kind == EXIT:
                for index, output in zip(operator.inputs[1:], self.plan.outputs):
                    ends = [self.plan.tensors[index]], [self.plan.tensors[output]]
                    yield from ((operator, step) for step in self.family.steps("RESHAPE", *ends, ReshapeOptions()))

    def _with_states(self, steps: list[tuple[Operator, Step]]) -> list[tuple[Operator, Step]]:
        """What a state becomes lies in the state's bytes, or is copied there at the end."""
        in_place = states_in_place(self.plan, [step for _, step in steps], self.owner)
        self.owner |= {t: in_place[whole] for t, whole in self.owner.items() if whole in in_place} | in_place
        for place, source in self.plan.states:
            before, after = self.plan.inputs[place], self.plan.outputs[source]
            x, y = self.plan.tensors[after], self.plan.tensors[before]
            if x not in in_place:
                operator = Operator("RESHAPE", (after,), (before,), ReshapeOptions())
                self.plan = replace(self.plan, operators=(*self.plan.operators, operator))
                steps += [(operator, step) for step in self.family.steps("RESHAPE", [x], [y], ReshapeOptions())]
        return steps

    def _kept(self, tensor: Tensor) -> KeptState:
        fill = tensor.zero if tensor.scale.size else 0  # of one byte, where it isn't 0
        return KeptState(tensor.name, self.layout.offsets[tensor], tensor.size * tensor.dtype.itemsize, fill)

    def _moves(self, x: Tensor | None, y: Tensor) -> bool:
        return x is None or self.owner.get(x, x) is not self.owner.get(y, y)

    def _call(self, operator: Operator, step: Step) -> Call:
        actual = self._resolved(step.arguments)
        literals = _mapped(actual, lambda a: a.dtype if isinstance(a, Address) else a)
        kernel = Kernel(step.kernel, _mapped(literals, lambda a: a if isinstance(a, np.dtype) else type(a)))
        kernel = self.kernels.setdefault(kernel, kernel)
        key = kernel, repr(literals)  # which tells 0.0 from -0.0, and has nan equal itself
        if key not in self.layers:
            title = f"{operator.kind} -> {list(self.plan.tensors[operator.outputs[0]].shape)}"
            self.layers[key] = Layer(f"layer_{len(self.layers)}", kernel, literals, title)
        return Call(self.layers[key], tuple(a for a in leaves(actual) if isinstance(a, Address)))

    def _resolved(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Numbers as int and float, everything else as its address."""
        return _mapped(arguments, self._argument)

    def _argument(self, argument: Any) -> int | float | Address:
        if isinstance(argument, (bool, int, np.integer)):
            return int(argument)
        if isinstance(argument, (float, np.floating)):
            return float(argument)
        return self._address(argument)

    def _address(self, argument: Any) -> Address:
        """Of a tensor, a part of one, scratch memory or an array."""
        tensor = argument.tensor if isinstance(argument, (Raw, Part)) else argument
        start, dtype = _start(argument), _dtype(argument)
        if isinstance(tensor, Tensor) and tensor.data is None:
            tensor = self.owner.get(tensor, tensor)
            if tensor in self.ends:
                return Address(self.ends[tensor], start, dtype)
        elif not isinstance(tensor, Scratch):
            array = tensor.data if isinstance(tensor, Tensor) else tensor
            return Address(self._constant(np.ascontiguousarray(array)), start, dtype)
        return Address(ARENA, self.layout.offsets[tensor] + start, dtype)

    def _constant(self, array: np.ndarray) -> str:
        content = array.dtype.str, hashlib.sha256(array.data).digest()  # not the bytes: they may be many
        if content not in self.symbols:
            self.symbols[content] = symbol = f"{CONSTANT}{len(self.symbols)}"
            self.constants[symbol] = array
        return self.symbols[content]


def _mapped(arguments: tuple[Any, ...], change: Callable[[Any], Any]) -> tuple[Any, ...]:
    """The same nested tuples, each leaf changed."""
    return tuple(_mapped(a, change) if isinstance(a, tuple) else change(a) for a in arguments)


def _numba_type(kind: Any) -> types.Type:
    if isinstance(kind, tuple):
        return types.Tuple([_numba_type(k) for k in kind])
    if isinstance(kind, np.dtype):
        return pointer_type(kind)
    return types.int32 if kind is int else types.float32


def _start(argument: Any) -> int:
    """Bytes from where a tensor begins."""
    if isinstance(argument, Raw):
        return argument.start * argument.tensor.dtype.itemsize
    return argument.start if isinstance(argument, Part) else 0


def _dtype(argument: Any) -> np.dtype:
    """Of the elements that a kernel sees."""
    if isinstance(argument, Raw):
        return np.dtype(BITS[argument.tensor.dtype.itemsize])
    dtype = argument.tensor.dtype if isinstance(argument, Part) else argument.dtype
    return np.dtype(np.int8) if np.dtype(dtype).kind == "b" else np.dtype(dtype)
