"""GPTQ for int4 weights in blocks: column by column, so that each makes up for the errors of those before it.

E. Frantar et al., "GPTQ" (ICLR 2023), algorithm 1. The steps of a block are chosen when its turn comes, from the
weights as errors before it left them. At the end all steps of a channel are the best for its whole numbers: those of
least error of the outputs, by least squares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize import int4_blocks, matrices, operators
from edgecompress.compress.quantize.eliminate import eliminate
from edgecompress.compress.quantize.gptq import damping_for
from edgecompress.compress.quantize.layer_inputs import Calibrator
from edgecompress.compress.quantize.moments import Moments, inverse_factors
from edgecompress.evaluate.dataset import Dataset
from edgecompress.graph.annotations import quantization, set_quantization
from edgecompress.graph.fusion import Layer, constant, layers

RIDGE = 1e-6  # of the mean, on the diagonal of the equations for steps


@dataclass(frozen=True)
class RoundedBlocks:
    """whole: int8 [channels, k], -8..7. scale, zero: [channels, blocks]."""

    whole: np.ndarray
    scale: np.ndarray
    zero: np.ndarray

    def real(self, size: int) -> np.ndarray:
        """float64 [channels, k]."""
        block = np.arange(self.whole.shape[1]) // size
        return (self.whole - self.zero[:, block]) * self.scale.astype(np.float64)[:, block]


def round_in_blocks(reference: ir.Model, annotated: ir.Model, dataset: Dataset, zero_points: bool) -> ir.Model:
    """A clone of the annotated model with its int4 matrices in blocks rounded again, layer after layer, each with
    inputs from rounded ones, and with biases that keep the means of outputs. Tables, and matrices that several layers
    read, stay.

    reference: the float model that it was annotated from. zero_points: whether blocks have some.
    """
    annotated = annotated.clone()
    rounded_so_far = as_floats(annotated)
    walk = Calibrator(reference, dataset, seed=0).walk(rounded_so_far)
    its = {str(v.name): v for v in rounded_so_far.graph.initializers.values()}
    by_name = {str(layer.node.name): layer for layer in layers(rounded_so_far.graph)}
    for layer, value in _matrices(annotated.graph):
        weight = np.asarray(constant(value))
        matrix = matrices.to_matrix(layer.node, weight).astype(np.float64)
        q, its_layer = quantization(value), by_name[str(layer.node.name)]
        assert q is not None and q.block is not None
        moments, size = walk.moments(its_layer, *matrix.shape), q.block
        damping, lowest = damping_for(moments, len(dataset)), int4_blocks.LOW + q.narrow_range
        rounded = round_matrix(matrix, moments, size, zero_points, damping, lowest)
        set_quantization(value, replace(q, scale=rounded.scale, zero_point=rounded.zero.astype(np.int32)))
        real = rounded.real(size)
        stored = matrices.from_matrix(layer.node, real.astype(np.float32), weight.shape)
        changed = {value: stored} | ({} if layer.bias is None else {layer.bias: moments.bias(real)})
        for constant_value, array in changed.items():
            constant_value.const_value = ir.tensor(array, name=constant_value.name)
            its[str(constant_value.name)].const_value = constant_value.const_value
    return annotated


def as_floats(annotated: ir.Model) -> ir.Model:
    """A clone whose weights are what theirs stand for, in float."""
    clone = annotated.clone()
    for value in clone.graph.initializers.values():
        q, array = quantization(value), constant(value)
        if q is not None and array is not None:
            value.const_value = ir.tensor(q.dequantize(q.quantize(array)), name=value.name)
            set_quantization(value, None)
    return clone


def _matrices(graph: ir.Graph) -> Iterator[tuple[Layer, ir.Value]]:
    readers = Counter(v for node in graph for v in node.inputs if v is not None)
    for layer in layers(graph):
        value = operators.weight(layer)
        if value is None or (q := quantization(value)) is None or q.block is None:
            continue
        if readers[value] == 1 and (layer.bias is None or readers[layer.bias] == 1):
            yield layer, value


def round_matrix(
    matrix: np.ndarray, moments: Moments, size: int, zero_points: bool, damping: float, lowest: int = int4_blocks.LOW
) -> RoundedBlocks:
    """A matrix [channels, k] in blocks of so many inputs. Weights that are zero have been pruned, and stay so."""
    target, hessians = moments.solution(damping, matrix), moments.damped(damping)
    pruned, (channels, k) = matrix == 0, matrix.shape
    count, whole = -(-k // size), np.zeros(matrix.shape, np.int8)
    scale, zero = np.ones((channels, count)), np.zeros((channels, count), np.int64)

    def rounded(current: np.ndarray, j: int) -> np.ndarray:
        b = j // size
        if j % size == 0:  # of columns that have all errors of those before, or of all but the last ones
            scale[:, b], zero[:, b] = int4_blocks.steps(current[:, j : j + size], zero_points, lowest)
        stored = int4_blocks.nearest(current[:, j], scale[:, b], zero[:, b], lowest)
        whole[:, j] = np.where(pruned[:, j], zero[:, b], stored)
        return (whole[:, j] - zero[:, b]) * scale[:, b]

    eliminate(target, inverse_factors(hessians), rounded)
    return RoundedBlocks(
        whole, _best_steps(target, whole - zero[:, np.arange(k) // size], hessians[0], scale, size), zero
    )


def _best_steps(
    target: np.ndarray, whole: np.ndarray, hessian: np.ndarray, before: np.ndarray, size: int
) -> np.ndarray:
    """float32 [channels, blocks]: the steps s of least (s n - w) H (s n - w) for whole numbers n and weights w; a
    channel where one would not be positive keeps those that it had."""
    channels, k = whole.shape
    count, starts = before.shape[1], np.arange(0, k, size)
    equations, right = np.empty((channels, count, count)), np.empty((channels, count))
    wanted = target @ hessian
    for b, start in enumerate(starts):
        part = slice(start, start + size)
        through = whole[:, part] @ hessian[part]
        equations[:, b] = np.add.reduceat(through * whole, starts, axis=1)
        right[:, b] = (wanted[:, part] * whole[:, part]).sum(axis=1)
    ridge = RIDGE * np.trace(equations, axis1=1, axis2=2) / count + np.finfo(np.float64).tiny
    solved = np.linalg.solve(equations + ridge[:, None, None] * np.eye(count), right[:, :, None])[:, :, 0]
    good = (solved > 0).all(axis=1, keepdims=True)
    return np.where(good, solved, before).astype(np.float32)
