"""Runs a plan on this machine, one prepared kernel call after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecompress_runtime.errors import RuntimeModelError, UnsupportedOperatorError
from edgecompress_runtime.jit import compiled
from edgecompress_runtime.kernels import KERNELS, Call, Raw
from edgecompress_runtime.kernels.movement import BITS
from edgecompress_runtime.plan import EXIT, Operator, Plan, Tensor


class Executor:
    """Holds the arrays of every tensor and the calls that fill them."""

    def __init__(self, plan: Plan) -> None:
        """Raises UnsupportedOperatorError, naming every operator that has no kernel."""
        missing = sorted({o.kind for o in plan.operators} - KERNELS.keys())
        if missing:
            raise UnsupportedOperatorError(f"no kernel for {', '.join(missing)}")
        self.plan = plan
        self._arrays = {t: _storage(t) for t in plan.tensors}
        self._steps = [(o, [self._bound(call) for call in calls_of(plan, o)]) for o in plan.operators]
        self.reset()

    def reset(self) -> None:
        """Sets all states to zero."""
        for place, _ in self.plan.states:
            tensor = self.plan.tensors[self.plan.inputs[place]]
            self._arrays[tensor][:] = zero(tensor)

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Inputs in the plan's order, each of its tensor's shape and dtype -> copies of the outputs. States, which are
        neither, stay here."""
        given, taken = self.plan.given, self.plan.taken
        if len(inputs) != len(given):
            raise RuntimeModelError(f"expected {len(given)} inputs, got {len(inputs)}")
        for index, array in zip(given, inputs):
            tensor = self.plan.tensors[index]
            if array.shape != tensor.shape or array.dtype != tensor.dtype:
                raise RuntimeModelError(
                    f"input {tensor.name!r}: expected {tensor.dtype} {tensor.shape}, got {array.dtype} {array.shape}"
                )
            self._arrays[tensor][:] = array.reshape(-1)
        for operator, bound in self._steps:
            for kernel, arguments in bound:
                kernel(*arguments)
            if operator.kind == EXIT and self.tensor(operator.outputs[0]).any():
                return [self.tensor(index) for index in operator.inputs[1:]]
        results = [self.tensor(index) for index in taken]
        kept = [self.tensor(self.plan.outputs[place]) for _, place in self.plan.states]  # all before any is written
        for (place, _), state in zip(self.plan.states, kept):
            self._arrays[self.plan.tensors[self.plan.inputs[place]]][:] = state.reshape(-1)
        return results

    def tensor(self, index: int) -> np.ndarray:
        """A copy of what tensor `index` holds after the last run."""
        tensor = self.plan.tensors[index]
        return self._arrays[tensor].reshape(tensor.shape).copy()

    def _bound(self, call: Call) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return compiled(call.kernel), tuple(self._value(argument) for argument in call.arguments)

    def _value(self, argument: Any) -> Any:
        """What the compiled kernel takes: integers and floats of 32 bits, flat arrays."""
        if isinstance(argument, Tensor):
            array = self._arrays[argument]
            return array.view(np.int8) if array.dtype == bool else array
        if isinstance(argument, Raw):
            array = self._arrays[argument.tensor]
            return array.view(BITS[array.dtype.itemsize])[argument.start :]
        if isinstance(argument, np.ndarray):
            return argument
        if isinstance(argument, tuple):
            return tuple(self._value(part) for part in argument)
        return np.float32(argument) if isinstance(argument, float) else np.int32(argument)


def zero(tensor: Tensor) -> int:
    """What stands for zero in the tensor."""
    return tensor.zero if tensor.scale.size else 0


def calls(plan: Plan) -> list[Call]:
    """The kernel calls of a plan, in order."""
    return [call for operator in plan.operators for call in calls_of(plan, operator)]


def calls_of(plan: Plan, operator: Operator) -> list[Call]:
    """The kernel calls of one operator of a plan."""
    inputs = [None if i < 0 else plan.tensors[i] for i in operator.inputs]
    outputs = [plan.tensors[i] for i in operator.outputs]
    return KERNELS[operator.kind](inputs, outputs, operator.options)


def _storage(tensor: Tensor) -> np.ndarray:
    if tensor.data is not None:
        return np.ascontiguousarray(tensor.data, tensor.dtype).reshape(-1)
    return np.zeros(tensor.size, tensor.dtype)
