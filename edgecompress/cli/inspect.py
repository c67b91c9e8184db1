"""`edgecompress inspect`: what is in a model, and which targets it fits."""
from __future__ import annotations

import click

from edgecompress.cli.options import debug_option, json_option, model_options, parse_input_shapes


@click.command()
@model_options
@json_option
@debug_option
def command(model: str, weights: str | None, input_shapes: tuple[str, ...], as_json: bool) -> None:
    """Show MODEL's operators, shapes, parameters, MACs and memory, and for each target whether it fits."""
    from edgecompress.inspection import inspect

    found = inspect(model, weights=weights, input_shapes=parse_input_shapes(input_shapes))
    if as_json:
        click.echo(found.to_json(), nl=False)
    else:
        from edgecompress.report.terminal import print_fitting

        print_fitting(found)
