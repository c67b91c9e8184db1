"""The .pack file: plans come back as written, and whatever is wrong with a file is said in one line."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import header_of, resigned, with_header

from edgecompress_runtime.operators import RECORDS
from edgecompress_runtime.options import FLOAT_MAX, FullyConnectedOptions
from edgecompress_runtime.pack import CODECS, PackError, read_pack, write_pack
from edgecompress_runtime.pack.header import DTYPES
from edgecompress_runtime.plan import Operator, Plan, Tensor

RUNTIME = Path(__file__).parents[2] / "runtime"


def small_plan() -> Plan:
    """input -> fully connected -> output, with a clustered and pruned weight that every coder has work on."""
    rng = np.random.default_rng(0)
    weight = rng.choice(np.array([-90, -31, 7, 44], np.int8), (8, 40)) * (rng.random((8, 40)) < 0.3)
    scales = np.linspace(0.001, 0.003, 8, dtype=np.float32)
    tensors = (
        Tensor("x", (1, 40), np.dtype("int8"), np.float32([0.1]), np.int32([-5])),
        Tensor("w", (8, 40), np.dtype("int8"), scales, np.zeros(8, np.int32), 0, weight.astype(np.int8)),
        Tensor('b\n"é', (8,), np.dtype("int32"), data=np.arange(-4, 4, dtype=np.int32)),
        Tensor("y", (1, 8), np.dtype("int8"), np.float32([1 / 3]), np.int32([3])),
    )
    operator = Operator("FULLY_CONNECTED", (0, 1, 2), (3,), FullyConnectedOptions(fused_activation_function=1))
    return Plan(tensors, (operator,), inputs=(0,), outputs=(3,))


def assert_same(a: Plan, b: Plan) -> None:
    assert (a.inputs, a.outputs, len(a.tensors)) == (b.inputs, b.outputs, len(b.tensors))
    for x, y in zip(a.tensors, b.tensors, strict=True):
        assert (x.name, x.shape, x.dtype, x.axis) == (y.name, y.shape, y.dtype, y.axis)
        assert x.scale.tobytes() == y.scale.tobytes() and x.zero_point.tobytes() == y.zero_point.tobytes()
        assert (x.data is None) == (y.data is None)
        if x.data is not None and y.data is not None:
            assert x.data.dtype == y.data.dtype and x.data.shape == y.data.shape
            assert x.data.tobytes() == y.data.tobytes()
    for o, p in zip(a.operators, b.operators, strict=True):
        assert (o.kind, o.inputs, o.outputs, o.options) == (p.kind, p.inputs, p.outputs, p.options)


@pytest.mark.parametrize("codecs", [("raw",), ("huffman",), ("sparse", "huffman"), tuple(CODECS)])
def test_a_plan_comes_back_as_written(codecs: tuple[str, ...], tmp_path: Path) -> None:
    data = write_pack(small_plan(), "demo", codecs=codecs)
    file = tmp_path / "m.pack"
    file.write_bytes(data)
    pack = read_pack(file)
    assert_same(pack.plan(), small_plan())
    assert (pack.model, pack.size) == ("demo", len(data))
    assert [e and e.codec in {"raw", *codecs} for e in pack.encoded] == [None, True, True, None]
    assert pack.digest == hashlib.sha256(data[:32] + data[64:]).hexdigest()
    assert write_pack(pack.plan(), pack.model, codecs=codecs) == data


def drawn(option: Field[Any]) -> st.SearchStrategy[Any]:
    """Values that an option may have."""
    allowed = option.metadata.get("range", range(-(2**63), 2**63))
    values: dict[Any, st.SearchStrategy[Any]] = {
        "int": st.integers(allowed[0], allowed[-1]),
        "int | tuple[int, int]": st.integers(allowed[0], allowed[-1]),  # no file has the tuple
        "bool": st.booleans(),
        "float": st.floats(-FLOAT_MAX, FLOAT_MAX),
        "list | None": st.none() | st.lists(st.integers(-1, 9), min_size=1, max_size=3),
    }
    return values[option.type]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_plan_comes_back(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    tensors = []
    for number in range(data.draw(st.integers(0, 6))):
        dtype = DTYPES[data.draw(st.sampled_from(sorted(DTYPES)))]
        shape = tuple(data.draw(st.lists(st.integers(0, 6), max_size=4)))
        axis = data.draw(st.integers(0, max(0, len(shape) - 1)))
        scales = data.draw(st.sampled_from([0, 1, shape[axis] if shape else 1]))
        scale = rng.exponential(size=scales).astype(np.float32) + np.float32(1e-30)
        zero_point = rng.integers(-(2**31), 2**31, scales).astype(np.int32)
        array = (rng.normal(0, 3, shape) if dtype != np.bool_ else rng.random(shape) < 0.5).__array__()
        constant = array.astype(dtype) if dtype.kind != "u" else np.abs(array).astype(dtype)
        tensors.append(Tensor(f"t{number}", shape, dtype, scale, zero_point, axis, constant))
    inputs = st.lists(st.integers(-1, len(tensors) - 1), max_size=3)
    kinds = st.text().filter(lambda kind: kind not in RECORDS)  # the others' tensors would have to fit
    operators = [Operator(data.draw(kinds), tuple(data.draw(inputs)), ()) for _ in range(2)]
    plan = Plan(tuple(tensors), tuple(operators), (), tuple(range(len(tensors))))
    name = data.draw(st.text())
    pack = read_pack(write_pack(plan, name))
    assert_same(pack.plan(), plan)
    assert pack.model == name


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_options_come_back(data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(list(RECORDS.values())))
    options = record.options(**{each.name: data.draw(drawn(each)) for each in fields(record.options)})
    plan = Plan((), (Operator(record.kind, (), (), options),), (), ())
    (operator,) = read_pack(write_pack(plan, "options")).graph.operators
    assert type(operator.options) is record.options and operator.options == options


def test_blobs_are_aligned_and_equal_ones_stored_once() -> None:
    twice = np.random.default_rng(0).integers(-128, 128, 1000).astype(np.int8)
    tensors = tuple(Tensor(f"t{i}", (1000,), twice.dtype, data=twice) for i in range(3))
    data = write_pack(Plan(tensors, (), (), (0, 1, 2)), "twice")
    assert data.count(twice.tobytes()) == 1 and data.index(twice.tobytes()) % 64 == 0
    assert len(data) < 1300


def test_an_encoding_can_be_chosen_per_tensor() -> None:
    def encode(index: int, tensor: Tensor) -> Any:
        return CODECS["rans"].encode(tensor.data) if tensor.name == "w" and tensor.data is not None else None

    pack = read_pack(write_pack(small_plan(), "demo", encode=encode))
    assert [e and e.codec for e in pack.encoded] == [None, "rans", "golomb", None]
    assert_same(pack.plan(), small_plan())


def refusal(data: bytes) -> str:
    """What reading says; that it is one line that says something."""
    with pytest.raises(PackError) as caught:
        read_pack(data).plan()
    message = str(caught.value)
    assert message.startswith("pack: ") and "\n" not in message and 20 < len(message) < 300
    return message


def test_every_flipped_byte_is_noticed() -> None:
    data = write_pack(small_plan(), "demo", codecs=CODECS)
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            refusal(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])


def test_every_truncation_and_extension_is_noticed() -> None:
    data = write_pack(small_plan(), "demo")
    for size in range(len(data)):
        assert "cut short" in refusal(data[:size])
    assert "extended" in refusal(data + b"\0")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**30), st.integers(1, 255))
def test_flips_under_right_checksums_give_a_plan_or_a_pack_error(at: int, flip: int) -> None:
    data = bytearray(write_pack(small_plan(), "demo", codecs=CODECS))
    data[at % len(data)] ^= flip
    try:
        plan = read_pack(resigned(data)).plan()
    except PackError as error:
        assert "\n" not in str(error)
    else:
        assert len(plan.tensors) == 4


@pytest.mark.parametrize("value", [0, 1, 63, 65, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("at", [8, 12, 16, 20, 64, 72])
def test_hostile_lengths_are_refused(at: int, value: int) -> None:
    """Every length and count in the binary part, under checksums that hold."""
    data = bytearray(write_pack(small_plan(), "demo"))
    right = struct.unpack_from("<I", data, at)[0]
    struct.pack_into("<I", data, at, value if value != right else right + 1)
    digest = hashlib.sha256(data[:32] + data[64:]).digest()
    refusal(bytes(data[:32] + digest + data[64:]))


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    data = write_pack(small_plan(), "demo")
    header = header_of(data)
    change(header)
    return with_header(data, json.dumps(header).encode())


def test_the_editing_of_these_tests_is_sound() -> None:
    assert_same(read_pack(edited(lambda header: header.update(later="unknown keys are ignored"))).plan(), small_plan())


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no format": (lambda h: h.pop("format"), "format is missing"),
    "another format": (lambda h: h.update(format="zip"), "expected 'edgecompress.pack', found 'zip'"),
    "another version": (lambda h: h.update(version=2), "version: expected an integer from 1 to 1, found 2"),
    "tensors is a number": (lambda h: h.update(tensors=7), "tensors: expected a list"),
    "a tensor is a number": (lambda h: h["tensors"].append(7), "tensors: item 4: expected an object, found 7"),
    "no name": (lambda h: h["tensors"][0].pop("name"), "name is missing"),
    "huge shape": (lambda h: h["tensors"][1].update(shape=[2**31 - 1] * 8), "'w': shape: expected at most"),
    "negative shape": (lambda h: h["tensors"][1].update(shape=[-1, 40]), "'w': shape: item 0: expected an integer"),
    "deep shape": (lambda h: h["tensors"][1].update(shape=[1] * 9), "a list of at most 8 items, found a list of 9"),
    "another shape": (lambda h: h["tensors"][1].update(shape=[8, 41]), "tensor 'w'"),
    "expansion": (lambda h: h["tensors"][2].update(shape=[2**30]), "1073741824 elements in 4 bytes"),
    "float shape": (lambda h: h["tensors"][1].update(shape=[8.0, 40]), "item 0: expected an integer"),
    "dtype": (lambda h: h["tensors"][1].update(dtype="object"), "dtype: expected one of int8"),
    "wider dtype": (lambda h: h["tensors"][2].update(dtype="int64"), "golomb: holds int16 and int32, not int64"),
    "scales": (lambda h: h["tensors"][1].update(scale=[1, 2, 3]), "expected 0, 1 or 8 scales"),
    "zero scale": (lambda h: h["tensors"][0].update(scale=[0]), "expected a positive float32"),
    "infinite scale": (lambda h: h["tensors"][0].update(scale=[float("inf")]), "Infinity is not JSON"),
    "huge integer scale": (lambda h: h["tensors"][0].update(scale=[10**4000]), "scale"),
    "zero point": (lambda h: h["tensors"][0].update(zero_point=[2**31]), "zero_point: item 0: expected an integer"),
    "axis": (lambda h: h["tensors"][1].update(axis=2), "axis: expected an integer from 0 to 1"),
    "blob": (lambda h: h["tensors"][1]["data"].update(blob=2), "blob: expected an integer from 0 to 1, found 2"),
    "negative blob": (lambda h: h["tensors"][1]["data"].update(blob=-1), "blob: expected an integer from 0 to 1"),
    "the other blob": (lambda h: h["tensors"][1]["data"].update(blob=1), "tensor 'w'"),
    "codec": (lambda h: h["tensors"][1]["data"].update(codec="zip"), "no codec is called 'zip'"),
    "params": (lambda h: h["tensors"][1]["data"].update(params=[]), "params: expected an object"),
    "input outside": (lambda h: h.update(inputs=[4]), "inputs: item 0: expected an integer from 0 to 3"),
    "input is a constant": (lambda h: h.update(inputs=[1]), "the caller writes tensor 1"),
    "output never written": (lambda h: h.update(operators=[]), "output tensor 3 is never written"),
    "read before written": (lambda h: h.update(inputs=[]), "reads tensor 0 before anything wrote it"),
    "written twice": (lambda h: h["operators"].append(h["operators"][0]), "operator 1 .* writes tensor 3"),
    "operand outside": (lambda h: h["operators"][0].update(inputs=[-2]), "item 0: expected an integer from -1 to 3"),
    "kind": (lambda h: h["operators"][0].update(kind=3), "kind: expected a string, found 3"),
    "option": (lambda h: h["operators"][0]["options"].update(a={}), "option 'a': expected a number"),
    "huge option": (lambda h: h["operators"][0]["options"].update(a=2**63), "an integer from -9223372036854775808"),
    "long option": (
        lambda h: h["operators"][0]["options"].update({"a" * 41: {}}),
        f"option {'a' * 40!r}: expected a number",
    ),
    "nested option": (lambda h: h["operators"][0]["options"].update(a=[[1]]), "option 'a': item 0: expected"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused(case: str) -> None:
    change, message = HOSTILE[case]
    with pytest.raises(PackError, match=message) as caught:
        read_pack(edited(change)).plan()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b'{"version":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"version":1e999}', "too large"),
        (b'{"version":NaN}', "NaN is not JSON"),
    ],
)
def test_headers_that_are_no_json_are_refused(header: bytes, message: str) -> None:
    assert message in refusal(with_header(write_pack(small_plan(), "demo"), header))


def test_a_header_can_not_inflate_beyond_what_it_states() -> None:
    data = write_pack(small_plan(), "demo")
    bomb = b" " * 10_000_000
    assert "not 100 bytes of JSON" in refusal(with_header(data, bomb, plain_size=100))
    assert "the format allows at most 67108864" in refusal(with_header(data, bomb, plain_size=2**32 - 1))


def test_the_file_s_name_is_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"absent\.pack: No such file"):
        read_pack(tmp_path / "absent.pack")
    other = tmp_path / "model.tflite"
    other.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    with pytest.raises(PackError, match=r"model\.tflite: not a \.pack file"):
        read_pack(other)
    newer = bytearray(write_pack(small_plan(), "demo"))
    newer[8] = 2
    with pytest.raises(PackError, match="the file has format version 2, but this reader knows only version 1"):
        read_pack(bytes(newer))


def test_what_can_not_be_read_back_is_not_written() -> None:
    good = small_plan()
    bad_scale = Tensor("x", (1, 40), np.dtype("int8"), np.float32([0]), np.int32([0]))
    with pytest.raises(PackError, match="'x': scale: item 0: expected a positive float32"):
        write_pack(Plan((bad_scale, *good.tensors[1:]), good.operators, (0,), (3,)), "demo")
    with pytest.raises(PackError, match="'d': expected int8"):
        write_pack(Plan((Tensor("d", (2,), np.dtype("int8"), data=np.zeros(2)),), (), (), (0,)), "demo")
    with pytest.raises(PackError, match="no codec is called lzma"):
        write_pack(good, "demo", codecs=["lzma"])


def test_reading_a_raw_pack_compiles_nothing(tmp_path: Path) -> None:
    file = tmp_path / "m.pack"
    file.write_bytes(write_pack(small_plan(), "demo", codecs=["raw", "bitpacked"]))
    code = "import sys; from edgecompress_runtime.pack import read_pack; read_pack(sys.argv[1]).plan(); \
print({'numba', 'llvmlite'} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(RUNTIME)}
    command = [sys.executable, "-c", code, str(file)]
    loaded = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert loaded == "set()\n", "a codec imports its kernels inside its methods"
