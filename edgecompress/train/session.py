"""How one run of the training loop is named, seeded, saved and reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Session:
    """One run of the training loop, apart from what is trained and on what.

    stage: what the run is for, as logs and reports name it. seed: everything random depends on it, on the epoch and on
    the step alone. checkpoint: a file that holds the whole state after each epoch; None keeps none. resume: go on from
    that file where it exists. log: gets a line for each epoch; by default the logger "edgecompress" does.
    """

    stage: str = "training"
    seed: int = 0
    checkpoint: Path | None = None
    resume: bool = False
    log: Callable[[str], None] | None = None


DEFAULT_SESSION = Session()
