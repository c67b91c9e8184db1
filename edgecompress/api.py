"""`convert`: a model in, verified artifacts and a report out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import RenderableType

from edgecompress import __version__
from edgecompress.analysis.statistics import ModelStatistics, statistics
from edgecompress.conversion import steps as pipeline
from edgecompress.conversion.accuracy_limit import Outcome
from edgecompress.conversion.float_stages import changes_weights, require_names
from edgecompress.conversion.possible import require_possible
from edgecompress.conversion.size_budget import parse_size, within_budget
from edgecompress.conversion.size_limit import convert_within_size
from edgecompress.conversion.training_run import CALIBRATION_SAMPLES, is_main_process, open_training, remove_checkpoints
from edgecompress.emit.clusters import plain_clusters
from edgecompress.errors import InputError
from edgecompress.graph.annotations import is_int8
from edgecompress.ingest import Ingested, load
from edgecompress.inspection.memory_fit import ACTIVATION_BYTES, fit, require_fit, require_room
from edgecompress.recipe import Recipe, recipe_file
from edgecompress.recipe.effective import effective_recipe, encoding
from edgecompress.record.report import Achieved, Goal, Report, Requested
from edgecompress.record.stages import StageLog
from edgecompress.record.units import size
from edgecompress.report import summaries as build
from edgecompress.report import terminal
from edgecompress.report.arena import memory_plan
from edgecompress.report.files import PAGE, REPORT, report_files
from edgecompress.report.layers import report_layers
from edgecompress.support.interrupt import stop_if_interrupted
from edgecompress.support.lock import locked
from edgecompress.support.output import require_writable, stale_files, write_files
from edgecompress.targets import load_target

RECIPE = "recipe.toml"


@dataclass(frozen=True, repr=False)
class Result(terminal.Shown):
    """What a conversion made. Shows itself as the report's tables in terminals and notebooks.

    report: everything measured, as in report.json. directory: where the files are.
    """

    report: Report
    directory: Path

    @property
    def ok(self) -> bool:
        """False when an artifact lost more accuracy than max_drop, or a device failed or has other outputs than this
        machine."""
        devices = not self.report.device_failures and all(run.agrees for run in self.report.devices)
        return self.report.status == "ok" and devices

    @property
    def artifacts(self) -> dict[str, Path]:
        """Format -> path of the artifact."""
        return {a.format: self.directory / a.path for a in self.report.artifacts}

    def __rich__(self) -> RenderableType:
        return terminal.render(self.report)


def convert(
    model: Any,
    target: str = "android",
    *,
    output: str | Path | None = None,
    calib: Any = None,
    eval: Any = None,
    train: Any = None,
    recipe: Recipe | str | Path | None = None,
    formats: Sequence[str] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    weights: str | Path | None = None,
    preprocess: Mapping[str, Any] | None = None,
    max_drop: float | None = None,
    max_size: int | str | None = None,
    resume: bool = False,
    trust_code: bool = False,
    target_file: str | Path | None = None,
    devices: Sequence[str] = (),
    config: str | Path | None = None,
    command: str | None = None,
) -> Result:
    """Convert a model for a device, run every artifact, and write them with a report to a folder.

    model: path of an .onnx, .pt2, TorchScript .pt, .keras or .h5 file or of a SavedModel (trust_code: with Lambda
        layers, whose code is run), "file.py:factory" (with `weights`, a state_dict file), an onnx.ModelProto, an
        onnx_ir.Model, or a torch.nn.Module (with `input_shapes`).
    target, target_file: name of a profile, or the file of another.
    output: folder; default "<model>-<target>" in the current one.
    calib, eval: what `evaluate.data.load_data` takes: .npz, .npy, an image folder, "file.py:function" or
        arrays. With calib, activations become int8 too, as without it for a model that came with all scales; with
        labelled eval data, accuracy is measured.
    train: training data in the same forms, for the recipe's methods that learn; without labels they learn what the
        model itself says. It calibrates too, without calib. resume: go on from the checkpoints that a stopped run
        left beside the output folder.
    recipe: a file, or "fast", "balanced" or "smallest"; formats, preprocess, max_drop (points) and max_size (bytes, or
        text such as "32KB") go before its keys.
    devices: names of devices (`edgecompress devices`; "qemu": the target's emulator) to run the artifacts on; config:
        their file, if not the usual.
    command: kept in the report.

    Raises InputError (unreadable or contradictory input) and UnsupportedModelError (the model can't be
    converted, or does not fit the target); DeviceFault, after the files are written, when the only device fails (of
    several, the report says which). Losing more than max_drop raises nothing: see `Result.ok`.
    """
    profile = load_target(target, target_file)
    if devices:
        from edgecompress.devices.conversion import measured, named, with_formats_for

        devices = named(devices, profile)

    def request(calibrated: bool) -> Recipe:
        made = effective_recipe(
            recipe,
            profile,
            calibrated=calibrated,
            formats=formats,
            preprocess=preprocess,
            max_drop=max_drop,
            max_size=parse_size(max_size) if isinstance(max_size, str) else max_size,
        )
        return with_formats_for(made, devices, config) if devices else made

    asked = request(calibrated=calib is not None or train is not None)
    stem = _stem(model)
    folder = Path(output) if output is not None else Path(f"{stem}-{profile.name}")
    sources = [_path(s) for s in (model, weights, calib, eval, train, target_file, _changed_file(recipe, asked))]
    inputs = [s for s in sources if s is not None]
    possible = [f"{stem}.{kind}.{name}" for kind in (encoding(asked), "int8") for name in asked.emit.formats or []]
    require_writable(folder, [*possible, REPORT, PAGE, RECIPE], inputs)

    with _alone(folder):
        log = StageLog()
        with log.stage("import") as running:
            ingested = load(model, weights=weights, input_shapes=input_shapes, trust_code=trust_code)
            facts = statistics(ingested.model)
            summary = build.model_summary(ingested, facts)
            running.stage.bytes = summary.bytes
            running.stage.parameters, running.stage.macs = facts.parameters, facts.macs
        known = not changes_weights(asked) and pipeline.needs_no_calibration(ingested.model, profile)
        if drawn := known and calib is None and train is None:
            calib, asked = pipeline.random_data(ingested.model.graph.inputs, asked.seed), request(calibrated=True)
        kind = encoding(asked)
        names: dict[str, str] = {name: f"{stem}.{kind}.{name}" for name in asked.emit.formats or []}
        require_fit(fit(ingested.model, facts.peak_activation_elements, profile, kind))
        checkpoints = folder.with_name(f"{folder.name}.checkpoints")
        chosen = within_budget(asked, facts.parameters, trains=train is not None)
        require_possible(chosen, trains=train is not None)
        require_names(ingested.model, chosen)
        training = open_training(ingested.model, train, asked, folder=checkpoints, resume=resume)
        if calib is None and training.source is not None:
            calib = training.source.head(CALIBRATION_SAMPLES)
        data = pipeline.open_data(ingested.model, calib, eval, asked, profile)
        reference = pipeline.measure_float(ingested.model, data, asked, log)
        made = convert_within_size(ingested.model, training, asked, data, reference, profile, log)
        asked, learned, outcome = made.recipe, made.learned, made.outcome

        labelled = data.check.labels is not None  # else values are agreement, which is no accuracy
        drop = outcome.attempt.worst_drop(len(data.check)) if labelled else None
        report = Report(
            edgecompress_version=__version__,
            command=command,
            created=datetime.now(UTC),
            status=_status(outcome, asked),
            model=summary,
            target=build.target_summary(profile),
            requested=Requested(
                formats=list(names),
                weights=asked.quantize.weights,
                activations=asked.quantize.activations,
                calibration=None if drawn else build.data_summary(data.calibration),
                evaluation=None if eval is None else build.data_summary(data.check),
                training=None if training.source is None else build.data_summary(training.source),
                metric=asked.evaluate.metric,
                max_drop=asked.evaluate.max_drop,
            ),
            achieved=Achieved(
                encoding=kind,
                float_layers=outcome.recipe.quantize.float_layers,
                float_value=reference.score if labelled else None,
                worst_value=None if drop is None or reference.score is None else reference.score - drop,
                drop=drop,
            ),
            stages=log.stages,
            goals=[*learned.goals, *outcome.attempt.encoded.goals, *_sizes(outcome, asked)],
            training=training.histories,
            layers=report_layers(outcome.attempt.model, {d.output: d for d in outcome.diagnoses}, ingested.model),
            memory=memory_plan(outcome.attempt.model),
            artifacts=[
                build.artifact(emitted, names[emitted.format], kind, ingested.model, checks)
                for emitted, checks in zip(outcome.attempt.artifacts, outcome.attempt.checks, strict=True)
            ],
            recipe=outcome.recipe.to_toml(),
            notes=[
                *ingested.notes,
                *data.notes,
                *made.notes,
                *learned.notes,
                *_notes(ingested, facts, kind, asked, data, outcome),
            ],
        )
        files = {names[a.format]: a.data for a in outcome.attempt.artifacts}
        require_room({name: len(content) for name, content in files.items()}, profile)
        files[RECIPE] = report.recipe.encode()
        files |= report_files(report)
        stop_if_interrupted()
        if not is_main_process():
            return Result(report, folder)
        write_files(folder, files, stale_files(folder, REPORT, files, inputs))
        remove_checkpoints(checkpoints)
        if devices:
            report = measured(report, folder, outcome.recipe, eval, devices, config)
            write_files(folder, report_files(report))
        return Result(report, folder)


def _alone(folder: Path) -> AbstractContextManager[None]:
    """While inside, no other conversion writes there; the processes of one training are one conversion."""
    if not is_main_process():
        return nullcontext()
    message = f"{folder}: is being written by process"
    return locked(
        "outputs",
        str(folder.resolve()),
        lambda process: InputError(
            f"{message} {process}, another conversion: wait for it, or choose another folder with -o"
        ),
    )


def _status(outcome: Outcome, asked: Recipe) -> Literal["ok", "accuracy-limit-exceeded", "size-limit-exceeded"]:
    if not outcome.within_limit:
        return "accuracy-limit-exceeded"
    return "size-limit-exceeded" if any(g.achieved > g.requested for g in _sizes(outcome, asked)) else "ok"


def _sizes(outcome: Outcome, asked: Recipe) -> list[Goal]:
    limit = asked.emit.max_size
    if limit is None:
        return []
    artifacts = outcome.attempt.artifacts
    return [Goal(what=f"size of .{a.format}", unit="bytes", requested=limit, achieved=len(a.data)) for a in artifacts]


def _notes(
    ingested: Ingested, facts: ModelStatistics, kind: str, asked: Recipe, data: pipeline.Data, outcome: Outcome
) -> list[str]:
    notes = []
    if data.calibration is not None and kind != "int8":
        checked = data.check.source == data.calibration.source
        use = "was only used to check the artifacts" if checked else "was not used"
        if asked.cluster.is_asked_for:
            use = "chose the clusters alone"
        quantize = asked.quantize
        notes.append(
            f"calibration data {use}: the recipe asks for {quantize.weights} weights and {quantize.activations} "
            "activations; without weights and activations in its [quantize] both become int8"
        )
    elif kind == "dynamic":
        peak = facts.peak_activation_elements
        notes.append(
            "weights are int8, activations float; calibration data would make activations int8 as well, with "
            f"integer kernels and {size(peak * ACTIVATION_BYTES['int8'])} of activation memory in place of "
            f"{size(peak * ACTIVATION_BYTES[kind])}: {pipeline.describe_calibration(ingested.model)}"
        )
    if kind == "int8" and not any(is_int8(node) for node in outcome.attempt.model.graph):
        notes.append("no layer computes on int8: none has an int8 kernel, or all values are too large for one")
    if added := outcome.recipe.quantize.float_layers[len(asked.quantize.float_layers) :]:
        notes.append(f"kept in float to lose at most {asked.evaluate.max_drop:g} points: {', '.join(added)}")
    if asked.cluster.is_asked_for:
        notes += plain_clusters(outcome.attempt.model, asked.emit.formats or [])
    for emitted, checks in zip(outcome.attempt.artifacts, outcome.attempt.checks, strict=True):
        notes += [f"{c.interpreter} {c.version}, {emitted.format}: {c.error}" for c in checks if c.error]
    return notes


def _changed_file(recipe: Recipe | str | Path | None, asked: Recipe) -> Path | None:
    """The recipe's file, unless it already holds what would be written over it: a run repeated in place."""
    path = recipe_file(recipe) if isinstance(recipe, (str, Path)) else None
    return None if path is None or path.read_text(encoding="utf-8") == asked.to_toml() else path


def _stem(model: Any) -> str:
    """What the artifacts are called: the file's name without its ending, or the object's own name."""
    path = _path(model)
    if path is not None:
        return path.stem
    graph = getattr(model, "graph", None)
    return str(getattr(graph, "name", None) or type(model).__name__.lower()).replace("/", "_")


def _path(source: Any) -> Path | None:
    """The file behind a path or "file.py:function"; None for anything else."""
    if isinstance(source, Path):
        return source
    if not isinstance(source, str):
        return None
    file, separator, _ = source.rpartition(":")
    return Path(file) if separator and file.endswith(".py") else Path(source)
