"""`edgecompress compare`: show conversions side by side."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgecompress.cli.options import debug_option, file_option, json_option, not_empty
from edgecompress.support.echo import echo


@click.command(short_help="Show conversions side by side.")
@click.argument("folders", metavar="DIR DIR...", nargs=-1, required=True, callback=not_empty)
@file_option("-o", "--output", type=click.Path(), help="Write an HTML page to this file as well.")
@json_option
@debug_option
def command(folders: tuple[str, ...], output: str | None, as_json: bool) -> None:
    """Show the size, accuracy and device measurements of conversions side by side. DIR is the output folder of one."""
    from edgecompress.report.compare_reports import HEADINGS, comparison, read_reports, rows
    from edgecompress.report.html import comparison_page
    from edgecompress.report.tables import print_fitting
    from edgecompress.support.output import write_files

    reports = read_reports(folders)
    if output is not None:
        path = Path(output)
        write_files(path.parent, {path.name: comparison_page(reports, HEADINGS, rows(reports)).encode()})
    if as_json:
        echo(json.dumps([{"name": n, "report": r.model_dump(mode="json")} for n, r in reports], indent=2))
        return
    print_fitting(comparison(reports))
    if output is not None:
        echo(f"Written to {output}")
