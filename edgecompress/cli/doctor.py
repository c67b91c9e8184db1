"""`edgecompress doctor`: show what is installed, and what is missing."""

from __future__ import annotations

import click

from edgecompress.cli.options import debug_option, json_option
from edgecompress.support.echo import echo


@click.command(short_help="Show what is installed, and what is missing.")
@json_option
@debug_option
def command(as_json: bool) -> None:
    """Show which interpreters, linkers, emulators and probes are installed, and what each missing one would enable."""
    from edgecompress.inspection.environment import doctor
    from edgecompress.report.tables import print_fitting

    found = doctor()
    if as_json:
        echo(found.to_json(), nl=False)
    else:
        print_fitting(found)
