"""The stages of a run, with the wall time of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgecompress.record.report import Stage
from edgecompress.support.log import LOGGER
from edgecompress.support.progress import progress


@dataclass
class Running:
    """A stage under way: fill in what it measures. `advance(n)` says that n more of its total are done."""

    stage: Stage
    advance: Callable[[int], None]


@dataclass
class StageLog:
    """Stages in the order in which they ended."""

    stages: list[Stage] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Running]:
        """Time the block, and show its progress when it takes long."""
        stage = Stage(name=name, wall_seconds=0.0)
        start = time.perf_counter()
        with progress(name, total) as advance:
            yield Running(stage, advance)
        stage.wall_seconds = round(time.perf_counter() - start, 3)
        self.stages.append(stage)
        accuracy = "" if stage.accuracy is None else f", accuracy {stage.accuracy:.2f}"
        LOGGER.info("%s: %.1f s%s%s", name, stage.wall_seconds, accuracy, stage.note and f": {stage.note}")
