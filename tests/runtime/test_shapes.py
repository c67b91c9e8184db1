"""Operators whose tensors do not fit together are refused before a kernel runs over its arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from packs import header_of, network, with_header

from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.kernels import KERNELS
from edgecompress_runtime.kernels.registry import prepares
from edgecompress_runtime.operators import RECORDS, check_plan
from edgecompress_runtime.options import ArgMaxOptions
from edgecompress_runtime.pack import PackError, read_pack, write_pack
from edgecompress_runtime.plan import Operator, Plan, Tensor

KINDS = [operator.kind for operator in network().operators]


def change(kind: str, edit: Callable[[dict[str, Any], dict[str, Any]], object]) -> str:
    """What reading says once `edit(operator, its first output)` was done to the header."""
    data = write_pack(network(), "demo")
    header = header_of(data)
    operator = header["operators"][KINDS.index(kind)]
    edit(operator, header["tensors"][operator["outputs"][0]])
    with pytest.raises(PackError) as caught:
        read_pack(with_header(data, json.dumps(header).encode())).plan()
    assert "\n" not in str(caught.value) and f"({kind})" in str(caught.value)
    return str(caught.value)


def test_every_record_has_a_kernel_and_every_kernel_a_record() -> None:
    for kind in RECORDS:
        assert kind in KERNELS, f"{kind}: write a function into kernels/ that prepares its calls, @prepares({kind!r})"
    with pytest.raises(LookupError, match="RFFT2D has no record: add one, with its options and its shape rule"):
        prepares("RFFT2D")


def test_the_network_keeps_the_rules() -> None:
    plan = read_pack(write_pack(network(), "demo")).plan()
    assert Executor(plan)(np.zeros((1, 6, 6, 3), np.int8))[0].shape == (1, 5)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"SLICE", "STRIDED_SLICE", "RESHAPE"}))
def test_an_output_of_another_shape_is_refused(kind: str) -> None:
    def shorter(operator: dict[str, Any], output: dict[str, Any]) -> None:
        output["shape"][-1] -= 1

    assert "output" in change(kind, shorter)


@pytest.mark.parametrize(
    ("kind", "key", "value", "message"),
    [
        ("CONV_2D", "strideH", 0, "strideH is 0"),
        ("CONV_2D", "strideW", "2", "strideW is '2'"),
        ("CONV_2D", "strideW", 2**40, "strideW is"),
        ("CONV_2D", "fusedActivationFunction", 9, "fusedActivationFunction is 9"),
        ("MAX_POOL_2D", "filterHeight", -1, "filterHeight is -1"),
        ("CONCATENATION", "axis", 4, "axis 4 is outside of 4 dimensions"),
        ("GATHER", "axis", 3, "an index is outside of the axis"),
        ("SOFTMAX", "beta", "high", "beta is 'high'"),
        ("MEAN", "keepDims", 0.5, "keepDims is 0.5"),
        ("CONV_2D", "padding", None, "padding is missing"),
        ("GATHER", "batchDims", 1, "batchDims is 1"),
    ],
)
def test_options_that_no_kernel_could_follow_are_refused(kind: str, key: str, value: Any, message: str) -> None:
    assert message in change(kind, lambda operator, _: operator["options"].update({key: value}))


def test_operands_that_are_missing_or_outside_are_refused() -> None:
    assert "missing" in change("ADD", lambda operator, _: operator["inputs"].__setitem__(0, -1))
    assert "malformed" in change("ADD", lambda operator, _: operator["inputs"].pop())
    assert "outside of the tensor" in change("SLICE", lambda _, y: y.update(shape=[1, 4, 4, 4]))
    assert "outside of the tensor" in change("STRIDED_SLICE", lambda _, y: y.update(shape=[1, 3, 4, 4]))
    assert "elements can't become" in change("RESHAPE", lambda _, y: y.update(shape=[1, 21]))
    assert "outside of int8" in change("SOFTMAX", lambda _, y: y.update(zero_point=[300]))


@pytest.mark.parametrize("tensor", [0, 2])
@pytest.mark.parametrize(("zero_point", "accepted"), [(-129, False), (-128, True), (127, True), (128, False)])
def test_zero_points_are_those_that_int8_has(tensor: int, zero_point: int, accepted: bool) -> None:
    plan = table_plan(zero_point=np.int32([zero_point])) if tensor else table_plan()
    tensors = list(plan.tensors)
    tensors[tensor] = replace(tensors[tensor], zero_point=np.int32([zero_point]))
    plan = replace(plan, tensors=tuple(tensors))
    if accepted:
        check_plan(plan)
    else:
        with pytest.raises(RuntimeModelError, match="zero point outside of int8"):
            check_plan(plan)


ENTRIES = np.random.default_rng(0).integers(-128, 128, 256).astype(np.int8)


def table_plan(**changes: Any) -> Plan:
    """y = table[x]; changes: fields of the table's tensor."""
    scale, zero = np.float32([0.5]), np.int32([3])
    fields = {"shape": (256,), "dtype": np.dtype(np.int8), "scale": scale, "zero_point": zero, "data": ENTRIES}
    x = Tensor("x", (1, 2, 3), np.dtype(np.int8), np.float32([0.1]), np.int32([-4]))
    y = Tensor("y", (1, 2, 3), np.dtype(np.int8), scale, zero)
    return Plan((x, Tensor("table", **fields | changes), y), (Operator("TABLE", (0, 1), (2,)),), (0,), (2,))


def test_a_table_comes_back_from_a_pack_and_is_looked_up() -> None:
    plan = read_pack(write_pack(table_plan(), "table")).plan()
    x = np.array([-128, -1, 0, 1, 126, 127], np.int8).reshape(1, 2, 3)
    np.testing.assert_array_equal(Executor(plan)(x)[0], ENTRIES[x.astype(int) + 128])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (255,), "data": ENTRIES[:255]}, "256 entries"),
        ({"shape": (2, 128), "data": ENTRIES.reshape(2, 128)}, "256 entries"),
        ({"data": None}, "256 entries"),
        ({"dtype": np.dtype(np.uint8), "data": ENTRIES.view(np.uint8)}, "expected int8 operands"),
        ({"scale": np.float32([0.25])}, "the table and the output have different scales or zero points"),
        ({"zero_point": np.int32([4])}, "the table and the output have different scales or zero points"),
    ],
)
def test_a_table_that_no_lookup_could_follow_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeModelError, match=message):
        check_plan(table_plan(**changes))


@pytest.mark.parametrize(("axis", "shape"), [(0, (3, 4, 5)), (1, (2, 4, 5)), (-1, (2, 3, 4)), (1, (2, 3, 4))])
def test_arg_max_takes_one_axis_away(axis: int, shape: tuple[int, ...]) -> None:
    tensors = (
        Tensor("x", (2, 3, 4, 5), np.dtype(np.float32)),
        Tensor("axis", (), np.dtype(np.int32), data=np.array(axis, np.int32)),
        Tensor("y", shape, np.dtype(np.int64)),
    )
    plan = Plan(tensors, (Operator("ARG_MAX", (0, 1), (2,), ArgMaxOptions()),), (0,), (2,))
    if np.empty((2, 3, 4, 5)).argmax(axis).shape == shape:
        check_plan(plan)
    else:
        with pytest.raises(RuntimeModelError, match="ARG_MAX"):
            check_plan(plan)
