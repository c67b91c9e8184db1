"""The one training loop, which pruning, clustering, quantisation-aware training and distillation share."""

from __future__ import annotations

from edgecompress.train.data import TrainData
from edgecompress.train.hook import Hook
from edgecompress.train.loop import train

__all__ = ["Hook", "TrainData", "train"]
