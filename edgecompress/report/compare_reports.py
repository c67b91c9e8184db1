"""Tables of several conversions side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.table import Table

from edgecompress.record.report import Artifact, Report
from edgecompress.record.units import count, size
from edgecompress.report.files import read_report
from edgecompress.report.html import latency, macs_after, worst_value
from edgecompress.report.tables import number, table

Named = tuple[str, Report]


def read_reports(paths: Sequence[str | Path]) -> list[Named]:
    """Each with the shortest name that tells it from the others: its folder's, or its path."""
    reports = [(Path(p), read_report(p)) for p in paths]
    folders = [(p if p.is_dir() else p.parent).resolve().name for p, _ in reports]
    unique = len(set(folders)) == len(folders)
    return [(folder if unique else str(p), report) for folder, (p, report) in zip(folders, reports)]


def _on_devices(report: Report, artifact: Artifact) -> str:
    runs = [r for r in report.devices if r.artifact == artifact.path and r.counts is not None]
    return ", ".join(" ".join((r.device, *latency(r))) for r in runs) or "-"


# Heading (a space in front: aligned right) and cell, of one artifact of one run.
COLUMNS: tuple[tuple[str, Callable[[str, Report, Artifact], str]], ...] = (
    ("Run", lambda name, report, a: name),
    ("Artifact", lambda name, report, a: f"{report.target.name} .{a.format}"),
    (" Size", lambda name, report, a: size(a.bytes)),
    (" Of input", lambda name, report, a: f"{100 * a.bytes / report.model.bytes:.1f} %" if report.model.bytes else "-"),
    (" MACs", lambda name, report, a: count(macs_after(report))),
    (" Float", lambda name, report, a: number(report.achieved.float_value, ".2f")),
    (" Value", lambda name, report, a: number(worst_value(a), ".2f")),
    ("Devices", lambda name, report, a: _on_devices(report, a)),
)
HEADINGS = [heading for heading, _ in COLUMNS]


def rows(reports: Sequence[Named]) -> list[list[str]]:
    """A line for each artifact of each run, cells as in COLUMNS."""
    return [[cell(name, r, a) for _, cell in COLUMNS] for name, r in reports for a in r.artifacts]


def comparison(reports: Sequence[Named]) -> Table:
    """A table of several reports side by side, at most 80 columns wide."""
    return table("", HEADINGS, rows(reports))
