"""Parts that are dequantized into their place in a CONCATENATION, and tensors that are reshaped into an output."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from ahead import here

from edgecompress_runtime import load
from edgecompress_runtime.codegen.program import program_of
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.families.table import FAMILIES
from edgecompress_runtime.options import ConcatenationOptions, Options, ReshapeOptions
from edgecompress_runtime.pack import write_pack
from edgecompress_runtime.plan import Operator, Plan, Tensor

FLOAT = np.dtype(np.float32)


@dataclass
class Net:
    """A plan that grows."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def tensor(self, shape: tuple[int, ...], scale: float = 0.0, data: np.ndarray | None = None) -> int:
        grid = (np.float32([scale]), np.int32([3])) if scale else (np.zeros(0, np.float32), np.zeros(0, np.int32))
        dtype = np.dtype(np.int8) if scale else FLOAT
        self.tensors.append(Tensor(f"t{len(self.tensors)}", shape, dtype, *grid, 0, data))
        return len(self.tensors) - 1

    def step(self, kind: str, inputs: list[int], shape: tuple[int, ...], options: Options | None = None) -> int:
        y = self.tensor(shape)
        self.operators.append(Operator(kind, tuple(inputs), (y,), options or Options()))
        return y

    def part(self, *shape: int) -> int:
        """A dequantized input."""
        self.inputs.append(self.tensor(shape, 0.01 * (len(self.tensors) + 1)))
        return self.step("DEQUANTIZE", [self.inputs[-1]], shape)

    def joined(self, axis: int, *parts: int) -> int:
        shape = list(self.tensors[parts[0]].shape)
        shape[axis] = sum(self.tensors[i].shape[axis] for i in parts)
        return self.step("CONCATENATION", list(parts), tuple(shape), ConcatenationOptions(axis))

    def reshaped(self, x: int, *shape: int) -> int:
        return self.step("RESHAPE", [x], shape, ReshapeOptions())

    def plan(self) -> Plan:
        return Plan(tuple(self.tensors), tuple(self.operators), tuple(self.inputs), tuple(self.outputs))


def along(axis: int):
    def add(net: Net) -> None:
        shapes = [[2, 3, 5] for _ in range(3)]
        for n, shape in enumerate(shapes):
            shape[axis] = 1 + 3 * n
        net.outputs.append(net.joined(axis, *(net.part(*shape) for shape in shapes)))

    return add


def nested(net: Net) -> None:
    scales = [net.joined(1, net.part(1, 4, n), net.part(1, 80, n)) for n in (6, 3, 1)]
    net.outputs.append(net.joined(2, *scales))


def into_a_reshaped_output(net: Net) -> None:
    net.outputs.append(net.reshaped(net.joined(3, net.part(1, 2, 3, 4), net.part(1, 2, 3, 9)), 1, 6, 13))


def read_twice(net: Net) -> None:
    a, b = net.part(2, 3), net.part(2, 4)
    net.outputs += [net.joined(1, a, b, a), net.joined(1, b, b)]


def an_output_as_well(net: Net) -> None:
    a = net.part(2, 3)
    inner = net.joined(0, a, net.part(1, 3))
    net.outputs += [inner, net.joined(1, inner, net.part(3, 2)), a]


def beside_other_values(net: Net) -> None:
    """A constant, an input, and what a layer makes."""
    constant = net.tensor((2, 2), data=np.float32([[1, 2], [3, 4]]))
    net.inputs.append(net.tensor((2, 5)))
    negated = net.step("NEG", [net.part(2, 3)], (2, 3))
    net.outputs.append(net.joined(1, net.part(2, 1), constant, net.inputs[0], net.joined(0, negated)))


def reshaped_into_two_outputs(net: Net) -> None:
    x = net.step("NEG", [net.part(2, 6)], (2, 6))
    first = net.reshaped(x, 12)
    again = net.step("NEG", [net.reshaped(first, 3, 4)], (3, 4))
    net.outputs += [net.reshaped(x, 4, 3), net.reshaped(first, 6, 2), net.reshaped(again, 12), again]


CASES = {
    "first axis": along(0), "middle axis": along(1), "last axis": along(2), "from the end": along(-2),
    "nested": nested, "reshaped": into_a_reshaped_output, "read twice": read_twice, "output": an_output_as_well,
    "other values": beside_other_values, "two outputs": reshaped_into_two_outputs,
}  # fmt: skip
# of the calls: those that move what is in its place already are not there
KINDS = {
    "nested": ["strided_dequantize"] * 6,
    "reshaped": ["strided_dequantize"] * 2,
    "read twice": ["dequantize"] * 2 + ["strided_copy"] * 5,
}


def all_cases() -> Plan:
    net = Net()
    for add in CASES.values():
        own = Net(net.tensors, net.operators)
        add(own)
        net.inputs += own.inputs
        net.outputs += own.outputs
    return net.plan()


@pytest.mark.parametrize("name", KINDS)
def test_what_is_in_its_place_is_not_moved(name: str) -> None:
    net = Net()
    CASES[name](net)
    program = program_of(net.plan(), "model", FAMILIES["generic"], 16)
    assert [call.layer.kernel.function.__name__ for (call,) in program.calls] == KINDS[name]


def test_outputs_equal_those_of_the_reference_kernels() -> None:
    plan, random = all_cases(), np.random.default_rng(0)
    feeds = [random.integers(-100, 100, plan.tensors[i].shape).astype(plan.tensors[i].dtype) for i in plan.inputs]
    expected = Executor(plan)(*feeds)
    loaded = load(write_pack(plan, "parts"))
    for found in (here(plan, feeds), list(loaded(*feeds)), list(loaded(*feeds))):
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
