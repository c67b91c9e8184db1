"""A layer's weights and inputs as matrices, for criteria that prune a whole layer by data that calibrates it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.compress.prune.allocation import choose
from edgecompress.compress.prune.patterns import Pattern, to_taps
from edgecompress.compress.quantize.matrices import to_matrix

ROUNDING = 1e-9  # 0.29 of 100 weights are 29


@dataclass(frozen=True, eq=False)
class LayerMatrix:
    """A layer y = x W^T before it is pruned.

    weights: W, float64 [rows, columns], a row for each output channel, the rows of a group of channels together;
    columns as runtimes read them: tap after tap, `inputs` columns each. moments: E[x x^T], float64
    [groups, columns, columns]. free: bool as weights, False where earlier pruning has left zeros, which stay.
    sparsity: share of the weights that goes, 0 to 1, if the pattern does not say it.
    """

    weights: np.ndarray
    moments: np.ndarray
    free: np.ndarray
    pattern: Pattern
    inputs: int
    sparsity: float

    @property
    def energy(self) -> np.ndarray:
        """E[x^2] of each weight's input, [rows, columns]."""
        of_groups = np.diagonal(self.moments, axis1=1, axis2=2)
        return np.repeat(of_groups, len(self.weights) // len(of_groups), axis=0)

    def highest(self, scores: np.ndarray) -> np.ndarray:
        """bool [rows, columns]: the weights that stay, those of highest score, which is at least 0 [rows, columns].

        N of M inputs as the pattern says; single weights are compared in their row, and `sparsity` of each row goes,
        rounded down; blocks are compared in the whole layer, by the mean of their scores.
        """
        scores = np.where(self.free, scores, -1.0)
        rows, columns = scores.shape
        taps = scores.reshape(rows, -1, self.inputs)
        if self.pattern.keep is not None:
            mask = self.pattern.n_of_m(taps)
        elif self.pattern.rows * self.pattern.columns > 1:
            units, sizes = self.pattern.units(taps), self.pattern.sizes(taps.shape)
            mask = self.pattern.mask(choose([units], [sizes], self.sparsity)[0], taps.shape)
        else:
            lowest = np.argsort(scores, axis=1, kind="stable")[:, : int(columns * self.sparsity + ROUNDING)]
            mask = np.ones(scores.shape, bool)
            np.put_along_axis(mask, lowest, values=False, axis=1)
        return mask.reshape(scores.shape) & self.free

    def units(self) -> np.ndarray:
        """Where the columns of each group of N:M, or of each block, begin."""
        taps = np.arange(0, self.weights.shape[1], self.inputs)
        return (taps[:, None] + np.arange(0, self.inputs, self.pattern.columns)).ravel()

    def blocks(self, most: int) -> list[int]:
        """Where blocks of about as many columns begin, of whole units: at most as many, but for a larger unit."""
        starts, ends = self.units(), [*self.units()[1:], self.weights.shape[1]]
        found = [0]
        for start, end in zip(starts, ends, strict=True):
            if end - found[-1] > most and start > found[-1]:
                found.append(int(start))
        return found

    def stays_of(self, scores: np.ndarray, start: int) -> np.ndarray:
        """bool as scores [rows, columns from start on]: the weights of a block of columns that stay, when the share
        `sparsity` of its units goes, and one more, or N of M; one unit stays at least."""
        if self.pattern.keep is not None:
            return self.pattern.n_of_m(scores[:, None])[:, 0]
        rows = np.arange(0, len(scores), self.pattern.rows)
        starts = self.units()
        columns = starts[(starts >= start) & (starts < start + scores.shape[1])] - start
        totals, sizes = (
            np.add.reduceat(np.add.reduceat(array, rows, axis=0), columns, axis=1)
            for array in (scores, np.ones_like(scores))
        )
        order, kept = np.argsort(totals / sizes, axis=None, kind="stable"), np.ones(totals.size, bool)
        kept[order[: min(int(totals.size * self.sparsity + ROUNDING) + 1, totals.size - 1)]] = False
        in_rows = np.repeat(kept.reshape(totals.shape), np.diff([*rows, len(scores)]), axis=0)
        return np.repeat(in_rows, np.diff([*columns, scores.shape[1]]), axis=1)


class Columns:
    """Where a node's weight of some shape lies in the matrix of a LayerMatrix."""

    def __init__(self, node: ir.Node, shape: tuple[int, ...]) -> None:
        places = np.arange(int(np.prod(shape))).reshape(shape)
        taps = to_taps(node, places)
        turn = np.empty(places.size, np.int64)
        turn[taps.ravel()] = np.arange(places.size)
        matrix = to_matrix(node, places)
        self.order = np.argsort(turn[matrix[0]])  # of the columns of `quantize.matrices`, the same in every row
        self.inputs = matrix.shape[1] // taps.shape[1]
        self._places, self._shape = matrix[:, self.order], shape

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """The weight as [rows, columns]."""
        return weight.ravel()[self._places]

    def weight(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse, of the matrix's dtype."""
        weight = np.empty(matrix.size, matrix.dtype)
        weight[self._places.ravel()] = matrix.ravel()
        return weight.reshape(self._shape)
