"""Positions along the axes of all values, and which of them can only be removed together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError


class ChannelAxes:
    """Each position along each axis of each value has a number; rules of operators relate them.

    couple: two positions are removed together or not at all (the dependency graph of Fang et al., "DepGraph: Towards
    Any Structural Pruning", CVPR 2023, at the level of single channels, so that offsets, groups and interleaving need
    no further notion). fix: a position stays, and why. approximate: without it, the rest is computed otherwise than
    with zeros in its place.
    """

    def __init__(self, graph: ir.Graph) -> None:
        """No positions are related yet."""
        self._first: dict[tuple[ir.Value, int], int] = {}
        self.values = [*graph.inputs, *graph.initializers.values()]
        self.values += [v for node in graph for v in node.outputs if v.name and v.shape is not None]
        self._known, count = set(self.values), 0
        for value in self.values:
            for axis, size in enumerate(shape(value)):
                self._first[value, axis] = count
                count += size
        self._component = np.arange(count)
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._fixed = np.zeros(count, np.int32)  # 1 + index of the reason
        self._approximate = np.zeros(count, np.int32)
        self._reasons: list[str] = []

    def __contains__(self, value: ir.Value) -> bool:
        """Whether the value's positions have numbers: not those of an output that nobody named."""
        return value in self._known

    def ids(self, value: ir.Value, axis: int) -> np.ndarray:
        """Numbers of the positions along an axis."""
        axis %= len(shape(value))
        first = self._first[value, axis]
        return np.arange(first, first + shape(value)[axis])

    def couple(self, a: np.ndarray, b: np.ndarray) -> None:
        """Couples arrays of positions of the same shape, or broadcast."""
        a, b = np.broadcast_arrays(a, b)
        self._pending.append((a.reshape(-1), b.reshape(-1)))

    def fix(self, ids: np.ndarray, reason: str) -> None:
        """Marks positions that must stay, with all that are coupled with them."""
        self._mark(self._fixed, ids, reason)

    def approximate(self, ids: np.ndarray, reason: str) -> None:
        """Marks positions whose removal changes the result more than zeros in their place would."""
        self._mark(self._approximate, ids, reason)

    def components(self) -> np.ndarray:
        """For each position the smallest number among those coupled with it, by hooking and pointer jumping."""
        label = self._component
        if self._pending:
            a, b = (np.concatenate(side) for side in zip(*self._pending))
            self._pending = []
            while True:
                ra, rb = label[a], label[b]
                different = ra != rb
                if not different.any():
                    break
                a, b, ra, rb = a[different], b[different], ra[different], rb[different]
                np.minimum.at(label, np.maximum(ra, rb), np.minimum(ra, rb))
                while not np.array_equal(shorter := label[label], label):
                    label = shorter
            self._component = label
        return label

    def fixed(self) -> np.ndarray:
        """For each position 0, or 1 + the index in `reasons` of why it and what is coupled with it must stay."""
        return self._spread(self._fixed)

    def approximated(self) -> np.ndarray:
        """Like `fixed`, for positions that `approximate` named."""
        return self._spread(self._approximate)

    def reason(self, mark: int) -> str:
        """The sentence behind a number that `fixed` or `approximated` gives."""
        return self._reasons[mark - 1]

    def _mark(self, marks: np.ndarray, ids: np.ndarray, reason: str) -> None:
        self._reasons.append(reason)
        flat = np.asarray(ids).reshape(-1)
        marks[flat[marks[flat] == 0]] = len(self._reasons)

    def _spread(self, marks: np.ndarray) -> np.ndarray:
        component = self.components()
        none = np.iinfo(np.int32).max
        first = np.full(len(marks), none, np.int32)
        np.minimum.at(first, component, np.where(marks == 0, none, marks))
        spread = first[component]
        return np.where(spread == none, 0, spread)


def shape(value: ir.Value) -> tuple[int, ...]:
    """The value's static shape; ingest guarantees that there is one, UnsupportedModelError says where there isn't."""
    dims = () if value.shape is None else tuple(n for n in value.shape if isinstance(n, int))
    if value.shape is None or len(dims) < len(value.shape):
        raise UnsupportedModelError(f"value {value.name!r} has no static shape; pass --input-shape for the inputs")
    return dims


def dtype_of(value: ir.Value) -> ir.DataType:
    """The type of the value's elements; ingest guarantees that it is known, UnsupportedModelError says where not."""
    if value.dtype is None:
        raise UnsupportedModelError(f"value {value.name!r} has no known type")
    return value.dtype


def elements(value: ir.Value) -> int:
    """How many numbers the value has."""
    return math.prod(shape(value))


def axes_except(value: ir.Value, left_out: Sequence[int]) -> list[int]:
    """All axes of the value except these, which may be negative (counted from the end)."""
    rank = len(shape(value))
    return [i for i in range(rank) if i not in {a % rank for a in left_out}]
