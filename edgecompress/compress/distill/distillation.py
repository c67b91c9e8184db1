"""Training a student on the outputs of its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir
import torch

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.distill.compact import BLOCKS_BY_NAME, compact
from edgecompress.compress.distill.distillation_loss import DistillationLoss, own_loss
from edgecompress.compress.distill.features import Imitator, pairs
from edgecompress.compress.distill.student import derive
from edgecompress.compress.prune.patterns_again import patterns_again
from edgecompress.errors import InputError
from edgecompress.ingest import fold_batchnorm, load
from edgecompress.ingest.passes.edit import static_shape
from edgecompress.recipe import Distill, Train
from edgecompress.record.report import History
from edgecompress.support.present import present
from edgecompress.train import DEFAULT_SESSION, Session, TrainData, train
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.module.zeros import hold_zeros
from edgecompress.train.normalised import refresh_statistics
from edgecompress.train.output_kinds import OutputKind, output_kinds


@dataclass(frozen=True)
class Distilled:
    """model: the student, trained, in canonical form. notes: what was made of the teacher, and compared with it."""

    model: ir.Model
    history: History
    notes: tuple[str, ...]


def distill(
    teacher: ir.Model,
    data: TrainData,
    settings: Distill,
    training: Train,
    *,
    session: Session = DEFAULT_SESSION,
    outputs: Sequence[OutputKind | None] | None = None,
) -> Distilled:
    """Train the student that the settings name or describe.

    Needs no labels. outputs: what the teacher's outputs are, where it is known. Raises InputError when inputs or
    outputs of the two models differ, or features are named that aren't there; UnsupportedModelError when the student
    can't be derived; and what `train` raises.
    """
    student, _ = patterns_again(make_student(teacher, settings, data, session.seed))
    _require_alike(teacher, student)
    found = pairs(teacher, student, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(session.seed)  # of the adapters' weights
        module = Imitator(TorchModel(student, logits=True), found)
    hold_zeros(module.student, student)
    module_of_teacher = TorchModel(teacher, logits=True)
    loss = DistillationLoss(
        module_of_teacher,
        settings,
        outputs or output_kinds(teacher, data, training.loss, module_of_teacher, settings.temperature),
        features=[str(theirs.name) for theirs, _ in found],
        task=own_loss(training),
    )
    history = train(module, data, training, loss=loss, session=replace(session, stage="distillation"))
    model = fold_batchnorm(refresh_statistics(module.student.write_back(), data))
    return Distilled(model, history, tuple(_notes(teacher, model, found)))


def make_student(teacher: ir.Model, settings: Distill, data: TrainData, seed: int) -> ir.Model:
    """The student: read from the file that the settings name, made of the blocks that they name, or derived from the
    teacher."""
    if settings.student is None:
        return derive(teacher, settings, data, seed)
    if settings.student in BLOCKS_BY_NAME:
        return compact(teacher, settings, seed)
    of_torch = not settings.student.endswith(".onnx")  # which records no shapes
    shapes = {str(v.name): present(static_shape(v)) for v in teacher.graph.inputs}
    samples = {name: shape[1:] for name, shape in shapes.items()}
    return load(
        settings.student,
        input_shapes=shapes if of_torch else None,
        sample_shapes=lambda inputs: {name: samples[name] for name in inputs if name in samples},
        fold_batchnorm=False,
    ).model


def _require_alike(teacher: ir.Model, student: ir.Model) -> None:
    for what in ("inputs", "outputs"):
        first, second = ([list(present(static_shape(v))) for v in getattr(m.graph, what)] for m in (teacher, student))
        if first != second:
            raise InputError(f"the teacher's {what} are {first}, the student's {second}; their shapes must be the same")


def _notes(teacher: ir.Model, student: ir.Model, found: Sequence[tuple[ir.Value, ir.Value]]) -> list[str]:
    before, after = statistics(teacher), statistics(student)
    notes = [
        f"student: {after.macs:,} of the teacher's {before.macs:,} multiply-accumulates "
        f"({after.macs / before.macs:.1%}), {after.parameters:,} of {before.parameters:,} parameters"
    ]
    if found:
        notes.append("the student imitates " + ", ".join(f"{a.name!r} with {b.name!r}" for a, b in found))
    return notes
