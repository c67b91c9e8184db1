"""The families of Cortex-M CPUs. One without the DSP extension, as a Cortex-M3, is served by the generic kernels."""

from __future__ import annotations

from dataclasses import replace

from edgecompress_runtime.families.cortex_m import (
    dsp_blocks,
    dsp_dense,
    dsp_depthwise,
    dsp_moves,
    dsp_products,
    helium_blocks,
    helium_dense,
    helium_depthwise,
    helium_moves,
    helium_pairs,
    helium_products,
    helium_windows,
    skipping_dsp,
    skipping_helium,
    v6m_blocks,
)
from edgecompress_runtime.families.shared import plain_depthwise, skipping_blocks
from edgecompress_runtime.families.shared.arranged_family import ArrangedFamily
from edgecompress_runtime.families.shared.generic_family import GENERIC
from edgecompress_runtime.families.shared.pairs import PLAIN
from edgecompress_runtime.families.shared.skipping_arrangement import Cost

V6M = replace(
    GENERIC,
    name="v6m",
    convolution=(v6m_blocks.CONVOLUTION,),
    products=(5.2, 6.2),
    lists=(Cost(skipping_blocks.PLAIN, skipping_blocks.KERNELS, 4.5, 5.4),),
    tables=2.0,
    gated={"CONV_2D": v6m_blocks.GATED, "DEPTHWISE_CONV_2D": plain_depthwise.GATED},
)
DSP = ArrangedFamily(
    name="dsp",
    convolution=(dsp_blocks.CONVOLUTION,),
    depthwise=(dsp_depthwise.DEPTHWISE,),
    dense=(dsp_dense.DENSE,),
    pairs=PLAIN,
    products=(1.05, 1.45),
    lists=(
        Cost(skipping_dsp.DSP, skipping_dsp.KERNELS, 2.6, 2.4),
        Cost(skipping_dsp.DSP_FOUR, skipping_dsp.FOUR_KERNELS, 6.0, 3.4),
    ),
    tables=1.0,
    matrices=dsp_products.PRODUCTS,
    max_pool=dsp_moves.MAX_POOL,
    copies=dsp_moves.COPIES,
    gated={"CONV_2D": dsp_blocks.GATED, "DEPTHWISE_CONV_2D": dsp_depthwise.GATED},
)
HELIUM = ArrangedFamily(
    name="helium",
    convolution=(helium_blocks.CONVOLUTION,),
    depthwise=(helium_windows.WINDOWS, helium_depthwise.DEPTHWISE),
    dense=(helium_dense.DENSE,),
    pairs=helium_pairs.PAIRS,
    products=(0.2, 0.2),
    # a gather loads byte after byte: it counts for eight instructions
    lists=(
        Cost(skipping_helium.HELIUM, skipping_helium.KERNELS, 5.0, 2.0),
        Cost(skipping_helium.HELIUM_PICKED, skipping_helium.PICKED_KERNELS, 6.0, 10.0),
    ),
    matrices=helium_products.PRODUCTS,
    max_pool=helium_moves.MAX_POOL,
    copies=helium_moves.COPIES,
)
