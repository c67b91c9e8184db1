"""The data of a conversion: for calibration, and for checking artifacts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.quantize import knows_scales
from edgecompress.conversion.data_checks import Given, check_data
from edgecompress.conversion.request import DataSources
from edgecompress.conversion.trainer import CALIBRATION_SAMPLES, Trainer
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.evaluate.data_facts import look_at
from edgecompress.evaluate.dataset import Dataset, load_data
from edgecompress.evaluate.held_out import hold_out
from edgecompress.evaluate.measures import Metrics
from edgecompress.evaluate.sample_order import in_order_of_content
from edgecompress.evaluate.sequences import frames, load_sequences, random_sequences
from edgecompress.graph.annotations import given_quantization
from edgecompress.graph.states import states
from edgecompress.operators.rewriting import integer_parts
from edgecompress.recipe import Preprocess, Recipe
from edgecompress.recipe.effective import encoding
from edgecompress_targets import Profile

CHECK_SAMPLES = 512  # of calibration data, when there is no evaluation data to check artifacts on
RANDOM, RANDOM_SAMPLES = "random inputs", 16  # when there is no data at all
CHECKED_ON_CALIBRATION = (
    "artifacts were checked on the samples that they were calibrated with, which are too few to keep a fifth of them "
    "apart: give --eval data, or more --calib data"
)
RANDOM_MACS, FEWEST_RANDOM = 10_000_000_000, 4  # of a large model's on fewer inputs, and how many at least
CHECKED_ON_RANDOM = "artifacts were checked on {} random inputs: give --eval or --calib data"
CHECKED_AS_IT_CAME = (
    f"artifacts were compared on {RANDOM_SAMPLES} random inputs with the model as it came, quantized: how far that is "
    "from a float model only typical data can show (--eval or --calib)"
)


@dataclass(frozen=True)
class Data:
    """calibration: None when none was given. check: what artifacts are run on. notes: what was done to the data.
    held_out: whether the samples for checking were kept apart from data that was given for something else."""

    calibration: Dataset | None
    check: Dataset
    notes: tuple[str, ...]
    held_out: bool = False

    def cut_to(self, shapes: Mapping[str, Sequence[int]]) -> Data:
        """The same samples for a model whose inputs have other shapes, by name."""
        calibration = None if self.calibration is None else self.calibration.cut_to(shapes)
        return dataclasses.replace(self, calibration=calibration, check=self.check.cut_to(shapes))

    @property
    def labelled(self) -> bool:
        """Whether artifacts are checked on labels, so that accuracy is measured."""
        return self.check.is_labelled

    @property
    def calibrates_typically(self) -> bool:
        """Whether there is calibration data that ranges can be learned from, and not random inputs alone."""
        return self.calibration is not None and self.calibration.source != RANDOM

    @property
    def checks_as_it_came(self) -> bool:
        """Whether there is no data but random inputs within the ranges that the model came with: far from typical ones,
        they say nothing of how well its int8 follows a float model."""
        return self.check is self.calibration and not self.calibrates_typically


def open_data(model: ir.Model, calibration: object, evaluation: object, recipe: Recipe, profile: Profile) -> Data:
    """Open the data that was given. When no evaluation data is given, a fifth of the calibration data is kept apart to
    check artifacts on; without any data they are checked on random inputs.

    Raises InputError for data that does not fit the model, for int8 activations without calibration data,
    and for max_drop without labels to measure it; UnsupportedModelError for a model without inputs.
    """
    if not model.graph.inputs:
        raise UnsupportedModelError(
            "the model has no inputs, so its outputs are constants and there is nothing to convert"
        )
    if calibration is None and encoding(recipe) == "int8":
        who = f"target {profile.name}" if profile.integer_only else "the recipe"
        raise InputError(f"{who} needs int8 activations, which need calibration data: {describe_calibration(model)}")
    if states(model.graph):
        return _open_sequences(model, calibration, evaluation, recipe)
    inputs, outputs = model.graph.inputs, [str(value.name) for value in model.graph.outputs]
    calibrating, evaluating = (
        None if data is None else load_data(data, inputs, recipe.preprocess, outputs)
        for data in (calibration, evaluation)
    )
    if recipe.evaluate.max_drop is not None and (evaluating is None or not evaluating.is_labelled):
        raise InputError("max_drop needs evaluation data with labels: give --eval FILE.npz with x and y")
    opened = [d for d in (calibrating, evaluating) if d is not None]
    notes = list(dict.fromkeys(f"{d.source}: {note}" for d in opened for note in d.notes))
    notes += _checked(model, calibrating, evaluating, ranges=encoding(recipe) == "int8")
    if calibrating is not None:
        calibrating = in_order_of_content(calibrating)
    if evaluating is not None:
        return Data(calibrating, evaluating, tuple(notes))
    if calibrating is not None and calibrating.source == RANDOM:
        return Data(calibrating, calibrating, (*notes, CHECKED_AS_IT_CAME))
    if calibrating is not None:  # without its labels: accuracy on it would look better than it is
        rest, held = hold_out(calibrating)
        if held is None:
            notes.append(CHECKED_ON_CALIBRATION)
        few = calibrating.head(CHECK_SAMPLES) if held is None else held
        return Data(rest, few.without_labels(), tuple(notes), held is not None)
    count = int(np.clip(RANDOM_MACS // max(statistics(model).macs, 1), FEWEST_RANDOM, RANDOM_SAMPLES))
    return Data(None, random_data(inputs, recipe.seed).head(count), (*notes, CHECKED_ON_RANDOM.format(count)))


def _open_sequences(model: ir.Model, calibration: object, evaluation: object, recipe: Recipe) -> Data:
    """Single steps to calibrate on, and whole sequences to check artifacts on."""
    if recipe.evaluate.max_drop is not None:
        raise InputError("max_drop: accuracy of models with states is not measured; use --min-snr")
    calibrating, check = (
        None if data is None else load_sequences(data, model, recipe.preprocess) for data in (calibration, evaluation)
    )
    notes = [f"{d.source}: {note}" for d in (calibrating, check) if d is not None for note in d.notes]
    held_out = False
    if calibrating is not None:
        calibrating = in_order_of_content(calibrating)
        if check is None:
            rest, held = hold_out(calibrating)
            check, held_out = (calibrating.head(CHECK_SAMPLES), False) if held is None else (held, True)
            calibrating = rest
            notes += [CHECKED_ON_CALIBRATION] if held is None else []
    if check is None:
        check = random_sequences(model, RANDOM_SAMPLES, recipe.seed)
        notes.append(CHECKED_ON_RANDOM.format(RANDOM_SAMPLES))
    calibrates = None if calibrating is None else frames(model, calibrating)
    return Data(calibrates, check, tuple(dict.fromkeys(notes)), held_out)


def _checked(
    model: ir.Model, calibrating: Dataset | None, evaluating: Dataset | None, *, ranges: bool
) -> tuple[str, ...]:
    """What is worth checking of data that was given."""
    facts = [None if d is None or d.source == RANDOM else look_at(d) for d in (calibrating, evaluating)]
    return check_data(Given(model, facts[0], facts[1], ranges))


def from_training(trainer: Trainer, given: DataSources, metric: Metrics) -> DataSources:
    """The data sources with what training data can stand in for: a part of it calibrates, and what is kept aside for
    validation checks artifacts, with its labels where they are classes that top1 counts."""
    rest, part = trainer.split()
    if given.calibration is None:
        given = dataclasses.replace(given, calibration=rest.head(CALIBRATION_SAMPLES))
    if given.evaluation is None and part is not None:
        shape, labels = trainer.teacher.graph.outputs[0].shape, part.labels
        scores = metric in ("auto", "top1") and shape is not None and len(shape) == 2 and shape.numpy()[1] > 1
        fits = scores and labels is not None and labels.dtype.kind in "iu" and labels.size == len(part)
        given = dataclasses.replace(given, evaluation=part if fits else part.without_labels())
    return given


def needs_no_calibration(model: ir.Model, profile: Profile) -> bool:
    """Whether activations can be int8 without data: the model came with all scales that an integer-only target needs,
    or for one that also computes in float with those of most layers."""
    whole = integer_parts(model.clone(), integer_only=profile.integer_only)
    return knows_scales(whole, every=profile.integer_only)


def describe_calibration(model: ir.Model) -> str:
    """What to give as calibration data: the keys and shapes of the model's inputs."""
    shapes = {repr(v.name): list(v.shape.numpy()[1:]) for v in model.graph.inputs if v.shape is not None}
    if len(shapes) == 1:
        shapes = {"x": shapes.popitem()[1]}
    listed = ", ".join(f"{k} of shape [{', '.join(map(str, ['samples', *s]))}]" for k, s in shapes.items())
    return f"give --calib FILE.npz with {listed} (100 or more typical samples)"


def random_data(inputs: Sequence[ir.Value], seed: int) -> Dataset:
    """Random samples for the inputs: over the range that an input came with; else standard normal for floats, and 0
    and 1 for integers and masks, which are in range for any index."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for value in inputs:
        assert value.shape is not None and value.dtype is not None
        shape, dtype = (RANDOM_SAMPLES, *value.shape.numpy()), value.dtype.numpy()
        if (quantization := given_quantization(value)) is not None:
            low, high = quantization.dequantize(np.array([-128, 127], np.int8))
            drawn: np.ndarray = generator.uniform(low, high, shape)
        else:
            drawn = generator.standard_normal(shape) if dtype.kind == "f" else generator.integers(0, 2, shape)
        arrays[str(value.name)] = drawn.astype(dtype)
    return dataclasses.replace(load_data(arrays, inputs, Preprocess()), source=RANDOM)
