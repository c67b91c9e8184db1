"""What a conversion's training shares: data, the original model as teacher, settings, checkpoints."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.errors import MissingPackageError
from edgecompress.evaluate.dataset import Dataset, load_data
from edgecompress.recipe import Recipe, Section, Train
from edgecompress.record.report import History

if TYPE_CHECKING:
    from edgecompress.train import TrainData
    from edgecompress.train.losses import Loss

CALIBRATION_SAMPLES = 512  # of the training data, where there is none for it


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
        from edgecompress.compress.distill.distillation_loss import DistillationLoss
        from edgecompress.train.losses import load_loss
        from edgecompress.train.module.torch_model import TorchModel

        assert self.data is not None
        task = None if self.data.labels is None else load_loss(self.recipe.train.loss, self.data)
        teacher = TorchModel(self.teacher, logits=True)
        return DistillationLoss(teacher, self.recipe.distill, classes=self.classes, features=(), task=task)

    def settings(self, section: Section) -> Train:
        """[train] with the section's own `epochs` and `lr`, where it has them."""
        own = {key: getattr(section, key, None) for key in ("epochs", "lr")}
        return self.recipe.train.model_copy(update={key: value for key, value in own.items() if value is not None})

    def again(self, number: int) -> Training:
        """For try 1, 2, .. of a whole run, with checkpoints of its own."""
        return self if number == 1 or self.folder is None else replace(self, folder=self.folder / f"try-{number}")

    def checkpoint(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}.pt"

    def floats(self, model: ir.Model, section: Section, stage: str, slimming: float | None = None) -> ir.Model:
        """A float model, trained with BatchNormalization behind its convolutions, which stays there.

        slimming: weight of the L1 norm of its scales in the loss.
        """
        from edgecompress.compress.prune.slimming import Slimming
        from edgecompress.train import train
        from edgecompress.train.module.torch_model import TorchModel
        from edgecompress.train.normalised import with_batchnorm

        assert self.data is not None
        model = with_batchnorm(model, self.data)
        module = TorchModel(model, logits=True)
        hooks = [] if slimming is None else [Slimming(module, model, slimming)]
        history = train(
            module,
            self.data,
            self.settings(section),
            loss=self.loss(),
            hooks=hooks,
            seed=self.recipe.seed,
            stage=stage,
            checkpoint=self.checkpoint(stage.replace(" ", "-")),
            resume=self.resume,
        )
        self.histories.append(history)
        return module.write_back()

    def integers(self, model: ir.Model, section: Section, stage: str) -> ir.Model:
        """An annotated model, trained as the integers (and codebooks) that it will be."""
        from edgecompress.compress.quantize.aware import train_quantized

        assert self.data is not None  # require_data sees to it
        found = train_quantized(
            model,
            self.data,
            self.settings(section),
            loss=self.loss(),
            seed=self.recipe.seed,
            stage=stage,
            checkpoint=self.checkpoint(stage.replace(" ", "-")),
            resume=self.resume,
        )
        self.histories.append(found.history)
        return found.model


def is_main_process() -> bool:
    """False in all but the first of the processes that torchrun started: that one writes and prints."""
    return os.environ.get("RANK", "0") == "0"


def open_training(model: ir.Model, given: object, recipe: Recipe, *, folder: Path, resume: bool) -> Training:
    """Raises InputError when the data does not fit the model; MissingPackageError without torch."""
    if given is None:
        return Training(model, None, None, False, recipe, None, False)
    require_torch("--train")
    from edgecompress.train import TrainData

    source = load_data(given, model.graph.inputs, recipe.preprocess)
    data = TrainData.from_dataset(source, model)
    classes = data.labels is None or data.labels.dtype.kind == "i"
    if not resume and is_main_process():
        remove_checkpoints(folder)
    return Training(model, source, data, classes, recipe, folder, resume)


def remove_checkpoints(folder: Path) -> None:
    """Only what `Training.checkpoint` names, and the folder if nothing else is in it."""
    for path in folder.glob("try-*"):
        remove_checkpoints(path)
    for path in [*folder.glob("*.pt"), *folder.glob("*.pt.partial")]:
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def require_torch(what: str) -> None:
    """Raises MissingPackageError without PyTorch."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(f"{what} needs PyTorch: pip install 'edgecompress[torch]'") from error
