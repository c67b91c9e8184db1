"""What [prune] criterion and allocation are where the recipe says "auto". For channels, what lost least, on images that
nothing was trained on, over the six networks of docs/TRAINING.md; for weights, magnitudes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecompress.compress.prune.criterion import criterion

if TYPE_CHECKING:
    from edgecompress.recipe import Prune

AUTO = "auto"
# whether there is training data -> criterion, allocation
CHANNELS = {True: ("fisher", "lamp"), False: ("l2", "capacity")}
WEIGHTS = {True: ("l2", "lamp"), False: ("l2", "lamp")}
CALIBRATED = "uniform"  # allocation of criteria that prune layer by layer, as published
OF_CRITERION = {"scale": "global"}  # one threshold for all scales, as Liu et al. have it


def for_channels(settings: Prune, *, trains: bool) -> Prune:
    """The settings with criterion and allocation decided for channels."""
    return _decided(settings, *CHANNELS[trains])


def for_weights(settings: Prune, *, trains: bool) -> Prune:
    """The settings with criterion and allocation decided for single weights."""
    return _decided(settings, *WEIGHTS[trains])


def calibrates(settings: Prune) -> bool:
    """Whether weights are pruned layer by layer, by calibration data alone."""
    return settings.criterion != AUTO and criterion(settings.criterion).calibrates


def for_layers(settings: Prune) -> Prune:
    """The settings with allocation decided for a criterion that prunes layer by layer."""
    return _decided(settings, settings.criterion, CALIBRATED)


def _decided(settings: Prune, by: str, allocation: str) -> Prune:
    open_ones = {"criterion": by, "allocation": OF_CRITERION.get(settings.criterion, allocation)}
    return settings.model_copy(update={key: v for key, v in open_ones.items() if getattr(settings, key) == AUTO})
