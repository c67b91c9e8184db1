"""The steps of a conversion that train: a float model in, a smaller float model out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.dead import remove_dead_channels
from edgecompress.compress.quantize.precision import require_nodes
from edgecompress.conversion.steps import Data
from edgecompress.conversion.training_run import Training, require_torch
from edgecompress.errors import UnsupportedModelError
from edgecompress.evaluate.verify import reference
from edgecompress.graph.annotations import comes_quantized, forget_given
from edgecompress.ingest import fold_batchnorm
from edgecompress.ingest.equality import max_relative_error
from edgecompress.recipe import Recipe
from edgecompress.record.report import Goal
from edgecompress.record.stages import Running, StageLog


@dataclass(frozen=True)
class Learned:
    """model: smaller, float. goals: what was asked of each step, and what came out."""

    model: ir.Model = field(repr=False)
    goals: tuple[Goal, ...]
    notes: tuple[str, ...]


def learn(
    model: ir.Model,
    training: Training,
    data: Data,
    recipe: Recipe,
    log: StageLog,
    done: Sequence[Learned] = (),
    until: int | None = None,
) -> list[Learned]:
    """What is there in front of each of STEPS, and after the last: all that the recipe asks for, in the order in which
    each can rely on the ones before; in front of them what costs nothing.

    done: the first of these, when an earlier call made them. until: the place in STEPS to stop in front of.
    """
    made = list(done)
    if not made:
        notes: list[str] = []
        made.append(Learned(_remove_dead(model, notes), (), tuple(notes)))
    for wanted, step in STEPS[len(made) - 1 : until]:
        model, goals, notes = made[-1].model, list(made[-1].goals), list(made[-1].notes)
        if wanted(recipe):
            model = step(model, training, data, recipe, log, goals, notes)
            if comes_quantized(model.graph):
                forget_given(model.graph)
                notes.append("its weights being others now, the ranges that the model came with are calibrated again")
        made.append(Learned(model, tuple(goals), tuple(notes)))
    return made


def changes_weights(recipe: Recipe) -> bool:
    return any(wanted(recipe) for wanted, _ in STEPS)


def require_names(model: ir.Model, recipe: Recipe) -> None:
    """Raises InputError when the recipe names layers that the model has not; those of a student aren't known yet."""
    if recipe.distill.is_asked_for:
        return
    require_nodes(model.graph, recipe.quantize.float_layers)
    if recipe.prune.is_structured:
        from edgecompress.analysis.channel_groups import channel_groups, prunable
        from edgecompress.compress.prune.prune_channels import without_kept

        without_kept(prunable(channel_groups(model)), recipe.prune.keep)
    if recipe.prune.is_asked_for:
        require_torch("[prune]")
        from edgecompress.compress.prune.prune_weights import prunable as prunable_weights

        prunable_weights(model, recipe.prune.keep)


def _remove_dead(model: ir.Model, notes: list[str]) -> ir.Model:
    """Without channels that can't change the outputs, when ONNX Runtime shows them equal."""
    smaller, dead = remove_dead_channels(model)
    if not dead:
        return model
    try:
        error = max_relative_error(ir.to_proto(model), smaller)
    except UnsupportedModelError:  # above the limit: cancellation in what the biases took over
        return model
    notes.append(
        f"{sum(d.count for d in dead)} channels that can't change the outputs are removed "
        f"({'; '.join(map(str, dead))}): outputs differ by {error:.0e} of their largest value at most"
    )
    return smaller


def _distill(
    model: ir.Model, training: Training, data: Data, recipe: Recipe, log: StageLog, goals: list[Goal], notes: list[str]
) -> ir.Model:
    assert training.data is not None  # open_training sees to it
    from edgecompress.compress.distill.distillation import distill

    with log.stage("distill") as running:
        found = distill(
            model,
            training.data,
            recipe.distill,
            training.settings(recipe.distill),
            seed=recipe.seed,
            checkpoint=training.checkpoint("distill"),
            resume=training.resume,
        )
        training.histories.append(found.history)
        describe(running, found.model, data, recipe)
    notes += found.notes
    return found.model


def _prune_channels(
    model: ir.Model, training: Training, data: Data, recipe: Recipe, log: StageLog, goals: list[Goal], notes: list[str]
) -> ir.Model:
    require_torch("[prune]")
    from edgecompress.compress.prune.prune_channels import prune_channels

    settings, trains = recipe.prune, training.data is not None
    slims = trains and settings.criterion == "scale"

    def retrain(model: ir.Model, number: int) -> ir.Model:
        stage = f"prune channels, round {number} of {settings.rounds}"
        trained = training.floats(model, settings, stage, settings.slimming if slims else None)
        return trained if slims else fold_batchnorm(trained)

    with log.stage("prune channels") as running:
        if slims:
            _require_scales(model, training, recipe)
            model = training.floats(model, settings, "network slimming", settings.slimming)
        found = prune_channels(
            model,
            settings,
            data=training.data,
            loss=training.loss() if trains else None,
            seed=recipe.seed,
            retrain=retrain if trains else None,
        )
        model = found.model
        if trains:
            model = fold_batchnorm(training.floats(model, settings, "prune channels"))
        running.stage.note = str(found)
        describe(running, model, data, recipe)
    if found.blocks:
        goals.append(Goal(what="left out", unit="blocks", requested=settings.blocks, achieved=found.blocks))
    if found.requested < 1:
        requested, achieved = 100 * found.requested, 100 * found.achieved
        goals.append(Goal(what=f"{found.what} kept", unit="%", requested=requested, achieved=achieved))
        if settings.schedule == "gradual" and "schedule" in settings.model_fields_set:
            notes.append('channels go at once: prune.schedule = "gradual" is for single weights')
    notes += found.notes
    return model


def _require_scales(model: ir.Model, training: Training, recipe: Recipe) -> None:
    """Raises InputError for a group without the scales that network slimming is about to train."""
    from edgecompress.analysis.channel_groups import channel_groups, prunable
    from edgecompress.compress.prune.channel_scores import channel_scores
    from edgecompress.compress.prune.prune_channels import without_kept
    from edgecompress.train.normalised import with_batchnorm

    assert training.data is not None
    model = with_batchnorm(model, training.data)
    channel_scores(model, without_kept(prunable(channel_groups(model)), recipe.prune.keep), "scale")


def _prune_weights(
    model: ir.Model, training: Training, data: Data, recipe: Recipe, log: StageLog, goals: list[Goal], notes: list[str]
) -> ir.Model:
    require_torch("[prune]")
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.train.normalised import with_batchnorm

    settings, trains = recipe.prune, training.data is not None
    with log.stage("prune weights") as running:
        if training.data is not None:
            model = with_batchnorm(model, training.data)
        found = prune_weights(
            model,
            settings,
            data=training.data,
            training=training.settings(settings) if trains else None,
            loss=training.loss() if trains else None,
            seed=recipe.seed,
            checkpoint=training.folder,
            resume=training.resume,
        )
        training.histories += found.training
        running.stage.note = str(found)
        model = fold_batchnorm(found.model) if trains else found.model
        model = _remove_dead(model, notes)  # of channels that few weights are left of, some have none
        describe(running, model, data, recipe)
    if not trains and settings.schedule == "gradual":
        notes.append('weights go at once: prune.schedule = "gradual" needs training data')
    notes += found.notes
    goals.append(Goal(what="zero weights", unit="%", requested=100 * found.requested, achieved=100 * found.achieved))
    return model


def describe(running: Running, model: ir.Model, data: Data, recipe: Recipe) -> None:
    """Parameters, MACs and accuracy of a float model, into a stage."""
    facts = statistics(model)
    running.stage.parameters, running.stage.macs = facts.parameters, facts.macs
    if data.check.labels is not None:
        running.stage.accuracy = reference(model, data.check, recipe.evaluate.metric).score


Step = Callable[[ir.Model, Training, Data, Recipe, StageLog, list[Goal], list[str]], ir.Model]
# (whether the recipe asks for it, what does it)
STEPS: tuple[tuple[Callable[[Recipe], bool], Step], ...] = (
    (lambda recipe: recipe.distill.is_asked_for, _distill),
    (lambda recipe: recipe.prune.is_structured, _prune_channels),
    (lambda recipe: recipe.prune.is_asked_for, _prune_weights),
)
CHANNELS, WEIGHTS = ([step for _, step in STEPS].index(step) for step in (_prune_channels, _prune_weights))
