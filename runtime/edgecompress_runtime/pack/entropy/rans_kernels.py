"""rANS loops; the state is kept in [2^16, 2^32). Source: Duda, arXiv:1311.2540, sections 2 and 3."""

from __future__ import annotations

import numpy as np
from numba import njit

LOWEST = 1 << 16  # the encoder starts from this state, so a decoder has to end there


@njit(cache=True)
def encode(values: np.ndarray, frequencies: np.ndarray, starts: np.ndarray, words: np.ndarray) -> int:
    """uint8 values -> 16-bit words at the end of `words` (filled backwards); returns how many.

    frequencies, starts: int64 [symbols], each symbol's share of 4096 and the sum of those before it.
    """
    state, at = np.int64(LOWEST), words.size
    for i in range(values.size - 1, -1, -1):
        frequency = frequencies[values[i]]
        if state >= frequency << 20:  # the step below would leave 32 bits
            at -= 1
            words[at] = state & 0xFFFF
            state >>= 16
        state = (state // frequency << 12) + state % frequency + starts[values[i]]
    words[at - 2], words[at - 1] = state & 0xFFFF, state >> 16
    return words.size - at + 2


@njit(cache=True)
def decode(words: np.ndarray, table: np.ndarray, out: np.ndarray) -> bool:
    """16-bit words, table uint32 [4096] (symbol, frequency - 1 from bit 8, offset from bit 20) -> out uint8.

    Returns whether the words were exactly as many as the symbols need, and the state ended where it began.
    """
    state = np.uint32(words[0]) | np.uint32(words[1]) << np.uint32(16)
    at = 2
    for i in range(out.size):
        entry = table[state & np.uint32(0xFFF)]
        out[i] = np.uint8(entry & np.uint32(0xFF))
        frequency = ((entry >> np.uint32(8)) & np.uint32(0xFFF)) + np.uint32(1)
        state = np.uint32(frequency * (state >> np.uint32(12)) + (entry >> np.uint32(20)))
        if state < np.uint32(LOWEST):
            if at >= words.size:
                return False
            state = state << np.uint32(16) | np.uint32(words[at])
            at += 1
    return at == words.size and state == LOWEST
