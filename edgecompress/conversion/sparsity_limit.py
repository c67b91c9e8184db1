"""Prune weights; when the pruned float model loses more accuracy than may be lost, prune less."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from edgecompress.conversion.conversion import Conversion
from edgecompress.conversion.float_steps import WEIGHTS, FloatModel, run_float_steps
from edgecompress.evaluate.gate import ROUNDING
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.verify import compare, run_dataset
from edgecompress.recipe import Recipe
from edgecompress.record.report import Goal

TRIES = 5  # until the limit holds, each with twice as many weights as the one before
REFINED = 2  # more tries, between the last that lost too much and the first that did not
LEAST = 0.1  # a sparsity below this saves nothing that is worth what it harms
FIRST_TRY = 100  # numbers of these tries, which name checkpoints, start there


@dataclass(frozen=True)
class Pruned:
    """The float model after each step, the recipe with the sparsity that was kept, and what a reader should know."""

    steps: list[FloatModel]
    recipe: Recipe
    notes: tuple[str, ...] = ()


def prune_within_accuracy(conversion: Conversion, steps: list[FloatModel]) -> Pruned:
    """Prunes less where the pruned model, the last of the float steps, loses more than a max_drop that was asked for:
    twice as many weights are kept each time, from the model in front of pruning; then the sparsity in between is tried.

    Layers share the sparsity as the recipe says, so those give most of it back that suffer most. The weights stay as
    they are if nothing else is accurate enough. With a limit on size, that decides on the sparsity instead.
    """
    recipe = conversion.recipe
    asked, limit = recipe.prune.sparsity, recipe.evaluate.max_drop
    if asked is None or limit is None or recipe.emit.max_size is not None or not conversion.data.labelled:
        return Pruned(steps, recipe)
    tries = _Tries(conversion, steps, limit)
    if tries.holds(asked, steps):
        return Pruned(steps, recipe)
    too_much, kept = asked, 1 - 2 * (1 - asked)
    while kept >= LEAST and len(tries.drops) < TRIES and not tries.holds(kept):
        too_much, kept = kept, 1 - 2 * (1 - kept)
    kept = kept if kept in tries.accurate else 0.0
    for _ in range(REFINED):
        middle = round((too_much + kept) / 2, 3)
        if middle >= LEAST and tries.holds(middle):
            kept = middle
        else:
            too_much = middle
    lost = ", ".join(f"{drop:.2f} points at {sparsity:.1%}" for sparsity, drop in tries.drops.items())
    note = f"a sparsity of {kept:.1%} is kept in place of {asked:.1%}, to lose at most {limit:g} points: {lost}"
    steps = tries.accurate[kept] if kept else tries.unpruned()
    return Pruned(_with_goal(steps, asked, kept), tries.recipe(kept or None), (note,))


class _Tries:
    """Models pruned by different sparsities, from the same one. drops: points that each lost. accurate: the float steps
    of those that lost no more than the limit."""

    def __init__(self, conversion: Conversion, steps: list[FloatModel], limit: float) -> None:
        self._conversion, self._before, self._limit = conversion, steps[: WEIGHTS + 1], limit
        self.drops: dict[float, float] = {}
        self.accurate: dict[float, list[FloatModel]] = {}

    def recipe(self, sparsity: float | None) -> Recipe:
        """With another sparsity, or without pruning of weights."""
        recipe = self._conversion.recipe.model_copy(deep=True)
        recipe.prune.sparsity = sparsity
        return recipe

    def holds(self, sparsity: float, steps: list[FloatModel] | None = None) -> bool:
        """Whether a model of that sparsity loses no more than the limit. steps: with that model, if it is there."""
        if steps is None:
            number = FIRST_TRY + len(self.drops)
            steps = run_float_steps(self._conversion.for_try(number, self.recipe(sparsity)), self._before)
        drop = float_drop(self._conversion, steps[-1].model)
        if drop is None or drop <= self._limit + ROUNDING:
            self.accurate[sparsity] = steps
            self.drops[sparsity] = drop or 0.0
            return True
        self.drops[sparsity] = drop
        return False

    def unpruned(self) -> list[FloatModel]:
        """The float steps without pruning of weights."""
        return [*self._before, FloatModel(self._before[-1].model)]


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
