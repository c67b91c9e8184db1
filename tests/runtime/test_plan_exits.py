"""Plans that end early: which output they give, and that layers behind are not run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layer_cases import BOOL, FLOAT, Layers, layers

from edgecompress_runtime import load
from edgecompress_runtime.codegen.program import program_of
from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.families.table import FAMILIES
from edgecompress_runtime.operators import check_plan
from edgecompress_runtime.pack import read_pack, write_pack
from edgecompress_runtime.plan import Plan

LARGEST = [(121, 0, 0.0), (122, 0, 0.0), (-128, 12799, 0.78), (-128, 12800, 0.78), (0, 0, 0.782), (0, 0, 0.7812)]


def by_rule(feeds: list[np.ndarray]) -> np.ndarray:
    """The output of the cases' plan: the first exit whose largest probability reaches 250, 100 or 200 of 256."""
    stored, value, _, wide, second, _, real, third, x = feeds
    if (int(stored.max()) + 128) / 256 >= 250 / 256:
        return value
    if wide.max() / 2**15 >= 100 / 256:
        return second
    return third if real.max() >= 200 / 256 else x[:, ::-1]


def feeds_with(made: Layers, largest: tuple[int, int, float]) -> list[np.ndarray]:
    feeds = made.feeds()
    for place, value in zip((0, 3, 6), largest):
        feeds[place] = np.minimum(feeds[place], value).astype(feeds[place].dtype)
        feeds[place][0, -1] = value
    return feeds


@pytest.fixture(scope="module")
def made() -> Layers:
    return layers("exits", seed=0)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_exit_that_is_sure_gives_the_output(made: Layers, threads: int) -> None:
    plan = read_pack(write_pack(made.plan(), "exits")).plan()
    execute, loaded = Executor(plan), load(write_pack(plan, "exits"), threads=threads)
    taken = set()
    for largest in LARGEST * 3:  # also one after the other, in threads that leave early
        feeds = feeds_with(made, largest)
        expected = by_rule(feeds)
        taken.add(next(i for i, f in enumerate((*feeds[1::3], feeds[8][:, ::-1])) if np.array_equal(f, expected)))
        np.testing.assert_array_equal(execute(*feeds)[0], expected)
        np.testing.assert_array_equal(loaded(*feeds), expected)
    assert taken == {0, 1, 2, 3}


def test_layers_behind_an_exit_are_not_run(made: Layers) -> None:
    run = Executor(made.plan())
    flags = [o.outputs[0] for o in made.operators[1::2]]  # what REVERSE_V2 writes
    run(*feeds_with(made, (122, 0, 0.0)))
    assert not any(run.tensor(i).any() for i in flags)
    run(*feeds_with(made, (121, 0, 0.0)))
    assert all(run.tensor(i).any() for i in flags)


def test_a_program_returns_behind_what_it_copies(made: Layers) -> None:
    program = program_of(made.plan(), "model", FAMILIES["generic"], 16)
    kinds = [operator.kind for operator in program.interface.steps]
    assert kinds == ["EXIT", "EXIT", "REVERSE_V2"] * 3  # each with a copy
    assert {number: ending.steps for number, ending in program.endings.items()} == {0: 1, 3: 1, 6: 1}


def _exit(change: str) -> Plan:
    made = Layers(0)
    shape, scale = ((2, 5) if change == "two samples" else (1, 5)), (1 / 128 if change == "another scale" else 1 / 256)
    x, value, other = made.int8(shape, scale, -128), made.int8((1, 7), 0.05, -3), made.int8((1, 7), 0.05, -3)
    if change == "another value":
        value = made.int8((1, 7), 0.06, -3)
    if change == "another shape":
        value = made.int8((7,), 0.05, -3)
    y = made.int8((1, 7), 0.05, -3)
    flag = made.tensor((1,), FLOAT if change == "float32" else BOOL)
    made.layer("EXIT", [x] if change == "no value" else [x, y if change == "an output" else value], [flag], threshold=9)
    made.layer("REVERSE_V2", [other, made.ints(1)], [y])
    return replace(made.plan(), outputs=(y,))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("two samples", "probabilities of one sample"),
        ("another scale", "scale 0.00390625"),
        ("another value", "scale and zero point"),
        ("another shape", "output's shape"),
        ("no value", "a value for each"),
        ("an output", "is an output of the plan"),
        ("float32", "bool"),
    ],
)
def test_an_exit_that_does_not_fit_is_refused(change: str, reason: str) -> None:
    check_plan(_exit(""))
    with pytest.raises(RuntimeModelError, match=reason):
        check_plan(_exit(change))


def test_an_exit_does_not_share_the_outputs_memory() -> None:
    """Values that are reshaped into the outputs, each into the other's, are copied before either is overwritten."""
    made = Layers(0)
    x = made.int8((1, 5), 1 / 256, -128)
    inputs = [made.int8((1, 7), 0.05, -3) for _ in range(2)]
    values = [made.int8((1, 7), 0.05, -3) for _ in range(2)]
    ends = [made.int8((1, 7), 0.05, -3) for _ in range(2)]
    for i, v in zip(inputs, values):
        made.layer("REVERSE_V2", [i, made.ints(1)], [v])
    made.inputs.append(x)
    plan = made.plan()
    made.layer("EXIT", [x, *values], [made.tensor((1,), BOOL)], threshold=128)
    for v, y in zip(values[::-1], ends):
        made.layer("RESHAPE", [v, made.ints(1, 7)], [y], newShape=[1, 7])
    plan = replace(plan, tensors=tuple(made.tensors), operators=tuple(made.operators), outputs=tuple(ends))
    check_plan(plan)
    generator = np.random.default_rng(0)
    a, b = (generator.integers(-128, 128, (1, 7)).astype(np.int8) for _ in range(2))
    for largest, expected in ((0, (a, b)), (-1, (b, a))):
        probabilities = np.full((1, 5), largest, np.int8)
        for run in (Executor(plan), load(write_pack(plan, "swapped"))):
            for found, wanted in zip(run(a, b, probabilities), expected, strict=True):
                np.testing.assert_array_equal(found, wanted[:, ::-1])
