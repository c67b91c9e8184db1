"""The table of CPU families, and how one is chosen for a processor."""

from __future__ import annotations

from collections.abc import Sequence

from edgecompress_runtime.families.aarch64.aarch64_family import NEON, NEON_DOT
from edgecompress_runtime.families.cortex_m.cortex_m_family import DSP, HELIUM, V6M
from edgecompress_runtime.families.shared.family import Family
from edgecompress_runtime.families.shared.generic_family import GENERIC
from edgecompress_runtime.families.x86.variants import VARIANTS, variant_for
from edgecompress_runtime.families.x86.x86_family import x86_family

ARRANGED = (GENERIC, V6M, DSP, HELIUM, NEON, NEON_DOT)
X86 = {family.name: family for family in map(x86_family, VARIANTS.values())}
# by name; those of PLAIN_WEIGHTS hold no weights that are coded in flash
FAMILIES = {a.name: a.family(coded=True) for a in ARRANGED} | X86
PLAIN_WEIGHTS = {a.name: a.family(coded=False) for a in ARRANGED} | X86

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
    if triple.startswith("x86_64"):
        names = [x86_family(variant_for(features)).name]
    return (FAMILIES if coded else PLAIN_WEIGHTS)[(names or ["generic"])[0]]
