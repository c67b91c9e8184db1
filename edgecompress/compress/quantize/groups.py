"""Union-find over values that share something, such as a scale."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir


class Groups:
    """Disjoint sets of values, joined step by step."""

    def __init__(self) -> None:
        self._parent: dict[ir.Value, ir.Value] = {}

    def find(self, value: ir.Value) -> ir.Value:
        """The value that stands for the group of this one; a value that was never joined stands for itself."""
        root = value
        while (parent := self._parent.setdefault(root, root)) is not root:
            root = parent
        while value is not root:
            self._parent[value], value = root, self._parent[value]
        return root

    def has(self, value: ir.Value) -> bool:
        """Whether the value was joined or looked for."""
        return value in self._parent

    def join(self, values: Iterable[ir.Value]) -> None:
        """Puts all the values, and whatever they are already joined with, into one group."""
        first, *rest = values
        for value in rest:
            self._parent[self.find(value)] = self.find(first)

    def members(self) -> dict[ir.Value, list[ir.Value]]:
        """Every group that was joined or looked for: the value that stands for it -> all its values."""
        result: dict[ir.Value, list[ir.Value]] = {}
        for value in self._parent:
            result.setdefault(self.find(value), []).append(value)
        return result
