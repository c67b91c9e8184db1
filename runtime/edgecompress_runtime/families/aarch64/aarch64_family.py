"""The families of 64-bit Arm. Their weights are plain: where these CPUs are, memory is not what is short."""

from __future__ import annotations

from dataclasses import replace

from edgecompress_runtime.families.aarch64 import neon_blocks, neon_dense, neon_depthwise, skipping_neon
from edgecompress_runtime.families.aarch64.neon_pairs import PAIRS
from edgecompress_runtime.families.shared import plain_blocks, plain_dense, plain_depthwise
from edgecompress_runtime.families.shared.arranged_family import ArrangedFamily
from edgecompress_runtime.families.shared.float_blocks import FloatUnit
from edgecompress_runtime.families.shared.skipping_arrangement import Cost

_CONVOLUTION, _DEPTHWISE, _DENSE = (
    replace(plain_blocks.CONVOLUTION, coded=None),
    replace(plain_depthwise.DEPTHWISE, coded=None),
    replace(plain_dense.DENSE, coded=None),
)
NEON = ArrangedFamily(
    name="neon",
    convolution=(neon_blocks.CONVOLUTION, _CONVOLUTION),
    depthwise=(neon_depthwise.SIXTEEN, neon_depthwise.EIGHT, _DEPTHWISE),
    dense=(neon_dense.DENSE, _DENSE),
    pairs=PAIRS,
    products=(0.27, 0.28),
    lists=(Cost(skipping_neon.NEON, skipping_neon.KERNELS, 10.0, 19.0),),
    floats=FloatUnit(4, 30),
)
NEON_DOT = replace(
    NEON,
    name="neon_dot",
    convolution=(neon_blocks.DOT_CONVOLUTION, _CONVOLUTION),
    dense=(neon_dense.DOT_DENSE, _DENSE),
    products=(0.13, 0.13),
    lists=(Cost(skipping_neon.NEON_DOT, skipping_neon.DOT_KERNELS, 10.0, 11.0),),
)
