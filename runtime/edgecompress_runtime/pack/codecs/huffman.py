"""Canonical Huffman codes of at most 12 bits (FORMAT.md, "huffman").

One stream of bits for the whole array, in element order, so that a row can follow a row with a bit
position as the only state. Large arrays also note where the second half starts, which lets a host decode
both halves at once; who reads in order can ignore it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecompress_runtime.pack.codec import Buffer, Codec, Encoded, register, symbols
from edgecompress_runtime.pack.entropy.huffman_code import ALPHABET, MAX_LENGTH, canonical_codes, short_code_lengths
from edgecompress_runtime.pack.errors import PackError
from edgecompress_runtime.pack.fields import integer, member, sequence

HALVES_FROM = 1 << 16  # symbols; below that, the second chain saves less than its parameter costs
WIDE_TABLE_FROM = 1 << 13  # symbols; below that, filling a 12-bit table takes longer than it saves


@register
class Huffman(Codec):
    """Non-empty arrays of 1-byte elements."""

    name = "huffman"
    order = 30
    of_indices = True

    def encode(self, array: np.ndarray) -> Encoded | None:
        """By the code that `short_code_lengths` gives."""
        # imported where used, here and below: a pack without Huffman codes is read without loading Numba
        from edgecompress_runtime.pack.entropy.huffman_kernels import write_codes

        values = symbols(array)
        if values is None or not values.size:
            return None
        counts = np.bincount(values)
        lengths = short_code_lengths(counts)
        out = np.zeros((int(counts @ lengths) + 7) // 8, np.uint8)
        write_codes(values, canonical_codes(lengths), lengths, out)
        params: dict[str, Any] = {"lengths": lengths.tolist()}
        if values.size >= HALVES_FROM:
            params["middle"] = int(lengths[values[: values.size // 2]].sum(dtype=np.int64))
        return Encoded(self.name, params, out.tobytes())

    def decode(self, data: Buffer, params: dict[str, Any], out: np.ndarray) -> np.ndarray:
        """Both halves at once where the middle is known."""
        from edgecompress_runtime.pack.entropy.huffman_kernels import decode_pair, decode_run, fill_tables

        values = symbols(out)
        if values is None:
            raise PackError(f"huffman: holds elements of 1 byte, not {out.dtype}")
        lengths = np.array(member(params, "lengths", sequence, ALPHABET, integer, 0, MAX_LENGTH), np.uint8)
        codes = canonical_codes(lengths)
        bits = MAX_LENGTH if values.size >= WIDE_TABLE_FROM else int(lengths.max())
        first, table = np.empty(1 << bits, np.uint16), np.empty(1 << bits, np.uint64)
        fill_tables(codes, lengths, bits, first, table)
        mask = np.uint64((1 << bits) - 1)
        words = _words(data)

        half, starts, done = 0, np.zeros(2, np.int64), (0, 0)
        if "middle" in params:
            half = values.size // 2
            starts[1] = middle = member(params, "middle", integer, 0, 8 * len(data))
            done = decode_pair(words, table, mask, values, half, starts)
            if decode_run(words, first, table, mask, values[:half], done[0], starts[0]) != middle:
                raise PackError(f"huffman: the first {half} symbols do not end at bit {middle}")
        end = decode_run(words, first, table, mask, values[half:], done[1], starts[1])
        if end < 0 or (end + 7) // 8 != len(data):
            raise PackError(f"huffman: {len(data)} bytes do not hold {values.size} symbols")
        return out


def _words(data: Buffer) -> np.ndarray:
    """Bytes -> uint64 words, with at least 64 bits of zeros behind them: a window reads two words."""
    words = np.zeros(len(data) // 8 + 2, "<u8")
    words.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
    return words.astype(np.uint64, copy=False)
