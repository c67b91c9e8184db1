"""`edgecompress report`: show a report again, and make report.html again from report.json."""

from __future__ import annotations

from pathlib import Path

import click

from edgecompress.cli.options import debug_option, json_option, not_empty
from edgecompress.support.echo import echo


@click.command(short_help="Show the report of a conversion again.")
@click.argument("folder", metavar="DIR", callback=not_empty)
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
@json_option
@debug_option
def command(folder: str, opens: bool, as_json: bool) -> None:
    """Print the report of a conversion, and write its report.html again. DIR is the output folder."""
    from edgecompress.report.files import PAGE, read_report
    from edgecompress.report.html import page
    from edgecompress.report.tables import print_fitting
    from edgecompress.report.terminal import render
    from edgecompress.support.output import write_files

    report = read_report(folder)
    path = Path(folder)
    path = (path if path.is_dir() else path.parent) / PAGE
    write_files(path.parent, {PAGE: page(report).encode()})
    if as_json:
        echo(report.to_json(), nl=False)
    else:
        print_fitting(render(report))
        echo(f"Written to {path}")
    if opens:
        click.launch(str(path))
