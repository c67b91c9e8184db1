"""`convert`: a model in, verified artifacts and a report out."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from edgecompress import __version__, output, pipeline
from edgecompress.cli.options import parse_preprocess
from edgecompress.fallback import convert_within_limit
from edgecompress.fit import fit, require_fit
from edgecompress.graph.statistics import statistics
from edgecompress.ingest import load
from edgecompress.recipe import Recipe
from edgecompress.report import build, terminal
from edgecompress.report.layers import report_layers
from edgecompress.report.model import Achieved, Report, Requested
from edgecompress.report.units import size
from edgecompress.request import effective_recipe, encoding
from edgecompress.stages import StageLog
from edgecompress.targets import load_target

REPORT, RECIPE = "report.json", "recipe.toml"


@dataclass(frozen=True, repr=False)
class Result:
    """What a conversion made. Shows itself as the report's tables in terminals and notebooks.

    report: everything measured, as in report.json. directory: where the files are.
    """

    report: Report
    directory: Path

    @property
    def ok(self) -> bool:
        """False when an artifact lost more accuracy than max_drop."""
        return self.report.status == "ok"

    @property
    def artifacts(self) -> dict[str, Path]:
        """Format -> path of the artifact."""
        return {a.format: self.directory / a.path for a in self.report.artifacts}

    def __rich__(self) -> RenderableType:
        return terminal.render(self.report)

    def __str__(self) -> str:
        return terminal.as_text(self.__rich__())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return terminal.as_html(self.__rich__())


def convert(
    model: Any,
    target: str = "android",
    *,
    output_dir: str | Path | None = None,
) -> Result:
    raise AssertionError
