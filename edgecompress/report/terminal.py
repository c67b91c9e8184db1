"""The report as tables of at most 80 columns, for terminals and notebooks."""

from __future__ import annotations

import abc
import io
from collections.abc import Callable, Sequence
from pathlib import PurePath

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgecompress.record.report import Artifact, Check, Report
from edgecompress.record.units import count, size

WIDTH = 80
WORST_LAYERS = 5
IN_WORDS = {"dynamic": "int8 weights, float activations"}  # the others say it themselves


def render(report: Report) -> RenderableType:
    """Header, artifacts, accuracy, worst layers, requested against achieved, notes: what has content."""
    parts = (_header, _artifacts, _accuracy, _devices, _worst_layers, _requested, _notes)
    return Group(*[part for make in parts if (part := make(report)) is not None])


class Shown(abc.ABC):
    """What shows itself in terminals, and as the same tables in notebooks. Dataclasses of this kind have repr=False."""

    @abc.abstractmethod
    def __rich__(self) -> RenderableType: ...

    def __str__(self) -> str:
        return as_text(self.__rich__())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self.__rich__())


def as_text(renderable: RenderableType) -> str:
    """Plain text, no colours."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def as_html(renderable: RenderableType) -> str:
    """One <pre> element with inline colours."""
    console = Console(file=io.StringIO(), width=WIDTH, record=True, force_jupyter=False)
    console.print(renderable)
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def print_fitting(renderable: RenderableType) -> None:
    """To stdout, in colour on a terminal."""
    console = Console()
    console.print(renderable, width=min(WIDTH, console.width))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose columns after the first align right when they start with a space in `columns`."""
    result = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False)
    for name in columns:
        result.add_column(name.strip(), justify="right" if name.startswith(" ") else "left", overflow="fold")
    for row in rows:
        result.add_row(*map(escape, row))
    return result


def in_words(encoding: str) -> str:
    return IN_WORDS.get(encoding, encoding)


def _header(report: Report) -> Text:
    model, target = report.model, report.target
    source = PurePath(model.path).name if model.path else f"{model.format} model"
    text = Text.assemble((source, "bold"), " -> ", (target.name, "bold"), f": {target.description}\n")
    facts = [f"{count(model.parameters)} parameters", f"{count(model.macs)} MACs"]
    if model.bytes is not None:
        facts.append(f"input file {size(model.bytes)}")
    text.append(", ".join(facts))
    if report.status != "ok":
        hint = "; with --train, weights can go" if "size" in report.status and not report.training else ""
        text.append(f"\n{report.status}: see Requested and achieved{hint}", style="bold red")
    return text


def _artifacts(report: Report) -> Table:
    before = report.model.bytes
    rows = [
        (a.path, in_words(a.encoding), size(a.bytes), f"{100 * a.bytes / before:.1f} %" if before else "-")
        for a in report.artifacts
    ]
    return table("\nArtifacts", ("File", "Encoding", " Size", " Of input"), rows)


def _accuracy(report: Report) -> Table | None:
    checks = [(a, c) for a in report.artifacts for c in a.checks]
    if not checks:
        return None
    score = report.achieved.float_value
    title = "\nAgainst the float model" if score is None else f"\nAccuracy: {report.requested.metric}"
    columns = [(name, cell) for name, cell in _CHECK_COLUMNS if score is not None or name not in _SCORES]
    rows = [["failed" if c.error and name not in _WHICH else cell(a, c) for name, cell in columns] for a, c in checks]
    return table(title, [name for name, _ in columns], rows)


def number(value: float | None, form: str, missing: str = "-") -> str:
    return missing if value is None else format(value, form)


_WHICH, _SCORES = {"Format", "Interpreter"}, {" Float", " Value"}
_CHECK_COLUMNS: tuple[tuple[str, Callable[[Artifact, Check], str]], ...] = (
    ("Format", lambda a, c: a.format),
    ("Interpreter", lambda a, c: f"{c.interpreter} {c.version}"),
    (" Samples", lambda a, c: f"{c.samples:,}"),
    (" Float", lambda a, c: number(c.reference_value, ".2f")),
    (" Value", lambda a, c: number(c.value, ".2f")),
    (" Agrees %", lambda a, c: number(c.agreement_percent, ".2f")),
    (" SNR dB", lambda a, c: number(c.snr_db, ".1f", missing="exact")),
)


def _devices(report: Report) -> RenderableType | None:
    from edgecompress.report.device_table import comparison

    measured = report.devices or report.device_failures
    return comparison(report.devices, report.device_failures) if measured else None


def _worst_layers(report: Report) -> Table | None:
    measured = [layer for layer in report.layers if layer.snr_db is not None][:WORST_LAYERS]
    if not measured:
        return None
    rows = [(x.name, x.op, x.encoding, f"{x.snr_db:.1f}", x.cause) for x in measured]
    return table("\nWorst layers", ("Layer", "Operator", "Encoding", " SNR dB", "Probable cause"), rows)


def requested(report: Report) -> list[tuple[str, str, str]]:
    """(what, asked for, achieved)"""
    asked, got = report.requested, report.achieved
    kept = f", {len(got.float_layers)} layers in float" if got.float_layers else ""
    rows = [("encoding", f"{asked.weights} weights, {asked.activations} activations", in_words(got.encoding) + kept)]
    rows.append(("formats", ", ".join(asked.formats), ", ".join(a.format for a in report.artifacts)))
    for g in report.goals:
        rows.append((g.what, _goal(g.requested, g.unit), _goal(g.achieved, g.unit) + (g.note and f": {g.note}")))
    limit = "any" if asked.max_drop is None else f"at most {asked.max_drop:g}"
    rows.append((f"{asked.metric} drop", limit, number(got.drop, ".2f", missing="not measured")))
    if report.target.flash_bytes is not None:
        largest = max(a.bytes for a in report.artifacts)
        rows.append(("file, in flash", f"at most {size(report.target.flash_bytes)}", size(largest)))
    return rows


def _requested(report: Report) -> Table:
    return table("\nRequested and achieved", ("", "Requested", "Achieved"), requested(report))


_UNITS: dict[str, Callable[[float], str]] = {
    "bytes": lambda value: size(round(value)),
    "MACs": lambda value: f"{count(round(value))} MACs",
    "%": lambda value: f"{value:.1f} %",
    "blocks": lambda value: f"{value:g} block{'' if value == 1 else 's'}",
    "bits": lambda value: f"{value:g}" if value == round(value) else f"{value:.2f}",
    "dB": lambda value: f"{value:.1f} dB",
}


def _goal(value: float, unit: str) -> str:
    return _UNITS[unit](value)


def _notes(report: Report) -> Text | None:
    return Text("\n".join(f"- {note}" for note in report.notes)) if report.notes else None
