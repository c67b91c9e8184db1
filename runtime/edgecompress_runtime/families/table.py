"""The table of CPU families, and how one is chosen for a processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgecompress_runtime.families.aarch64 import neon_depthwise
from edgecompress_runtime.families.aarch64.skipping_neon import NEON, NEON_DOT
from edgecompress_runtime.families.cortex_m.skipping_helium import HELIUM, HELIUM_PICKED
from edgecompress_runtime.families.shared import arranged_convolution as convolution
from edgecompress_runtime.families.shared import arranged_depthwise as depthwise
from edgecompress_runtime.families.shared import dense_arrangements as dense_kernels
from edgecompress_runtime.families.shared.addition import add_elements, preparation
from edgecompress_runtime.families.shared.family import Family, Prepare
from edgecompress_runtime.families.shared.skipping_arrangement import (
    Cost,
    Skipping,
    convolution_layer,
    fully_connected_layer,
)
from edgecompress_runtime.families.shared.skipping_blocks import DSP, DSP_FOUR, PLAIN
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.families.shared.vector_addition import helium_add, neon_add
from edgecompress_runtime.plan import Tensor

# instructions, measured (tests/bench/skipping.py): of a product with all weights, in a convolution and in a fully
# connected layer; of the family's lists
SKIPPING = {
    "generic": (2.4, 2.5, (Cost(PLAIN, 4.3, 2.1),)),
    "v6m": (5.2, 6.2, (Cost(PLAIN, 4.5, 5.4),)),
    "dsp": (1.05, 1.45, (Cost(DSP, 2.6, 2.4), Cost(DSP_FOUR, 6.0, 3.4))),
    # a gather loads byte after byte: it counts for eight instructions
    "helium": (0.2, 0.2, (Cost(HELIUM, 5.0, 2.0), Cost(HELIUM_PICKED, 6.0, 10.0))),
    "neon": (0.27, 0.28, (Cost(NEON, 10.0, 19.0),)),
    "neon_dot": (0.13, 0.13, (Cost(NEON_DOT, 10.0, 11.0),)),
}


def _family(name: str, conv: Prepare, depthwise_conv: Prepare, dense: Prepare, add: Callable[..., None]) -> Family:
    if name in SKIPPING:
        in_conv, in_dense, costs = SKIPPING[name]
        conv = Skipping(conv, in_conv, convolution_layer, costs)
        dense = Skipping(dense, in_dense, fully_connected_layer, costs)
    own = {"CONV_2D": conv, "DEPTHWISE_CONV_2D": depthwise_conv, "FULLY_CONNECTED": dense}
    return Family(name, own | {kind: preparation(add, kind) for kind in ("ADD", "SUB")})


def _first(*arrangements: Any) -> Prepare:
    """The first that can do a layer. Their weights are plain: where these CPUs are, memory is not what is short."""
    plain = [replace(arrangement, coded=None) for arrangement in arrangements]

    def prepared(inputs: Sequence[Any], outputs: Sequence[Tensor], options: Mapping[str, Any]) -> list[Step] | None:
        return next((steps for a in plain if (steps := a(inputs, outputs, options))), None)

    return prepared


def _neon(name: str, conv: Any, dense: Any) -> Family:
    depth = _first(neon_depthwise.SIXTEEN, neon_depthwise.EIGHT, depthwise.PLAIN)
    return _family(name, _first(conv, convolution.PLAIN), depth, _first(dense, dense_kernels.PLAIN), neon_add)


def _families(kept: Callable[[Any], Any]) -> dict[str, Family]:
    """By name; kept: an arrangement, with or without its way to hold coded weights."""
    conv, depth, dense = convolution, depthwise, dense_kernels
    families = (
        _family("generic", kept(conv.PLAIN), kept(depth.PLAIN), kept(dense.PLAIN), add_elements),
        _family("v6m", kept(conv.V6M), kept(depth.PLAIN), kept(dense.PLAIN), add_elements),
        _family("dsp", kept(conv.DSP), kept(depth.DSP), kept(dense.DSP), add_elements),
        _family("helium", kept(conv.HELIUM), kept(depth.HELIUM), kept(dense.HELIUM), helium_add),
        _neon("neon", conv.NEON, dense.NEON),
        _neon("neon_dot", conv.NEON_DOT, dense.NEON_DOT),
    )
    return {family.name: family for family in families}


FAMILIES = _families(lambda arrangement: arrangement)
PLAIN_WEIGHTS = _families(lambda arrangement: replace(arrangement, coded=None))
# the first whose feature the processor has
THUMB = (("+mve.fp", "helium"), ("+mve", "helium"), ("+dsp", "dsp"))
AARCH64 = (("+dotprod", "neon_dot"), ("+neon", "neon"))

ROWS = {"thumb": THUMB, "aarch64": AARCH64, "arm64": AARCH64}  # by how a triple starts
BASELINE = (("thumbv6m", "v6m"), ("thumbv8m.base", "v6m"))  # by the triple alone


def family_of(triple: str, features: Sequence[str], *, coded: bool = True) -> Family:
    """The best family for a processor, by LLVM's triple and features. coded: whether its kernels may hold weights
    entropy coded and decode them as they run (coding.py says which)."""
    rows = next((rows for start, rows in ROWS.items() if triple.startswith(start)), ())
    names = [name for feature, name in rows if feature in features]
    names += [name for start, name in BASELINE if triple.startswith(start)]
    return (FAMILIES if coded else PLAIN_WEIGHTS)[(names or ["generic"])[0]]
