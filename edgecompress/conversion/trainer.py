"""What the training steps of a conversion share: data, the original model as teacher, settings, checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.errors import MissingPackageError
from edgecompress.evaluate.dataset import Dataset, load_data
from edgecompress.evaluate.held_out import select
from edgecompress.graph.annotations import exits
from edgecompress.recipe import Recipe, Section, Train
from edgecompress.record.report import History
from edgecompress.support.present import present

if TYPE_CHECKING:
    from edgecompress.compress.quantize.aware import Aware
    from edgecompress.train import Hook, Session, TrainData
    from edgecompress.train.losses import Loss
    from edgecompress.train.output_kinds import OutputKind

CALIBRATION_SAMPLES = 512  # of the training data, when no other data is given for calibration


@dataclass(frozen=True)
class TrainedModel:
    """A float model after training, and the record of that training."""

    model: ir.Model
    history: History


@dataclass(frozen=True)
class Trainer:
    """Trains models on the data that the user gave.

    teacher: the model as it came in. source: the training data as it was given; data: the same in memory. folder:
    where checkpoints are kept. resume: go on from checkpoints that a stopped run left there.
    classes: names of the outputs that evaluation data says are scores of classes.
    """

    teacher: ir.Model
    source: Dataset
    data: TrainData
    recipe: Recipe
    folder: Path
    resume: bool
    classes: frozenset[str] = frozenset()

    def split(self) -> tuple[Dataset, Dataset | None]:
        """(what is trained on, what is kept aside for validation), as they were given; all and None without any."""
        from edgecompress.train.train_data import split_places

        if len(self.data) != len(self.source):  # samples that hold several: there is no telling which are which
            return self.source, None
        rest, part = split_places(len(self.source), self.recipe.train.validation, self.recipe.seed)
        return (select(self.source, rest), select(self.source, part)) if len(part) else (self.source, None)

    @cached_property
    def outputs(self) -> tuple[OutputKind | None, ...]:
        """What each output of the original model is, which decides how it is compared."""
        from edgecompress.train.output_kinds import output_kinds

        recipe = self.recipe
        temperature, classes = recipe.distill.temperature, self.classes
        return output_kinds(self.teacher, self.data, recipe.train.loss, temperature=temperature, classes=classes)

    def loss(self, model: ir.Model | None = None) -> Loss:
        """The loss against the original model's outputs and the labels, weighted as [distill] says.

        model: the one that is trained, whose early exits learn as well.
        """
        from edgecompress.compress.distill.distillation_loss import DistillationLoss, own_loss
        from edgecompress.compress.early_exit.exit_loss import ExitLoss
        from edgecompress.train.module.torch_model import TorchModel

        teacher = TorchModel(self.teacher, logits=True)
        loss = DistillationLoss(teacher, self.recipe.distill, self.outputs, task=own_loss(self.recipe.train))
        if model is None or not exits(model.graph):
            return loss
        return ExitLoss(model, loss, self.recipe.distill, present(self.outputs[0]))

    def settings(self, section: Section) -> Train:
        """[train] with the section's own `epochs` and `lr`, where it has them."""
        own = {key: getattr(section, key, None) for key in ("epochs", "lr")}
        return self.recipe.train.model_copy(update={key: value for key, value in own.items() if value is not None})

    def for_try(self, number: int) -> Trainer:
        """The trainer for try 1, 2, .. of a conversion; each later try has a folder of checkpoints of its own."""
        return self if number == 1 else replace(self, folder=self.folder / f"try-{number}")

    def session(self, stage: str, checkpoint: Path | None = None) -> Session:
        """One run of the training loop. checkpoint: its file; by default it is named after the stage."""
        from edgecompress.train import Session

        path = self.folder / f"{stage.replace(' ', '-')}.pt" if checkpoint is None else checkpoint
        return Session(stage=stage, seed=self.recipe.seed, checkpoint=path, resume=self.resume)

    def train_float(self, model: ir.Model, section: Section, stage: str, hooks: Sequence[Hook] = ()) -> TrainedModel:
        """Train a float model with BatchNormalization behind its convolutions, which stays in the result, with the
        statistics of the training data.
        """
        from edgecompress.compress.prune.patterns_again import patterns_again
        from edgecompress.train import train
        from edgecompress.train.module.torch_model import TorchModel
        from edgecompress.train.module.zeros import hold_zeros
        from edgecompress.train.normalised import refresh_statistics, with_batchnorm

        model, _ = patterns_again(with_batchnorm(model, self.data))
        module = TorchModel(model, logits=True)
        hold_zeros(module, model)
        history = train(
            module, self.data, self.settings(section), loss=self.loss(model), hooks=hooks, session=self.session(stage)
        )
        return TrainedModel(refresh_statistics(module.write_back(), self.data), history)

    def train_quantized(self, model: ir.Model, section: Section, stage: str) -> Aware:
        """Train an annotated model as the integers and codebooks that its annotations say it will be."""
        from edgecompress.compress.quantize.aware import train_quantized

        return train_quantized(
            model, self.data, self.settings(section), loss=self.loss(model), session=self.session(stage)
        )


def is_main_process() -> bool:
    """Whether this process writes and prints: the only one, or the first that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def open_trainer(model: ir.Model, given: object, recipe: Recipe, folder: Path, resume: bool) -> Trainer | None:
    """The trainer on the data that was given; None when there is none.

    Removes the checkpoints in `folder` unless `resume`. Raises InputError when the data does not fit the model, and
    MissingPackageError without PyTorch.
    """
    if given is None:
        return None
    require_torch("--train")
    from edgecompress.train import TrainData

    source = load_data(given, model.graph.inputs, recipe.preprocess, [str(value.name) for value in model.graph.outputs])
    data = TrainData.from_dataset(source, model)
    if not resume and is_main_process():
        remove_checkpoints(folder)
    return Trainer(model, source, data, recipe, folder, resume)


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints that a trainer keeps in the folder, and the folder if nothing else is in it."""
    for path in folder.glob("try-*"):
        remove_checkpoints(path)
    for path in [*folder.glob("*.pt"), *folder.glob("*.pt.partial")]:
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def require_torch(what: str) -> None:
    """Raises MissingPackageError when PyTorch, which `what` needs, is not installed."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(f"{what} needs PyTorch: pip install 'edgecompress[torch]'") from error
