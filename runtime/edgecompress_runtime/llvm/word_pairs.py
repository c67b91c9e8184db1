"""Two words from one address, in the way that suits the CPU.

Kernels call it by SYMBOL; cross.py adds the definition, which is inlined. Both loads are volatile: LLVM would otherwise
take the pair apart, or put two words together to an LDRD where that is slower. A Cortex-M4 takes three cycles for an
LDRD, which never overlaps with its neighbours, and one cycle less for each load that stands behind another (Arm DDI
0439B, table 3-1): there words are loaded one by one. Elsewhere a pair is one instruction.
"""

from __future__ import annotations

SYMBOL = "edgecompress.word_pair"

ONE_BY_ONE = """
  %second = getelementptr i8, ptr %at, i32 4
  %low = load volatile i32, ptr %at, align 4
  %high = load volatile i32, ptr %second, align 4
"""
TOGETHER = """
  %pair = load volatile i64, ptr %at, align 4
  %low = trunc i64 %pair to i32
  %upper = lshr i64 %pair, 32
  %high = trunc i64 %upper to i32
"""
RESULT = """
  %half = insertvalue {i32, i32} undef, i32 %low, 0
  %both = insertvalue {i32, i32} %half, i32 %high, 1
  ret {i32, i32} %both
"""


def definition(cpu: str) -> str:
    """LLVM IR. cpu: LLVM's name of it."""
    body = ONE_BY_ONE if cpu == "cortex-m4" else TOGETHER
    return f'define {{i32, i32}} @"{SYMBOL}"(ptr %at) {{{body}{RESULT}}}\n'
