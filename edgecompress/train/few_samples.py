"""What training does by default where it has few samples, from which networks learn by heart."""

from __future__ import annotations

import numpy as np

from edgecompress.recipe import Train
from edgecompress.support.user_code import is_function_spec
from edgecompress.train.augment import CHANNELS
from edgecompress.train.train_data import TrainData

FEW = 2000  # samples
LEAST_SIDE = 16  # pixels: of a smaller image one pixel is too much
WIDEST = 2  # the longer side over the shorter one: a spectrogram that is moved is another sound
PATIENCE, LEAST_PATIENCE = 1 / 3, 5  # of the epochs; epochs
BATCH, LEAST_BATCH, STEPS = 128, 16, 10  # samples; samples; of an epoch, at least


def batch_size(settings: Train, samples: int, processes: int = 1) -> int:
    """How many samples a step takes, over all processes, which divide them evenly: what the settings say; or so many
    that an epoch has STEPS, since networks learn little in a few steps."""
    if settings.batch is not None:
        return settings.batch
    size = min(BATCH, max(LEAST_BATCH, samples // STEPS))
    return max(size // processes * processes, processes)


def settled(settings: Train, data: TrainData) -> Train:
    """The settings with augment and patience decided: few images are cropped, and training stops early."""
    few = len(data) < FEW
    augment, patience = settings.augment, settings.patience
    if augment == "auto":
        augment = "crop" if few and _may_move(settings, data) else "none"
    if patience is None and few:
        patience = max(round(PATIENCE * settings.epochs), LEAST_PATIENCE)
    return settings.model_copy(update={"augment": augment, "patience": patience})


def _may_move(settings: Train, data: TrainData) -> bool:
    """Whether inputs are images whose labels stay right when they are moved: one class each; or the teacher's outputs,
    which it computes from the same moved images."""
    labels, shape = data.labels, data.batch(np.arange(1)).inputs[0].shape[1:]
    if len(data.columns) != 1 or len(shape) != 3 or not {shape[0], shape[-1]} & set(CHANNELS):
        return False
    if is_function_spec(settings.loss) or (labels is not None and (labels.dtype.kind != "i" or labels.ndim != 1)):
        return False
    sides = shape[:2] if shape[-1] in CHANNELS and shape[0] not in CHANNELS else shape[1:]
    return min(sides) >= LEAST_SIDE and max(sides) <= WIDEST * min(sides)
