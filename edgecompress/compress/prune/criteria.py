"""How much each weight matters: scores that pruning compares. A new criterion is one function in `CRITERIA`.

Scores are of the weight's shape and at least 0; those of a channel or a block are the means of its weights' scores.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Statistics:
    """What data said about one weight w, arrays of its shape; None where a criterion does not need it.

    gradient: mean of dL/dw over batches. squared_gradient: mean of (dL/dw)^2. movement: sum of -w * dL/dw over
    training steps. activation: mean |output| of each output channel, broadcast. scale: |gamma| of the
    BatchNormalization behind it, broadcast. draw: uniform random numbers.
    """

    gradient: np.ndarray | None = field(default=None, repr=False)
    squared_gradient: np.ndarray | None = field(default=None, repr=False)
    movement: np.ndarray | None = field(default=None, repr=False)
    activation: np.ndarray | None = field(default=None, repr=False)
    scale: np.ndarray | None = field(default=None, repr=False)
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


def activation(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """Mean |output| of the channel that the weight belongs to."""
    assert known.activation is not None
    return known.activation


def scale(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """|gamma| of the BatchNormalization behind the channel (Z. Liu et al., "Network slimming", 2017)."""
    assert known.scale is not None
    return known.scale


def movement(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """How far training moved w away from zero (V. Sanh et al., "Movement pruning", 2020, section 4)."""
    assert known.movement is not None
    return np.asarray(known.movement - known.movement.min())


def random(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """Nothing: what the others are to be compared with."""
    assert known.draw is not None
    return known.draw


CRITERIA: dict[str, Criterion] = {
    f.__name__: f for f in (l1, l2, taylor, fisher, activation, scale, movement, random)
}
