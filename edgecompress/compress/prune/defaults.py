"""What [prune] criterion and allocation are where the recipe says "auto". For channels, what lost least, on images that
nothing was trained on, over the six networks of docs/TRAINING.md; for weights, magnitudes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecompress.recipe import Prune

AUTO = "auto"
# whether there is training data -> criterion, allocation
CHANNELS = {True: ("fisher", "lamp"), False: ("l2", "capacity")}
WEIGHTS = {True: ("l2", "lamp"), False: ("l2", "lamp")}
OF_CRITERION = {"scale": "global"}  # one threshold for all scales, as Liu et al. have it


def for_channels(settings: Prune, *, trains: bool) -> Prune:
    """The settings with criterion and allocation decided for channels."""
    return _decided(settings, *CHANNELS[trains])


def for_weights(settings: Prune, *, trains: bool) -> Prune:
    """The settings with criterion and allocation decided for single weights."""
    return _decided(settings, *WEIGHTS[trains])


def _decided(settings: Prune, criterion: str, allocation: str) -> Prune:
    open_ones = {"criterion": criterion, "allocation": OF_CRITERION.get(settings.criterion, allocation)}
    return settings.model_copy(update={key: v for key, v in open_ones.items() if getattr(settings, key) == AUTO})
