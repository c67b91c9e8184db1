"""A report as tables of at most 80 columns, for terminals and notebooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import PurePath

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgecompress.record.report import Artifact, Check, Report
from edgecompress.record.units import count, size
from edgecompress.report import device_table
from edgecompress.report.tables import in_words, number, table

WORST_LAYERS = 5


def render(report: Report) -> RenderableType:
    """Header, artifacts, accuracy, worst layers, requested against achieved, notes: what has content."""
    parts = (_header, _artifacts, _accuracy, _exits, _devices, _worst_layers, _cures, _requested, _notes)
    return Group(*[part for make in parts if (part := make(report)) is not None])


def _header(report: Report) -> Text:
    model, target = report.model, report.target
    source = PurePath(model.path).name if model.path else f"{model.format} model"
    text = Text.assemble((source, "bold"), " -> ", (target.name, "bold"), f": {target.description}\n")
    facts = [f"{count(model.parameters)} parameters", f"{count(model.macs)} MACs"]
    if model.bytes is not None:
        facts.append(f"input file {size(model.bytes)}")
    text.append(", ".join(facts))
    if report.status != "ok":
        text.append(f"\n{status_line(report)}", style="bold red")
    return text


def status_line(report: Report) -> str:
    """The status, with what is wrong and what can be done."""
    if report.verdict:
        return f"{report.status}: {report.verdict}"
    if report.status == "ok":
        return report.status
    if report.status == "format-refused":
        return f"{report.status}: {'; '.join(f'{name}: {reason}' for name, reason in report.refused.items())}"
    hint = "; with --train, more weights can be removed" if "size" in report.status and not report.training else ""
    return f"{report.status}: see Requested and achieved{hint}"


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
    unused = set() if score is not None else {" Float", " Value"}
    unused |= set() if any(c.equal_percent is not None for _, c in checks) else {EQUAL}
    unused |= set() if any(c.shape for _, c in checks) else {SHAPE}
    unused |= set() if any(c.arena_head_bytes is not None for _, c in checks) else {ARENA}
    columns = [(name, cell) for name, cell in _CHECK_COLUMNS if name not in unused]
    rows = [["failed" if c.error and name not in _WHICH else cell(a, c) for name, cell in columns] for a, c in checks]
    return table(title, [name for name, _ in columns], rows)


def snr_cell(check: Check) -> str:
    """The signal-to-noise ratio of the float outputs: a number, "exact", "lost", or "-" where there are none."""
    ratios = [q for q in check.qualities if q.equal_percent is None]
    if check.snr_db is not None:
        return f"{check.snr_db:.1f}"
    if not ratios:
        return "-"
    return "exact" if all(q.exact for q in ratios) else "lost"


def arena_cell(check: Check) -> str:
    """TFLM's arena: what activations and scratch take, and its own structures; "-" in other interpreters."""
    if check.arena_head_bytes is None or check.arena_persistent_bytes is None:
        return "-"
    return f"{check.arena_head_bytes:,} + {check.arena_persistent_bytes:,}"


USUAL_EQUAL = 99  # percent of equal integers; where more are asked for, classes have no limit of their own
EQUAL = " Equal %"  # a column for models with integer outputs
ARENA = " Arena"  # a column for TFLM
SHAPE = "Shape"  # a column for files that take several
_WHICH = {"Format", "Interpreter", SHAPE}
_CHECK_COLUMNS: tuple[tuple[str, Callable[[Artifact, Check], str]], ...] = (
    ("Format", lambda a, c: a.format),
    ("Interpreter", lambda a, c: f"{c.interpreter} {c.version}"),
    (SHAPE, lambda a, c: c.shape or "-"),
    (" Samples", lambda a, c: f"{c.samples:,}"),
    (" Float", lambda a, c: number(c.reference_value, ".2f")),
    (" Value", lambda a, c: number(c.value, ".2f")),
    (" Agrees %", lambda a, c: number(c.agreement_percent, ".2f")),
    (EQUAL, lambda a, c: number(c.equal_percent, ".2f")),
    (" SNR dB", lambda a, c: snr_cell(c)),
    (ARENA, lambda a, c: arena_cell(c)),
)


def exit_thresholds(report: Report) -> list[tuple[str, ...]]:
    """(threshold of all exits, or of each; percent right; mean MACs; their share; percent of the samples at each exit
    and at the end)"""
    found = report.exits
    if found is None:
        return []
    return [
        (
            "never" if row.thresholds is None else _each(row.thresholds) + " *" * (row.thresholds == found.chosen),
            f"{row.value:.2f}",
            count(round(row.macs)),
            f"{100 * row.macs / max(found.macs[-1], 1):.0f} %",
            " / ".join(f"{share:.0f}" for share in row.shares),
        )
        for row in found.thresholds
    ]


def _each(thresholds: Sequence[float]) -> str:
    """One number where all are alike."""
    return " / ".join(f"{t:.3f}" for t in (thresholds if len(set(thresholds)) > 1 else thresholds[:1]))


def exit_uses(report: Report) -> list[tuple[str, ...]]:
    """(format, interpreter, mean MACs, percent of samples at each exit, percent of these that are right, percent that
    leave as in the float model)"""
    return [
        (
            a.format,
            c.interpreter,
            count(round(c.exits.macs)),
            " / ".join(f"{share:.0f}" for share in c.exits.shares),
            " / ".join(number(value, ".1f") for value in c.exits.values),
            f"{c.exits.same_percent:.1f}",
        )
        for a in report.artifacts
        for c in a.checks
        if c.exits is not None
    ]


THRESHOLDS = (" Threshold", " Right %", " Mean MACs", " Of whole", " Leave at each exit / end, %")
USES = ("Format", "Interpreter", " Mean MACs", " Leave at each, %", " Right of these, %", " As float, %")


def _exits(report: Report) -> RenderableType | None:
    if report.exits is None:
        return None
    title = f"\nEarly exits after {', '.join(report.exits.after)}: validation data (* chosen)"
    uses = table("\nEarly exits in the files", USES, exit_uses(report))
    return Group(table(title, THRESHOLDS, exit_thresholds(report)), uses)


def _devices(report: Report) -> RenderableType | None:
    measured = report.devices or report.device_failures
    return device_table.comparison(report.devices, report.device_failures) if measured else None


def _worst_layers(report: Report) -> Table | None:
    measured = [layer for layer in report.layers if layer.snr_db is not None][:WORST_LAYERS]
    if not measured:
        return None
    rows = [(x.name, x.op, x.encoding, f"{x.snr_db:.1f}", x.cause) for x in measured]
    return table("\nWorst layers", ("Layer", "Operator", "Encoding", " SNR dB", "Probable cause"), rows)


def cures(report: Report) -> list[tuple[str, ...]]:
    """(what was tried, where, ratio before, ratio after, cost, whether it was kept)"""
    rows: list[tuple[str, ...]] = []
    for cure in report.cures:
        layers = f"{len(cure.names)} {'value' if not cure.macs else 'layer'}{'' if len(cure.names) == 1 else 's'}"
        costs = [f"{count(cure.macs)} MACs" if cure.macs else "", f"{size(cure.bytes)}" if cure.bytes else ""]
        before, after = (number(x, ".1f", missing="exact") for x in (cure.snr_before, cure.snr_after))
        cost = ", ".join(filter(None, costs)) or "-"
        rows.append((cure.what, layers if cure.names else "all", before, after, cost, "yes" if cure.kept else "no"))
    return rows


CURES = ("Tried", "Where", " SNR dB before", " After", "Cost", "Kept")


def _cures(report: Report) -> Table | None:
    return table("\nSearched for better outputs", CURES, cures(report)) if report.cures else None


def requested(report: Report) -> list[tuple[str, str, str]]:
    """(what, asked for, achieved)"""
    asked, got = report.requested, report.achieved
    kept = f", {len(got.float_layers)} layers in float" if got.float_layers else ""
    rows = [("encoding", f"{asked.weights} weights, {asked.activations} activations", in_words(got.encoding) + kept)]
    rows += [("in the file", "", shares) for shares in _shares(report)]
    rows.append(("formats", ", ".join(asked.formats), ", ".join(a.format for a in report.artifacts)))
    rows += [
        (g.what, _goal(g.requested, g.unit), _goal(g.achieved, g.unit) + (g.note and f": {g.note}"))
        for g in report.goals
    ]
    limit = "at most 1, or by chance" if asked.max_drop is None else f"at most {asked.max_drop:g}"
    name = "accuracy" if asked.metric == "auto" else asked.metric
    rows.append((f"{name} drop", limit, number(got.drop, ".2f", missing="not measured")))
    rows += _qualities(report)
    if report.target.flash_bytes is not None:
        largest = max(a.bytes for a in report.artifacts)
        rows.append(("file, in flash", f"at most {size(report.target.flash_bytes)}", size(largest)))
    return rows


def _qualities(report: Report) -> list[tuple[str, str, str]]:
    """Rows for the worst slice of the float outputs, and for the worst integer output."""
    asked, rows = report.requested, []
    checks = [c for a in report.artifacts for c in a.checks if c.qualities]
    ratios = [(q.snr_db if q.snr_db is not None else math.inf if q.exact else -math.inf, q.slice)
              for c in checks for q in c.qualities if q.equal_percent is None]  # fmt: skip
    shares = [(q.equal_percent, q.slice) for c in checks for q in c.qualities if q.equal_percent is not None]
    if ratios and asked.min_snr is not None:
        worst, where = min(ratios)
        words = f"{worst:.1f} dB: {where}" if math.isfinite(worst) else "exact" if worst > 0 else f"lost: {where}"
        words += _beside_calibration(report)
        rows.append(("signal to noise", f"at least {asked.min_snr:g} dB" if asked.min_snr else "any", words))
    if shares and asked.min_equal is not None:
        share, where = min(shares)
        classes = "" if asked.min_equal > USUAL_EQUAL else ", 97 % of classes"
        limit = f"at least {asked.min_equal:g} %{classes}" if asked.min_equal else "any"
        rows.append(("equal integers", limit, f"{share:.2f} %: {where}"))
    return rows


def _beside_calibration(report: Report) -> str:
    """The samples that the ratio is of, and the ratio on calibration data."""
    fitted = [c for a in report.artifacts if (c := a.calibration_check) is not None and c.snr_db is not None]
    if not fitted:
        return ""
    held = report.requested.held_out or report.requested.evaluation
    worst = min(fitted, key=lambda c: c.snr_db or 0.0)
    where = "" if held is None else f", on {held.samples:,} other samples"
    return f"{where}; {worst.snr_db:.1f} dB on {worst.samples:,} that calibrated"


def _shares(report: Report) -> list[str]:
    """In what the files compute and store, for all files whose shares are equal in one line."""
    lines: dict[str, list[str]] = {}
    for a in report.artifacts:
        parts = [("MACs", a.macs_by_type), ("weights", a.weight_bytes_by_type)]
        text = "; ".join(f"{name} {_by_type(values)}" for name, values in parts if sum(values.values()))
        if text:
            lines.setdefault(text, []).append(f".{a.format}")
    return [text if len(lines) == 1 else f"{', '.join(formats)}: {text}" for text, formats in lines.items()]


def _by_type(values: dict[str, int]) -> str:
    """The largest first; for example "97 % int8, 3 % float32"."""
    total = sum(values.values())
    ordered = sorted(values.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{_percent(100 * value / total)} {name}" for name, value in ordered if value)


def _percent(share: float) -> str:
    """Whole percents, but never 0 or 100 for a part."""
    return f"{share:.0f} %" if share == 100 or 1 <= share <= 99 else f"{share:.1f} %" if share < 99.95 else ">99.9 %"


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
