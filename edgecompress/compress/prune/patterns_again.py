"""Makes patterns of N of M weights again where removed channels have moved their groups."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.compress.prune.patterns import from_taps, parse_pattern, to_taps
from edgecompress.graph.annotations import Sparsity, set_sparsity, sparsity
from edgecompress.graph.fusion import constant


def patterns_again(model: ir.Model) -> tuple[ir.Model, int]:
    """The model with zeros for the smallest weights of each group that holds more than N; and how many these are.

    The model itself where every group keeps to its pattern.
    """
    clone, count = model.clone(), 0
    for node in clone.graph:
        value = node.inputs[1] if len(node.inputs) > 1 else None
        pruned, array = sparsity(value), constant(value)
        if value is None or pruned is None or array is None:
            continue
        pattern = parse_pattern(pruned.pattern)
        if pattern.keep is None:
            continue
        surplus = from_taps(node, ~pattern.n_of_m(np.abs(to_taps(node, array))), array.shape) & (array != 0)
        if not surplus.any():
            continue
        count += int(surplus.sum())
        value.const_value = ir.tensor(np.where(surplus, 0, array).astype(array.dtype), name=value.name)
        set_sparsity(value, Sparsity(pruned.mask & ~surplus, pruned.pattern))
    return (clone, count) if count else (model, 0)
