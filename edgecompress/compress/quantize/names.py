"""Names for values and nodes that are inserted into a user's graph."""

from __future__ import annotations

import onnx_ir as ir


class Names:
    """Gives out names that no value and no node of the graph has, each of them once."""

    def __init__(self, graph: ir.Graph) -> None:
        values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
        self._taken = {v.name for v in values} | {node.name for node in graph}
        self._last: dict[str, int] = {}

    def __call__(self, wanted: str) -> str:
        """The wanted name, with a number appended where it is taken."""
        name = wanted
        while name in self._taken:
            self._last[wanted] = self._last.get(wanted, 1) + 1
            name = f"{wanted}_{self._last[wanted]}"
        self._taken.add(name)
        return name
