"""Finds channels that can be removed without changing the outputs; this needs no data.

With data more are found: weights of 1e-12 times an input of which nothing is known may give anything, but not times one
that is a few times as large as on the data at most. What a channel adds to the sums of its readers then has to be less
than what float32 rounds off of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.channel_groups import ChannelGroup, channel_groups, is_depthwise, name_of, prunable
from edgecompress.analysis.value_bounds import Values, intervals
from edgecompress.compress.prune.channels import remove_channels
from edgecompress.compress.prune.patterns import axes_of, inputs_in_memory, parse_pattern
from edgecompress.graph.annotations import sparsity
from edgecompress.graph.channel_axes import shape
from edgecompress.graph.fusion import constant
from edgecompress.graph.intervals import UNIT, along, padded
from edgecompress.graph.nodes import argument
from edgecompress.operators import record_of
from edgecompress.support.present import present

MARGIN = 8.0  # times the largest magnitude on the data: what a value is taken to be within
TINY = 1e-7  # of a layer's largest weight: less is all but zero


@dataclass(frozen=True)
class Measured:
    """What values were on data, by name. largest: magnitude. mean: of magnitudes, float64 [1, ...], of each element."""

    largest: Mapping[str, float]
    mean: Mapping[str, np.ndarray]

    def along(self, value: ir.Value, axis: int) -> np.ndarray | None:
        """[size]: the mean magnitude at each position along an axis; None for a value that was not measured."""
        mean = self.mean.get(str(value.name))
        return None if mean is None else mean.mean(tuple(i for i in range(mean.ndim) if i != axis))


@dataclass(frozen=True)
class Dead:
    """Channels of one group that went. unread: all weights that read them are zero; constant: they have the same
    value for all inputs, which the biases of their readers have taken over; negligible: all together they add less
    than half a unit in the last place to the sums of their readers. Where values were measured on data, constant are
    also those that vary by so little.
    """

    group: str
    unread: int
    constant: int
    negligible: int

    @property
    def count(self) -> int:
        """How many channels can be removed."""
        return self.unread + self.constant + self.negligible

    def __str__(self) -> str:
        parts = [
            f"{n} {what}"
            for n, what in (
                (self.unread, "that nothing reads"),
                (self.constant, "constant"),
                (self.negligible, "negligible"),
            )
            if n
        ]
        return f"{self.group}: {' and '.join(parts)}"


def is_nearly_dead(model: ir.Model) -> bool:
    """Whether a channel of some layer has weights that are all but zero: then it is worth while to measure."""
    for node in model.graph:
        weight = constant(node.inputs[1]) if node.op_type in ("Conv", "Gemm") else None
        if weight is not None and weight.size:
            largest = np.abs(weight).reshape(len(weight), -1).max(1)
            if (largest < TINY * largest.max()).any():
                return True
    return False


def remove_dead_channels(
    model: ir.Model, measure: Callable[[ir.Model], Measured] | None = None
) -> tuple[ir.Model, tuple[Dead, ...]]:
    """The model without dead channels, and what went; the model itself when there are none.

    A channel is dead for a layer that reads it when the weights that read it are zero; or when it has one value for
    all inputs (its own weights are zero, or what follows them clips it) and the layer has no pads, or the value is
    zero, so that the layer's bias can take it over; or when it is negligible in every sum of the layer.
    Channels that every reader could do without go, and again until none is left: each removal may make others dead.
    One channel stays in each group; where weights were pruned in blocks, those stay whose removal would break one.
    measure: what a model's values are on data.
    """
    found: dict[str, list[int]] = {}
    while True:
        measured = measure(model) if measure else Measured({}, {})
        bounds = intervals(model, {name: MARGIN * most for name, most in measured.largest.items()})
        copy, removed = model.clone(), {}
        for group in prunable(channel_groups(model)):
            if group.approximate is not None or not _ends_in_readers(model, group):
                continue
            readers = list(_readers(model, group, bounds, measured))
            kinds = _dead(readers, group.size, bounds)
            if kinds.all():
                kinds[0] = 0
            kinds[~_without_breaking_blocks(model, group, kinds > 0)] = 0
            if kinds.any():
                removed[group] = np.flatnonzero(kinds)
                _fold(readers, copy, np.flatnonzero(kinds >= 2))
                counts = found.setdefault(group.name, [0, 0, 0])
                for kind in (1, 2, 3):
                    counts[kind - 1] += int((kinds == kind).sum())
        if not removed:
            return model, tuple(Dead(name, *counts) for name, counts in found.items())
        model = remove_channels(copy, removed)


@dataclass(frozen=True)
class _Reader:
    """A layer that multiplies channels with constant weights. array: its weights, the axis that it reads first, as they
    are stored. places: of the channels along that axis; channels: of the group, one each place; low, high [places]:
    bounds of x there. mean [axis]: of magnitudes of x on data, None without any.
    """

    node: ir.Node
    array: np.ndarray
    places: np.ndarray
    channels: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray | None

    @cached_property
    def weights(self) -> np.ndarray:
        """float64 [places, out, taps]."""
        return _by_output(self.array[self.places])

    @property
    def unread(self) -> np.ndarray:
        """bool [places]: whether all of its weights are zero."""
        return ~np.any(self.array, axis=tuple(range(1, self.array.ndim)))[self.places]

    @cached_property
    def rounded(self) -> np.ndarray:
        """[out]: half of what float32 rounds off of a sum of such size as on the data."""
        assert self.mean is not None
        return UNIT / 2 * (np.abs(_by_output(self.array)).sum(2) * self.mean[:, None]).sum(0)

    @property
    def steady(self) -> np.ndarray:
        """bool [places]: whether it has one value, as far as float32 sums show."""
        return (self.low == self.high) | self._is_rounded_off((self.high - self.low) / 2)

    @property
    def value(self) -> np.ndarray:
        """[places]: of what is steady."""
        with np.errstate(invalid="ignore"):  # of what is unbounded
            return np.where(self.steady, (self.low + self.high) / 2, 0.0)

    @property
    def too_small(self) -> np.ndarray:
        """bool [places]: whether sums are the same without it, as far as float32 sums show."""
        return self._is_rounded_off(np.maximum(np.abs(self.low), np.abs(self.high)))

    def _is_rounded_off(self, sizes: np.ndarray) -> np.ndarray:
        """bool [places]: those that, each as large as it is here, add less to every sum, all together, than its
        rounding takes off."""
        if self.mean is None or not self.rounded.any():
            return np.zeros(len(sizes), bool)
        read = np.abs(self.weights).sum(2)
        with np.errstate(invalid="ignore", divide="ignore"):
            added = np.where(read == 0, 0.0, read * sizes[:, None] / self.rounded)
        worst = np.where(np.isnan(added), np.inf, added).max(1, initial=0.0)
        order = np.argsort(worst)
        result = np.zeros(len(sizes), bool)
        result[order] = np.cumsum(worst[order]) <= 1
        return result

    @property
    def has_bias(self) -> bool:
        """Whether it has a bias to which a constant input adds the same everywhere."""
        return self.node.op_type == "Gemm" or (self.node.op_type == "Conv" and not padded(self.node))


def _ends_in_readers(model: ir.Model, group: ChannelGroup) -> bool:
    """Whether every node that a channel reaches passes it on, or multiplies it with constant weights."""
    inside = {m.value for m in group.members}
    readers = {x.node for x in group.read_by}
    if not readers or {x.op_type for x in group.made_by} & {"GRU", "LSTM", "RNN"}:  # which read what they have made
        return False
    for node in model.graph:
        if not any(v is not None and v.name in inside and constant(v) is None for v in node.inputs):
            continue
        if name_of(node) not in readers and not any(v.name in inside for v in node.outputs):
            return False
    return True


def _readers(model: ir.Model, group: ChannelGroup, bounds: Values, measured: Measured) -> Iterator[_Reader]:
    """All but depthwise layers, behind which the channel goes on to be read."""
    members = {(m.value, m.axis): m for m in group.members}
    wanted = {x.node for x in group.read_by}
    for node in model.graph:
        if name_of(node) not in wanted or is_depthwise(node):
            continue
        for position, into in ((m.position, m.into) for m in record_of(node).weights.matrices):
            weight, x = constant(node.inputs[position]), argument(node, 0 if position else 1)
            axis = 1 if node.op_type in ("Conv", "ConvTranspose") else len(shape(x)) - (1 if position else 2)
            member = members.get((str(x.name), axis))
            read = (str(argument(node, position).name), into % max(len(shape(argument(node, position))), 1))
            if weight is None or member is None or read not in members:  # an LSTM's R reads what it has made, not x
                continue
            array = np.moveaxis(_dense(node, weight), into, 0)
            line, places = along(bounds[x], axis, shape(x)[axis]), member.positions
            low, high = line.low[places], line.high[places]
            yield _Reader(node, array, places, member.channels, low, high, measured.along(x, axis))


def _by_output(array: np.ndarray) -> np.ndarray:
    """[in, out, kernel...] as float64 [in, out, taps]; a vector reads for one output."""
    return array.astype(np.float64).reshape(len(array), array.shape[1] if array.ndim > 1 else 1, -1)


def _dense(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    """Weights of a grouped convolution as those of one without groups."""
    groups = node.attributes.get_int("group", 1) if node.op_type == "Conv" else 1
    if groups == 1:
        return weight
    out, into = weight.shape[:2]
    dense = np.zeros((out, into * groups, *weight.shape[2:]), weight.dtype)
    for g in range(groups):
        rows = slice(g * out // groups, (g + 1) * out // groups)
        dense[rows, g * into : (g + 1) * into] = weight[rows]
    return dense


def _dead(readers: Sequence[_Reader], size: int, bounds: Values) -> np.ndarray:
    """For each channel 0 (alive), 1 (unread), 2 (constant) or 3 (negligible): the highest that a reader says."""
    alive, kinds = 4, np.ones(size, np.int8)
    for reader in readers:
        kind = np.full(len(reader.channels), alive, np.int8)
        kind[_negligible(reader, size, bounds) | reader.too_small] = 3
        kind[reader.steady & (reader.has_bias | ((reader.low == 0) & (reader.high == 0)))] = 2
        kind[reader.unread] = 1
        np.maximum.at(kinds, reader.channels, kind)
    return np.where(kinds == alive, 0, kinds)


def _without_breaking_blocks(model: ir.Model, group: ChannelGroup, dead: np.ndarray) -> np.ndarray:
    """Those of the dead channels, bool [size], that take whole blocks of every block pattern with them."""
    dead, axes = dead.copy(), list(_axes_in_blocks(model, group))
    while True:
        before = dead.copy()
        for places, channels, length, block in axes:
            gone = np.zeros(length, bool)
            gone[places] = dead[channels]
            whole = np.logical_and.reduceat(gone, np.arange(0, length, block))
            dead[channels[~whole[places // block]]] = False
        if np.array_equal(dead, before):
            return dead


def _axes_in_blocks(model: ir.Model, group: ChannelGroup) -> Iterator[tuple[np.ndarray, np.ndarray, int, int]]:
    """Along each axis of a weight that was pruned in blocks, (places of the group's channels in the order in which
    blocks are made, the channels there, length of the axis, of a block)."""
    members = {(m.value, m.axis): m for m in group.members}
    for node in model.graph:
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        pruned = sparsity(weight)
        if weight is None or pruned is None:
            continue
        pattern = parse_pattern(pruned.pattern)
        if pattern.keep is not None:  # patterns_again sees to these
            continue
        outputs, inputs = axes_of(node, len(shape(weight)))
        place = np.argsort(inputs_in_memory(node, shape(weight)[inputs]))
        for axis, block, places in ((outputs, pattern.rows, None), (inputs, pattern.columns, place)):
            member = members.get((str(weight.name), axis))
            if member is not None and block > 1:
                where = member.positions if places is None else places[member.positions]
                yield where, member.channels, shape(weight)[axis], block


def _negligible(reader: _Reader, size: int, bounds: Values) -> np.ndarray:
    """bool [places]: whether all negligible channels together add less than half a unit in the last place to any sum,
    whose own bounds keep away from zero."""
    if reader.node.op_type not in ("Conv", "Gemm"):
        return np.zeros(len(reader.channels), bool)
    y = reader.node.outputs[0]
    out = along(bounds[y], 1, shape(y)[1])
    least = np.where((out.low > 0) | (out.high < 0), np.minimum(np.abs(out.low), np.abs(out.high)), 0.0)
    largest = np.maximum(np.abs(reader.low), np.abs(reader.high))
    if not least.any():  # then only nothing is less
        return reader.unread | (largest == 0)
    sizes = np.abs(reader.weights).sum(2)
    with np.errstate(invalid="ignore"):
        added = np.where(sizes == 0, 0.0, sizes * largest[:, None])
    return np.all(added <= UNIT / 2 / len(reader.channels) * least, axis=1)


def _fold(readers: Sequence[_Reader], copy: ir.Model, channels: np.ndarray) -> None:
    """The biases of the readers in the copy take over what these constant channels add."""
    biases = {name_of(n): argument(n, 2) for n in copy.graph if n.op_type in ("Conv", "Gemm")}
    for reader in readers:
        if not reader.has_bias:
            continue
        values = np.where(np.isin(reader.channels, channels), reader.value, 0.0)
        added = np.einsum("p,pot->o", values, reader.weights) if values.any() else values
        if added.any():
            bias = present(biases[name_of(reader.node)])
            array = (present(constant(bias)) + added).astype(np.float32)
            bias.const_value = ir.tensor(array, name=bias.name)
