"""How much each weight or channel matters: the record of a criterion, and how one is found by its name.

A criterion is one file in `criteria/`, and its name is the file's. In it, `@of_weights()` marks a function (weight,
known) of a layer's float weight and its `Statistics`, which returns finite scores of the weight's shape; the lowest go
first. A block's score is the mean of the scores of its weights, a channel's the sum of the scores of all weights that
make or read it, unless `@of_channels()` marks another function that scores channels. Or `@of_layers`
marks one that prunes a whole layer by the calibration data that runs through it (`LayerMatrix`). A user's own function
of (weight, known) is named in the recipe, criterion = "file.py:function".
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.channel_groups import ChannelGroup
from edgecompress.compress.prune import criteria
from edgecompress.compress.prune.layer_matrix import LayerMatrix
from edgecompress.errors import InputError
from edgecompress.support.user_code import is_function_spec, load_function

if TYPE_CHECKING:
    from edgecompress.train import TrainData
    from edgecompress.train.losses import Loss

Scores = dict[ChannelGroup, np.ndarray]  # float64 [size] for each group


@dataclass(frozen=True)
class Statistics:
    """What is known about one weight w, arrays of its shape. Without training data only `draw` is.

    Gradients dL/dw are those of the weight as it is read: with zeros where it is pruned, and there too.
    gradient: mean of dL/dw over batches. squared_gradient: mean of (dL/dw)^2 over batches. fisher: mean of (dL/dw)^2
    over samples, each with a loss of its own; None unless the criterion asks for it. movement: sum of -w * dL/dw over
    training steps, None for channels, which go before training. draw: uniform random numbers, 0 to 1.
    """

    gradient: np.ndarray | None = field(default=None, repr=False)
    squared_gradient: np.ndarray | None = field(default=None, repr=False)
    fisher: np.ndarray | None = field(default=None, repr=False)
    movement: np.ndarray | None = field(default=None, repr=False)
    draw: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ChannelEvidence:
    """What channels are scored by. loss: of the data's labels; None stands for a loss without labels.

    data: None for a criterion that does not look at samples.
    """

    model: ir.Model
    groups: Sequence[ChannelGroup]
    data: TrainData | None = None
    loss: Loss | None = None
    seed: int = 0

    @property
    def samples(self) -> TrainData:
        """The data of a criterion that looks at samples."""
        assert self.data is not None  # channel_scores sees to it
        return self.data


# What a layer's weights become, and which of them stay: float64 and bool [rows, columns]
LayerPruning = Callable[[LayerMatrix], tuple[np.ndarray, np.ndarray]]
WeightScores = Callable[[np.ndarray, Statistics], np.ndarray]
ChannelScores = Callable[[ChannelEvidence], Scores]


@dataclass(frozen=True)
class Criterion:
    """weights: None for a criterion of channels alone, or of layers. channels: None where a channel's score is the sum
    over weights. layers: prunes the weights of whole layers, by calibration data alone.

    of_channels: whether channels can be scored at all. gradients: scores of weights need gradients, so training data;
    per_sample: those of single samples too. samples: scores of channels are measured on samples. labels: and those need
    labels, or a loss that has some. damage: scores of channels are damage to the loss, which can be compared between
    groups as it is. slims: a training that makes the scores of some channels small precedes. does_without: it looks at
    data only where there is some.
    """

    weights: WeightScores | None = None
    channels: ChannelScores | None = None
    layers: LayerPruning | None = None
    of_channels: bool = True
    gradients: bool = False
    per_sample: bool = False
    samples: bool = False
    labels: bool = False
    damage: bool = False
    slims: bool = False
    does_without: bool = False

    @property
    def only_channels(self) -> bool:
        """Whether single weights can't be pruned by it."""
        return self.weights is None and self.layers is None

    @property
    def calibrates(self) -> bool:
        """Whether it prunes layer by layer, by data that calibrates each."""
        return self.layers is not None

    @property
    def needs_data(self) -> bool:
        """Whether it can't score without training data."""
        return self.looks_at_data and not self.does_without

    @property
    def looks_at_data(self) -> bool:
        """Whether scores are measured on training data, where there is any."""
        return self.gradients or self.samples


USERS_OWN = Criterion(weights=lambda weight, known: weight, gradients=True, does_without=True)
_registered: dict[str, Criterion] = {}


def of_weights(
    *, gradients: bool = False, per_sample: bool = False, channels: bool = True
) -> Callable[[WeightScores], WeightScores]:
    """Make a function the criterion of its module for weights. channels: whether sums score channels too."""

    def register(function: WeightScores) -> WeightScores:
        record = replace(_before(function), weights=function, of_channels=channels)
        _update(function, replace(record, gradients=gradients, per_sample=per_sample))
        return function

    return register


def of_channels(
    *, samples: bool = False, labels: bool = False, damage: bool = False, slims: bool = False
) -> Callable[[ChannelScores], ChannelScores]:
    """Make a function the criterion of its module for channels; the keys are those of `Criterion`."""

    def register(function: ChannelScores) -> ChannelScores:
        before = _before(function)
        _update(
            function, replace(before, channels=function, samples=samples, labels=labels, damage=damage, slims=slims)
        )
        return function

    return register


def of_layers(function: LayerPruning) -> LayerPruning:
    """Make a function the criterion of its module, which prunes layer by layer."""
    _update(function, replace(_before(function), layers=function, of_channels=False))
    return function


def _name(function: Callable[..., object]) -> str:
    return function.__module__.rpartition(".")[2]


def _before(function: Callable[..., object]) -> Criterion:
    """What another function of the same module has entered: the two may stand in any order."""
    return _registered.get(_name(function), Criterion())


def _update(function: Callable[..., object], record: Criterion) -> None:
    _registered[_name(function)] = record


def names() -> list[str]:
    """The names of all criteria: those of the files."""
    return sorted(module.name for module in pkgutil.iter_modules(criteria.__path__))


def criterion(name: str) -> Criterion:
    """The record of the criterion of this name, or of a user's function.

    Raises InputError for a name that no file has, and for a file that marks no function.
    """
    if is_function_spec(name):
        return USERS_OWN
    if name not in names():
        raise InputError(f"criterion {name!r}: expected one of {', '.join(names())}, or file.py:function")
    module = importlib.import_module(f"{criteria.__name__}.{name}")
    if name not in _registered:
        raise InputError(
            f"{module.__file__}: no function is marked as the criterion; write @of_weights() above a function of "
            "(weight, known), or @of_channels() above one of (evidence)"
        )
    return _registered[name]


def all_criteria() -> dict[str, Criterion]:
    """Name -> record."""
    return {name: criterion(name) for name in names()}


def load_criterion(name: str) -> Callable[[np.ndarray, Statistics, str], np.ndarray]:
    """(weight, known, the layer's name) -> scores, by a criterion of weights or by what `file.py:function` names.

    Raises InputError for a user's function that can't be loaded; what is returned does when that function fails, or
    returns something that is no scores.
    """
    if is_function_spec(name):
        return _users_own(name, load_function(name))
    of_weights = criterion(name).weights

    def scores(weight: np.ndarray, known: Statistics, layer: str) -> np.ndarray:
        assert of_weights is not None  # recipe_faults sees to it
        return of_weights(weight, known)

    return scores


def _users_own(name: str, function: Callable[..., object]) -> Callable[[np.ndarray, Statistics, str], np.ndarray]:
    def scores(weight: np.ndarray, known: Statistics, layer: str) -> np.ndarray:
        returned = function(weight.copy(), known)  # a copy: the array may be the parameter's own memory
        try:
            found = np.asarray(returned, np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{name} returned {type(returned).__name__} for layer {layer!r}; expected an array of "
                f"shape {list(weight.shape)}"
            ) from error
        if found.shape != weight.shape:
            raise InputError(
                f"{name} returned shape {list(found.shape)} for layer {layer!r}; expected the weight's, "
                f"{list(weight.shape)}"
            )
        # Weights that aren't finite are those of a training that runs away, whose loss says so.
        if np.isfinite(weight).all() and not (np.isfinite(found).all() and found.min(initial=0) >= 0):
            raise InputError(
                f"{name} returned scores from {found.min():g} to {found.max():g} for layer {layer!r}; "
                "expected finite ones that are at least 0"
            )
        return found

    return scores
