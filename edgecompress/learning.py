"""The steps of a conversion that train: a float model in, a smaller float model out."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.errors import InputError, MissingPackageError
from edgecompress.evaluate.data import Dataset, load_data
from edgecompress.evaluate.verify import reference
from edgecompress.graph.statistics import statistics
from edgecompress.pipeline import Data
from edgecompress.recipe import Recipe, Section, Train
from edgecompress.report.model import Goal, History
from edgecompress.stages import Running, StageLog

if TYPE_CHECKING:
    from edgecompress.train import TrainData
    from edgecompress.train.losses import Loss


@dataclass
class Training:
    """What every method that trains is given, and what they leave behind.

    teacher: the model as it came in. source, data: None when there is nothing to train on. folder: of checkpoints;
    None: none are kept. histories: every run of the loop so far.
    """

    teacher: ir.Model
    source: Dataset | None
    data: TrainData | None
    classes: bool
    recipe: Recipe
    folder: Path | None
    resume: bool
    histories: list[History] = field(default_factory=list)

    def loss(self) -> Loss:
        """What the original model says and the labels, shared out as [distill] says."""
        from edgecompress.compress.distill.losses import DistillationLoss
        from edgecompress.graph.torch_bridge import TorchModel
        from edgecompress.train.losses import load_loss

        assert self.data is not None
        task = None if self.data.labels is None else load_loss(self.recipe.train.loss, self.data)
        teacher = TorchModel(self.teacher, logits=True)
        return DistillationLoss(teacher, self.recipe.distill, classes=self.classes, features=(), task=task)

    def settings(self, section: Section) -> Train:
        """[train] with the section's own `epochs` and `lr`, where it has them."""
        own = {key: getattr(section, key, None) for key in ("epochs", "lr")}
        return self.recipe.train.model_copy(update={key: value for key, value in own.items() if value is not None})

    def checkpoint(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}.pt"


@dataclass(frozen=True)
class Learned:
    """model: smaller, float. goals: what was asked of each step, and what came out."""

    model: ir.Model = field(repr=False)
    goals: tuple[Goal, ...]
    notes: tuple[str, ...]


def open_training(
    model: ir.Model, given: object, recipe: Recipe, *, folder: Path, resume: bool
) -> Training:
    """Raises InputError when the data does not fit the model; MissingPackageError without torch."""
    if given is None:
        return Training(model, None, None, False, recipe, None, False)
    require_torch("--train")
    from edgecompress.train import TrainData

    source = load_data(given, model.graph.inputs, recipe.preprocess)
    data = TrainData.from_dataset(source, model)
    classes = data.labels is None or data.labels.dtype.kind == "i"
    if not resume:
        remove_checkpoints(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return Training(model, source, data, classes, recipe, folder, resume)


def remove_checkpoints(folder: Path) -> None:
    """Only what `Training.checkpoint` names, and the folder if nothing else is in it."""
    for path in [*folder.glob("*.pt"), *folder.glob("*.pt.partial")]:
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def learn(model: ir.Model, training: Training, data: Data, recipe: Recipe, log: StageLog) -> Learned:
    """All steps that the recipe asks for, in the order in which each can rely on the ones before."""
    goals: list[Goal] = []
    notes: list[str] = []
    for wanted, step in STEPS:
        if wanted(recipe):
            model = step(model, training, data, recipe, log, goals, notes)
    return Learned(model, tuple(goals), tuple(notes))


def _distill(
    model: ir.Model, training: Training, data: Data, recipe: Recipe, log: StageLog, goals: list[Goal], notes: list[str]
) -> ir.Model:
    if training.data is None:
        raise InputError("[distill] needs training data: give --train")
    from edgecompress.compress.distill.distillation import distill

    with log.stage("distill") as running:
        found = distill(
            model, training.data, recipe.distill, training.settings(recipe.distill), seed=recipe.seed,
            checkpoint=training.checkpoint("distill"), resume=training.resume,
        )  # fmt: skip
        training.histories.append(found.history)
        describe(running, found.model, data, recipe)
    notes += found.notes
    return found.model


def _prune_weights(
    model: ir.Model, training: Training, data: Data, recipe: Recipe, log: StageLog, goals: list[Goal], notes: list[str]
) -> ir.Model:
    require_torch("[prune]")
    from edgecompress.compress.prune.weights import prune_weights

    settings = recipe.prune
    with log.stage("prune weights") as running:
        trained = training.data is not None
        found = prune_weights(
            model, settings, data=training.data, training=training.settings(settings) if trained else None,
            loss=training.loss() if trained else None, seed=recipe.seed, checkpoint=training.folder,
            resume=training.resume,
        )  # fmt: skip
        training.histories += found.training
        running.stage.note = str(found)
        describe(running, found.model, data, recipe)
    goals.append(Goal(what="zero weights", unit="%", requested=100 * found.requested, achieved=100 * found.achieved))
    return found.model


def describe(running: Running, model: ir.Model, data: Data, recipe: Recipe) -> None:
    """Parameters, MACs and accuracy of a float model, into a stage."""
    facts = statistics(model)
    running.stage.parameters, running.stage.macs = facts.parameters, facts.macs
    if data.check.labels is not None:
        running.stage.accuracy = reference(model, data.check, recipe.evaluate.metric).score


def require_torch(what: str) -> None:
    """Raises MissingPackageError without PyTorch."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(f"{what} needs PyTorch: pip install 'edgecompress[torch]'") from error


Step = Callable[[ir.Model, Training, Data, Recipe, StageLog, list[Goal], list[str]], ir.Model]
# (whether the recipe asks for it, what does it)
STEPS: tuple[tuple[Callable[[Recipe], bool], Step], ...] = (
    (lambda recipe: recipe.distill.is_asked_for, _distill),
    (lambda recipe: recipe.prune.is_asked_for, _prune_weights),
)
