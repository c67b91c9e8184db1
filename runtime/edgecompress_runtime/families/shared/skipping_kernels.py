"""The kernels of skipping.py for each family, number of pixels, way of rounding and place of the windows."""

from __future__ import annotations

from collections.abc import Callable

from edgecompress_runtime.families.aarch64.skipping_neon import NEON, NEON_DOT
from edgecompress_runtime.families.cortex_m.skipping_helium import HELIUM, HELIUM_PICKED
from edgecompress_runtime.families.shared.skipping import Lists, skipping_rows, skipping_strip
from edgecompress_runtime.families.shared.skipping_blocks import DSP, DSP_FOUR, PLAIN

LISTS = {
    "plain": PLAIN, "dsp": DSP, "dsp_four": DSP_FOUR, "helium": HELIUM, "helium_picked": HELIUM_PICKED, "neon": NEON,
    "neon_dot": NEON_DOT,
}  # fmt: skip
PIXELS = (4, 2, 1)
# (lists, pixels, rounded once, windows in the input itself) -> kernel
KERNELS: dict[tuple[Lists, int, bool, bool], Callable[..., None]] = {}
for name, lists in LISTS.items():
    for pixels in PIXELS:
        for once in (False, True):
            for inside in (False, True):
                made = skipping_rows if inside else skipping_strip
                kind = f"{name}_skipping_{'rows' if inside else 'strip'}_{pixels}{'_once' if once else ''}"
                # generated text imports kernels by name
                globals()[kind] = KERNELS[lists, pixels, once, inside] = made(kind, __name__, lists, pixels, once)
