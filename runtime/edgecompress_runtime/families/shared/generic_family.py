"""Kernels for any CPU: for RISC-V, Cortex-M3, and every other CPU that LLVM knows and that has no family here."""

from __future__ import annotations

from edgecompress_runtime.families.shared import plain_blocks, plain_dense, plain_depthwise, skipping_blocks
from edgecompress_runtime.families.shared.arranged_family import ArrangedFamily
from edgecompress_runtime.families.shared.pairs import PLAIN
from edgecompress_runtime.families.shared.skipping_arrangement import Cost

GENERIC = ArrangedFamily(
    name="generic",
    convolution=(plain_blocks.CONVOLUTION,),
    depthwise=(plain_depthwise.DEPTHWISE,),
    dense=(plain_dense.DENSE,),
    pairs=PLAIN,
    products=(2.4, 2.5),
    lists=(Cost(skipping_blocks.PLAIN, skipping_blocks.KERNELS, 4.3, 2.1),),
    tables=1.2,
    gated={"CONV_2D": plain_blocks.GATED, "DEPTHWISE_CONV_2D": plain_depthwise.GATED},
)
