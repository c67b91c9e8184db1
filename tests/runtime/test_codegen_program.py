"""The walk over a plan that both writers print, and the choice of a family."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from ahead import Layers

from edgecompress_runtime.codegen.program import ARENA, program_of
from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.families.shared.family import Family
from edgecompress_runtime.families.shared.step import Part, Step
from edgecompress_runtime.families.table import FAMILIES, family_of
from edgecompress_runtime.plan import Operator, Plan, Tensor


def nothing() -> None:
    """Stands for a kernel."""


def copies(count: int) -> Plan:
    """A chain of NEG, each its tensor."""
    tensors = [Tensor(f"t{i}", (40,), np.dtype(np.float32)) for i in range(count + 1)]
    operators = [Operator("NEG", (i,), (i + 1,), {}) for i in range(count)]
    return Plan(tuple(tensors), tuple(operators), (0,), (count,))


def family(*more: object) -> Family:
    """NEG is a call of `nothing` with x, y and what is given."""
    return Family("test", {"NEG": lambda inputs, outputs, options: [Step(nothing, (*inputs, *outputs, *more))]})


def test_layers_that_are_alike_are_one_and_addresses_are_their_calls() -> None:
    program = program_of(copies(3), "model", family(7, (0.5, np.int32(3))), 64)
    ((layer,), (kernel,)) = program.layers, program.kernels
    float32 = np.dtype(np.float32)
    assert layer.literals == (float32, float32, 7, (0.5, 3)) and kernel.kinds == (float32, float32, int, (float, int))
    bases = [[(a.base, a.offset) for a in call.addresses] for (call,) in program.calls]
    first, second = bases[0][1], bases[1][1]
    assert bases == [[("input_0", 0), first], [first, second], [second, ("output_0", 0)]]
    assert {first, second} == {(ARENA, 0), (ARENA, 192)}  # both are needed by the second step
    assert program.ends == ["input_0", "output_0"]
    plan = program.interface.plan
    steps = [(operator.kind, plan.tensors[operator.outputs[0]].name) for operator in program.interface.steps]
    assert steps == [("NEG", "t1"), ("NEG", "t2"), ("NEG", "t3")]


@pytest.mark.parametrize(
    ("numbers", "count"), [((0.0, -0.0), 2), ((math.nan, float("nan")), 1), ((1, 1.0), 2), ((True, 1), 1)]
)
def test_numbers_that_are_written_alike_make_one_layer(numbers: tuple[float, float], count: int) -> None:
    left = iter(numbers)
    changing = Family("test", {"NEG": lambda inputs, outputs, options: [Step(nothing, (*outputs, next(left)))]})
    assert len(program_of(copies(2), "model", changing, 16).layers) == count


def test_constants_of_equal_bytes_and_type_are_one() -> None:
    ones = np.ones(3, np.int8), np.ones(3, np.int8), np.ones(3, np.uint8)
    program = program_of(copies(1), "model", family(*ones), 16)
    assert [a.base for a in program.calls[0][0].addresses[2:]] == ["data_0", "data_0", "data_1"]
    assert [array.dtype for array in program.constants.values()] == [np.int8, np.uint8]


def test_a_part_of_a_tensor_is_an_address_behind_it() -> None:
    plan = copies(1)
    program = program_of(plan, "model", family(Part(plan.tensors[0], 8)), 16)
    assert [(a.base, a.offset) for a in program.calls[0][0].addresses] == [
        ("input_0", 0), ("output_0", 0), ("input_0", 8),
    ]  # fmt: skip


def test_every_operator_without_a_kernel_is_named() -> None:
    plan = copies(2)
    odd = tuple(replace(o, kind=kind) for o, kind in zip(plan.operators, ("WHILE", "IF")))
    with pytest.raises(UnsupportedOperatorError, match="no kernel for IF, WHILE"):
        program_of(replace(plan, operators=odd), "model", FAMILIES["generic"], 16)


@pytest.mark.parametrize(
    ("triple", "features", "name"),
    [
        ("thumbv6m-none-eabi", (), "v6m"),
        ("thumbv8m.base-none-eabi", (), "v6m"),
        ("thumbv7m-none-eabi", (), "generic"),
        ("thumbv7em-none-eabi", ("+dsp",), "dsp"),
        ("thumbv8.1m.main-none-eabihf", ("+dsp", "+mve"), "helium"),
        ("thumbv8.1m.main-none-eabihf", ("+dsp", "+mve.fp"), "helium"),
        ("aarch64-linux-gnu", ("+neon",), "neon"),
        ("arm64-apple-macos", ("+neon", "+dotprod"), "neon_dot"),
        ("aarch64-linux-gnu", (), "generic"),
        ("riscv64-unknown-linux-gnu", (), "generic"),
        ("x86_64-linux-gnu", ("+avx2", "+fma"), "x86 avx2"),
        ("x86_64-linux-gnu", (), "x86 generic"),
    ],
)
def test_the_family_of_a_processor(triple: str, features: tuple[str, ...], name: str) -> None:
    assert family_of(triple, features).name == family_of(triple, features, coded=False).name == name


def test_plain_weights_are_never_coded() -> None:
    made = Layers(0, values=13)
    made.convolution((5, 5, 64), 67, (3, 3))
    made.depthwise((4, 4, 64), (3, 3))
    made.dense(1, 130, 18)
    for coded in (False, True):
        dsp = family_of("thumbv7em-none-eabi", ("+dsp",), coded=coded)
        assert (program_of(made.plan(), "model", dsp, 16).interface.saved > 0) == coded
