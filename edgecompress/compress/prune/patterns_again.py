"""Makes patterns of pruned weights again where removed channels have moved their groups and blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgecompress.compress.prune.patterns import Pattern, from_taps, parse_pattern, to_taps
from edgecompress.graph.annotations import set_sparsity, sparsity
from edgecompress.graph.fusion import constant


def patterns_again(model: ir.Model) -> tuple[ir.Model, int]:
    """The model with zeros for the weights that a pattern has no room for; and how many these are.

    Of N of M weights the smallest of each group that holds more than N become zero. Of blocks that are no longer whole
    the largest stay, about as many as hold the weights that had stayed; they are whole again, so training may use them.
    The model itself where every group and block keeps to its pattern.
    """
    clone, count, changed = model.clone(), 0, False
    for node in clone.graph:
        value = node.inputs[1] if len(node.inputs) > 1 else None
        pruned, array = sparsity(value), constant(value)
        if value is None or pruned is None or array is None:
            continue
        pattern = parse_pattern(pruned.pattern)
        taps, mask = to_taps(node, array), to_taps(node, pruned.mask)
        kept = _blocks(pattern, taps, mask) if pattern.keep is None else mask & pattern.n_of_m(np.abs(taps) * mask)
        if np.array_equal(kept, mask):
            continue
        changed, kept = True, from_taps(node, kept, array.shape)
        count += int(((array != 0) & ~kept).sum())
        value.const_value = ir.tensor(np.where(kept, array, 0).astype(array.dtype), name=value.name)
        set_sparsity(value, replace(pruned, mask=kept))
    return (clone, count) if changed else (model, 0)


def _blocks(pattern: Pattern, taps: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """bool as the mask [o, taps, i], in whole blocks; the mask itself where it is."""
    units = pattern.units(mask.astype(np.float64))
    if np.isin(units, (0.0, 1.0)).all():
        return mask
    sizes = pattern.sizes(taps.shape)
    order = np.argsort(-pattern.units(np.abs(taps)), axis=None, kind="stable")
    enough = int(np.searchsorted(np.cumsum(sizes.ravel()[order]), mask.sum() + sizes.max() / 2, side="right"))
    kept = np.zeros(units.size, bool)
    kept[order[: max(enough, 1)]] = True
    return pattern.mask(kept.reshape(units.shape), taps.shape)
