"""A plan that ends early: EXIT behind each exit of the model, and later layers behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgecompress.graph.annotations import Exit
from edgecompress_runtime.operators import options_of
from edgecompress_runtime.plan import EXIT, Operator, Plan, Tensor


def with_exits(plan: Plan, exits: Sequence[Exit], outputs: Mapping[str, int], name: str) -> Plan:
    """The plan whose outputs are the model's first, from wherever it ends, and which exit that was, int32 [1], counted
    from 1: the number of exits + 1 for the whole network.

    outputs: tensor index by name, the first output's first. name: of the output that says which exit.
    """
    made = _Staged(plan, next(iter(outputs.values())), name)
    for number, place in enumerate(exits, 1):
        made.exit(number, outputs[place.value], outputs[place.confidence], place.threshold)
    return made.plan(len(exits) + 1)


class _Staged:
    def __init__(self, plan: Plan, last: int, name: str) -> None:
        self._plan, self._last, self._name = plan, last, name
        self._tensors, self._operators = list(plan.tensors), list[Operator]()
        self._left = list(plan.operators)

    def exit(self, number: int, value: int, confidence: int, threshold: int) -> None:
        self._run_up_to(value, confidence)
        value = self._like_last(value)
        reached = self._add(Tensor(f"{self._name}_{number}/reached", (1,), np.dtype(bool)))
        inputs = confidence, value, self._number(number)
        self._operators.append(Operator(EXIT, inputs, (reached,), options_of(EXIT, {"threshold": threshold})))

    def plan(self, number: int) -> Plan:
        self._run_up_to(self._last)
        ends = self._last, self._number(number)
        unused = set(range(len(self._tensors))) - {i for o in self._operators for i in (*o.inputs, *o.outputs)}
        kept = [i for i in range(len(self._tensors)) if i not in unused - {*self._plan.inputs, *ends}]
        index = {old: new for new, old in enumerate(kept)} | {-1: -1}
        operators = tuple(
            replace(o, inputs=tuple(index[i] for i in o.inputs), outputs=tuple(index[i] for i in o.outputs))
            for o in self._operators
        )
        inputs, outputs = (tuple(index[i] for i in which) for which in (self._plan.inputs, ends))
        return Plan(tuple(self._tensors[i] for i in kept), operators, inputs, outputs)

    def _run_up_to(self, *tensors: int) -> None:
        """Appends what is left of the operators that these tensors need, in their order."""
        needed = set(tensors)
        for operator in reversed(self._left):
            if needed.intersection(operator.outputs):
                needed.update(operator.inputs)
        self._operators += [o for o in self._left if needed.intersection(o.outputs)]
        self._left = [o for o in self._left if not needed.intersection(o.outputs)]

    def _like_last(self, value: int) -> int:
        """The value as the last output is stored."""
        x, y = self._tensors[value], self._tensors[self._last]
        if x.dtype == y.dtype and np.array_equal(x.scale, y.scale) and np.array_equal(x.zero_point, y.zero_point):
            return value
        stored = self._add(replace(y, name=f"{x.name}/as_output"))
        kind = "QUANTIZE" if y.scale.size else "DEQUANTIZE"
        self._operators.append(Operator(kind, (value,), (stored,), options_of(kind, {})))
        return stored

    def _number(self, number: int) -> int:
        return self._add(Tensor(f"{self._name}/{number}", (1,), np.dtype(np.int32), data=np.array([number], np.int32)))

    def _add(self, tensor: Tensor) -> int:
        self._tensors.append(tensor)
        return len(self._tensors) - 1
