"""(a * b + 2**31 >> 32) + c modulo 2**32, for all CPUs and for those that multiply 32 bits by 32 to 32 only.

Requantization consists of it. Kernels call it by SYMBOL; cross.py adds the definition that suits the CPU, which is
inlined. Armv6-M: four products of 16 bits (Warren, Hacker's Delight, section 8-2) in place of a call of __aeabi_lmul.
"""

from __future__ import annotations

SYMBOL = "edgecompress.rounded_high_product"

WIDE = """
  %x = sext i32 %a to i64
  %y = sext i32 %b to i64
  %product = mul i64 %x, %y
  %z = zext i32 %c to i64
  %addend = shl i64 %z, 32
  %sum = add i64 %product, %addend
  %rounded = add i64 %sum, 2147483648
  %high = lshr i64 %rounded, 32
  %result = trunc i64 %high to i32
"""  # in this order LLVM finds Arm's SMMLAR

NARROW = """
  %al = and i32 %a, 65535
  %ah = ashr i32 %a, 16
  %bl = and i32 %b, 65535
  %bh = ashr i32 %b, 16
  %ll = mul i32 %al, %bl
  %ll.high = lshr i32 %ll, 16
  %hl = mul i32 %ah, %bl
  %w = add i32 %hl, %ll.high
  %w.low = and i32 %w, 65535
  %w.high = ashr i32 %w, 16
  %lh = mul i32 %al, %bh
  %v = add i32 %lh, %w.low
  %v.15 = ashr i32 %v, 15
  %v.half = add i32 %v.15, 1
  %v.high = ashr i32 %v.half, 1
  %hh = mul i32 %ah, %bh
  %s1 = add i32 %hh, %w.high
  %s2 = add i32 %s1, %v.high
  %result = add i32 %s2, %c
"""


def definition(triple: str) -> str:
    """LLVM IR."""
    body = NARROW if triple.startswith(("thumbv6m", "thumbv8m.base")) else WIDE
    return f'define i32 @"{SYMBOL}"(i32 %a, i32 %b, i32 %c) {{{body}  ret i32 %result\n}}\n'
