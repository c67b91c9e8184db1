"""Prune weights; when the pruned float model loses more accuracy than may be lost, prune less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgecompress.compress.prune.shares import LayerShare, within
from edgecompress.conversion.conversion import Conversion
from edgecompress.conversion.float_steps import EXITS, WEIGHTS, FloatModel, run_float_steps
from edgecompress.evaluate.gate import ROUNDING
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.verify import compare, run_dataset
from edgecompress.graph.annotations import set_sparsity, sparsity
from edgecompress.graph.fusion import constant
from edgecompress.graph.provenance import label
from edgecompress.recipe import Recipe
from edgecompress.record.report import Goal

TRIES = 5  # until the limit holds, each with twice as many weights as the one before
REFINED = 2  # more tries, between the last that lost too much and the first that did not
LEAST = 0.1  # a sparsity below this saves nothing that is worth what it harms
SAMPLES = 256  # to measure each layer on
MOST_NAMES = 6
NOTICEABLE = 0.001  # of the weights, by which a layer's sparsity has to differ to be named
FIRST_TRY = 100  # numbers of these tries, which name checkpoints, start there


@dataclass(frozen=True)
class Pruned:
    """The float model after each step up to pruning, the recipe with the sparsity that was kept, and what a reader
    should know."""

    steps: list[FloatModel]
    recipe: Recipe
    notes: tuple[str, ...] = ()


def prune_within_accuracy(conversion: Conversion, steps: list[FloatModel]) -> Pruned:
    """Prunes less where the pruned model, the last of these float steps, loses more than a max_drop that was asked for:
    twice as many weights are kept each time, from the model in front of pruning; then the sparsity in between is tried.

    Those layers give way whose sparsity harms the outputs most, as measured with each of them pruned alone; the others
    stay as sparse as they were. The weights stay as they are if nothing else is accurate enough. With a limit on size,
    that decides on the sparsity instead.
    """
    recipe = conversion.recipe
    limit = recipe.evaluate.max_drop
    if not recipe.prune.is_asked_for or limit is None or recipe.emit.max_size or not conversion.data.labelled:
        return Pruned(steps, recipe)
    if (drop := float_drop(conversion, steps[-1].model)) is None or drop <= limit + ROUNDING:
        return Pruned(steps, recipe)
    tries = _Tries(conversion, steps, limit, drop)
    too_much, kept = tries.asked, 1 - 2 * (1 - tries.asked)
    while kept >= LEAST and len(tries.drops) < TRIES and not tries.holds(kept):
        too_much, kept = kept, 1 - 2 * (1 - kept)
    kept = kept if kept in tries.accurate else 0.0
    for _ in range(REFINED):
        middle = round((too_much + kept) / 2, 3)
        if middle >= LEAST and tries.holds(middle):
            kept = middle
        else:
            too_much = middle
    return tries.result(kept)


class _Tries:
    """Models pruned by different sparsities, from the same one.

    asked: the sparsity of the first. drops: points that each lost. accurate: the float steps of those that lost no more
    than the limit.
    """

    def __init__(self, conversion: Conversion, steps: list[FloatModel], limit: float, drop: float) -> None:
        self._conversion, self._before, self._limit = conversion, steps[: WEIGHTS + 1], limit
        self._layers = _layer_shares(conversion, self._before[-1].model, steps[-1].model)
        weights = sum(layer.weights for layer in self._layers.values())
        gone = sum(layer.weights * layer.asked for layer in self._layers.values())
        self.asked = conversion.recipe.prune.sparsity or gone / max(weights, 1)
        self.drops: dict[float, float] = {self.asked: drop}
        self.accurate: dict[float, list[FloatModel]] = {}

    def holds(self, sparsity: float) -> bool:
        """Whether a model of that sparsity loses no more than the limit."""
        number = FIRST_TRY + len(self.drops)
        steps = run_float_steps(self._conversion.for_try(number, self._recipe(sparsity)), self._before, EXITS)
        drop = float_drop(self._conversion, steps[-1].model)
        assert drop is not None  # the first try had one
        self.drops[sparsity] = drop
        if drop <= self._limit + ROUNDING:
            self.accurate[sparsity] = steps
        return sparsity in self.accurate

    def result(self, kept: float) -> Pruned:
        """The model with the sparsity that was kept; 0: not pruned."""
        lost = ", ".join(f"{drop:.2f} points at {sparsity:.1%}" for sparsity, drop in self.drops.items())
        share = f"a sparsity of {kept:.1%} is kept in place of {self.asked:.1%}"
        notes = [f"{share}, to lose at most {self._limit:g} points: {lost}"]
        if not kept:
            recipe = self._conversion.recipe.model_copy(deep=True)
            recipe.prune.sparsity, recipe.prune.pattern = None, "unstructured"
            steps = [*self._before, FloatModel(self._before[-1].model)]
        else:
            recipe, steps = self._recipe(kept), self.accurate[kept]
            model, rows = _with_asked(steps[-1].model, self._layers)
            notes += [f"less sparse than asked for: {_listed(rows)}"] if rows else []
            steps = [*steps[:-1], replace(steps[-1], model=model)]
        return Pruned(_with_goal(steps, self.asked, kept), recipe, tuple(notes))

    def _recipe(self, sparsity: float) -> Recipe:
        """With less sparsity in some layers."""
        recipe = self._conversion.recipe.model_copy(deep=True)
        if recipe.prune.schedule == "soft":  # its gates share a sparsity among the layers themselves
            recipe.prune.sparsity = sparsity
            return recipe
        shares = within(self._layers, sparsity)
        less = {name: share for name, share in shares.items() if share < self._layers[name].asked}
        recipe.prune.at_most = {**recipe.prune.at_most, **{name: round(share, 4) for name, share in less.items()}}
        return recipe


def _layer_shares(conversion: Conversion, before: ir.Model, pruned: ir.Model) -> dict[str, LayerShare]:
    """The layers by name, with the sparsity that they have in the pruned model, and how much it harms."""
    from edgecompress.compress.prune.patterns import parse_pattern
    from edgecompress.compress.prune.pruned_weights import prunable
    from edgecompress.compress.prune.weight_sensitivity import noise_of_layers
    from edgecompress.train import TrainData

    settings, trainer, data = conversion.recipe.prune, conversion.trainer, conversion.data
    pattern, weights = parse_pattern(settings.pattern), prunable(before, settings.keep)
    given = (data.calibration or data.check).head(SAMPLES)
    samples = TrainData.from_dataset(given, before) if trainer is None else trainer.data
    noise = noise_of_layers(before, weights, pattern, samples)
    shares = {}
    for w in weights:
        annotation = sparsity(pruned.graph.initializers.get(w.name))
        array = constant(before.graph.initializers[w.name])
        assert array is not None
        left = 0 if annotation is None else int(annotation.mask.sum())  # without dead channels; a layer may be gone
        shares[str(w.node.name)] = LayerShare(
            array.size, 1 - left / array.size, noise[w.name], pattern.keep is not None
        )
    return shares


def _with_asked(model: ir.Model, layers: Mapping[str, LayerShare]) -> tuple[ir.Model, list[tuple[str, float, float]]]:
    """The pruned model with what was asked for written to the weights that gave way; and (name, asked, kept) of these,
    those first that gave way most."""
    clone, rows = model.clone(), []
    for node in clone.graph:
        layer, value = layers.get(str(node.name)), node.inputs[1] if len(node.inputs) > 1 else None
        annotation = sparsity(value)
        if layer is None or value is None or annotation is None:
            continue
        kept = 1 - int(annotation.mask.sum()) / layer.weights
        if kept < layer.asked - NOTICEABLE:
            set_sparsity(value, replace(annotation, asked=layer.asked))
            rows.append((label(node), layer.asked, kept))
    return clone, sorted(rows, key=lambda row: row[2] - row[1])


def _listed(rows: list[tuple[str, float, float]]) -> str:
    rest = len(rows) - MOST_NAMES
    named = ", ".join(f"{name} {kept:.1%} in place of {asked:.1%}" for name, asked, kept in rows[:MOST_NAMES])
    return named + (f", and {rest} more" if rest > 0 else "")


def _with_goal(steps: list[FloatModel], asked: float, kept: float) -> list[FloatModel]:
    """The steps with a goal that says what was asked for at first."""
    goals = steps[-1].goals or (Goal(what="zero weights", unit="%", requested=0, achieved=100 * kept),)
    return [
        *steps[:-1],
        replace(steps[-1], goals=tuple(g.model_copy(update={"requested": 100 * asked}) for g in goals)),
    ]


def float_drop(conversion: Conversion, model: ir.Model) -> float | None:
    """Points of the metric that a float model loses against the one that came in; None without labels."""
    interpreter, reference = OnnxRuntime(model), conversion.reference
    return compare(interpreter, reference.dataset, run_dataset(interpreter, reference.dataset), reference).drop
