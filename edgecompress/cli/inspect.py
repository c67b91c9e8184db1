"""`edgecompress inspect`: show what is in a model, and which targets it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgecompress.cli.options import debug_option, json_option, model_options, parse_constants, parse_input_shapes
from edgecompress.support.echo import echo

if TYPE_CHECKING:
    from edgecompress.inspection.model_inspection import Inspection
    from edgecompress.inspection.pack_inspection import PackInspection


@click.command(short_help="Show what is in a model or a .pack file.")
@model_options
@json_option
@debug_option
def command(
    model: str,
    weights: str | None,
    trust_code: bool,
    constants: tuple[str, ...],
    input_shapes: tuple[str, ...],
    batch: int | None,
    as_json: bool,
) -> None:
    """Show MODEL's operators, shapes, parameters, MACs and memory, and whether it fits each target.

    For a .pack file, show its plan and how each constant is encoded.
    """
    found: Inspection | PackInspection
    if model.endswith(".pack"):
        from edgecompress.inspection.pack_inspection import inspect_pack

        found = inspect_pack(model)
    else:
        from edgecompress.inspection.model_inspection import inspect

        found = inspect(
            model,
            weights=weights,
            input_shapes=parse_input_shapes(input_shapes),
            batch=batch,
            constants=parse_constants(constants),
            trust_code=trust_code,
        )
    if as_json:
        echo(found.to_json(), nl=False)
    else:
        from edgecompress.report.tables import print_fitting

        print_fitting(found)
