"""Settings of pruning that are impossible or contradict each other, which is found before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecompress.compress.prune.criterion import all_criteria
from edgecompress.compress.prune.criterion import criterion as criterion_of
from edgecompress.compress.prune.defaults import AUTO
from edgecompress.compress.prune.patterns import parse_pattern
from edgecompress.errors import InputError

if TYPE_CHECKING:
    from edgecompress.recipe import Prune

ROUNDS = ("iterative", "lottery")
MOVING = ("rigl", "set")
GATED = "soft"
ROUNDING = 0.005  # 0.67 is what 1:3 makes zero
AT_ONCE = ("one-shot", "gradual")  # where there is nothing to prune by while training, "gradual" is at once too
NO_DATA = "needs training data: give --train"


def require_possible(settings: Prune, epochs: int | None, *, calibrated: bool = False) -> None:
    """Raises InputError with all `faults`."""
    if found := faults(settings, epochs, calibrated=calibrated):
        raise InputError("; ".join(found))


def faults(settings: Prune, epochs: int | None, *, calibrated: bool = True) -> list[str]:
    """A line for each; empty for settings that prune nothing.

    epochs: of training, in each round; None: there is nothing to train on. calibrated: whether there is calibration
    data, which training data can stand in for.
    """
    s, pattern = settings, parse_pattern(settings.pattern)
    weights, channels = s.is_asked_for, s.is_structured
    shares = [name for name in ("macs", "parameters", "channels") if getattr(s, name) is not None]
    fixed = None if pattern.keep is None else 1 - pattern.keep / pattern.columns
    criterion, schedule = f'prune.criterion = "{s.criterion}"', f'prune.schedule = "{s.schedule}"'
    anything = weights or channels
    known = criterion_of("l2" if s.criterion == AUTO else s.criterion)  # the default is one that can be followed
    of_weights = [name for name, each in all_criteria().items() if not each.only_channels]
    rows = (
        (
            len(shares) > 1,
            f"prune.{' and prune.'.join(shares)} each say how many channels are removed: set only one of them",
        ),
        (
            fixed is not None and s.sparsity is not None and abs(s.sparsity - fixed) > ROUNDING,
            f'prune.pattern = "{s.pattern}" makes {100 * (fixed or 0):g} % of the weights zero: remove '
            f'prune.sparsity, or use "unstructured"',
        ),
        (s.pattern.startswith("block") and s.sparsity is None, f'prune.pattern = "{s.pattern}" needs prune.sparsity'),
        (
            weights and known.only_channels,
            f"{criterion} scores channels only; for weights use {', '.join(of_weights)} and file.py:function",
        ),
        (
            weights and s.allocation == "capacity",
            'prune.allocation = "capacity" applies to channels only; for weights use uniform, global, lamp or '
            "sensitivity",
        ),
        (channels and not known.of_channels, f'{criterion} scores single weights only; for channels use "fisher"'),
        (
            channels and s.schedule == "lottery",
            f'{schedule} applies to single weights only; for channels use "iterative"',
        ),
        (
            channels and not weights and s.schedule in MOVING,
            f'{schedule} applies to single weights only; for channels use "one-shot", "iterative" or "soft"',
        ),
        (
            s.schedule == GATED and s.blocks > 0,
            f"{schedule} has gates on weights and channels: prune.blocks needs a run of its own, with another schedule",
        ),
        (
            channels and s.schedule == GATED and known.slims,
            f"{criterion} makes BatchNormalization's scales small, which gates replace: use another criterion",
        ),
        (channels and s.allocation == "erk", 'prune.allocation = "erk" applies to single weights only'),
        (
            anything and s.fresh and s.schedule not in MOVING,
            'prune.fresh applies only to prune.schedule = "rigl" and "set"',
        ),
        (
            fixed is not None and s.schedule == GATED,
            f'{schedule} closes single weights or blocks, which can\'t promise {s.pattern}; use "gradual" or "rigl"',
        ),
        (
            anything and s.rewind > 0 and s.schedule != "lottery",
            'prune.rewind applies only to prune.schedule = "lottery"',
        ),
        (
            s.initial is not None and not (weights and s.schedule == "lottery" and not channels),
            'prune.initial applies only to weights pruned by prune.schedule = "lottery", and not behind channels',
        ),
        (
            anything and s.schedule not in ROUNDS and s.rounds != type(s).model_fields["rounds"].default,
            'prune.rounds applies only to prune.schedule = "iterative" and "lottery"',
        ),
        (
            anything and epochs is not None and s.rewind > epochs,
            f"prune.rewind = {s.rewind} is after the end of training ({epochs} epochs)",
        ),
        (
            weights and known.calibrates and not calibrated,
            f"{criterion} needs calibration data, typical samples without labels: give --calib",
        ),
        (
            weights and known.calibrates and s.schedule not in AT_ONCE,
            f'{schedule} prunes while training, and {criterion} at once, by calibration data: use "one-shot"',
        ),
        (anything and epochs is None and known.needs_data, f"{criterion} {NO_DATA}"),
        (anything and epochs is None and s.schedule in (*ROUNDS, *MOVING, GATED), f"{schedule} {NO_DATA}"),
        (
            anything and epochs is None and s.allocation == "sensitivity" and not known.calibrates,
            f'prune.allocation = "sensitivity" {NO_DATA}',
        ),
        (s.blocks > 0 and epochs is None, f"prune.blocks {NO_DATA}, to find the blocks that matter least"),
    )
    return [text for wrong, text in rows if wrong]
