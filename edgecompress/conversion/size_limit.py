"""Compress and measure the artifacts; when they are too large, compress again with less."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.recipe_faults import faults
from edgecompress.conversion.accuracy_limit import Outcome, convert_within_accuracy
from edgecompress.conversion.conversion import Conversion
from edgecompress.conversion.float_steps import CHANNELS, EXITS, WEIGHTS, FloatModel, run_float_steps
from edgecompress.conversion.size_budget import within_budget
from edgecompress.conversion.sparsity_limit import prune_within_accuracy
from edgecompress.recipe import Recipe
from edgecompress.record.report import Goal, History

TRIES = 3
STEP = 1.2  # of what was too much: weights do not have all of the room


@dataclass(frozen=True)
class Compressed:
    """The smallest of all tries.

    recipe: with what was chosen for emit.max_size. steps: the float model after each step. notes: what was too large,
    and so tried again. histories: of every training of all tries, in order.
    """

    recipe: Recipe
    steps: tuple[FloatModel, ...]
    outcome: Outcome
    notes: tuple[str, ...] = ()
    histories: tuple[History, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of the largest artifact."""
        return max(len(a.file) for a in self.outcome.attempt.artifacts)

    @property
    def goals(self) -> list[Goal]:
        """What was asked of each step, and of the sizes of artifacts, with what came out."""
        limit, attempt = self.recipe.emit.max_size, self.outcome.attempt
        artifacts = attempt.artifacts if limit is not None else ()
        return [
            *(goal for step in self.steps for goal in step.goals),
            *attempt.encoded.goals,
            *(
                Goal(what=f"size of .{a.format}", unit="bytes", requested=limit or 0, achieved=len(a.file))
                for a in artifacts
            ),
        ]

    @property
    def within_size(self) -> bool:
        """Whether every artifact is as small as the recipe asks."""
        limit = self.recipe.emit.max_size
        return limit is None or self.bytes <= limit


def convert_within_size(conversion: Conversion) -> Compressed:
    """Artifacts of at most recipe.emit.max_size bytes, or the smallest of TRIES.

    What was measured corrects the estimate that sparsity and channels are chosen by (`within_budget`). Each try goes on
    from the model in front of the first step that it changes.
    """
    asked, trains = conversion.recipe, conversion.trains
    steps = run_float_steps(conversion, until=CHANNELS)
    limit, weights = asked.emit.max_size, statistics(steps[-1].model).parameters
    chosen, room = within_budget(asked, weights, trains=trains), float(limit or 0)
    tries: list[Compressed] = []
    notes: list[str] = []
    histories, done = _histories(steps), len(steps)
    for number in range(1, TRIES + 1):
        its = conversion.for_try(number, chosen)
        pruned = prune_within_accuracy(its, run_float_steps(its, steps, until=EXITS))
        its = its.with_recipe(pruned.recipe)
        steps = run_float_steps(its, pruned.steps)
        notes += pruned.notes
        outcome = convert_within_accuracy(its, steps[-1].model)
        histories += [*_histories(steps[done:]), *outcome.histories]
        tries.append(Compressed(chosen, tuple(steps), outcome))
        if limit is None or (over := tries[-1].bytes - limit) <= 0 or number == TRIES:
            break
        room -= STEP * over + limit / 200  # shares are rounded
        before, chosen = chosen, within_budget(asked, weights, trains=trains, room=room)
        if chosen == before or faults(chosen.prune, chosen.prune.epochs or chosen.train.epochs):
            break  # nothing more can be chosen, or not with what the recipe says of pruning
        notes.append(f"{tries[-1].bytes:,} bytes{_choice(before)}: {over:,} above the limit, so compressed again")
        done = (CHANNELS if chosen.prune.parameters != before.prune.parameters else WEIGHTS) + 1
        steps = steps[:done]
    return replace(min(tries, key=lambda t: t.bytes), notes=tuple(notes), histories=tuple(histories))


def _histories(steps: list[FloatModel]) -> list[History]:
    return [history for step in steps for history in step.histories]


def _choice(recipe: Recipe) -> str:
    chosen = {"sparsity": recipe.prune.sparsity, "parameters": recipe.prune.parameters}
    return "".join(f" with prune.{key} = {value}" for key, value in chosen.items() if value is not None)
