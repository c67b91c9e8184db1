"""The inputs that every step of a conversion gets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx
import onnx_ir as ir

from edgecompress.conversion.data import Data
from edgecompress.conversion.trainer import Trainer
from edgecompress.evaluate.verify import Reference
from edgecompress.recipe import Recipe
from edgecompress.record.stages import StageLog
from edgecompress_targets import Profile


@dataclass(frozen=True)
class InShape:
    """The model in another of its shapes, and what it computes there. key: of the shape (`graph.input_sizes`)."""

    key: str
    model: ir.Model
    reference: Reference


@dataclass(frozen=True)
class Conversion:
    """The inputs of a conversion, resolved once. A step takes these and the result of the step before it.

    model: canonical and float, as it came in. recipe: without open choices. reference: outputs and accuracy of the
    model on the data that artifacts are checked on. trainer: None without training data. log: of the stages that ran.
    initial: the model with the weights that it was first trained from; None where they were not given.
    tail: what follows the model in an .onnx file (`Ingested.tail`). others: the model in its other shapes, where files
    take several.
    """

    model: ir.Model
    profile: Profile
    recipe: Recipe
    data: Data
    reference: Reference
    trainer: Trainer | None
    log: StageLog
    initial: ir.Model | None = None
    tail: onnx.ModelProto | None = None
    others: tuple[InShape, ...] = ()

    @property
    def trains(self) -> bool:
        """Whether there is data to train on."""
        return self.trainer is not None

    def reference_in(self, shape: str | None) -> Reference:
        """What the model computes in one of its shapes; None: its own."""
        return next((other.reference for other in self.others if other.key == shape), self.reference)

    def with_recipe(self, recipe: Recipe) -> Conversion:
        """The same conversion by another recipe."""
        return replace(self, recipe=recipe)

    def for_try(self, number: int, recipe: Recipe) -> Conversion:
        """The same conversion, compressed again by another recipe. number: of the try, from 1."""
        trainer = None if self.trainer is None else self.trainer.for_try(number)
        return replace(self, recipe=recipe, trainer=trainer)
