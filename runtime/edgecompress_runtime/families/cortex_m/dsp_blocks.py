"""Convolution with SMLAD: image and weights are widened to int16 in scratch memory, and read many times."""

from __future__ import annotations

from dataclasses import replace

from edgecompress_runtime.families.cortex_m.dsp import dot_2x2, widen
from edgecompress_runtime.families.shared.arranged_convolution import Arrangement, channel_records
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.decoding import TO_HALVES, bank_of_halves
from edgecompress_runtime.families.shared.gated_convolution import GatedArrangement, gated_convolution
from edgecompress_runtime.families.shared.plain_blocks import biases_of, store_2x2
from edgecompress_runtime.families.shared.strip_convolution import Blocks, strip_convolution
from edgecompress_runtime.families.shared.words import moved, store_half, store_word
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline


@inline
def copy(source: Pointer, target: Pointer, n: Word) -> None:
    """n int8 as int16; in plain order where n is no multiple of four (the weights are arranged for that)."""
    if n % i32(4) == 0:
        widen(source, target, i32(n // i32(4)))
    else:
        for c in range(n):
            store_half(target, i32(c * 2), i32(source[c]))


@inline
def blank(target: Pointer, n: Word, zero: Word) -> None:
    """n int16 that are `zero`."""
    if n % i32(2) == 0:
        for c in range(i32(0), n, i32(2)):
            store_word(target, i32(c * 2), i32((zero & i32(0xFFFF)) * i32(0x10001)))
    else:
        for c in range(n):
            store_half(target, i32(c * 2), zero)


@inline
def _bank(w: Pointer, bank: Pointer, first: Word, pairs: Word, depth: Word) -> Pointer:
    widen(moved(w, i32(first * depth * 2)), bank, i32(pairs * depth // i32(2)))
    return bank


@inline
def _block(window: Tuple, weights: Pointer, depth: Word, record: Tuple, target: Tuple, bounds: Words) -> None:
    sums = dot_2x2(window, weights, i32(depth // i32(4)), biases_of(record))
    store_2x2(sums, record, target, bounds)


BLOCKS = Blocks(2, 4, copy, blank, _bank, _block)
CODED = replace(BLOCKS, bank=bank_of_halves)
dsp_convolution = strip_convolution("dsp_convolution", __name__, BLOCKS)
dsp_convolution_coded = strip_convolution("dsp_convolution_coded", __name__, CODED)
HALVES = Coded(dsp_convolution_coded, TO_HALVES, (0, 2, 1, 3))
CONVOLUTION = Arrangement(dsp_convolution, 4, 2, 4, True, channel_records, HALVES)
dsp_gated_convolution = gated_convolution("dsp_gated_convolution", __name__, BLOCKS, 4)
GATED = GatedArrangement(dsp_gated_convolution, CONVOLUTION)
