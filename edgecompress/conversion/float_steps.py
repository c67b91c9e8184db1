"""The steps of a conversion that make a float model smaller: distillation, channel pruning, weight pruning, gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.early_exit.thresholds import Operation
from edgecompress.compress.prune.dead import MARGIN, Dead, is_nearly_dead, remove_dead_channels
from edgecompress.compress.prune.defaults import calibrates
from edgecompress.compress.prune.measured_values import difference_on_data, measured_values
from edgecompress.compress.prune.patterns_again import patterns_again
from edgecompress.compress.prune.prune_layers import prune_layers
from edgecompress.compress.prune.pruned_weights import PrunedWeights
from edgecompress.compress.prune.recipe_faults import GATED
from edgecompress.conversion.conversion import Conversion
from edgecompress.conversion.trainer import TrainedModel, Trainer, require_torch
from edgecompress.errors import UnsupportedModelError
from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.gate_use import gate_use
from edgecompress.evaluate.taken_exits import taken
from edgecompress.evaluate.verify import reference
from edgecompress.graph.annotations import (
    codebook,
    comes_quantized,
    exits,
    forget_given,
    given_quantization,
    set_codebook,
)
from edgecompress.graph.fusion import constant
from edgecompress.ingest import fold_batchnorm
from edgecompress.ingest.equality import LIMIT, max_relative_error
from edgecompress.recipe import Recipe
from edgecompress.record.report import Goal, History
from edgecompress.record.stages import Running

if TYPE_CHECKING:
    from edgecompress.compress.prune.prune_channels import Pruned
    from edgecompress.recipe import Prune

CALIBRATED_AGAIN = "the weights have changed, so the ranges that the model came with are calibrated again"
SURE_ON_TRAINING = (
    "thresholds of early exits were chosen on the data that trained them, where exits are surer than elsewhere: give "
    "[train] validation"
)
ROUNDED_AGAIN = "weights that the model came with in few bits have changed, and are now as [quantize] says"


@dataclass(frozen=True)
class FloatModel:
    """A float model, and the results of the step that made it: what was asked of it and what came out (goals), what a
    reader should know (notes), every training that it took (histories), and what thresholds of early exits would cost
    (operations)."""

    model: ir.Model = field(repr=False)
    goals: tuple[Goal, ...] = ()
    notes: tuple[str, ...] = ()
    histories: tuple[History, ...] = ()
    operations: tuple[Operation, ...] = ()


def run_float_steps(
    conversion: Conversion, done: Sequence[FloatModel] = (), until: int | None = None
) -> list[FloatModel]:
    """What the model is in front of each of STEPS, and after the last. The first has lost its dead channels, which
    costs little; a step that the recipe does not ask for leaves the model as it is.

    done: the first of these, when an earlier call made them. until: the place in STEPS to stop in front of.
    """
    made = list(done) or [_with_whole_patterns(_first(conversion))]
    for is_asked_for, step in STEPS[len(made) - 1 : until]:
        model = made[-1].model
        if not is_asked_for(conversion.recipe):
            made.append(FloatModel(model))
            continue
        after = step(conversion, model)
        if comes_quantized(after.model.graph):
            few = any(given_quantization(v) is not None for v in after.model.graph.initializers.values())
            forget_given(after.model.graph)
            after = replace(after, notes=(*after.notes, CALIBRATED_AGAIN, *([ROUNDED_AGAIN] if few else [])))
        made.append(_with_whole_patterns(_without_lost_clusters(after)))
    return made


def _first(conversion: Conversion) -> FloatModel:
    if conversion.initial is not None:  # whose weights have the shapes of the model as it came in
        return FloatModel(conversion.model)
    typical = conversion.data.calibration if conversion.data.calibrates_typically else None
    return _without_dead(conversion.model, typical)


def _with_whole_patterns(made: FloatModel) -> FloatModel:
    """The same with every pattern of zeros as it should be, where channels went from between."""
    model, count = patterns_again(made.model)
    if not count:
        return made
    note = f"{count:,} more weights became zero, so that patterns of zeros hold without the removed channels"
    return replace(made, model=model, notes=(*made.notes, note))


def _without_lost_clusters(made: FloatModel) -> FloatModel:
    """The same without the clusters that its weights no longer have, since training moves each weight by itself."""
    lost = []
    for value in made.model.graph.initializers.values():
        book, array = codebook(value), constant(value)
        if book is None or book.scale is None or array is None or np.allclose(book.values(), array, rtol=1e-4, atol=0):
            continue
        set_codebook(value, None)
        lost.append(str(value.name))
    if not lost:
        return made
    note = (
        f"the clusters that {len(lost)} weights came with ({', '.join(lost[:3])}{', ..' if lost[3:] else ''}) are gone "
        "because these weights were trained, each by itself: ask for clusters again with [cluster]"
    )
    return replace(made, notes=(*made.notes, note))


def changes_weights(recipe: Recipe) -> bool:
    """Whether the recipe asks for any of STEPS."""
    return any(is_asked_for(recipe) for is_asked_for, _ in STEPS)


def _without_dead(model: ir.Model, data: Dataset | None) -> FloatModel:
    """The model without channels that have no effect, when ONNX Runtime shows that the outputs are equal: on random
    inputs, and on data, where it says which channels are all but zero."""
    if data is not None and len(data) and is_nearly_dead(model):
        smaller, dead = remove_dead_channels(model, partial(measured_values, dataset=data))
        if dead and (error := _difference(model, smaller)) is not None:
            on_data = difference_on_data(model, smaller, data)
            if on_data <= LIMIT:
                where = f", and {on_data:.0e} on the data; no value was taken to be above {MARGIN:g} times its largest"
                return FloatModel(smaller, notes=(_gone(dead, error) + where,))
    smaller, dead = remove_dead_channels(model)
    error = _difference(model, smaller) if dead else None
    return FloatModel(model) if error is None else FloatModel(smaller, notes=(_gone(dead, error),))


def _difference(model: ir.Model, smaller: ir.Model) -> float | None:
    """On random inputs; None where it is above the limit: cancellation in what the biases took over."""
    try:
        return max_relative_error(ir.to_proto(model), smaller)
    except UnsupportedModelError:
        return None


def _gone(dead: Sequence[Dead], error: float) -> str:
    return (
        f"{sum(d.count for d in dead)} channels that have no effect on the outputs were removed "
        f"({'; '.join(map(str, dead))}): the outputs differ by at most {error:.0e} of their largest value"
    )


def _distill(conversion: Conversion, model: ir.Model) -> FloatModel:
    from edgecompress.compress.distill.distillation import distill

    trainer, settings = conversion.trainer, conversion.recipe.distill
    assert trainer is not None  # require_possible sees to it
    session = trainer.session("distillation", trainer.folder / "distill.pt")
    with conversion.log.stage("distill") as running:
        training, outputs = trainer.settings(settings), trainer.outputs
        student = distill(model, trainer.data, settings, training, session=session, outputs=outputs)
        _describe(conversion, running, student.model)
    return FloatModel(student.model, notes=student.notes, histories=(student.history,))


def _prune_channels(conversion: Conversion, model: ir.Model) -> FloatModel:
    require_torch("[prune]")
    from edgecompress.compress.prune.defaults import for_channels

    trainer = conversion.trainer
    settings = for_channels(conversion.recipe.prune, trains=trainer is not None)
    with conversion.log.stage("prune channels") as running:
        if trainer is not None:
            from edgecompress.train.normalised import with_batchnorm

            model = with_batchnorm(model, trainer.data)  # while all channels are there, whose statistics are known
        if settings.schedule == GATED:
            assert trainer is not None  # require_possible sees to it
            pruned = _channels_by_gates(conversion, trainer, model, settings)
        else:
            pruned = _channels_by_scores(conversion, trainer, model, settings)
        model = fold_batchnorm(pruned.model)
        running.stage.note = str(pruned)
        _describe(conversion, running, model)
    goals, notes = [], list(pruned.notes)
    if pruned.blocks:
        goals.append(Goal(what="left out", unit="blocks", requested=settings.blocks, achieved=pruned.blocks))
    if pruned.requested < 1:
        requested, achieved = 100 * pruned.requested, 100 * pruned.achieved
        goals.append(Goal(what=f"{pruned.what} kept", unit="%", requested=requested, achieved=achieved))
        if settings.schedule == "gradual" and "schedule" in settings.model_fields_set:
            notes.insert(
                0, 'all channels were removed in one step: prune.schedule = "gradual" applies to single weights only'
            )
    return FloatModel(model, tuple(goals), tuple(notes), pruned.histories)


def _channels_by_gates(conversion: Conversion, trainer: Trainer, model: ir.Model, settings: Prune) -> Pruned:
    """Gates close while the model trains; then their channels go."""
    from edgecompress.compress.prune.channel_gates import SoftChannels
    from edgecompress.compress.prune.prune_channels import Retrained
    from edgecompress.compress.prune.soft_channels import prune_softly
    from edgecompress.train.losses import task_loss

    def train(model: ir.Model, gates: SoftChannels) -> Retrained:
        trained = trainer.train_float(model, settings, "prune channels", [gates])
        return Retrained(trained.model, trained.history)

    loss = task_loss(model, trainer.recipe.train, trainer.data)
    return prune_softly(model, settings, data=trainer.data, loss=loss, seed=conversion.recipe.seed, train=train)


def _channels_by_scores(conversion: Conversion, trainer: Trainer | None, model: ir.Model, settings: Prune) -> Pruned:
    """Channels go at once or in rounds, and what is left is trained."""
    from edgecompress.compress.prune.criterion import criterion
    from edgecompress.compress.prune.prune_channels import Retrained, prune_channels
    from edgecompress.compress.prune.slimming import Slimming
    from edgecompress.train.losses import task_loss

    slims = trainer is not None and criterion(settings.criterion).slims
    first: list[History] = []

    def retrain(model: ir.Model, number: int) -> Retrained:
        assert trainer is not None
        hooks = [Slimming(model, settings.slimming)] if slims else []
        trained = trainer.train_float(model, settings, f"prune channels, round {number} of {settings.rounds}", hooks)
        return Retrained(trained.model, trained.history)

    if slims:
        assert trainer is not None
        slimmed = _slimmed(conversion, trainer, model)
        model, first = slimmed.model, [slimmed.history]
    pruned = prune_channels(
        model,
        settings,
        data=None if trainer is None else trainer.data,
        loss=None if trainer is None else task_loss(model, trainer.recipe.train, trainer.data),
        seed=conversion.recipe.seed,
        retrain=None if trainer is None else retrain,
    )
    if trainer is None:
        return pruned
    last = trainer.train_float(pruned.model, settings, "prune channels")
    return replace(pruned, model=last.model, histories=(*first, *pruned.histories, last.history))


def _slimmed(conversion: Conversion, trainer: Trainer, model: ir.Model) -> TrainedModel:
    """The model, with BatchNormalization, trained so that scales of its channels become small (network slimming).

    Raises InputError, before it trains, for a group of channels that has no such scales.
    """
    from edgecompress.analysis.channel_groups import channel_groups, prunable
    from edgecompress.compress.prune.channel_scores import channel_scores
    from edgecompress.compress.prune.prune_channels import without_kept
    from edgecompress.compress.prune.slimming import Slimming

    settings = conversion.recipe.prune
    channel_scores(model, without_kept(prunable(channel_groups(model)), settings.keep), settings.criterion)
    return trainer.train_float(model, settings, "network slimming", [Slimming(model, settings.slimming)])


def _prune_weights(conversion: Conversion, model: ir.Model) -> FloatModel:
    if calibrates(conversion.recipe.prune):
        return _prune_layers(conversion, model)
    require_torch("[prune]")
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.train import Session
    from edgecompress.train.normalised import with_batchnorm

    settings, trainer = conversion.recipe.prune, conversion.trainer
    with conversion.log.stage("prune weights") as running:
        if trainer is None:
            pruned = prune_weights(model, settings, session=Session(seed=conversion.recipe.seed))
            whole = pruned.model
        else:
            pruned = prune_weights(
                with_batchnorm(model, trainer.data),
                settings,
                data=trainer.data,
                training=trainer.settings(settings),
                loss=trainer.loss(),
                session=trainer.session("prune", trainer.folder),
                initial=None if conversion.initial is None else with_batchnorm(conversion.initial, trainer.data),
            )
            whole = fold_batchnorm(pruned.model)
        running.stage.note = str(pruned)
        smaller = _without_dead(whole, None)  # of channels that few weights are left of, some have none
        _describe(conversion, running, smaller.model)
    notes = list(smaller.notes)
    if trainer is None and settings.schedule == "gradual":
        notes.append('all weights were pruned in one step: prune.schedule = "gradual" needs training data')
    return FloatModel(smaller.model, (_zeros(pruned),), (*notes, *pruned.notes), pruned.histories)


def _prune_layers(conversion: Conversion, model: ir.Model) -> FloatModel:
    """By calibration data; what is left is trained where there is training data."""
    settings, trainer, data = conversion.recipe.prune, conversion.trainer, conversion.data.calibration
    assert data is not None  # require_possible sees to it
    with conversion.log.stage("prune weights") as running:
        pruned = prune_layers(model, settings, data, conversion.recipe.seed)
        whole, histories = pruned.model, tuple[History, ...]()
        if trainer is not None:
            trained = trainer.train_float(whole, settings, "prune weights")
            whole, histories = fold_batchnorm(trained.model), (trained.history,)
        running.stage.note = str(pruned)
        smaller = _without_dead(whole, None)
        _describe(conversion, running, smaller.model)
    notes = (*smaller.notes, *pruned.notes)
    if settings.schedule == "gradual" and "schedule" in settings.model_fields_set:
        name = settings.criterion
        notes = (*notes, f'all weights were pruned in one step, as prune.criterion = "{name}" always does')
    return FloatModel(smaller.model, (_zeros(pruned),), notes, histories)


def _zeros(pruned: PrunedWeights) -> Goal:
    requested, achieved = 100 * pruned.requested, 100 * pruned.achieved
    return Goal(what="zero weights", unit="%", requested=requested, achieved=achieved)


def _exit_early(conversion: Conversion, model: ir.Model) -> FloatModel:
    from edgecompress.compress.early_exit.early_exits import add_exits, calibrated, require_classifier
    from edgecompress.compress.early_exit.first_fit import fitted, without_scales

    trainer, settings, seed = conversion.trainer, conversion.recipe.exit, conversion.recipe.seed
    assert trainer is not None  # require_possible sees to it
    with conversion.log.stage("early exits") as running:
        kind = require_classifier(trainer.teacher, trainer.outputs)
        begun = fitted(
            add_exits(model, settings, kind), trainer.data.split(conversion.recipe.train.validation, seed)[0]
        )
        trained = trainer.train_float(begun, settings, "early exits")
        rest, kept = trainer.split()
        made = calibrated(fold_batchnorm(without_scales(trained.model)), rest if kept is None else kept, settings)
        _describe(conversion, running, made.model)
    notes = () if kept is not None else (SURE_ON_TRAINING,)
    requested = settings.max_drop if settings.threshold is None else made.lost
    goal = Goal(what="lost by early exits", unit="%", requested=requested, achieved=made.lost)
    return FloatModel(made.model, (goal,), notes, (trained.history,), made.operations)


def _gate(conversion: Conversion, model: ir.Model) -> FloatModel:
    from edgecompress.compress.gated_channels.gating import gate

    trainer, settings = conversion.trainer, conversion.recipe.gate
    assert trainer is not None and settings.macs is not None  # require_possible sees to it
    with conversion.log.stage("gate channels") as running:
        gated = gate(
            model,
            trainer.data,
            settings,
            trainer.settings(settings),
            loss=trainer.loss(),
            session=trainer.session("gate channels"),
        )
        running.stage.note = f"{gated.share:.1%} of the multiply-accumulates run, mean of the training data"
        _describe(conversion, running, gated.model)
    used = gate_use(gated.model, conversion.data.check, statistics(model).macs)
    note = f"mean of {used.samples:,} samples; {gated.share:.1%} on the training data"
    goal = Goal(what="MACs run", unit="%", requested=100 * settings.macs, achieved=100 * used.share, note=note)
    return FloatModel(gated.model, (goal,), (used.note,), (gated.history,))


def _describe(conversion: Conversion, running: Running, model: ir.Model) -> None:
    """Write parameters, MACs and accuracy of a float model, with what its exits say, into the log of the stage."""
    facts = statistics(model)
    running.stage.parameters, running.stage.macs = facts.parameters, facts.macs
    if conversion.data.labelled:
        metric = conversion.recipe.evaluate.metric
        measured = reference(model, conversion.data.check, metric)
        running.stage.accuracy = measured.score
        if exits(model.graph) and measured.measures:
            running.stage.accuracy = measured.measures[0]([taken(model, measured.outputs).output])


# (whether the recipe asks for the step, the step). Each can rely on the ones before it.
STEPS: tuple[tuple[Callable[[Recipe], bool], Callable[[Conversion, ir.Model], FloatModel]], ...] = (
    (lambda recipe: recipe.distill.is_asked_for, _distill),
    (lambda recipe: recipe.prune.is_structured, _prune_channels),
    (lambda recipe: recipe.prune.is_asked_for, _prune_weights),
    (lambda recipe: recipe.exit.is_asked_for, _exit_early),
    (lambda recipe: recipe.gate.is_asked_for, _gate),
)
CHANNELS, WEIGHTS, EXITS = 1, 2, 3  # places in STEPS
