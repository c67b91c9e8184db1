"""Random input through the compiled decoders; test_codecs.py runs this with NUMBA_BOUNDSCHECK=1."""

from __future__ import annotations

import numpy as np

from edgecompress_runtime.pack import CODECS, PackError, decode
from edgecompress_runtime.pack.codecs.rans import normalised
from edgecompress_runtime.pack.entropy.huffman_code import code_lengths

ROUNDS = 3000


def main() -> None:
    # that the check is on: a table too short must raise, or the rest would prove nothing
    from edgecompress_runtime.pack.entropy.rans_kernels import decode as decode_rans

    try:
        decode_rans(np.full(8, 65535, np.uint16), np.zeros(1, np.uint32), np.zeros(4, np.uint8))
    except IndexError as error:
        print(f"the check is on: {type(error).__name__}")

    rng = np.random.default_rng(0)
    decoded = 0
    for _ in range(ROUNDS):
        name, params, data, size = (huffman, rans)[rng.integers(2)](rng)
        try:
            decode(name, params, data, (size,), np.dtype(np.uint8))
            decoded += 1
        except PackError:
            pass
    print(f"{decoded} of {ROUNDS} decoded")
    assert 0 < decoded < ROUNDS


def huffman(rng: np.random.Generator) -> tuple[str, dict, bytes, int]:
    counts = (rng.exponential(100, rng.integers(2, 257)) ** rng.integers(1, 4)).astype(np.int64)
    lengths = code_lengths(counts + 1, int(rng.integers(8, 13)))
    values = rng.integers(0, counts.size, int(rng.integers(1, 400)) ** rng.integers(1, 3)).astype(np.uint8)
    bits = int(lengths[values].sum(dtype=np.int64))
    data = rng.bytes(max(0, (bits + 7) // 8 + int(rng.integers(-3, 4))))
    params = {"lengths": lengths.tolist()}
    if rng.random() < 0.7:
        params["middle"] = int(rng.integers(0, 8 * len(data) + 1))
    return "huffman", params, data, values.size


def rans(rng: np.random.Generator) -> tuple[str, dict, bytes, int]:
    values = rng.integers(0, rng.integers(1, 257), int(rng.integers(1, 3000))).astype(np.uint8)
    if rng.random() < 0.1:  # a sound one now and then
        encoded = CODECS["rans"].encode(values)
        return "rans", encoded.params, encoded.data, values.size
    counts = np.bincount(rng.integers(0, 256, 300) // rng.integers(1, 9))
    data = rng.bytes(2 * int(rng.integers(2, 2 + values.size)))
    return "rans", {"frequencies": normalised(counts).tolist()}, data, values.size
