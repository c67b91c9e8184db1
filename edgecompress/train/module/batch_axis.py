"""Where the batch goes in a graph whose Reshapes were written for a batch of one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgecompress.graph.channel_axes import shape
from edgecompress.graph.nodes import argument, parameter_integers
from edgecompress.ingest.equality import random_inputs
from edgecompress.operators.record import TorchFunction
from edgecompress.train.module.torch_functions import Step, Values, known, torch_function

MOST_TRIES = 20_000  # node executions
TOLERANCE = 1e-3  # of the largest value: rounding depends on the batch, another sample's value is far off


def find_batch(
    model: ir.Model,
    steps: Sequence[Step],
    functions: Sequence[TorchFunction],
    fill: Callable[[], Values],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> list[TorchFunction] | None:
    """Functions of the model's nodes that work on any number of samples, or None when there are none.

    The target of a Reshape, [1, 12, 1], doesn't say which of its dimensions grows with the batch. Two samples are
    run alone, then together, and where a node gives something else than the two results side by side, the Reshapes
    before it are tried with the batch in another dimension, the nearest first (depth-first search).
    """
    generator = np.random.default_rng(0)
    singles = [_sample(model, generator) for _ in range(2)]
    if any(x.ndim == 0 for x in singles[0]):
        return None
    with torch.no_grad():
        first, second = (_run(steps, functions, fill(), dict(zip(inputs, sample))) for sample in singles)
        values = fill()
        for slot, *parts in zip(inputs, *singles):
            values[slot] = torch.cat(parts)
        choices = [
            _batch_reshapes(n) if n.op_type == "Reshape" else [f] for n, f in zip(model.graph, functions, strict=True)
        ]
        return _search(
            steps,
            choices,
            values,
            lambda y, slot: _is_batch(y, known(first, slot), known(second, slot), slot in outputs),
        )


def _search(
    steps: Sequence[Step], choices: list[list[TorchFunction]], values: Values, right: Callable[[Tensor, int], bool]
) -> list[TorchFunction] | None:
    """The first combination of choices, one a step, all of whose results are right."""
    chosen: list[TorchFunction] = []
    remaining = [iter(choices[0])] if choices else []
    for _ in range(MOST_TRIES):
        if len(chosen) == len(steps):
            return chosen
        step = steps[len(chosen)]
        function = next(remaining[-1], None)
        if function is None:
            remaining.pop()
            if not chosen:
                return None
            chosen.pop()
            continue
        results = _try(function, [values[s] for s in step.inputs])
        if results is not None and all(right(y, slot) for slot, y in zip(step.outputs, results)):
            for slot, y in zip(step.outputs, results):
                values[slot] = y
            chosen.append(function)
            if len(chosen) < len(steps):
                remaining.append(iter(choices[len(chosen)]))
    return None


def _is_batch(y: Tensor, a: Tensor, b: Tensor, is_output: bool) -> bool:
    """Whether y is what is true of both samples, or theirs along some axis, the batch outside or inside of it.

    An output that has the batch of 1 in front must have the samples there.
    """
    if y.shape == a.shape:
        return _close(y, a) and _close(y, b)
    grown = [i for i, (n, m) in enumerate(zip(y.shape, a.shape)) if n != m]
    if y.ndim != a.ndim or len(grown) != 1 or y.shape[grown[0]] != 2 * a.shape[grown[0]]:
        return False
    axis = grown[0]
    if is_output and a.shape[0] == 1 and axis != 0:
        return False
    return _close(y, torch.cat([a, b], axis)) or _close(y, torch.stack([a, b], axis + 1).reshape(y.shape))


def _close(a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point():
        return torch.equal(a, b)
    finite = torch.isfinite(b)
    largest = b[finite].abs().max().item() if finite.any() else 0.0
    return torch.allclose(a, b, rtol=0.0, atol=TOLERANCE * largest + 1e-30, equal_nan=True)


def _try(function: TorchFunction, inputs: Values) -> Sequence[Tensor] | None:
    try:
        result = function(*inputs)
    except (RuntimeError, IndexError, ValueError):  # shapes that don't go together
        return None
    return (result,) if isinstance(result, Tensor) else result


def _run(
    steps: Sequence[Step], functions: Sequence[TorchFunction], values: Values, inputs: dict[int, Tensor]
) -> Values:
    for slot, x in inputs.items():
        values[slot] = x
    for step, function in zip(steps, functions):
        result = function(*[values[s] for s in step.inputs])
        for slot, y in zip(step.outputs, (result,) if isinstance(result, Tensor) else result):
            values[slot] = y
    return values


def _sample(model: ir.Model, generator: np.random.Generator) -> list[Tensor]:
    arrays = random_inputs(model, generator, lambda rng, shape: rng.standard_normal(shape, np.float32))
    return [torch.from_numpy(a) for a in arrays.values()]


def _batch_reshapes(node: ir.Node) -> list[TorchFunction]:
    """A Reshape written for a batch of one, for any: one function for each place that the batch may take.

    Most probable first: it stays where it is in memory, in a dimension of 1; it is carried to another dimension of
    1, for a Transpose of such dimensions has become a Reshape; it is merged with another dimension; there is none.
    """
    target = parameter_integers(node, 1)
    before = shape(argument(node, 0))
    still = [functools.partial(_reshape, (*target[:i], -1, *target[i + 1 :])) for i in range(len(target))]
    alone = [still[i] for i, n in enumerate(target) if n == 1]
    merged = [still[i] for i, n in enumerate(target) if n != 1]
    moved = [
        functools.partial(_reshape_sample, target, old, n, inner, new)
        for new, m in enumerate(target)
        if m == 1
        for old, n in enumerate(before)
        for inner in ((False,) if n == 1 else (False, True))
    ]
    return [*alone, *moved, *merged, torch_function(node)]


def _reshape(target: tuple[int, ...], x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape(target)


def _reshape_sample(target: list[int], old: int, size: int, inner: bool, new: int, x: Tensor, shape: Tensor) -> Tensor:
    """The batch is dimension `old` of x, or the outer or inner part of it beside the `size` that the model says."""
    split = (size, x.shape[old] // size) if inner else (x.shape[old] // size, size)
    samples = x.unflatten(old, split).movedim(old + inner, 0)
    return samples.reshape(len(samples), *target[:new], *target[new + 1 :]).movedim(0, new)
