"""How much each weight matters: scores that pruning compares.

A criterion is a function (weight, known) of a layer's float weight and its `Statistics`. It returns scores of the
weight's shape, finite and at least 0; the lowest go first. A block's score is the mean over its weights, a channel's
the sum over all weights that make or read it. A new criterion is one function in `CRITERIA` (and, if it needs
gradients, in `NEED_GRADIENTS`); a user's own is named in the recipe, criterion = "file.py:function".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edgecompress.errors import InputError
from edgecompress.evaluate.user_code import is_function_spec, load_function


@dataclass(frozen=True)
class Statistics:
    """What is known about one weight w, arrays of its shape. Without training data only `draw` is.

    gradient: mean of dL/dw over batches. squared_gradient: mean of (dL/dw)^2. movement: sum of -w * dL/dw over
    training steps, None for channels, which go before training. draw: uniform random numbers, 0 to 1.
    """

    gradient: np.ndarray | None = field(default=None, repr=False)
    squared_gradient: np.ndarray | None = field(default=None, repr=False)
    movement: np.ndarray | None = field(default=None, repr=False)
    draw: np.ndarray | None = field(default=None, repr=False)


Criterion = Callable[[np.ndarray, Statistics], np.ndarray]


def l1(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """|w| (H. Li et al., "Pruning filters for efficient ConvNets", 2017)."""
    return np.abs(weight)


def l2(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """w^2."""
    return np.square(weight)


def taylor(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """|w dL/dw|: the loss's first-order change without w (P. Molchanov et al., "Importance estimation for neural
    network pruning", 2019, equation 8)."""
    assert known.gradient is not None
    return np.abs(weight * known.gradient)


def fisher(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """w^2 F, with the empirical Fisher information F = E[(dL/dw)^2] for the diagonal of the Hessian (Y. LeCun et al.,
    "Optimal brain damage", 1990; L. Theis et al., "Faster gaze prediction with dense networks and Fisher pruning",
    2018)."""
    assert known.squared_gradient is not None
    return np.square(weight) * known.squared_gradient


def movement(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """How far training moved w away from zero (V. Sanh et al., "Movement pruning", 2020, section 4)."""
    assert known.movement is not None
    return np.asarray(known.movement - known.movement.min())


def random(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """Nothing: what the others are to be compared with."""
    assert known.draw is not None
    return known.draw


CRITERIA: dict[str, Criterion] = {f.__name__: f for f in (l1, l2, taylor, fisher, movement, random)}
NEED_GRADIENTS = ("taylor", "fisher", "movement")
OF_CHANNELS = ("activation", "scale")  # what a channel does, not what its weights are: see channel_scores.py
NAMES = (*CRITERIA, *OF_CHANNELS)


def is_criterion(name: str) -> bool:
    return name in NAMES or is_function_spec(name)


def uses_gradients(name: str) -> bool:
    """Whether gradients are to be gathered for it; a user's function can do without where there is no data."""
    return name in NEED_GRADIENTS or is_function_spec(name)


def load_criterion(name: str) -> Callable[[np.ndarray, Statistics, str], np.ndarray]:
    """(weight, known, the layer's name) -> scores, by a function in `CRITERIA` or what `file.py:function` names.

    Raises InputError for a user's function that can't be loaded; what is returned does when that function fails, or
    returns what aren't scores.
    """
    if not is_function_spec(name):
        return lambda weight, known, layer: CRITERIA[name](weight, known)
    function = load_function(name)

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
