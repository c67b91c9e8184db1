"""Layers of weights that are -1 and 1, or -1, 0 and 1, beside int8 and 4-bit codebooks, on emulated CPUs.

    python tests/bench/binary_weights.py [CPU or target...]

Instructions of a layer, bytes of flash (code and constants) and of the arena. "4 bits": sixteen values, as a layer has
them that was clustered with 4 bits. A third of ternary weights are zero. CPUs, emulators and their counts are those of
skipping.py. Every output is compared with the plain kernels', bit for bit. Exits 1 when one differs, or a layer of
binary or ternary weights takes more instructions than one of 4 bits.
"""

from __future__ import annotations

import sys

import numpy as np
from rich.console import Console
from rich.table import Table
from skipping import LINUX, emulated_layer

CPUS = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m55")
# height, width and channels of x, window, output channels
LAYERS = (
    ("CONV_2D", (8, 8, 64), (1, 1), 64),
    ("CONV_2D", (16, 16, 32), (3, 3), 32),
    ("FULLY_CONNECTED", (1, 1, 640), (1, 1), 128),
)
KINDS = {"int8": range(-127, 128), "4 bits": range(-120, 121, 16), "ternary": (-1, 0, 1), "binary": (-1, 1)}


def main() -> int:
    failed, console = 0, Console(width=140)
    for cpu in sys.argv[1:] or CPUS + LINUX:
        table = Table("layer", *(f"{kind}: instructions, flash, arena" for kind in KINDS), title=cpu)
        for kind, size, window, outputs in LAYERS:
            cells, counts, good = [], {}, True
            for name, values in KINDS.items():
                w = np.random.default_rng(0).choice(values, (outputs, *window, size[-1])).astype(np.int8)
                compiled, run, exact = emulated_layer(cpu, kind, size, w)
                counts[name] = run.instructions
                times = f" ({counts['int8'] / run.instructions:.2f}x)" if name != "int8" else ""
                cells.append(f"{run.instructions:,}{times}, {compiled.flash:,}, {compiled.program.layout.size:,}")
                good &= exact and (name not in ("ternary", "binary") or counts[name] <= counts["4 bits"])
            failed += not good
            table.add_row(f"{kind} {'x'.join(map(str, w.shape[::-1]))}", *cells, style=None if good else "red")
        console.print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
