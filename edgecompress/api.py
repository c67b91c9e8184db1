"""`convert`: turns a model into checked artifacts and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from edgecompress.conversion.memory_fit import require_room
from edgecompress.conversion.request import DataSources, ModelSource, Request, source_path
from edgecompress.conversion.sequence import run
from edgecompress.conversion.size_budget import parse_size
from edgecompress.conversion.trainer import is_main_process, remove_checkpoints
from edgecompress.errors import InputError
from edgecompress.evaluate.iterables import collected
from edgecompress.ingest import GivenShapes
from edgecompress.recipe import Recipe, load_recipe, recipe_file
from edgecompress.recipe.effective import Overrides, effective_recipe
from edgecompress.record.report import Report
from edgecompress.report.assemble import report_of
from edgecompress.report.files import PAGE, REPORT, report_files
from edgecompress.report.tables import Shown
from edgecompress.report.terminal import render
from edgecompress.support.interrupt import stop_if_interrupted
from edgecompress.support.lock import locked
from edgecompress.support.output import require_writable, stale_files, write_files
from edgecompress.targets import load_target

RECIPE = "recipe.toml"


@dataclass(frozen=True, repr=False)
class Result(Shown):
    """The result of a conversion. Shows itself as the report's tables in terminals and notebooks.

    report: everything measured, as in report.json. directory: where the files are.
    """

    report: Report
    directory: Path

    @property
    def ok(self) -> bool:
        """False when a limit on accuracy, quality or size was not met, a device failed, or its outputs differ from this
        machine's."""
        devices = not self.report.device_failures and all(run.agrees for run in self.report.devices)
        return self.report.status == "ok" and devices

    @property
    def artifacts(self) -> dict[str, Path]:
        """Format -> path of the artifact."""
        return {a.format: self.directory / a.path for a in self.report.artifacts}

    def __rich__(self) -> RenderableType:
        return render(self.report)


def convert(
    model: Any,
    target: str = "android",
    *,
    output: str | Path | None = None,
    name: str | None = None,
    calib: Any = None,
    eval: Any = None,
    train: Any = None,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    formats: Sequence[str] | None = None,
    input_shapes: GivenShapes | None = None,
    batch: int | None = None,
    constants: Mapping[str, object] | None = None,
    states: Mapping[str, str] | None = None,
    weights: str | Path | None = None,
    preprocess: Mapping[str, Any] | None = None,
    max_drop: float | None = None,
    min_snr: float | None = None,
    min_equal: float | None = None,
    max_size: int | str | None = None,
    resume: bool = False,
    trust_code: bool = False,
    target_file: str | Path | None = None,
    devices: Sequence[str] = (),
    config: str | Path | None = None,
    command: str | None = None,
) -> Result:
    """Convert a model for a device, run every artifact, and write the artifacts and a report to a folder.

    model: path of an .onnx, .pt2, TorchScript .pt, .keras or .h5 file or of a SavedModel (trust_code: with Lambda
        layers, whose code is run), "file.py:factory" (with `weights`, a state_dict file), an onnx.ModelProto, an
        onnx_ir.Model, or a torch.nn.Module (with `input_shapes`).
    input_shapes: the shape of an input by its name, or a list of several that one file is to take. batch: the size
        that an open batch dimension gets; otherwise it stays open where the format can have that. constants: values
        of inputs that are the same in every run, by name; they are no inputs of the artifacts.
    states: the input that an output feeds in the next run, by the output's name: {"hn": "h0"}. They start at zero, and
        data are sequences of the other inputs, [samples, steps, ...].
    target, target_file: name of a profile, or the file of another.
    output: folder; default "<name>-<target>" in the current one. name: of the artifacts, and of what `build` makes of
        them; default the model's.
    calib, eval: what `evaluate.dataset.load_data` takes: .npz, .npy, an image folder, "file.py:function", arrays,
        or an iterable of batches such as a DataLoader, which is read once. With calib, activations become int8 too; a
        model that came with all scales needs none. With labelled eval data, accuracy is measured.
    train: training data in the same forms, for recipes that train; without labels, the outputs of the model itself
        are learned. It is used for calibration too where calib is not given. resume: go on from the checkpoints that
        a stopped run left beside the output folder.
    recipe: a file, "fast", "balanced" or "smallest", a dict of its tables, or a Recipe; in the latter two, loss,
        metric and criterion may be functions. formats, preprocess, max_drop (points), min_snr (dB),
        min_equal (percent) and max_size (bytes, or text such as "32KB") override its keys.
    devices: names of devices (`edgecompress devices`; "qemu": the target's emulator) to run the artifacts on. config:
        their configuration, in place of the user's.
    command: the command line, for the report.

    Raises InputError (unreadable or contradictory input) and UnsupportedModelError (the model can't be
    converted, or does not fit the target); DeviceFault, after the files are written, when the only device fails (of
    several, the report says which). An artifact below a limit raises nothing: see `Result.ok`.
    """
    profile = load_target(target, target_file)
    if devices:
        from edgecompress.devices.converted import named

        devices = named(devices, profile)
    largest = parse_size(max_size) if isinstance(max_size, str) else max_size
    overrides = Overrides(formats, preprocess, max_drop, largest, min_snr, min_equal)
    source = ModelSource(model, weights, input_shapes, trust_code, name, constants, batch=batch, states=states)
    calib, eval, train = collected(calib), collected(eval), collected(train)  # a generator can be read only once
    data = DataSources(calib, eval, train)
    given = load_recipe(recipe)

    def effective(calibrated: bool) -> Recipe:
        made = effective_recipe(given, profile, overrides, calibrated=calibrated)
        if not devices:
            return made
        from edgecompress.devices.converted import with_formats_for

        return with_formats_for(made, devices, config)

    asked = effective(data.calibrates)
    folder = Path(output) if output is not None else Path(f"{source.stem}-{profile.name}")
    request = Request(source, data, profile, asked, effective(True), folder, resume, command)
    read = (model, weights, calib, eval, train, target_file, _changed_file(recipe, asked))
    inputs = [path for path in map(source_path, read) if path is not None]
    require_writable(folder, [*request.possible_names, REPORT, PAGE, RECIPE], inputs)
    with _alone(folder):
        converted = run(request)
        report = report_of(converted)
        require_room({name: len(content) for name, content in converted.files.items()}, profile)
        files = converted.files | {RECIPE: report.recipe.encode()} | report_files(report)
        stop_if_interrupted()
        if not is_main_process():
            return Result(report, folder)
        write_files(folder, files, stale_files(folder, REPORT, files, inputs))
        remove_checkpoints(request.checkpoints)
        if devices:
            from edgecompress.devices.converted import measured

            report = measured(report, folder, converted.compressed.outcome.recipe, eval, devices, config)
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


def _changed_file(recipe: Recipe | Mapping[str, Any] | str | Path | None, asked: Recipe) -> Path | None:
    """The recipe's file, unless it already holds what would be written over it: a run repeated in place."""
    path = recipe_file(recipe) if isinstance(recipe, (str, Path)) else None
    return None if path is None or path.read_text(encoding="utf-8") == asked.to_toml() else path
