"""report.html: one file that needs no other, made from report.json alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import Any

from edgecompress import __version__
from edgecompress.evaluate.metrics import gain
from edgecompress.record.layer_costs import LayerCosts
from edgecompress.record.report import Artifact, Check, DeviceRun, History, Layer, Report
from edgecompress.record.units import count, size
from edgecompress.report import charts, terminal
from edgecompress.report import device_table as devices
from edgecompress.report.cost_table import word
from edgecompress.report.tables import number
from edgecompress.visible import visible

HISTOGRAM = 240, 70
MOST_COSTS = 60  # layers in the chart of a device
MOST_HISTOGRAMS = 120  # and as many in a table's rows: a page of at most 1 MB
BAD_SNR = 15.0  # dB: below it a layer's noise is a sixth of its signal


@dataclass(frozen=True)
class Card:
    """One of the figures at the top of the page."""

    title: str
    before: str
    after: str
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """A size in the chart of where the bytes go. share: percent of the largest."""

    label: str
    bytes: int
    share: float
    change: str
    style: str


def page(report: Report) -> str:
    """The HTML document of a report."""
    return visible(
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            source=source(report),
            cards=cards(report),
            bars=bars(report),
            asked=terminal.requested(report),
            cures=terminal.cures(report),
            exit_tables=[
                ("By threshold, on validation data (* chosen)", terminal.THRESHOLDS, terminal.exit_thresholds(report)),
                ("In the files", terminal.USES, terminal.exit_uses(report)),
            ],
            scatter=_scatter([("", report)]),
            layers=_layers(report.layers),
            arena=_arena(report),
            training=[_curves(h) for h in report.training],
            checks=_checks(report),
            slices=_slices(report),
            status=terminal.status_line(report),
            devices=_devices(report),
            costs=[_costs(layers) for layers in report.layer_costs],
            version=__version__,
            bad=BAD_SNR,
        )
    )


def comparison_page(
    reports: Sequence[tuple[str, Report]], columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> str:
    """reports: with their names; columns, rows: the figures side by side."""
    return visible(
        _environment()
        .get_template("compare.html.j2")
        .render(reports=reports, columns=columns, rows=rows, scatter=_scatter(reports), version=__version__)
    )


def source(report: Report) -> str:
    """The model file's name, or what kind of object the model came as."""
    return PurePath(report.model.path).name if report.model.path else f"{report.model.format} model"


def smallest(report: Report) -> Artifact:
    """The artifact with the fewest bytes."""
    return min(report.artifacts, key=lambda a: a.bytes)


def macs_after(report: Report) -> int:
    """Multiply-accumulates of the compressed model."""
    return next((s.macs for s in reversed(report.stages) if s.macs is not None), report.model.macs)


def cards(report: Report) -> list[Card]:
    """What a reader wants first: before and after."""
    before, least = report.model.bytes or 4 * report.model.parameters, smallest(report)
    ratio = f"{before / least.bytes:.1f} times smaller: .{least.format}"
    found = [Card("Size", size(before), size(least.bytes), ratio)]
    macs = macs_after(report)
    share = "unchanged" if macs == report.model.macs else f"{100 * macs / max(report.model.macs, 1):.0f} % left"
    found.append(Card("Multiply-accumulates", count(report.model.macs), count(macs), share))
    got, metric = report.achieved, report.requested.metric
    if got.float_value is not None and got.worst_value is not None:
        drop = got.drop or 0.0
        note = f"{metric}, " + (f"{abs(drop):.2f} {'lost' if drop > 0 else 'gained'}" if drop else "nothing lost")
        found.append(Card("Accuracy", f"{got.float_value:.2f}", f"{got.worst_value:.2f}", note))
    else:
        agreed = [c.agreement_percent for a in report.artifacts for c in a.checks if c.agreement_percent is not None]
        if agreed:
            found.append(Card("Accuracy", "float", f"{min(agreed):.1f} %", "same predictions, as there are no labels"))
    for run in report.devices:
        if run.counts is not None:
            value, unit = latency(run)
            note = f"{unit}, {run.counts.middle_name} of {run.runs:,} inferences, {run.format}"
            found.append(Card(f"On {run.device}", "", value, note))
    return found


def worst_value(artifact: Artifact) -> float | None:
    """The metric in the interpreter that did worst, of those that ran all samples."""
    most = max((c.samples for c in artifact.checks), default=0)
    values = [(c.metric, c.value) for c in artifact.checks if c.value is not None and c.samples == most]
    return min(values, key=lambda pair: gain(*pair))[1] if values else None


def latency(run: DeviceRun) -> tuple[str, str]:
    """("1.23 M", "instructions") or ("812", "us")."""
    assert run.counts is not None
    return _amount(run.counts.unit, run.counts.middle)


def _amount(unit: str, value: float) -> tuple[str, str]:
    return (f"{value / 1e3:,.1f}", "us") if unit == "ns" else (count(value), unit)


def bars(report: Report) -> list[Bar]:
    """Where the bytes go, stage by stage."""
    sizes: list[tuple[str, int, str]] = []
    if report.model.bytes is not None:
        sizes.append(("input file", report.model.bytes, "file"))
    now = report.model.parameters
    sizes.append(("weights in float32", 4 * now, "step"))
    for stage in report.stages:
        if stage.parameters is not None and stage.parameters != now:
            now = stage.parameters
            sizes.append((f"after: {stage.name}", 4 * now, "step"))
    weighted = [(x.weights, x.bits_per_weight) for x in report.layers if x.weights and x.bits_per_weight]
    rest = 4 * max(now - sum(n for n, _ in weighted), 0)  # biases
    stored = sum(n * max(bits, 8) / 8 for n, bits in weighted)
    if report.achieved.encoding in ("int8", "dynamic"):
        sizes.append(("weights in int8", round(rest + stored), "step"))
    if any(bits < 8 for _, bits in weighted):
        sizes.append(("clustered: entropy", round(rest + sum(n * bits / 8 for n, bits in weighted)), "step"))
    sizes += [(a.path, a.bytes, "file") for a in report.artifacts]
    largest = max(n for _, n, _ in sizes)
    first = sizes[0][1]
    return [
        Bar(label, n, 100 * n / largest, "" if i == 0 else f"{100 * n / max(first, 1):.1f} %", style)
        for i, (label, n, style) in enumerate(sizes)
    ]


def _scatter(reports: Sequence[tuple[str, Report]]) -> charts.Scatter | None:
    """Accuracy against size: the float model, the stages whose accuracy was measured, every artifact."""
    points: list[tuple[str, str, float, float]] = []
    for name, report in reports:
        got, prefix = report.achieved, f"{name}: " if name else ""
        if got.float_value is None:
            continue
        if not any(p[0] == "float32" for p in points):
            points.append(("float32", "input", 4 * report.model.parameters, got.float_value))
        points += [
            (f"{prefix}.{artifact.format}", "artifact", artifact.bytes, value)
            for artifact in report.artifacts
            if (value := worst_value(artifact)) is not None
        ]
    return charts.scatter(points) if len(points) > 1 else None


def _layers(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    result, drawn = [], 0
    for layer in layers:
        h, path = layer.histogram, None
        if h is not None and drawn < MOST_HISTOGRAMS:
            drawn += 1
            highest = max(*h.after, *(h.before or [0]))
            path = {
                "before": charts.steps(h.before, highest, *HISTOGRAM) if h.before else "",
                "after": charts.steps(h.after, highest, *HISTOGRAM),
                "low": f"{h.low:.3g}",
                "high": f"{h.high:.3g}",
            }
        result.append({"layer": layer, "histogram": path})
    return result


def _arena(report: Report) -> charts.Rectangles | None:
    if report.memory is None or not report.memory.buffers:
        return None
    return charts.rectangles(
        [(b.name, b.first, b.last + 1, b.offset, b.offset + b.bytes) for b in report.memory.buffers]
    )


def _curves(history: History) -> dict[str, Any]:
    epochs = history.epochs
    found = [
        charts.lines(
            [
                ("training loss", "one", [e.loss for e in epochs]),
                *(
                    [("validation loss", "two", [e.validation_loss for e in epochs])]
                    if any(e.validation_loss is not None for e in epochs)
                    else []
                ),
            ]
        )
    ]
    if any(e.validation_value is not None for e in epochs):
        name = f"{history.metric}, validation"
        found.append(charts.lines([(name, "two", [e.validation_value for e in epochs])]))
    return {"history": history, "charts": found}


def _interpreter(check: Check) -> str:
    """With the shape that it ran the file in, where that takes several."""
    return f"{check.interpreter} {check.version}" + (f", {check.shape}" if check.shape else "")


def _checks(report: Report) -> list[list[str]]:
    form = number
    return [
        [
            a.path,
            _interpreter(c),
            f"{c.samples:,}",
            *(
                ["failed"] * 6
                if c.error
                else [
                    form(c.reference_value, ".2f"),
                    form(c.value, ".2f"),
                    form(c.agreement_percent, ".2f"),
                    form(c.equal_percent, ".2f"),
                    terminal.snr_cell(c),
                    terminal.arena_cell(c),
                ]
            ),
        ]
        for a in report.artifacts
        for c in a.checks
    ]


def _slices(report: Report) -> list[list[str]]:
    """Every slice of outputs that have several, in each interpreter."""
    return [
        [
            a.path,
            _interpreter(c),
            q.slice,
            "exact" if q.exact else number(q.snr_db, ".1f", "lost") if q.equal_percent is None else "-",
            number(q.equal_percent, ".2f"),
        ]
        for a in report.artifacts
        for c in a.checks
        if len(c.qualities) > 1
        for q in c.qualities
    ]


def _devices(report: Report) -> list[list[str]]:
    def bytes_(n: int | None) -> str:
        return "-" if n is None else f"{n:,}"

    return [
        [
            r.artifact,
            r.device,
            r.description,
            "-" if r.counts is None else " ".join(latency(r)),
            "-" if r.accuracy is None else f"{r.accuracy:.2f}",
            bytes_(r.flash_bytes),
            bytes_(r.arena_bytes),
            bytes_(r.stack_bytes),
            devices.equal(r),
        ]
        for r in report.devices
    ] + [[f.artifact, f.device, f.error, *"-----", "failed"] for f in report.device_failures]


def _costs(profile: LayerCosts) -> dict[str, Any]:
    """The chart of what layers cost: the dearest ones, in the order of execution."""
    order = sorted(range(len(profile.layers)), key=lambda i: -profile.layers[i].cost)
    shown = [profile.layers[i] for i in sorted(order[:MOST_COSTS])]
    rest = [profile.layers[i].cost for i in order[MOST_COSTS:]]
    highest = max((layer.cost for layer in shown), default=0) or 1

    def words(value: float) -> tuple[str, str]:
        return _amount(profile.unit, value)[0], f"{100 * value / (profile.total or 1):.1f} %"

    return {
        "profile": profile,
        "total": " ".join(_amount(profile.unit, profile.total)),
        "rows": [(layer, word(layer.operator), *words(layer.cost), 100 * layer.cost / highest) for layer in shown],
        "rest": f"{len(rest)} more layers: {' '.join(words(sum(rest)))}" if rest else "",
    }


@cache
def _environment() -> Any:
    import jinja2  # takes longer to import than a command may take to start

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("edgecompress.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {"count": count, "size": size}
    return made
