"""A second reader, written from runtime/FORMAT.md alone: struct, json and zlib, none of our code."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_pack import small_plan

from edgecompress_runtime.pack import CODECS, write_pack
from edgecompress_runtime.plan import Plan, Tensor

FORMAT = Path(__file__).parents[2] / "runtime" / "FORMAT.md"
ELEMENT = {"int8": "b", "uint8": "B", "int16": "h", "int32": "i", "int64": "q", "bool": "?"}
ELEMENT |= {"float16": "e", "float32": "f"}
Decoder = Callable[[bytes, dict, int, str], list]  # blob, params, number of elements, dtype -> the elements
DECODERS: dict[str, Decoder] = {}
CHOICES = [*[(name,) for name in CODECS], ("sparse", "huffman"), ("codebook", "rans"), tuple(CODECS)]


def parse(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """(header, blobs), as in "File"."""
    magic, version, stored, plain, count, size, digest = struct.unpack_from("<8sIIIIQ32s", data)
    assert magic == bytes.fromhex("89 45 43 50 0D 0A 1A 0A") and version == 1 and size == len(data)
    assert hashlib.sha256(data[:32] + data[64:]).digest() == digest
    end = 64 + 8 * count + stored
    header = zlib.decompress(data[end - stored : end])
    assert len(header) == plain
    blobs = []
    for blob in range(count):
        length, crc = struct.unpack_from("<II", data, 64 + 8 * blob)
        start = (end + 63) // 64 * 64
        assert not any(data[end:start])
        end = start + length
        blobs.append(data[start:end])
        assert zlib.crc32(blobs[-1]) == crc
    assert end == len(data)
    return json.loads(header), blobs


def bits_of(data: bytes) -> str:
    return "".join(f"{byte:08b}"[::-1] for byte in data)


def decoder(function: Decoder) -> Decoder:
    """Marks a codec's decoder, which is called as the codec."""
    DECODERS[function.__name__] = function
    return function


def read(encoding: dict, data: bytes, n: int, dtype: str) -> list:
    name = encoding["codec"]
    assert name in DECODERS, f'{Path(__file__).name}: write "@decoder def {name}" from the paragraph of FORMAT.md alone'
    return DECODERS[name](data, encoding["params"], n, dtype)


@decoder
def raw(data: bytes, params: dict, n: int, dtype: str) -> list:
    return list(struct.unpack(f"<{n}{ELEMENT[dtype]}", data))


@decoder
def bitpacked(data: bytes, params: dict, n: int, dtype: str) -> list[int]:
    bits, w = bits_of(data), params["bits"]
    assert len(data) == math.ceil(n * w / 8)
    return [int(bits[i * w : (i + 1) * w][::-1], 2) for i in range(n)]


@decoder
def huffman(data: bytes, params: dict, n: int, dtype: str) -> list[int]:
    code, meaning = 0, {}
    for length in range(1, 13):
        for symbol, own in enumerate(params["lengths"]):
            if own == length:
                meaning[f"{code:0{length}b}"] = symbol
                code += 1
        code <<= 1
    bits, at, out = bits_of(data), 0, []
    for i in range(n):
        if i == n // 2 and "middle" in params:
            assert at == params["middle"]
        length = 1
        while bits[at : at + length] not in meaning:
            length += 1
        out.append(meaning[bits[at : at + length]])
        at += length
    assert math.ceil(at / 8) == len(data)
    return out


@decoder
def rans(data: bytes, params: dict, n: int, dtype: str) -> list[int]:
    words = list(struct.unpack(f"<{len(data) // 2}H", data))
    x = words.pop(0) + 65536 * words.pop(0)
    words.reverse()
    slots = [(s, f, i) for s, f in enumerate(params["frequencies"]) for i in range(f)]
    assert len(slots) == 4096
    out = []
    for _ in range(n):
        s, frequency, into = slots[x % 4096]
        out.append(s)
        x = frequency * (x // 4096) + into
        if x < 65536:
            x = 65536 * x + words.pop()
    assert x == 65536 and not words
    return out


@decoder
def golomb(data: bytes, params: dict, n: int, dtype: str) -> list[int]:
    bits, k, at, out = bits_of(data), params["order"], 0, []
    for _ in range(n):
        one = bits.index("1", at)
        m = one - at + k
        digits = bits[one + 1 : one + 1 + m]
        u = int("1" + digits[::-1], 2) - 2**k
        out.append(-(u + 1) // 2 if u % 2 else u // 2)
        at = one + 1 + m
    assert math.ceil(at / 8) == len(data)
    return out


@decoder
def codebook(data: bytes, params: dict, n: int, dtype: str) -> list:
    return [params["centroids"][i] for i in read(params["indices"], data, n, "uint8")]


@decoder
def sparse(data: bytes, params: dict, n: int, dtype: str) -> list:
    where, what = params["gaps"], params["values"]
    gaps = read(where, data[: where["bytes"]], where["count"], "uint8")
    count = sum(g != 255 for g in gaps)
    stored = read(what, data[where["bytes"] :], count, dtype)
    values = signed(stored, dtype)
    out: list = []
    for gap in gaps:
        out += [0] * gap
        if gap != 255:
            out.append(values.pop(0))
    assert len(out) <= n and not values
    return out + [0] * (n - len(out))


def signed(values: list, dtype: str) -> list:
    """What codecs of 1-byte elements give as unsigned bytes, as the tensor's type."""
    return [v - 256 if v > 127 else v for v in values] if dtype == "int8" else values


def constants(data: bytes) -> dict[str, list]:
    header, blobs = parse(data)
    assert header["format"] == "edgecompress.pack" and header["version"] == 1
    found: dict[str, list] = {}
    for tensor in header["tensors"]:
        if encoding := tensor["data"]:
            blob, n = blobs[encoding["blob"]], math.prod(tensor["shape"])
            assert n <= 4096 * (len(blob) + 1)
            values = read(encoding, blob, n, tensor["dtype"])
            found[tensor["name"]] = signed(values, tensor["dtype"])
    return found


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    pruned = rng.normal(0, 20, 5000) * (rng.random(5000) < 0.04)
    weights = rng.normal(0, 3, 5000).round()
    return {
        "weights": weights.astype(np.int8).reshape(50, 10, 10),
        "pruned": pruned.astype(np.int8),
        "clustered": rng.choice(np.array([-99, -40, 0, 40, 99], np.int8), 9000, p=[0.02, 0.03, 0.9, 0.04, 0.01]),
        "pruned_float": pruned.astype(np.float32),
        "long": rng.normal(0, 1, 70_001).round().astype(np.int8),
        "half": (weights / 4).astype(np.float16),
        "bias": rng.integers(-(2**31), 2**31, 40).astype(np.int32),
        "biases": rng.laplace(0, 900, 64).round().astype(np.int32),
        "short": rng.laplace(0, 90, 700).round().astype(np.int16),
        "few": (rng.laplace(0, 9e5, 3000) * (rng.random(3000) < 0.1)).astype(np.int32),
        "wide": rng.integers(-3, 3, 900),
        "flags": rng.random(77) < 0.1,
        "constant": np.full(2000, -1, np.int8),
        "zeros": np.zeros(9000, np.int16),
        "nothing": np.zeros((0, 4), np.float32),
        "one": np.array(-7, np.int8),
    }


def test_codecs_are_specified_in_their_order() -> None:
    """A codec's parts are in those described before it, so the order belongs to the format."""
    headings = re.findall(r"^### `(\w+)`$", FORMAT.read_text(encoding="utf-8"), re.M)
    specified = [name for name in CODECS if name in headings]
    assert headings == specified, f'runtime/FORMAT.md, "Encodings": the order is {", ".join(specified)}'


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_is_specified(name: str) -> None:
    encodings, states = FORMAT.read_text(encoding="utf-8").split("\n## Encodings\n")[1].split("\n## ")[:2]
    paragraph = encodings.partition(f"\n### `{name}`\n\n")[2]
    assert paragraph, f'runtime/FORMAT.md, "Encodings": write a paragraph "### `{name}`" that says what its bytes are'
    assert paragraph.startswith("For 1-byte elements") == CODECS[name].of_indices, (
        f"runtime/FORMAT.md, `{name}`: codecs with of_indices, and no others, are those For 1-byte elements"
    )
    rows = "\n".join(line.split("|")[1] for line in states.splitlines() if line.startswith("|"))
    assert f"`{name}`" in rows, f'runtime/FORMAT.md, "Decoding row by row": write which state `{name}` keeps'


@pytest.mark.parametrize("allowed", CHOICES)
def test_the_second_reader_finds_the_same_constants(allowed: tuple[str, ...]) -> None:
    given = arrays()
    tensors = tuple(Tensor(name, a.shape, a.dtype, data=a) for name, a in given.items())
    found = constants(write_pack(Plan(tensors, (), (), tuple(range(len(tensors)))), "m", codecs=allowed))
    for name, array in given.items():
        assert np.array(found[name], array.dtype).tobytes() == array.tobytes(), name


def test_every_codec_is_met() -> None:
    """What the test above claims: that its arrays lead to each codec, and to parts in several."""
    met = set()
    for allowed in CHOICES:
        for array in arrays().values():
            tensors = (Tensor("t", array.shape, array.dtype, data=array),)
            header, _ = parse(write_pack(Plan(tensors, (), (), (0,)), "m", codecs=allowed))
            data = header["tensors"][0]["data"]
            met.add(data["codec"])
            parts = {key: data["params"].get(key) for key in ("gaps", "values", "indices")}
            met |= {f"{key} {part['codec']}" for key, part in parts.items() if part}
    parts = {"gaps huffman", "values raw", "values huffman", "indices huffman", "indices rans"}
    unmet = (set(CODECS) | parts) - met
    assert not unmet, f"arrays(): add one that is smallest in {', '.join(sorted(unmet))}"


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_centroids_have_as_few_digits_as_scales(dtype: type) -> None:
    values = np.array([-0.1, 0.0, 1 / 3, 1e-7], dtype)
    weights = np.random.default_rng(0).choice(values, 4000)
    header, _ = parse(write_pack(Plan((Tensor("w", (4000,), weights.dtype, data=weights),), (), (), (0,)), "m"))
    listed = header["tensors"][0]["data"]["params"]["centroids"]
    np.testing.assert_array_equal(np.array(listed, np.float64).astype(dtype), np.sort(values))
    assert listed[0] == -0.1 and all(len(str(x)) <= (9 if dtype == np.float16 else 11) for x in listed)


def test_the_header_says_what_the_plan_said() -> None:
    header, _ = parse(write_pack(small_plan(), "demo"))
    x, w, b, y = header["tensors"]
    assert (header["model"], header["inputs"], header["outputs"]) == ("demo", [0], [3])
    assert (x["name"], x["shape"], x["dtype"], x["data"]) == ("x", [1, 40], "int8", None)
    assert x["scale"] == [0.1] and x["zero_point"] == [-5]  # as few digits as a float32 needs
    assert y["scale"] == [0.33333334]
    assert len(w["scale"]) == 8 and w["axis"] == 0
    assert b["name"] == 'b\n"é' and b["data"]["codec"] == "golomb"
    assert header["operators"] == [
        {
            "kind": "FULLY_CONNECTED",
            "inputs": [0, 1, 2],
            "outputs": [3],
            "options": {
                "fusedActivationFunction": 1,
                "weightsFormat": 0,
                "keepNumDims": False,
                "asymmetricQuantizeInputs": False,
                "quantizedBiasType": 0,
            },
        }
    ]
