"""Union-find: which values belong together."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir


class Groups:
    """Disjoint sets of values, joined step by step."""

    def __init__(self) -> None:
        self._parent: dict[ir.Value, ir.Value] = {}

    def find(self, value: ir.Value) -> ir.Value:
        root = value
        while (parent := self._parent.setdefault(root, root)) is not root:
            root = parent
        while value is not root:
            self._parent[value], value = root, self._parent[value]
        return root

    def join(self, values: Iterable[ir.Value]) -> None:
        first, *rest = values
        for value in rest:
            self._parent[self.find(value)] = self.find(first)

    def members(self) -> dict[ir.Value, list[ir.Value]]:
        result: dict[ir.Value, list[ir.Value]] = {}
        for value in self._parent:
            result.setdefault(self.find(value), []).append(value)
        return result
