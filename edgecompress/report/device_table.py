"""Tables of at most 80 columns that show what devices measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group
from rich.text import Text

from edgecompress.record.report import Counts, DeviceFailure, DeviceRun
from edgecompress.report.tables import table

WORDS = {"instructions": "Instructions", "cycles": "Cycles", "ns": "Microseconds"}
UNITS = {"instructions": "instr.", "cycles": "cycles", "ns": "us"}


def detail(run: DeviceRun) -> Group:
    """All figures of one run."""
    rows = [("Inferences", f"{run.runs:,}" + (f" after {run.warmup} to warm up" if run.warmup else ""))]
    if run.equal is not None:
        rows.append(("Outputs equal to this machine's", _equal(run)))
    if (c := run.counts) is not None:
        word = f"{WORDS[c.unit]} per inference"
        median = "" if c.median is None else f"median {_count(c, c.median)}, "
        rows.append((word, f"{median}mean {_count(c, c.mean)} ± {_count(c, c.spread)}"))
        tail = "" if c.p90 is None or c.p99 is None else f", p90 {_count(c, c.p90)}, p99 {_count(c, c.p99)}"
        rows.append(("", f"min {_count(c, c.min)}{tail}, max {_count(c, c.max)}"))
    if run.arena_bytes is not None:
        rows.append(("Arena", f"{run.arena_bytes:,} bytes"))
    if run.flash_bytes is not None:
        rows.append(("Flash", f"{run.flash_bytes:,} bytes, {run.text_bytes or 0:,} of them code"))
    if run.stack_bytes is not None:
        rows.append(("Stack, high-water mark", f"{run.stack_bytes:,} bytes"))
    if run.energy_microjoules is not None:
        rows.append(
            ("Energy of the processor for one inference", f"{run.energy_microjoules:,.1f} uJ, start-up included")
        )
    if run.accuracy is not None:
        unit = "" if run.metric == "mae" else " %"
        host = "" if run.equal is None else f" (this machine: {run.host_accuracy:.2f}{unit})"
        rows.append((f"Accuracy, {run.metric}", f"{run.accuracy:.2f}{unit}{host}"))
    head = Text.assemble((run.artifact, "bold"), " on ", (run.device, "bold"), f": {run.description}")
    notes = [Text("\n".join(f"- {note}" for note in run.notes))] if run.notes else []
    return Group(head, table("", ("Measured", "Result"), rows), *notes)


def comparison(runs: Sequence[DeviceRun], failures: Sequence[DeviceFailure] = ()) -> Group:
    """One line for each run, the figures that can be compared; and for each failure, with the reasons below."""
    columns: list[tuple[str, Callable[[DeviceRun], str]]] = [
        ("Artifact", lambda r: r.artifact),
        ("Device", lambda r: r.device),
        (" Median", lambda r: "-" if r.counts is None else f"{_count(r.counts, r.counts.middle)}"),
        ("Unit", lambda r: "-" if r.counts is None else UNITS[r.counts.unit]),
        (" Accuracy", lambda r: "-" if r.accuracy is None else f"{r.accuracy:.2f}"),
        (" Flash", lambda r: "-" if r.flash_bytes is None else f"{r.flash_bytes:,}"),
        (" RAM", lambda r: "-" if r.arena_bytes is None else f"{r.arena_bytes + (r.stack_bytes or 0):,}"),
        ("Equal", equal),
    ]
    rows = [[cell(run) for _, cell in columns] for run in runs]
    rows += [[f.artifact, f.device, *("-" for _ in columns[3:]), "failed"] for f in failures]
    reasons = [Text(f"- {f.artifact} on {_reason(f)}") for f in failures]
    return Group(table("\nOn devices", [name for name, _ in columns], rows), *reasons)


def _reason(failure: DeviceFailure) -> str:
    """Which device, and why; the error may begin with the device itself."""
    begins = failure.error.startswith((f"{failure.device}:", f"{failure.device} "))
    return failure.error if begins else f"{failure.device}: {failure.error}"


def equal(run: DeviceRun) -> str:
    """Whether the device's outputs are this machine's, in a word."""
    return "-" if run.equal is None else "yes" if run.equal else "nearly" if run.agrees else "NO"


def _count(counts: Counts, value: float) -> str:
    return f"{value / 1e3:,.1f}" if counts.unit == "ns" else f"{value:,.0f}"


def _equal(run: DeviceRun) -> str:
    if run.equal:
        return "yes, bit for bit"
    if run.agrees:
        return f"within {run.largest_difference:.1e} of the largest"
    shown = ", ".join(map(str, run.different_runs[:5]))
    return f"NO: {len(run.different_runs)} differ, first {shown}"
