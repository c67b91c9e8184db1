"""Lists of weights (skipping.py) with the DSP extension: two entries of one weight to a word, or entries of four."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llvmlite import ir

from edgecompress_runtime.families.cortex_m.dsp import widened
from edgecompress_runtime.families.cortex_m.dsp_blocks import blank, copy
from edgecompress_runtime.families.shared.skipping import Lists, by_name, each_its_own, neighbours, skipping_kernels
from edgecompress_runtime.families.shared.skipping_blocks import PLAIN, Entries, Values, block_of, walk
from edgecompress_runtime.families.shared.words import BYTE, WORD, address, function, load, load_pair, pinned


def _two_by_two(many: int) -> Entries:
    """Two entries in a word, its bytes weight, way, weight, way."""

    def turn(
        b: ir.IRBuilder, x: ir.Value, x_step: ir.Value, entries: ir.Value, sums: Values
    ) -> tuple[ir.Value, Values]:
        for k in range(many // 2):
            word = load(b, entries, 4 * k, WORD, 1)
            pair = b.call(function(b, "llvm.arm.sxtb16", WORD, WORD), [word])
            lower = b.ashr(b.shl(pair, WORD(16)), WORD(16))
            for weight, shift in ((lower, 8), (b.ashr(pair, WORD(16)), 24)):
                x = address(b, x, b.and_(b.lshr(word, WORD(shift)), WORD(255)), BYTE)
                x = _kept(b, x)
                values = [b.sext(load(b, x, b.mul(x_step, WORD(p)), BYTE, 1), WORD) for p in range(len(sums))]
                sums = [b.add(s, b.mul(value, weight)) for s, value in zip(sums, values)]
        return x, sums

    return turn


def _kept(b: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    """In a register, or LLVM adds up its parts once more for the first pixel."""
    (word,) = pinned(b, [b.ptrtoint(pointer, WORD)])
    return b.inttoptr(word, pointer.type)


def _four_inputs(many: int) -> Entries:
    """In a widened strip: entries of four weights."""

    def turn(
        b: ir.IRBuilder, x: ir.Value, x_step: ir.Value, entries: ir.Value, sums: Values
    ) -> tuple[ir.Value, Values]:
        smlad = function(b, "llvm.arm.smlad", WORD, WORD, WORD, WORD)
        for k in range(many):
            ws = widened(b, load(b, entries, 5 * k, WORD, 1))
            x = address(b, x, b.shl(b.zext(load(b, entries, 5 * k + 4, BYTE, 1), WORD), WORD(3)), BYTE)
            for p in range(len(sums)):
                pixel = address(b, x, b.mul(x_step, WORD(p)), BYTE)
                for value, weight in zip(load_pair(b, pixel, 0), ws):
                    sums[p] = b.call(smlad, [value, weight, sums[p]])
            sums = pinned(b, sums)
        return x, sums

    return turn


def _block(pixels: int) -> Callable[..., Any]:
    turns = ((1, _two_by_two(2)),)
    return block_of(walk(pixels, 4, turns if pixels == 4 else ((2, _two_by_two(4)), *turns)), pixels)


def _four_block(pixels: int) -> Callable[..., Any]:
    return block_of(walk(pixels, 5, ((2, _four_inputs(2)), (1, _four_inputs(1)))), pixels)


DSP = replace(PLAIN, listed=each_its_own(neighbours(1), 2), block=_block)
DSP_FOUR = Lists(4, each_its_own(neighbours(4)), True, 2, 4, copy, blank, _four_block)
KERNELS = skipping_kernels("dsp", __name__, DSP)
FOUR_KERNELS = skipping_kernels("dsp_four", __name__, DSP_FOUR)
globals().update(by_name(KERNELS) | by_name(FOUR_KERNELS))  # generated text imports them
