"""Huffman coding's loops. Only plain array indexing, so that Numba's bounds check sees every access.

Bits are read as a window of 64 from two neighbouring words, always at the current bit position: the
position is all the state there is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

PER_ENTRY = 6  # symbols a table entry can hold: six bytes, then a byte for their number, one for their bits
LOOKUPS = 5  # of at most 12 bits each from one window of 64
MARGIN = LOOKUPS * PER_ENTRY + 8  # bytes of output that LOOKUPS steps may touch: each stores 8


@njit(cache=True)
def write_codes(values: np.ndarray, codes: np.ndarray, lengths: np.ndarray, out: np.ndarray) -> None:
    """uint8 values -> their codes, first bit lowest, in `out`: uint8, exactly as long as the codes need."""
    window, filled, at = np.uint64(0), 0, 0
    for i in range(values.size):
        window |= np.uint64(codes[values[i]]) << np.uint64(filled)
        filled += lengths[values[i]]
        while filled >= 8:
            out[at] = np.uint8(window & np.uint64(0xFF))
            at += 1
            window >>= np.uint64(8)
            filled -= 8
    if filled > 0:
        out[at] = np.uint8(window)


@njit(cache=True)
def fill_tables(codes: np.ndarray, lengths: np.ndarray, bits: int, first: np.ndarray, table: np.ndarray) -> None:
    """Lookup tables indexed by the next `bits` bits; the code must be complete, or a lone symbol.

    first: uint16, the first symbol in bits 0..7, its length from bit 8.
    table: uint64, all symbols the index holds, first in byte 0; their number in byte 6, their bits in byte 7.
    """
    lone = 0
    for symbol in range(lengths.size):
        length = lengths[symbol]
        if length > 0:
            lone += 1
            for i in range(int(codes[symbol]), 1 << bits, 1 << length):
                first[i] = symbol | length << 8
    if lone == 1:  # a lone symbol's code is 0; the other bit means the same, or decoding might not advance
        for i in range(1, 1 << bits, 2):
            first[i] = first[0]
    for i in range(1 << bits):
        entry, count, used = np.uint64(0), 0, 0
        while count < PER_ENTRY:
            step = int(first[i >> used])
            if used + (step >> 8) > bits:
                break
            entry |= np.uint64(step & 0xFF) << np.uint64(8 * count)
            count += 1
            used += step >> 8
        table[i] = entry | np.uint64(count) << np.uint64(48) | np.uint64(used) << np.uint64(56)


@njit(cache=True, inline="always")
def window_at(words: np.ndarray, position: Any) -> Any:
    """The 64 bits from bit `position` on; reads two words."""
    shift = np.uint64(position & 63)
    word = position >> 6
    return (words[word] >> shift) | ((words[word + 1] << np.uint64(1)) << (np.uint64(63) - shift))


@njit(cache=True)
def decode_pair(
    words: np.ndarray, table: np.ndarray, mask: Any, out: np.ndarray, middle: int, positions: np.ndarray
) -> Any:
    """Both halves of `out` at once, out[:middle] and out[middle:], until one is nearly done.

    Two independent chains of lookups keep the processor busy while either waits for its table entry.
    positions: int64 [2], bit positions, updated. Returns how many symbols of each half are there.
    """
    last = (words.size - 1) * 64
    i, j, end_i, end_j = np.int64(0), np.int64(middle), middle - MARGIN, out.size - MARGIN
    p, q = positions[0], positions[1]
    while i <= end_i and j <= end_j and p < last and q < last:
        a, b = window_at(words, p), window_at(words, q)
        for _ in range(LOOKUPS):
            entry = table[a & mask]
            for k in range(8):
                out[i + k] = np.uint8(entry >> np.uint64(8 * k))
            i += np.int64((entry >> np.uint64(48)) & np.uint64(0xFF))
            a >>= entry >> np.uint64(56)
            p += np.int64(entry >> np.uint64(56))
            entry = table[b & mask]
            for k in range(8):
                out[j + k] = np.uint8(entry >> np.uint64(8 * k))
            j += np.int64((entry >> np.uint64(48)) & np.uint64(0xFF))
            b >>= entry >> np.uint64(56)
            q += np.int64(entry >> np.uint64(56))
    positions[0], positions[1] = p, q
    return i, j - middle


@njit(cache=True)
def decode_run(
    words: np.ndarray, first: np.ndarray, table: np.ndarray, mask: Any, out: np.ndarray, i: Any, position: Any
) -> Any:
    """Fills out[i:] from bit `position` on; returns the bit position after it, or -1 when the words end."""
    last = (words.size - 1) * 64
    end = out.size - MARGIN
    while i <= end and position < last:
        window = window_at(words, position)
        for _ in range(LOOKUPS):
            entry = table[window & mask]
            for k in range(8):
                out[i + k] = np.uint8(entry >> np.uint64(8 * k))
            i += np.int64((entry >> np.uint64(48)) & np.uint64(0xFF))
            window >>= entry >> np.uint64(56)
            position += np.int64(entry >> np.uint64(56))
    while i < out.size and position < last:
        step = first[window_at(words, position) & mask]
        out[i] = np.uint8(step & 0xFF)
        i += 1
        position += np.int64(step >> 8)
    return position if i == out.size else np.int64(-1)
