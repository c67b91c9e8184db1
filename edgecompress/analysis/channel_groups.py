"""Groups of equivalent channels: any channel of a group can be removed from the whole graph."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import ChannelAxes, shape
from edgecompress.graph.channel_reshape import couple_split
from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument
from edgecompress.operators import record_of


@dataclass(frozen=True)
class Member:
    """Positions along one axis of one value, and which channel of the group each is of."""

    value: str
    axis: int
    positions: np.ndarray = field(repr=False)
    channels: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Layer:
    """A node with a weight that makes or reads the group's channels; `values`: weights that go with a channel."""

    node: str
    op_type: str
    weight: str
    values: int


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """`size` channels, each of which is a set of positions along axes, all removed with it.

    name: of the first layer that makes them. made_by, read_by: a depthwise layer is in both. fixed: why none of
    them can be removed. approximate: why the model without some computes otherwise than with zeros in their place.
    """

    name: str
    size: int
    made_by: tuple[Layer, ...]
    read_by: tuple[Layer, ...]
    members: tuple[Member, ...] = field(repr=False)
    fixed: str | None
    approximate: str | None

    def __str__(self) -> str:
        """Lines that show the group to a person."""
        lines = [f"{self.name}: {self.size} channels" + (f", all stay: {self.fixed}" if self.fixed else "")]
        for title, layers in (("made by", self.made_by), ("read by", self.read_by)):
            lines += [f"  {title} {x.op_type} {x.node}, {x.values:,} weights a channel" for x in layers]
        others = len({m.value for m in self.members}) - len({x.weight for x in (*self.made_by, *self.read_by)})
        lines.append(f"  in {others} other tensors")
        if self.approximate:
            lines.append(f"  not exact: {self.approximate}")
        return "\n".join(lines)


def channel_groups(model: ir.Model) -> list[ChannelGroup]:
    """All groups of a canonical model that some layer's weights make, in graph order, fixed ones too.

    Two channels are of one group when they are along the same axes of the same values.
    """
    positions = _Positions(_coupled(model.graph), *_layers(model.graph))
    component, fixed, owners = positions.axes.components(), positions.fixed, positions.owners
    # A component's signature: the axes that it is along. Sorted by component, then by axis.
    order = np.lexsort((owners, component))
    starts = np.flatnonzero(np.diff(component[order], prepend=-1))
    by_signature: dict[bytes, list[np.ndarray]] = {}
    for ids in np.split(order, starts[1:]):
        where = np.unique(owners[ids])
        stays = np.array([fixed[ids[0]] != 0])
        by_signature.setdefault(where.tobytes() + stays.tobytes(), []).append(ids)
    groups, names = [], Counter[str]()
    for channels in by_signature.values():
        group = positions.group(channels)
        if group is not None:
            groups.append((positions.place(group), group))
    groups.sort(key=lambda pair: pair[0])
    named = []
    for _, group in groups:
        names[group.name] += 1
        count = names[group.name]
        named.append(group if count == 1 else replace(group, name=f"{group.name} ({count})"))
    return named


def prunable(groups: list[ChannelGroup]) -> list[ChannelGroup]:
    """The groups that can lose a channel and still keep one."""
    return [g for g in groups if g.fixed is None and g.size > 1]


def _coupled(graph: ir.Graph) -> ChannelAxes:
    axes, reshapes = ChannelAxes(graph), []
    for value in graph.inputs:
        for axis in range(len(shape(value))):
            axes.fix(axes.ids(value, axis), f"input {value.name!r} keeps its shape")
    for value in axes.values:
        for axis, size in enumerate(shape(value) if constant(value) is None else ()):
            if size == 1:
                axes.fix(axes.ids(value, axis), f"there is only one along axis {axis} of {value.name!r}")
    for node in graph:
        record_of(node).channels(node, axes)
        if node.op_type == "Reshape":  # which dimension may lose positions depends on all other rules
            reshapes.append(node)
    for value in graph.outputs:
        for axis in range(len(shape(value))):
            axes.fix(axes.ids(value, axis), f"output {value.name!r} keeps its shape")
    for node in reshapes:
        couple_split(node, axes)
    return axes


def _owners(axes: ChannelAxes) -> np.ndarray:
    """For each position the number of the axis that it is along."""
    sizes = [n for v in axes.values for n in shape(v)]
    return np.repeat(np.arange(len(sizes)), sizes)


Makers = dict[tuple[str, int], tuple[int, ir.Node]]


def _layers(graph: ir.Graph) -> tuple[Makers, Makers]:
    """(weight, axis) -> (place of its node, the node), of axes of output channels and of input channels."""
    makers: Makers = {}
    readers: Makers = {}
    for place, node in enumerate(graph):
        for position, out, into in ((m.position, m.out, m.into) for m in record_of(node).weights.matrices):
            value = node.inputs[position] if position < len(node.inputs) else None
            if value is None or constant(value) is None:
                continue
            rank = len(shape(value))
            makers.setdefault((str(value.name), out % rank), (place, node))
            reads = out if is_depthwise(node) else into
            if rank > 1:
                readers.setdefault((str(value.name), reads % rank), (place, node))
    return makers, readers


def name_of(node: ir.Node) -> str:
    """What the node is called in a group: its name, or its first output's."""
    return str(node.name or node.outputs[0].name)


def is_depthwise(node: ir.Node) -> bool:
    """Whether each channel of its input goes its own way: it makes and reads the same channels."""
    if node.op_type not in ("Conv", "ConvTranspose"):
        return False
    groups = node.attributes.get_int("group", 1)
    return groups > 1 and shape(argument(node, 0))[1] == groups


class _Positions:
    """Everything that is known of the positions along all axes, and the groups that are made of them."""

    def __init__(self, axes: ChannelAxes, makers: Makers, readers: Makers) -> None:
        self.axes, self._makers, self._readers = axes, makers, readers
        self.fixed, self._approximate = axes.fixed(), axes.approximated()
        self.owners = _owners(axes)
        self._places = [(v, a) for v in axes.values for a in range(len(shape(v)))]

    def place(self, group: ChannelGroup) -> int:
        """The place of the first layer that makes the group's channels."""
        keys = [(m.value, m.axis) for m in group.members]
        return min(self._makers[k][0] for k in keys if k in self._makers)

    def group(self, channels: list[np.ndarray]) -> ChannelGroup | None:
        """channels: the numbers of each one's positions; all are along the same axes. None: no layer makes them."""
        owners = np.unique(self.owners[channels[0]])
        where = [self._places[i] for i in owners]
        if not any((str(v.name), a) in self._makers for v, a in where):
            return None
        ids = np.concatenate(channels)
        number = np.repeat(np.arange(len(channels)), [len(c) for c in channels])
        members = []
        for (value, axis), owner in zip(where, owners):
            inside = self.owners[ids] == owner
            positions = ids[inside] - self.axes.ids(value, axis)[0]
            order = np.argsort(positions)
            members.append(Member(str(value.name), axis, positions[order], number[inside][order]))
        sizes = [
            math.prod(shape(v)) // shape(v)[a] * (len(m.positions) // len(channels))
            for (v, a), m in zip(where, members)
        ]
        made_by = _those_of(self._makers, members, sizes)
        stays, inexact = int(self.fixed[ids[0]]), int(self._approximate[ids].max())
        return ChannelGroup(
            made_by[0].node,
            len(channels),
            made_by,
            _those_of(self._readers, members, sizes),
            tuple(members),
            self.axes.reason(stays) if stays else None,
            self.axes.reason(inexact) if inexact else None,
        )


def _those_of(table: Makers, members: list[Member], sizes: list[int]) -> tuple[Layer, ...]:
    """The layers that make, or read, these members, in graph order. sizes: weights of a channel in each."""
    found = []
    for member, size in zip(members, sizes):
        if (member.value, member.axis) in table:
            place, node = table[member.value, member.axis]
            found.append((place, Layer(name_of(node), node.op_type, member.value, size)))
    return tuple(layer for _, layer in sorted(found, key=lambda pair: pair[0]))
