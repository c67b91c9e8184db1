"""Channels that gates close: what programs leave out, against full convolutions times the gate, in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ahead import here
from layer_cases import Layers
from layer_cases import gated as gated_case

from edgecompress_runtime.codegen.gated_plan import gates_of
from edgecompress_runtime.plan import Operator, Plan


def _plan(above: int) -> tuple[Plan, list[np.ndarray]]:
    made = Layers(3)
    gated_case(made, (4, 16, 5), 4, above=above)
    return made.plan(), made.feeds()


@pytest.mark.parametrize("above", [-129, -20, 127])
def test_outputs_are_those_of_full_convolutions_times_the_gate(above: int) -> None:
    plan, feeds = _plan(above)
    numbers, image = feeds
    first, second = (o for o in plan.operators if o.kind == "CONV_2D")
    x = plan.tensors[first.inputs[0]]
    inner = _stored(
        plan, first, _convolved(plan, first, float(x.scale[0]) * (image[0].astype(int) - x.zero)), relu=True
    )
    held = plan.tensors[first.outputs[0]]
    real = float(held.scale[0]) * (inner - held.zero) * np.repeat(numbers.reshape(-1) > above, 4)
    expected = _stored(plan, second, _convolved(plan, second, real))
    (found,) = here(plan, feeds)
    # a value halfway between two integers may be rounded to either, here and in front of the second convolution
    assert np.abs(found[0].astype(int) - expected).max() <= 2 and len(np.unique(found)) > 4


def test_a_gate_is_found_only_where_leaving_out_changes_nothing() -> None:
    plan, _ = _plan(0)
    conv, reader = (o for o in plan.operators if o.kind == "CONV_2D")
    found = gates_of(plan)
    assert found.written.keys() == {conv} and found.read(reader) is not None and found.read(conv) is None
    product = found.products[conv]
    held, grid = plan.tensors[product.outputs[0]], plan.tensors[product.inputs[1]]
    coarser = replace(held, scale=held.scale * np.float32(1.5))
    assert not gates_of(_with(plan, held, coarser)).written, "the MUL would requantize"
    table = next(o for o in plan.operators if o.kind == "TABLE")
    entries = plan.tensors[table.inputs[1]]
    assert entries.data is not None
    half = replace(entries, data=np.where(entries.data > -128, 0, -128).astype(np.int8))
    assert not gates_of(_with(plan, entries, half)).written, "0 stands for half here"
    assert not gates_of(replace(plan, outputs=(*plan.outputs, conv.outputs[0]))).written, "others read all channels"
    late = (*(o for o in plan.operators if o is conv), *(o for o in plan.operators if o is not conv))
    assert not gates_of(replace(plan, operators=late)).written, "the gate is not known yet"
    assert grid.scale.size == 1


def _with(plan: Plan, old: object, new: object) -> Plan:
    return replace(plan, tensors=tuple(new if t is old else t for t in plan.tensors))


def _convolved(plan: Plan, operator: Operator, x: np.ndarray) -> np.ndarray:
    """float64 [rows, columns, out] of 3x3 windows with zeros around: real numbers, with the bias."""
    w, bias, source = (plan.tensors[operator.inputs[i]] for i in (1, 2, 0))
    weights = w.data.astype(np.float64) * w.scale.astype(np.float64)[:, None, None, None]
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    total = np.zeros((*x.shape[:2], len(weights)))
    for row in range(3):
        for column in range(3):
            part = padded[row : row + x.shape[0], column : column + x.shape[1]]
            total += np.einsum("yxc,oc->yxo", part, weights[:, row, column])
    return total + bias.data * float(source.scale[0]) * w.scale.astype(np.float64)


def _stored(plan: Plan, operator: Operator, real: np.ndarray, *, relu: bool = False) -> np.ndarray:
    y = plan.tensors[operator.outputs[0]]
    rounded = np.round(real / float(y.scale[0])).astype(int) + y.zero
    return np.clip(rounded, y.zero if relu else -128, 127)
