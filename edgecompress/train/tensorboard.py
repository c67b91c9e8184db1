"""Writes the figures of each epoch for TensorBoard, if the user asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from edgecompress.errors import MissingPackageError
from edgecompress.record.report import Epoch

FIGURES = ("loss", "validation_loss", "validation_value", "learning_rate", "seconds")


class Board:
    """writer: torch's SummaryWriter, or None to write nothing."""

    def __init__(self, writer: Any = None) -> None:
        self._writer = writer

    def write(self, stage: str, record: Epoch) -> None:
        """Write the figures of an epoch, where there is a writer."""
        if self._writer is None:
            return
        for name in FIGURES:
            value = getattr(record, name)
            if value is not None:
                self._writer.add_scalar(f"{stage}/{name}", value, record.epoch)
        self._writer.flush()


@contextmanager
def open_board(folder: str | None) -> Iterator[Board]:
    """None: a board that writes nothing. Raises MissingPackageError without the package tensorboard."""
    if folder is None:
        yield Board()
        return
    if find_spec("tensorboard") is None:
        raise MissingPackageError(
            '[train] tensorboard needs the package tensorboard: pip install "edgecompress[tensorboard]"'
        )
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder) as writer:
        yield Board(writer)
