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
from edgecompress_runtime.kernels.resize import fixed, floating, nearest
from edgecompress_runtime.operators import RECORDS, check_plan, options_of
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
        ("SOFTMAX", "beta", 1e39, "beta is 1e+39"),
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
    assert "a zero point from -128 to 127" in change("SOFTMAX", lambda _, y: y.update(zero_point=[300]))


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
        with pytest.raises(RuntimeModelError, match="a zero point from -128 to 127"):
            check_plan(plan)


# What was written is refused whichever operator reads or writes it: one change of the tensor that it writes.
NOT_INT8: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32", "scale": [], "zero_point": []},
    "float32 with a scale": {"dtype": "float32"},
    "no scale": {"scale": [], "zero_point": []},
    "uint8": {"dtype": "uint8"},
    "int32": {"dtype": "int32"},
    "int16 with a zero point": {"dtype": "int16", "zero_point": [1]},
    "float16": {"dtype": "float16", "scale": [], "zero_point": []},
    "zero point of no int8": {"zero_point": [-129]},
}


@pytest.mark.parametrize("change_of", NOT_INT8)
@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_an_output_of_other_elements_than_its_kernel_writes_is_refused(kind: str, change_of: str) -> None:
    def edit(_: dict[str, Any], output: dict[str, Any]) -> None:
        output.update(NOT_INT8[change_of])
        if output["zero_point"] and kind == "SOFTMAX" and output["dtype"] == "int16":
            output["scale"] = [0.5]  # its own is another

    message = change(kind, edit)
    assert "which writes 't" in message and "expected 't" in message and "found" in message


@pytest.mark.parametrize("kind", ["MAX_POOL_2D", "PAD", "SLICE", "CONCATENATION", "TRANSPOSE", "GATHER", "RESHAPE"])
@pytest.mark.parametrize("key, value", [("scale", [0.051]), ("zero_point", [7])])
def test_elements_that_are_moved_keep_their_scale(kind: str, key: str, value: list[float]) -> None:
    assert "scale and zero point of" in change(kind, lambda _, output: output.update({key: value}))


@pytest.mark.parametrize("scale", [0, -1.0, "NaN", "Infinity", "-Infinity", 1e-39, 1e39, True, None, "1", []])
def test_scales_are_positive_numbers_of_float32(scale: Any) -> None:
    data = write_pack(network(), "demo")
    header = header_of(data)
    header["tensors"][0]["scale"] = [scale]
    text = json.dumps(header).replace('["NaN"]', "[NaN]").replace('["Infinity"]', "[Infinity]")
    text = text.replace('["-Infinity"]', "[-Infinity]")
    with pytest.raises(
        PackError, match=r"^pack: (tensors: item 0: 't0': scale: item 0: expected|its header is not JSON)"
    ):
        read_pack(with_header(data, text.encode()))


def small(tensors: dict[str, Tensor], kind: str, **options: Any) -> Plan:
    """One operator: the tensor `y` of all others, of which `x` and those without data are inputs."""
    names = list(tensors)
    operator = Operator(kind, tuple(range(len(names) - 1)), (len(names) - 1,), options_of(kind, options))
    fed = tuple(i for i, name in enumerate(names[:-1]) if tensors[name].data is None)
    named = tuple(replace(tensor, name=name) for name, tensor in tensors.items())
    return Plan(named, (operator,), fed, (len(names) - 1,))


def of(
    dtype: str, *shape: int, scale: tuple[float, ...] = (), zero: int = 0, axis: int = 0, data: Any = None
) -> Tensor:
    array = None if data is None else np.broadcast_to(np.array(data, dtype), shape)
    scales = np.array(scale, np.float32)
    return Tensor("", shape, np.dtype(dtype), scales, np.full(len(scale), zero, np.int32), axis, array)


def int8(*shape: int, **more: Any) -> Tensor:
    return of("int8", *shape, **({"scale": (0.5,)} | more))


FLOAT, BOOL = of("float32", 2, 3), of("bool", 2, 3)
FIRST = of("int32", 1, data=0)
W, BIAS = int8(3, 3, data=1), of("int32", 3, data=1)
DENSE = {"x": int8(2, 3), "w": W, "b": BIAS, "y": int8(2, 3)}
BILINEAR = {"x": int8(1, 2, 2, 3), "size": of("int32", 2, data=4), "y": int8(1, 4, 4, 3)}


@pytest.mark.parametrize(
    "kind, tensors, options, message",
    [
        ("FULLY_CONNECTED", DENSE | {"y": FLOAT}, {}, "expected 'y' to be int8 with one scale, found float32"),
        ("FULLY_CONNECTED", DENSE | {"x": FLOAT}, {}, "expected 'b' to be float32"),
        ("FULLY_CONNECTED", DENSE | {"b": of("int64", 3, data=1)}, {}, "expected 'b' to be a constant of int32"),
        ("FULLY_CONNECTED", DENSE | {"b": of("int32", 3)}, {}, "expected 'b' to be a constant of int32"),
        ("FULLY_CONNECTED", DENSE | {"w": of("float32", 3, 3)}, {}, "expected 'w' to be int8"),
        ("FULLY_CONNECTED", DENSE | {"w": int8(3, 3, scale=(1, 1, 1), axis=1, data=1)}, {}, "scales along axis 0"),
        ("FULLY_CONNECTED", DENSE | {"w": int8(3, 3, scale=(1, 1, 1), zero=1, data=1)}, {}, "zero points of 0"),
        ("ADD", {"a": int8(2, 3), "b": FLOAT, "y": int8(2, 3)}, {}, "expected 'b' to be int8 with one scale"),
        ("ADD", {"a": FLOAT, "b": int8(2, 3), "y": FLOAT}, {}, "expected 'b' to be float32"),
        ("ADD", {"a": BOOL, "b": BOOL, "y": BOOL}, {}, "expected 'y' to be of numbers"),
        ("DIV", {"a": int8(2, 3), "b": int8(2, 3), "y": int8(2, 3)}, {}, "expected 'a' to be float32"),
        ("MAXIMUM", {"a": int8(2, 3), "b": int8(2, 3, scale=(1,)), "y": int8(2, 3)}, {}, "the scale and zero point"),
        ("LESS", {"a": FLOAT, "b": FLOAT, "y": of("int32", 2, 3)}, {}, "expected 'y' to be bool"),
        ("LESS", {"a": FLOAT, "b": of("int32", 2, 3), "y": BOOL}, {}, "expected 'b' to be float32 as 'a' is"),
        ("SELECT_V2", {"c": FLOAT, "a": FLOAT, "b": FLOAT, "y": FLOAT}, {}, "expected 'c' to be bool"),
        ("TANH", {"x": FLOAT, "y": int8(2, 3)}, {}, "expected 'y' to be float32"),
        ("TANH", {"x": of("float16", 2, 3), "y": of("float16", 2, 3)}, {}, "expected 'x' to be float32"),
        ("CAST", {"x": of("float16", 2, 3), "y": FLOAT}, {}, "expected 'x' to be of a type that kernels compute with"),
        ("QUANTIZE", {"x": FLOAT, "y": FLOAT}, {}, "expected 'y' to be"),
        ("DEQUANTIZE", {"x": of("float16", 2, 3), "y": FLOAT}, {}, "expected 'x' to be float32"),
        ("ARG_MAX", {"x": FLOAT, "axis": FIRST, "y": of("float32", 3)}, {}, "expected 'y' to be int32"),
        ("LOG_SOFTMAX", {"x": int8(2, 3), "y": int8(2, 3)}, {}, "int8 with scale 0.0625 and zero point 127"),
        ("GATHER", {"x": FLOAT, "i": of("float32", 2, data=0), "y": FLOAT}, {}, "expected 'i' to be int32 or int64"),
        ("RESIZE_BILINEAR", BILINEAR | {"y": int8(1, 4, 4, 3, scale=(1,))}, {}, "the scale and zero point of 'x'"),
        ("RESIZE_BILINEAR", BILINEAR, {"alignCorners": True, "halfPixelCenters": True}, "excludes halfPixelCenters"),
        ("REDUCE_MAX", {"x": of("int32", 0, data=1), "axes": FIRST, "y": of("int32")}, {}, "no elements"),
        ("MEAN", {"x": of("float32", 0, data=1), "axes": FIRST, "y": of("float32")}, {}, "no elements"),
    ],
)  # fmt: skip
def test_elements_that_no_kernel_takes_are_refused(
    kind: str, tensors: dict[str, Tensor], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RuntimeModelError, match=rf"^operator 0 \({kind}\), which writes 'y': ") as caught:
        check_plan(small(tensors, kind, **options))
    assert message in str(caught.value)


@pytest.mark.parametrize("rows", [fixed, floating])
@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True)])
def test_a_resize_reads_rows_that_its_input_has(rows: Callable[..., Any], flags: tuple[bool, bool]) -> None:
    sizes = [1, 2, 3, 5, 6, 64, 144, 1025, 65535]
    for size, out in ((size, out) for size in sizes for out in [*sizes, 65, 2047, 2 * 65535 + 1]):
        for places in (*rows(size, out, *flags)[:2], nearest(size, out, *flags)):
            assert places.dtype == np.int32 and places.min() >= 0 and places.max() < size, (size, out)


def test_a_resize_that_reached_past_its_input_gives_what_it_read() -> None:
    """Of a constant image, in a pack that was written to read elsewhere."""
    plan = small(
        {"x": int8(1, 2, 1, 1), "size": of("int32", 2, data=4095), "y": int8(1, 4095, 4095, 1)}, "RESIZE_BILINEAR"
    )
    (y,) = Executor(read_pack(write_pack(plan, "far")).plan())(np.full((1, 2, 1, 1), 100, np.int8))
    assert (y == 100).all()


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
        ({"dtype": np.dtype(np.uint8), "data": ENTRIES.view(np.uint8)}, "expected 'table' to be int8"),
        ({"scale": np.float32([0.25])}, "to be of the scale and zero point of 'table'"),
        ({"zero_point": np.int32([4])}, "to be of the scale and zero point of 'table'"),
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
