"""Compress, measure the artifacts, and where they are too large compress again, with less."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.recipe_faults import faults
from edgecompress.conversion.accuracy_limit import Outcome, convert_within_limit
from edgecompress.conversion.float_stages import CHANNELS, WEIGHTS, Learned, learn
from edgecompress.conversion.size_budget import within_budget
from edgecompress.conversion.steps import Data
from edgecompress.conversion.training_run import Training
from edgecompress.evaluate.verify import Reference
from edgecompress.recipe import Recipe
from edgecompress.record.stages import StageLog
from edgecompress_targets import Profile

TRIES = 3
STEP = 1.2  # of what was too much: not all of the room is the weights'


@dataclass(frozen=True)
class Compressed:
    """recipe: with what was chosen for emit.max_size. notes: what was too large, and so tried again."""

    recipe: Recipe
    learned: Learned
    outcome: Outcome
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Of the largest artifact."""
        return max(len(a.data) for a in self.outcome.attempt.artifacts)


def convert_within_size(
    model: ir.Model,
    training: Training,
    recipe: Recipe,
    data: Data,
    reference: Reference,
    profile: Profile,
    log: StageLog,
) -> Compressed:
    """Artifacts of at most recipe.emit.max_size bytes, or the smallest of TRIES.

    What was measured corrects the estimate that sparsity and channels are chosen by (`within_budget`). Each try goes on
    from the model in front of the first step that it changes.
    """
    steps = learn(model, training, data, recipe, log, until=CHANNELS)
    limit, trains, weights = recipe.emit.max_size, training.data is not None, statistics(steps[-1].model).parameters
    chosen, room = within_budget(recipe, weights, trains=trains), float(limit or 0)
    tries: list[Compressed] = []
    notes: list[str] = []
    for number in range(1, TRIES + 1):
        its = training.again(number)
        steps = learn(model, its, data, chosen, log, steps)
        outcome = convert_within_limit(steps[-1].model, its, data, reference, chosen, profile, log)
        tries.append(Compressed(chosen, steps[-1], outcome))
        if limit is None or (over := tries[-1].bytes - limit) <= 0 or number == TRIES:
            break
        room -= STEP * over + limit / 200  # shares are rounded
        before, chosen = chosen, within_budget(recipe, weights, trains=trains, room=room)
        if chosen == before or faults(chosen.prune, chosen.prune.epochs or chosen.train.epochs):
            break  # nothing more can be chosen, or not with what the recipe says of pruning
        notes.append(f"{tries[-1].bytes:,} bytes{_choice(before)}: {over:,} too many, so compressed again")
        steps = steps[: (CHANNELS if chosen.prune.parameters != before.prune.parameters else WEIGHTS) + 1]
    return replace(min(tries, key=lambda t: t.bytes), notes=tuple(notes))


def _choice(recipe: Recipe) -> str:
    chosen = {"sparsity": recipe.prune.sparsity, "parameters": recipe.prune.parameters}
    return "".join(f" with prune.{key} = {value}" for key, value in chosen.items() if value is not None)
