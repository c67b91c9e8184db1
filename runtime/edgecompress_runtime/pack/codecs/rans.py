"""Range asymmetric numeral systems (Duda, arXiv:1311.2540): within 0.1 % of the entropy, also below 1 bit.

Probabilities are multiples of 1/4096; the state is 32 bits wide and takes in 16 bits at a time (FORMAT.md,
"rans"). The encoder works backwards, so a decoder goes forward and may stop after any row: its state is
the 32-bit number and a position. Slower to decode than Huffman: one symbol a step, and a multiplication.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecompress_runtime.pack.codec import Buffer, Codec, Encoded, register, symbols
from edgecompress_runtime.pack.errors import PackError
from edgecompress_runtime.pack.fields import integer, member, sequence

PRECISION = 12
TOTAL = 1 << PRECISION


@register
class Rans(Codec):
    """Non-empty arrays of 1-byte elements."""

    name = "rans"
    order = 40
    of_indices = True
    slow = "makes it about 1 % smaller and decodes several times slower"

    def encode(self, array: np.ndarray) -> Encoded | None:
        """By frequencies in 4096ths."""
        from edgecompress_runtime.pack.entropy.rans_kernels import encode

        values = symbols(array)
        if values is None or not values.size:
            return None
        frequencies = normalised(np.bincount(values))
        words = np.empty(values.size + 2, np.uint16)  # at most one word a symbol, and the state
        used = encode(values, frequencies, np.cumsum(frequencies) - frequencies, words)
        params = {"frequencies": frequencies.tolist()}
        return Encoded(self.name, params, words[-used:].astype("<u2").tobytes())

    def decode(self, data: Buffer, params: dict[str, Any], out: np.ndarray) -> np.ndarray:
        """Element after element, until every word is used."""
        from edgecompress_runtime.pack.entropy.rans_kernels import decode

        values = symbols(out)
        if values is None:
            raise PackError(f"rans: holds elements of 1 byte, not {out.dtype}")
        frequencies = np.array(member(params, "frequencies", sequence, 256, integer, 0, TOTAL), np.int64)
        if frequencies.sum() != TOTAL:
            raise PackError(f"rans: frequencies add up to {frequencies.sum()}, expected {TOTAL}")
        if len(data) < 4 or len(data) % 2:
            raise PackError(f"rans: expected an even number of bytes from 4, found {len(data)}")
        # per slot: the symbol, its frequency - 1, and the slot's place within the symbol
        symbol = np.repeat(np.arange(frequencies.size), frequencies)
        offset = np.arange(TOTAL) - np.repeat(np.cumsum(frequencies) - frequencies, frequencies)
        table = (symbol | (frequencies[symbol] - 1) << 8 | offset << 20).astype(np.uint32)
        if not decode(np.frombuffer(data, "<u2").astype(np.uint16), table, values):
            raise PackError(f"rans: {len(data)} bytes do not hold {values.size} symbols")
        return out


def normalised(counts: np.ndarray) -> np.ndarray:
    """Counts [at most 256] -> int64 frequencies that add up to 4096, at least 1 where a symbol occurs.

    Rounded, then moved one by one where that costs least: a symbol's bits are -count * log2(frequency).
    """
    used = counts > 0
    frequencies = np.where(used, np.maximum(1, np.rint(counts * (TOTAL / counts.sum()))), 0).astype(np.int64)
    while (excess := int(frequencies.sum()) - TOTAL) != 0:
        step = -1 if excess > 0 else 1
        movable = used & (frequencies + step >= 1)
        after = np.where(movable, frequencies + step, 1)
        cost = np.where(movable, counts * np.log2(np.maximum(frequencies, 1) / after), np.inf)
        frequencies[np.argmin(cost)] += step
    return frequencies
