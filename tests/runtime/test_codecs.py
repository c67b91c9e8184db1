"""Every codec: what goes in comes out, sizes are what theory says, and any bytes are safe."""

from __future__ import annotations

import heapq
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgecompress_runtime.pack import CODECS, PackError, codecs, decode, encode_smallest
from edgecompress_runtime.pack.codecs import codec_table
from edgecompress_runtime.pack.codecs.rans import normalised
from edgecompress_runtime.pack.entropy.huffman_code import canonical_codes, code_lengths, short_code_lengths
from edgecompress_runtime.pack.header import DTYPES

ROOT = Path(__file__).parents[2]


@st.composite
def arrays(draw: st.DrawFn, most: int = 3000) -> np.ndarray:
    """Any dtype, 0 to 3 dimensions, from constant over clustered and sparse to noise, and extreme values."""
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    shape = draw(st.sampled_from([(), (0,), (1,), (0, 3), (7, 1, 5), (2, 700)]) | st.tuples(st.integers(0, most)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.integers(0, 256, (draw(st.integers(1, 300)), dtype.itemsize), np.uint8)
    if draw(st.booleans()):  # small numbers, as weights are
        values = np.arange(len(values))[:, None].astype(DTYPES["int8"] if dtype.itemsize == 1 else dtype)
    values = np.ascontiguousarray(values).view(np.uint8).reshape(-1, dtype.itemsize)
    if draw(st.booleans()):
        values[0] = 0
    skew = rng.exponential(size=len(values)) ** draw(st.integers(0, 30))
    picked = values[rng.choice(len(values), int(np.prod(shape)), p=skew / skew.sum())]
    if dtype == np.bool_:
        picked &= 1
    return np.ascontiguousarray(picked).reshape(-1).view(dtype).reshape(shape)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit for bit: NaN payloads and the sign of zero count."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@settings(max_examples=150, deadline=None)
@example(np.zeros(100_000, np.int8))
@example(np.full(70_000, -3, np.int8))
@example(np.arange(70_000, dtype=np.int32))
@given(arrays())
def test_every_codec_returns_what_it_was_given(array: np.ndarray) -> None:
    coded = array.view(np.uint8) if array.dtype == np.bool_ else array
    held = set()
    for name, codec in CODECS.items():
        if (encoded := codec.encode(coded)) is not None:
            assert encoded.codec == name
            out = np.full_like(coded, 77)
            assert codec.decode(encoded.data, encoded.params, out) is out
            assert same(out, coded), name
            held.add(name)
    assert {"raw", "sparse"} <= held
    assert ("golomb" in held) == (array.dtype in (np.int16, np.int32) and array.size <= 65_536)
    if array.size and array.itemsize == 1:
        assert held >= {"bitpacked", "huffman", "rans", "codebook"}


def test_codecs_keep_their_order() -> None:
    """Of encodings of one size the first is taken, so another order writes other packs. New codecs may come between."""
    order = ["raw", "bitpacked", "huffman", "rans", "golomb", "codebook", "sparse"]
    assert [name for name in CODECS if name in order] == order


@pytest.mark.parametrize("file", sorted(Path(codecs.__file__).parent.glob("[!_]*.py")), ids=lambda file: file.stem)
def test_a_codec_is_the_class_in_its_file(file: Path) -> None:
    assert file.stem in CODECS, f"{file.name}: expected a class with @register and the name {file.stem!r}"


@settings(max_examples=60, deadline=None)
@given(arrays(), st.sets(st.sampled_from(sorted(CODECS))))
def test_the_smallest_encoding_is_the_smallest(array: np.ndarray, allowed: set[str]) -> None:
    name, params, data = encoded = encode_smallest(array, allowed)
    assert same(decode(name, params, data, array.shape, array.dtype), array)
    assert name in allowed | {"raw"}
    assert len(data) <= array.nbytes
    for other in codec_table({"raw", *allowed}).values():  # sparse codes its values in raw, too
        found = other.encode(array.view(np.uint8) if array.dtype == np.bool_ else array)
        if found is not None and 4096 * (len(found.data) + 1) >= array.size:
            assert encoded.size <= found.size


@pytest.mark.parametrize("size", [8191, 8192, 65_535, 65_536, 65_537, 300_000])
@pytest.mark.parametrize("spread", [0.1, 3, 90])
def test_huffman_at_the_sizes_where_it_decodes_differently(size: int, spread: float) -> None:
    values = np.random.default_rng(size).normal(0, spread, size).clip(-128, 127).astype(np.int8)
    encoded = CODECS["huffman"].encode(values)
    assert ("middle" in encoded.params) == (size >= 65_536)
    assert same(CODECS["huffman"].decode(encoded.data, encoded.params, np.empty_like(values)), values)


def entropy(values: np.ndarray) -> float:
    """Bits for the whole array."""
    _, counts = np.unique(values, return_counts=True)
    return float(-(counts * np.log2(counts / counts.sum())).sum())


@pytest.mark.parametrize("spread", [0.3, 1, 2.6, 20])
def test_entropy_coders_come_close_to_the_entropy(spread: float) -> None:
    values = np.random.default_rng(0).normal(0, spread, 200_000).clip(-128, 127).round().astype(np.int8)
    bound = entropy(values) / 8
    huffman, rans = (len(CODECS[name].encode(values).data) for name in ("huffman", "rans"))
    assert bound <= rans + 4  # the state's 4 bytes aside, nothing beats the entropy
    assert rans < 1.002 * bound + 8
    assert rans <= huffman < bound + 200_000 / 8  # Huffman loses less than a bit a symbol


def test_sparse_beats_huffman_where_a_symbol_would_need_less_than_a_bit() -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random(100_000) < 0.05, rng.integers(-127, 128, 100_000), 0).astype(np.int8)
    assert encode_smallest(values).codec == "sparse"
    assert len(encode_smallest(values).data) < 0.6 * len(CODECS["huffman"].encode(values).data)


def heap_huffman_cost(counts: list[int]) -> int:
    """Bits of an unlimited Huffman code: the sum of all inner nodes' weights."""
    heap, cost = sorted(counts), 0
    while len(heap) > 1:
        heapq.heappush(heap, both := heapq.heappop(heap) + heapq.heappop(heap))
        cost += both
    return cost


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=256))
def test_code_lengths_cost_as_much_as_a_heap_s(counts: list[int]) -> None:
    cost = int(np.array(counts) @ code_lengths(np.array(counts), 12).astype(int))
    assert cost == heap_huffman_cost(counts)  # counts this even never need more than 12 bits


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=6), st.integers(3, 4))
def test_limited_code_lengths_are_the_best_of_all_possible(counts: list[int], limit: int) -> None:
    lengths = code_lengths(np.array(counts), limit).astype(int)
    possible = product(range(1, limit + 1), repeat=len(counts))
    best = min(np.array(counts) @ t for t in map(np.array, possible) if (2.0**-t).sum() <= 1)
    assert lengths.max() <= limit and (2.0**-lengths).sum() == 1
    assert np.array(counts) @ lengths == best


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=256).filter(any))
def test_short_codes_are_complete_and_cost_next_to_nothing(counts: list[int]) -> None:
    array = np.array(counts)
    lengths = short_code_lengths(array)
    assert ((lengths > 0) == (array > 0)).all()
    assert array @ lengths.astype(int) <= 1.001 * (array @ code_lengths(array, 12).astype(int))
    codes = {(f"{c:0{n}b}"[::-1]) for c, n in zip(canonical_codes(lengths), lengths, strict=True) if n}
    assert len(codes) == np.count_nonzero(lengths)
    assert not any(a != b and a.startswith(b) for a in codes for b in codes)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=256).filter(any))
def test_rans_frequencies_fill_the_table_and_forget_no_symbol(counts: list[int]) -> None:
    frequencies = normalised(np.array(counts))
    assert frequencies.sum() == 4096
    assert ((frequencies > 0) == (np.array(counts) > 0)).all()


def decoded_or_refused(name: str, params: Any, data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> None:
    try:
        array = decode(name, params, data, shape, dtype)
    except PackError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 400
    else:
        assert array.shape == shape and array.dtype == dtype


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(arrays(300), st.data())
def test_damaged_encodings_give_an_array_or_a_pack_error(array: np.ndarray, data: st.DataObject) -> None:
    name, params, blob = encode_smallest(array, [data.draw(st.sampled_from(sorted(CODECS))), "huffman", "rans"])
    damaged = bytearray(blob)
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged
    damaged += data.draw(st.binary(max_size=9))
    if params and data.draw(st.booleans()):
        params = params | {data.draw(st.sampled_from(sorted(params))): data.draw(JSON)}
    shape = data.draw(st.sampled_from([array.shape, (array.size + 1,), (array.size // 2,), (2**31 - 1,)]))
    decoded_or_refused(name, params, bytes(damaged), shape, array.dtype)
    decoded_or_refused(data.draw(st.sampled_from(sorted(CODECS))), params, bytes(damaged), shape, array.dtype)


def complete_lengths(rng: np.random.Generator) -> list[int]:
    return code_lengths(rng.integers(0, 1000, rng.integers(2, 257)) + 1, int(rng.integers(8, 13))).tolist()


HOSTILE: dict[str, tuple[str, dict[str, Any], bytes, int, str]] = {
    "huffman: codes that overlap": ("huffman", {"lengths": [1, 1, 1]}, b"\0", 8, "code lengths fill"),
    "huffman: codes with a hole": ("huffman", {"lengths": [2, 2]}, b"\0", 4, "code lengths fill"),
    "huffman: no code": ("huffman", {"lengths": []}, b"", 0, "code lengths fill"),
    "huffman: 257 symbols": ("huffman", {"lengths": [9] * 257}, b"", 1, "at most 256 items"),
    "huffman: length 13": ("huffman", {"lengths": [13]}, b"", 1, "from 0 to 12"),
    "huffman: true is no length": ("huffman", {"lengths": [True, True]}, b"\0", 1, "found True"),
    "huffman: middle outside": ("huffman", {"lengths": [1, 1], "middle": 2**40}, b"\0", 8, "from 0 to 8"),
    "huffman: middle elsewhere": ("huffman", {"lengths": [1, 1], "middle": 3}, b"\0", 8, "end at bit 3"),
    "huffman: too few bits": ("huffman", {"lengths": [1, 1]}, b"\0", 9, "do not hold 9"),
    "huffman: too many bytes": ("huffman", {"lengths": [1, 1]}, b"\0\0", 8, "do not hold 8"),
    "rans: frequencies": ("rans", {"frequencies": [4095]}, b"\0\0\1\0", 1, "add up to 4095"),
    "rans: odd bytes": ("rans", {"frequencies": [4096]}, b"\0\0\1\0\0", 1, "even number"),
    "rans: no state": ("rans", {"frequencies": [4096]}, b"", 1, "even number"),
    "rans: ends elsewhere": ("rans", {"frequencies": [4096]}, b"\1\0\1\0", 1, "do not hold 1"),
    "rans: out of words": ("rans", {"frequencies": [1, 4095]}, b"\0\0\1\0", 99, "do not hold 99"),
    "bitpacked: 9 bits": ("bitpacked", {"bits": 9}, b"\0" * 9, 8, "from 1 to 8"),
    "raw: one too few": ("raw", {}, b"\0" * 7, 8, "expected 8 bytes, found 7"),
    "codebook: index outside": (
        "codebook",
        {"centroids": [1, 2, 3], "indices": {"codec": "bitpacked", "params": {"bits": 2}}},
        b"\xff",
        4,
        "index 3 among 3 centroids",
    ),
    "codebook: centroid outside": (
        "codebook",
        {"centroids": [128], "indices": {"codec": "bitpacked", "params": {"bits": 1}}},
        b"\0",
        4,
        "from -128 to 127",
    ),
    "codebook: of a codebook": (
        "codebook",
        {"centroids": [1], "indices": {"codec": "codebook", "params": {}}},
        b"",
        4,
        "no index codec 'codebook'",
    ),
    "sparse: past the end": (
        "sparse",
        {
            "gaps": {"codec": "bitpacked", "params": {"bits": 8}, "count": 2, "bytes": 2},
            "values": {"codec": "raw", "params": {}},
        },
        b"\5\5\1\1",
        11,
        "gaps pass 12 elements of 11",
    ),
    "sparse: gaps outside the blob": (
        "sparse",
        {"gaps": {"codec": "raw", "params": {}, "count": 2, "bytes": 9}, "values": {"codec": "raw", "params": {}}},
        b"\5\5\1\1",
        12,
        "bytes: expected an integer from 0 to 4",
    ),
    "a codec nobody knows": ("zip\n", {}, b"", 1, r"no codec is called 'zip\\n'"),
    "elements without bytes": ("raw", {}, b"", 2**31 - 1, "2147483647 elements in 0 bytes"),
}


WIDE: dict[str, tuple[str, int, bytes, int, str]] = {
    "of bytes": ("int8", 0, b"\1", 1, "holds int16 and int32, not int8"),
    "of 64 bits": ("int64", 0, b"\1", 1, "holds int16 and int32, not int64"),
    "an order as large as the numbers": ("int16", 16, b"\1", 1, "order: expected an integer from 0 to 15"),
    "fewer bits than numbers": ("int32", 0, b"\xff", 9, "1 bytes do not hold 9 numbers"),
    "zeros to the end": ("int32", 0, b"\1\0", 9, "end after 1 of 9 numbers"),
    "digits behind the end": ("int32", 9, b"\0\1", 1, "2 bytes do not hold 1 numbers"),
    "bytes left": ("int32", 0, b"\1\0", 1, "2 bytes do not hold 1 numbers"),
    "more digits than a number has": ("int16", 0, bytes(2) + b"\2" + bytes(2), 1, "do not hold 1 numbers of 16 bits"),
    "a number too large": ("int16", 0, bytes(2) + b"\1\2\0", 1, "a number has more than 16 bits"),
    "more than are read one by one": ("int16", 0, b"\xff" * 10_000, 70_000, "at most 65536 numbers, not 70000"),
    "huge": ("int32", 0, bytes(999) + b"\x80" + bytes(1000), 1, "do not hold 1 numbers of 32 bits"),
}


@pytest.mark.parametrize("case", WIDE)
def test_hostile_codes_of_wide_numbers_are_named(case: str) -> None:
    dtype, order, data, size, message = WIDE[case]
    with pytest.raises(PackError, match=message):
        decode("golomb", {"order": order}, data, (size,), np.dtype(dtype))


@pytest.mark.parametrize("spread", [3, 1000, 3e6])
@pytest.mark.parametrize("count", [16, 64, 5000])
def test_biases_take_little_more_than_their_entropy(count: int, spread: float) -> None:
    """A Laplacian's entropy is log2(2 e spread) bits (T. Cover and J. Thomas, Elements of Information Theory, table
    17.1)."""
    rng = np.random.default_rng(0)
    many = [np.rint(rng.laplace(0, spread, count)).astype(np.int32) for _ in range(min(200, 20000 // count))]
    encoded = [encode_smallest(values) for values in many]
    assert spread == 3 or {e.codec for e in encoded} == {"golomb"}
    bits = 8 * np.mean([len(CODECS["golomb"].encode(values).data) for values in many]) / count
    assert abs(bits - np.log2(2 * np.e * spread)) < 0.4 + 8 / count


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_parameters_are_named(case: str) -> None:
    name, params, data, size, message = HOSTILE[case]
    with pytest.raises(PackError, match=message):
        decode(name, params, data, (size,), np.dtype(np.int8))


def test_no_kernel_leaves_its_arrays(tmp_path: Path) -> None:
    """Random bytes, lengths and counts through every compiled decoder, built with Numba's bounds check.

    A process and a cache of its own: functions compiled earlier check nothing.
    """
    folders = os.pathsep.join([str(ROOT / "runtime"), str(Path(__file__).parent)])
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": folders}
    command = [sys.executable, "-c", "import fuzz_kernels; fuzz_kernels.main()"]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | checked)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "the check is on: IndexError" in run.stdout


@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize("kind", ["float16", "float32"])
@pytest.mark.parametrize("name", ["codebook", "sparse", "raw"])
def test_the_largest_floats_come_back(name: str, kind: str, lowest: bool) -> None:
    """The shortest decimal of the largest float32 is above it: causal masks are full of its negative."""
    dtype = np.dtype(kind)
    limit = np.finfo(dtype).min if lowest else np.finfo(dtype).max
    array = np.triu(np.full((12, 12), limit, dtype), 1)
    encoded = CODECS[name].encode(array)
    assert encoded is not None
    found = CODECS[name].decode(encoded.data, encoded.params, np.empty(array.shape, dtype))
    assert same(found, array)
