"""Optimal prefix codes of bounded length, in canonical form."""

from __future__ import annotations

import numpy as np

from edgecompress_runtime.pack.errors import PackError

MAX_LENGTH = 12  # bits; one lookup in a table that fits the first-level cache decodes any code
SHORT_LENGTH = 8  # bits; a microcontroller's table then has 256 entries
ALPHABET = 256
_INDEX = np.arange(1 << MAX_LENGTH)
REVERSED = np.bitwise_or.reduce([(_INDEX >> b & 1) << (MAX_LENGTH - 1 - b) for b in range(MAX_LENGTH)])


def code_lengths(counts: np.ndarray, limit: int) -> np.ndarray:
    """Counts int64 [symbols] -> uint8 lengths that minimise sum(counts * lengths); 0 for an unused symbol.

    Package-merge (Larmore and Hirschberg, JACM 37(3), 1990) in its counting form: within a level, leaves
    stay in order of weight, so a solution is known from how many leaves of each level it takes.
    A lone symbol gets length 1. Raises PackError when `limit` bits are too few for so many symbols.
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(counts.size, np.uint8)
    if used.size <= 1:
        lengths[used] = 1
        return lengths
    if used.size > 1 << limit:
        raise PackError(f"huffman: codes of {limit} bits are too short for {used.size} symbols")
    order = used[np.argsort(counts[used], kind="stable")]
    weights = counts[order].astype(np.int64)
    merged, is_leaf = np.empty(0, np.int64), []
    for _ in range(limit):
        packages = merged[: merged.size // 2 * 2].reshape(-1, 2).sum(axis=1)
        together = np.concatenate([weights, packages])
        by_weight = np.argsort(together, kind="stable")
        is_leaf.append(by_weight < weights.size)
        merged = together[by_weight]
    taken = 2 * weights.size - 2
    for level in reversed(is_leaf):
        leaves = int(level[:taken].sum())
        lengths[order[:leaves]] += 1
        taken = 2 * (taken - leaves)
    return lengths


def short_code_lengths(counts: np.ndarray, tolerance: float = 1e-3) -> np.ndarray:
    """As `code_lengths`, with the shortest limit from 8 to 12 bits that costs at most `tolerance` over 12.

    The longest code decides the size of a microcontroller's table. For cluster indices 8 bits nearly always
    do; long tails (Laplace, 16 symbols) would lose 1.6 %.
    """
    best = code_lengths(counts, MAX_LENGTH)
    shortest = max(SHORT_LENGTH, (int(np.count_nonzero(counts)) - 1).bit_length())
    for limit in range(shortest, MAX_LENGTH):
        lengths = code_lengths(counts, limit)
        if counts @ lengths <= (1 + tolerance) * (counts @ best):
            return lengths
    return best


def canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """Lengths uint8 [symbols] -> uint16 codes, first bit of the code in bit 0 (RFC 1951, 3.2.2, reversed).

    Raises PackError unless the lengths make a complete code, or are a single 1.
    """
    used = np.flatnonzero(lengths)
    order = used[np.argsort(lengths[used], kind="stable")]
    share = 1 << (MAX_LENGTH - lengths[order].astype(np.int64))  # of the 4096 indices of a 12-bit table
    lone = used.size == 1 and lengths[used[0]] == 1
    if share.sum() != 1 << MAX_LENGTH and not lone:
        raise PackError(f"huffman: code lengths fill {share.sum()} of {1 << MAX_LENGTH} code points")
    codes = np.zeros(lengths.size, np.uint16)
    codes[order] = REVERSED[np.cumsum(share) - share]  # where its share starts is the code, then zeros
    return codes
