"""How many weights each layer keeps by its shape alone: the Erdos-Renyi-Kernel rule of sparse training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def erdos_renyi(shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Share of each layer's weights to remove, so that `sparsity` of all go.

    A layer keeps a share in proportion to the sum of its dimensions over their product (U. Evci et al., "Rigging the
    lottery", ICML 2020, section 3; for matrices D. Mocanu et al., 2018), but at most all.
    """
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    kept, whole = (1 - sparsity) * sum(sizes.values()), set[str]()
    while True:
        rest = [name for name in shapes if name not in whole]
        room = kept - sum(sizes[name] for name in whole)
        factor = room / sum(raw[name] * sizes[name] for name in rest)
        if not (more := {name for name in rest if factor * raw[name] >= 1}):
            return {name: 0.0 if name in whole else 1 - factor * raw[name] for name in shapes}
        whole |= more
