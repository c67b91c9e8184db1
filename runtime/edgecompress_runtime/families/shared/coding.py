"""Weights that stay entropy coded in flash: canonical Huffman codes of at most 8 bits, one code for each layer.

A coded constant is bytes: for each length from 1 to 8 how many codes have it; the weights that the codes stand for,
in canonical order; the codes, first bit lowest, in the order in which a kernel wants the weights; what a word read
at the last code needs behind it. decoding.py has the other side, which keeps a table and a position in scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.decoding import Decoder
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.pack.codecs.huffman import Huffman
from edgecompress_runtime.pack.entropy.huffman_code import canonical_codes, code_lengths
from edgecompress_runtime.pack.entropy.huffman_kernels import write_codes
from edgecompress_runtime.plan import Tensor

LONGEST = 8  # bits of a code: three fit the 25 bits that a word has from any bit on, and a table has 256 entries
OVERREAD = 3  # bytes of a word behind the byte that holds the last code's last bit
WORTHWHILE = 0.75  # of the plain weights' bytes: larger ones save too little for the time that decoding takes


def coded(weights: np.ndarray) -> np.ndarray | None:
    """int8 weights in the order in which a kernel wants them -> int8 [bytes], or None where that saves too little.

    Only weights of few distinct or unevenly spread values are coded, those of clustered layers for instance.
    """
    symbols = np.ascontiguousarray(weights, np.int8).reshape(-1).view(np.uint8)
    counts = np.bincount(symbols, minlength=256)
    lengths = code_lengths(counts, LONGEST)
    used = np.flatnonzero(lengths)
    order = used[np.argsort(lengths[used], kind="stable")]
    size = (int(counts @ lengths) + 7) // 8
    if LONGEST + used.size + size + OVERREAD > WORTHWHILE * symbols.size:
        return None
    stream = np.zeros(size, np.uint8)
    write_codes(symbols, canonical_codes(lengths), lengths, stream)
    # the reader of .pack files is a decoder of its own: it has to find the weights again
    found = Huffman().decode(stream.tobytes(), {"lengths": lengths.tolist()}, np.empty_like(symbols))
    assert np.array_equal(found, symbols)
    head = np.bincount(lengths[used], minlength=LONGEST + 1)[1:].astype(np.uint8)
    parts = (head, order.astype(np.uint8), stream, np.zeros(OVERREAD, np.uint8))
    return np.concatenate(parts).view(np.int8)


@dataclass(frozen=True)
class Coded:
    """How an arrangement's weights are held when they are coded.

    kernel: takes (code, table), or (code, table, memory), in place of weights, without a table if there is no decoder.
    decoder: what it calls. fours: order of each four weights in the code. first: ways that are better where they can.
    """

    kernel: Callable[..., None]
    decoder: Decoder | None = None
    fours: tuple[int, ...] = (0, 1, 2, 3)
    first: tuple[Coded, ...] = ()

    def __call__(self, weights: np.ndarray, *, memory: int = 0) -> CodedWeights | None:
        """None for int8 weights that stay plain. memory: bytes of scratch for decoded ones."""
        if held := next((h for way in self.first if (h := way(weights, memory=memory))), None):
            return held
        flat = weights.reshape(-1)
        code = coded(flat if self.fours == (0, 1, 2, 3) else flat.reshape(-1, 4)[:, self.fours])
        return None if code is None else CodedWeights(self, code, flat.size - code.size, memory)


@dataclass(frozen=True, eq=False)
class CodedWeights:
    """code: the constant. saved: bytes of flash. memory: bytes of scratch."""

    coded: Coded
    code: np.ndarray
    saved: int
    memory: int

    def operand(self) -> tuple[Any, ...]:
        """The kernel's argument in place of weights."""
        decoder = self.coded.decoder
        table = (Scratch(decoder.table),) if decoder else ()
        memory = (Scratch(self.memory),) if self.memory else ()
        return (self.code, *table, *memory)

    def step(self, arguments: tuple[Any, ...], overlap: Mapping[Tensor, int]) -> Step:
        """A step of the coded kernel; arguments: with `operand` among them."""
        helpers = (self.coded.decoder.function,) if self.coded.decoder else ()
        return Step(self.coded.kernel, arguments, overlap, helpers, self.saved)
