"""Which values to store better, as int16 or as floats: those first whose rounding harms the outputs most for the cost.

Nothing is quantized again to find out: one simulation (`tuning.Tuner`) measures what any choice would do.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.bit_widths import can_be_int16
from edgecompress.compress.quantize.choose_method import steps_of
from edgecompress.compress.quantize.dynamic import can_be_dynamic
from edgecompress.compress.quantize.tuning import Step
from edgecompress.graph.annotations import is_integer, quantization
from edgecompress.graph.channel_axes import elements
from edgecompress.graph.fusion import Layer, constant, layers
from edgecompress.operators import record_of

INT16_BITS = 7  # more than int8's
FLOAT_BITS = 60  # more than int8's: of values far below the step as well, which a logarithm tells apart
INT16_COST, FLOAT_COST = 1, 3  # of a multiply-accumulate, beside int8's 1
TOGETHER = 2 / 3  # of a part's gain, that its halves have to gain, each alone, not to stay together
NEGLIGIBLE = 0.002  # of all noise: a part that adds less is not looked into


class Candidates:
    """Groups of values that could be stored better, and the layers that would have to compute so.

    groups: the names of the values that share a scale, in the order of the graph. reference: the float model, whose
    layers can be chosen; what only requantizes in the annotated one can't.
    """

    def __init__(self, annotated: ir.Model, reference: ir.Model, *, float_allowed: bool) -> None:
        self._known = {v.name for node in reference.graph for v in node.outputs}
        self._touching: dict[str, list[Layer]] = {}
        self._float, self._own = float_allowed, steps_of(annotated)
        self._inputs = {str(v.name) for v in annotated.graph.inputs}
        # Callers of a target without floats know int8 inputs and outputs.
        fixed = set() if float_allowed else self._inputs | {str(v.name) for v in annotated.graph.outputs}
        # An input alone becomes better together with the layers that read it; not so what only moves its numbers.
        for layer in layers(annotated.graph):
            if is_integer(layer.node):
                values = [v for _, v in operators.data_inputs(layer) if constant(v) is None]
                for value in [*values, *operators.outputs(layer)]:
                    self._touching.setdefault(str(value.name), []).append(layer)
        able = {
            name
            for name, found in self._touching.items()
            if name not in fixed and (float_allowed or all(map(can_be_int16, found)))
        }
        groups = [names for names in groups_of(annotated) if able.issuperset(names)]
        self.groups = [names for names in groups if not self._inputs.issuperset(names)]

    def layers_of(self, indices: Iterable[int]) -> list[Layer]:
        """The layers that compute these groups' values or read them, each once; what only moves numbers follows."""
        found = [layer for layer in self._touched(indices).values() if layer.output.name in self._known]
        return [x for x in found if self._float or not operators.RULES[x.node.op_type].passive]

    def changes(self, indices: Iterable[int]) -> tuple[dict[str, Step], list[str]]:
        """(steps of all values that are stored better then, names of the weights that are exact)"""
        found, bits = self._touched(indices), FLOAT_BITS if self._float else INT16_BITS
        steps = {
            name: self._own[name].finer(bits)
            for name, touching in self._touching.items()
            if name in self._own
            and (self._float or name not in self._inputs)
            and all(layer.node in found for layer in touching)
        }
        exact = [layer for layer in found.values() if self._float and not can_be_dynamic(layer)]
        weights = [operators.weight(layer) for layer in exact]
        return steps, [str(value.name) for value in weights if value is not None]

    def cost(self, indices: Iterable[int]) -> int:
        """What storing groups better costs, in multiply-accumulates on int8, and bytes."""
        found = self.layers_of(indices)
        each = FLOAT_COST if self._float else INT16_COST
        work = sum(elements(layer.output) + each * macs(layer) for layer in found)
        return 1 + work + (each * sum(map(weights_of, found)) if self._float else 0)

    def _touched(self, indices: Iterable[int]) -> dict[ir.Node, Layer]:
        return {layer.node: layer for i in indices for name in self.groups[i] for layer in self._touching[name]}


def groups_of(annotated: ir.Model) -> list[tuple[str, ...]]:
    """The names of the values that share a scale, in the order of the graph."""
    groups: dict[int, list[str]] = {}
    for value in [*annotated.graph.inputs, *(v for node in annotated.graph for v in node.outputs)]:
        if (q := quantization(value)) is not None:
            groups.setdefault(id(q), []).append(str(value.name))
    return [tuple(names) for names in groups.values()]


@dataclass(eq=False)
class Part:
    """Candidates one after the other, and what storing all of them better gains. halves: where it was divided."""

    indices: range
    gain: float
    halves: tuple[Part, ...] = ()

    def leaves(self) -> list[Part]:
        """The parts that were not divided."""
        return [leaf for half in self.halves for leaf in half.leaves()] or [self]

    def order(self, cost: Callable[[Iterable[int]], int]) -> list[int]:
        """All candidates, those first that gain most for their cost. Those that gain much only together stay so."""
        units = [unit for half in self.halves for unit in half._units()]
        units.sort(key=lambda unit: (-unit.gain / cost(unit.indices), unit.indices.start))
        return [index for unit in units for index in unit.order(cost)] if units else list(self.indices)

    def _units(self) -> list[Part]:
        alone = sum(max(half.gain, 0.0) for half in self.halves)
        if not self.halves or alone < TOGETHER * self.gain:
            return [self]
        return [unit for half in self.halves for unit in half._units()]


def divided(count: int, gain: Callable[[range], float], negligible: float, stop: Callable[[], bool]) -> Part:
    """All candidates, divided down to single ones, except for parts that gain little.

    The part that gains most is halved first, so that a few harmful candidates are found in few measurements, and most
    is known when time is over.
    """
    whole = Part(range(count), gain(range(count)))
    waiting = [(-whole.gain, 0, whole)]
    while waiting and not stop():
        _, _, part = heapq.heappop(waiting)
        if len(part.indices) > 1 and part.gain >= negligible:
            middle = len(part.indices) // 2
            part.halves = tuple(Part(half, gain(half)) for half in (part.indices[:middle], part.indices[middle:]))
            for half in part.halves:
                heapq.heappush(waiting, (-half.gain, half.indices.start, half))
    return whole


def fewest(most: int, reaches: Callable[[int], bool]) -> int | None:
    """The fewest that reach a target, if more are never worse; None if not even all do. Asks for 1, 2, 4, ... up to the
    first that does, then between: about 2 log2(most) questions."""
    low, high = 0, min(1, most)
    while high < most and not reaches(high):
        low, high = high, min(2 * high, most)
    if not most or (high == most and not reaches(most)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def macs(layer: Layer) -> int:
    """Multiply-accumulates of the layer."""
    return record_of(layer.node).macs(layer.node)


def weights_of(layer: Layer) -> int:
    """How many weights the layer has that grow where it computes in float."""
    if can_be_dynamic(layer):
        return 0
    array = constant(operators.weight(layer))
    return 0 if array is None else int(array.size)
