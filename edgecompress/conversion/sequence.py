"""One conversion from beginning to end: read the model, open the data, compress, emit, check."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx
import onnx_ir as ir

from edgecompress.analysis.statistics import ModelStatistics, statistics
from edgecompress.compress.quantize import quantize, simulation
from edgecompress.conversion.check import check_fit, measure_float
from edgecompress.conversion.conversion import Conversion, InShape
from edgecompress.conversion.data import Data, from_training, needs_no_calibration, open_data, random_data
from edgecompress.conversion.float_steps import changes_weights
from edgecompress.conversion.initial_model import load_initial
from edgecompress.conversion.label_checks import CLASS_METRICS, check_labels
from edgecompress.conversion.memory_fit import memory_need, require_memory
from edgecompress.conversion.preconditions import require_exits, require_names, require_possible
from edgecompress.conversion.request import DataSources, ModelSource, Request
from edgecompress.conversion.size_budget import within_budget
from edgecompress.conversion.size_limit import Compressed, convert_within_size
from edgecompress.conversion.trainer import open_trainer
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import sample_shapes
from edgecompress.evaluate.file_count import FileCount, count_file
from edgecompress.evaluate.verify import Check
from edgecompress.graph.states import states
from edgecompress.graph.training_marks import mark_trained
from edgecompress.ingest import Ingested, load
from edgecompress.ingest.several_shapes import in_every_shape, in_other_shapes
from edgecompress.operators import record_of
from edgecompress.operators.rewriting import integer_parts
from edgecompress.recipe import Recipe
from edgecompress.recipe.effective import Encoding, encoding
from edgecompress.record.report import ModelSummary
from edgecompress.record.stages import StageLog
from edgecompress_targets import Profile


@dataclass(frozen=True)
class Imported:
    """The model as it was read, and facts about it."""

    ingested: Ingested
    facts: ModelStatistics
    summary: ModelSummary


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    conversion: what its steps were given. counts: format -> what the file holds. names: format -> its file name.
    on_random_data: whether it was calibrated on random inputs, since the model came with its own scales. fitted: the
    checks of each artifact on data that calibrated it; empty where none did.
    """

    request: Request
    imported: Imported
    conversion: Conversion
    compressed: Compressed
    counts: dict[str, FileCount]
    names: dict[str, str]
    on_random_data: bool
    fitted: tuple[Check, ...] = ()

    @property
    def encoding(self) -> Encoding:
        """How weights and activations were to be stored; `counts` say how they are."""
        return encoding(self.conversion.recipe)

    @property
    def files(self) -> dict[str, bytes]:
        """File name -> content of each artifact."""
        return {self.names[a.format]: a.file for a in self.compressed.outcome.attempt.artifacts}


def run(request: Request) -> Converted:
    """All steps, in order.

    Raises InputError (unreadable or contradictory input) and UnsupportedModelError (the model can't be converted, or
    does not fit the target).
    """
    log = StageLog()
    request = replace(request, source=_with_sample_shapes(request))
    imported = import_model(request.source, log)
    model, profile = imported.ingested.model, request.profile
    recipe, data = request.recipe, request.data
    on_random_data = not changes_weights(recipe) and needs_no_calibration(model, profile) and not data.calibrates
    if on_random_data:
        recipe = request.recipe_if_scales_known
        data = replace(data, calibration=random_data(model.graph.inputs, recipe.seed))
    require_memory(memory_need(model, imported.facts.peak_activation_elements, profile, encoding(recipe)))
    mark_trained(model.graph, recipe.train.freeze, recipe.train.trainable)
    _require_possible(imported, recipe, data)
    trainer = open_trainer(model, data.training, recipe, request.checkpoints, request.resume)
    if trainer is not None:
        data = from_training(trainer, data, recipe.evaluate.metric)
    opened = open_data(model, data.calibration, data.evaluation, recipe, profile)
    opened = replace(opened, held_out=opened.held_out or data.evaluation is not request.data.evaluation)
    compared = _compared(model, opened, recipe, profile)
    reference = measure_float(compared, opened, recipe, log)
    opened = replace(opened, notes=(*opened.notes, *check_labels(model, reference)))
    if trainer is not None:
        scored = frozenset(m.output for m in reference.measures if m.metric.name in CLASS_METRICS)
        trainer = replace(trainer, classes=scored)
    file = recipe.prune.initial
    initial = None if file is None or trainer is None else load_initial(request.source, file, model)
    if recipe.exit.is_asked_for and trainer is not None:
        require_exits(model, trainer)
    tail = imported.ingested.tail
    others = tuple(
        InShape(sizes.key, other, measure_float(other, opened.cut_to(sizes.inputs), recipe, log))
        for sizes, other in in_other_shapes(compared)
    )
    conversion = Conversion(model, profile, recipe, opened, reference, trainer, log, initial, tail, others)
    compressed = convert_within_size(conversion)
    counts = _count(compressed)
    names = {name: f"{request.source.stem}.{count.encoding}.{name}" for name, count in counts.items()}
    fitted = check_fit(conversion, compressed.outcome.attempt.artifacts, compressed.steps[-1].model)
    return Converted(request, imported, conversion, compressed, counts, names, on_random_data, fitted)


def _with_sample_shapes(request: Request) -> ModelSource:
    """The source of the model, whose open dimensions are as in the first data that there is."""
    data, preprocess = request.data, request.recipe.preprocess
    first = next((d for d in (data.calibration, data.evaluation, data.training) if d is not None), None)
    if first is None or request.source.states:  # whose data are sequences
        return request.source
    return replace(request.source, sample_shapes=lambda inputs: sample_shapes(first, preprocess, inputs))


def _compared(model: ir.Model, data: Data, recipe: Recipe, profile: Profile) -> ir.Model:
    """What artifacts are compared with: the float model, or the quantized one as it came if there is no data."""
    if not data.checks_as_it_came or encoding(recipe) != "int8":
        return model
    assert data.calibration is not None
    whole = in_every_shape(model.clone(), partial(integer_parts, integer_only=profile.integer_only))
    settings, integer_only = recipe.quantize, profile.integer_only
    return simulation(quantize(whole, data.calibration, settings, integer_only=integer_only, typical=False).model)


def _count(compressed: Compressed) -> dict[str, FileCount]:
    attempt = compressed.outcome.attempt
    macs = {str(node.name): record_of(node).macs(node) for node in attempt.model.graph if node.name}
    return {a.format: count_file(a.data, a.format, macs) for a in attempt.artifacts}


def import_model(source: ModelSource, log: StageLog) -> Imported:
    """Read a model, bring it into canonical form, and measure it."""
    with log.stage("import") as running:
        ingested = load(
            source.model,
            weights=source.weights,
            input_shapes=source.input_shapes,
            batch=source.batch,
            constants=source.constants,
            sample_shapes=source.sample_shapes,
            trust_code=source.trust_code,
            states=source.states,
        )
        facts = statistics(ingested.model)
        summary = _summary(ingested, facts)
        running.stage.bytes = summary.bytes
        running.stage.parameters, running.stage.macs = facts.parameters, facts.macs
    return Imported(ingested, facts, summary)


def _require_possible(imported: Imported, recipe: Recipe, data: DataSources) -> None:
    """Raises InputError when the recipe, with what a limit on size will choose, can't be followed."""
    trains = data.training is not None
    if imported.ingested.tail is not None and recipe.exit.is_asked_for:
        raise InputError("[exit]: a model whose last shapes depend on the data can't end early: remove the section")
    if trains and states(imported.ingested.model.graph):
        raise InputError("--train: a model with states can't be trained: leave it out, or convert it without --state")
    chosen = within_budget(recipe, imported.facts.parameters, trains=trains)
    require_possible(chosen, trains=trains, calibrates=data.calibration is not None)
    require_names(imported.ingested.model, chosen)


def _summary(ingested: Ingested, facts: ModelStatistics) -> ModelSummary:
    path = ingested.path
    return ModelSummary(
        path=None if path is None else str(path),
        format=ingested.format,
        opset=ingested.opset,
        sha256=None if path is None or path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest(),
        bytes=None if path is None or ingested.format == "python" else _size_with_external_data(path, ingested.format),
        parameters=facts.parameters,
        macs=facts.macs,
        peak_activation_elements=facts.peak_activation_elements,
        max_relative_error=ingested.max_relative_error,
    )


def _size_with_external_data(path: Path, format: str) -> int:
    """Bytes of the model file and, for ONNX, of the files beside it that hold its weights."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    total = path.stat().st_size
    if format == "onnx":
        tensors = onnx.load_model(path, load_external_data=False).graph.initializer
        locations = {e.value for t in tensors for e in t.external_data if e.key == "location"}
        total += sum((path.parent / location).stat().st_size for location in locations)
    return total
