"""The one training loop, which pruning, clustering, quantization-aware training and distillation share."""

from __future__ import annotations

from edgecompress.train.hook import Hook
from edgecompress.train.loop import train
from edgecompress.train.session import DEFAULT_SESSION, Session
from edgecompress.train.train_data import TrainData

__all__ = ["DEFAULT_SESSION", "Hook", "Session", "TrainData", "train"]
