"""Which weights of a layer stay, for the largest sum of their scores: anywhere, N of M, or whole blocks."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.ingest.passes.edit import static_shape
from edgecompress.operators import record_of


@dataclass(frozen=True)
class Pattern:
    """What is pruned or kept together, over weights [output channels, taps, inputs] (see `to_taps`).

    rows, columns: output channels and inputs of a block; 1 and 1 for weights anywhere.
    keep: of each `columns` inputs, as many stay ("2:4": keep 2, columns 4); None: whole blocks.
    """

    name: str
    rows: int = 1
    columns: int = 1
    keep: int | None = None

    def units(self, scores: np.ndarray) -> np.ndarray:
        """float64 scores [o, taps, i] -> the mean score of each block, [blocks of o, taps, blocks of i]."""
        total = self._sums(scores.astype(np.float64))
        return total / self._sums(np.ones_like(scores, np.float64))

    def sizes(self, shape: tuple[int, int, int]) -> np.ndarray:
        """How many weights each block has, as `units`; those at the ends may have fewer."""
        return self._sums(np.ones(shape))

    def mask(self, kept: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        """bool, of blocks as `units` -> of weights [o, taps, i]."""
        o, _, i = shape
        return np.repeat(np.repeat(kept, self.rows, 0)[:o], self.columns, 2)[:, :, :i]

    def n_of_m(self, scores: np.ndarray) -> np.ndarray:
        """The `keep` weights of highest score of each `columns` inputs: bool [o, taps, i]. A shorter last group
        keeps the same share, rounded up."""
        assert self.keep is not None
        o, taps, i = scores.shape
        groups = -(-i // self.columns)
        padded = np.full((o, taps, groups * self.columns), -np.inf)
        padded[:, :, :i] = scores
        order = np.argsort(-padded.reshape(o, taps, groups, self.columns), axis=-1, kind="stable")
        rank = np.argsort(order, axis=-1, kind="stable")
        left = np.minimum(i - np.arange(groups) * self.columns, self.columns)
        most = -(-left * self.keep // self.columns)
        return (rank < most[:, None]).reshape(o, taps, -1)[:, :, :i]

    def _sums(self, array: np.ndarray) -> np.ndarray:
        by_rows = np.add.reduceat(array, np.arange(0, array.shape[0], self.rows), axis=0)
        return np.add.reduceat(by_rows, np.arange(0, array.shape[2], self.columns), axis=2)


def parse_pattern(text: str) -> Pattern:
    """ "unstructured", "N:M" ("2:4") or "block:RxC" ("block:4x1": four output channels by one input).

    Raises InputError for anything else.
    """
    if text == "unstructured":
        return Pattern(text)
    if (found := re.fullmatch(r"(\d+):(\d+)", text)) and 0 < int(found[1]) < int(found[2]):
        return Pattern(text, columns=int(found[2]), keep=int(found[1]))
    if (found := re.fullmatch(r"block:(\d+)x(\d+)", text)) and int(found[1]) * int(found[2]) > 0:
        return Pattern(text, int(found[1]), int(found[2]))
    raise InputError(f'prune.pattern: expected "unstructured", "N:M" such as "2:4" or "block:4x1", found {text!r}')


def axes_of(node: ir.Node, rank: int) -> tuple[int, int]:
    """Where the second input, a weight of this rank, has its output channels and the inputs of one output."""
    weight = next(m for m in record_of(node).weights.matrices if m.position == 1)
    return weight.out % rank, weight.into % rank


def inputs_in_memory(node: ir.Node, inputs: int) -> np.ndarray:
    """The inputs of one output in the order in which runtimes read them, int [inputs].

    That of the weight, but for a flattened image: it lies channels last, and the columns of its reader follow it.
    """
    producer = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if node.op_type in ("Gemm", "MatMul") and producer is not None and producer.op_type == "Reshape":
        image = producer.inputs[0]
        sizes = static_shape(image) if image is not None else None
        if sizes is not None and len(sizes) == 4 and inputs == math.prod(sizes[1:]):
            return np.arange(inputs).reshape(sizes[1:]).transpose(1, 2, 0).ravel()
    return np.arange(inputs)


def to_taps(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    """A layer's weight as [output channels, taps, inputs], inputs of one tap side by side, as runtimes read them."""
    outputs, inputs = axes_of(node, weight.ndim)
    moved = np.moveaxis(weight, (outputs, inputs), (0, -1))
    return moved.reshape(moved.shape[0], -1, moved.shape[-1])[:, :, inputs_in_memory(node, moved.shape[-1])]


def from_taps(node: ir.Node, taps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `to_taps`, for a weight of this shape."""
    outputs, inputs = axes_of(node, len(shape))
    middle = [n for axis, n in enumerate(shape) if axis not in (outputs, inputs)]
    ordered = taps[:, :, np.argsort(inputs_in_memory(node, shape[inputs]))]
    return np.moveaxis(ordered.reshape(shape[outputs], *middle, shape[inputs]), (0, -1), (outputs, inputs))
