"""`edgecompress sensitivity`: show what pruning each group of channels alone costs in accuracy."""

from __future__ import annotations

import click

from edgecompress.cli.options import (
    debug_option,
    file_option,
    json_option,
    model_options,
    parse_constants,
    parse_input_shapes,
    parse_preprocess,
    talk_options,
)
from edgecompress.support.echo import echo


@click.command(short_help="Measure what pruning each layer group costs.")
@model_options
@file_option(
    "--eval", "data", metavar="DATA", required=True, help="Samples, with labels if you have them; forms as in convert."
)
@click.option(
    "--ratio",
    "ratios",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    default=(0.25, 0.5, 0.75),
    show_default="0.25, 0.5, 0.75",
    help="Share of a group's channels to remove. Repeatable.",
)
@click.option(
    "--criterion",
    default="l1",
    show_default=True,
    help="How channels are scored: a name as in a recipe, or file.py:function taking (weight, known).",
)
@click.option("--metric", default="auto", show_default=True, help="A name, as in [evaluate], or file.py:function.")
@click.option(
    "--samples", type=click.IntRange(1), default=1000, show_default=True, help="Use only the first N samples."
)
@file_option(
    "--preprocess", metavar="KEY=VALUE,...", help="How samples become inputs; keys: scale, mean, std, resize, layout."
)
@json_option
@talk_options
@debug_option
def command(
    model: str,
    weights: str | None,
    trust_code: bool,
    constants: tuple[str, ...],
    input_shapes: tuple[str, ...],
    batch: int | None,
    data: str,
    ratios: tuple[float, ...],
    criterion: str,
    metric: str,
    samples: int,
    preprocess: str | None,
    as_json: bool,
) -> None:
    """Remove channels from one group of MODEL at a time, and show the accuracy that is left.

    Without labels, show the signal-to-noise ratio of the outputs. The model is not trained in between.
    """
    from edgecompress.inspection.layer_sensitivity import sensitivity
    from edgecompress.support.log import is_quiet

    found = sensitivity(
        model,
        data,
        ratios=ratios,
        criterion=criterion,
        metric=metric,
        samples=samples,
        weights=weights,
        trust_code=trust_code,
        constants=parse_constants(constants),
        input_shapes=parse_input_shapes(input_shapes),
        batch=batch,
        preprocess=parse_preprocess(preprocess),
    )
    if as_json:
        echo(found.to_json(), nl=False)
    elif not is_quiet():
        from edgecompress.report.tables import print_fitting

        print_fitting(found)
