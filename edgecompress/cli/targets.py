"""`edgecompress targets`: list the known targets."""

from __future__ import annotations

import click

from edgecompress.cli.options import debug_option, json_option
from edgecompress.support.echo import echo


@click.group(invoke_without_command=True, short_help="List the known targets.")
@json_option
@debug_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the known targets. `targets show NAME` shows everything about one."""
    if context.invoked_subcommand is not None:
        return
    from edgecompress.targets import all_targets

    profiles = all_targets()
    if as_json:
        echo("[" + ",\n".join(p.model_dump_json(indent=2) for p in profiles) + "]")
        return
    from edgecompress.report.tables import print_fitting, table

    types = {True: "int8 only", False: "any"}
    rows = [(p.name, types[p.integer_only], ", ".join(p.loads), p.description) for p in profiles]
    print_fitting(table("Targets", ("Name", "Types", "Loads", "Description"), rows))


@command.command()
@click.argument("name")
@json_option
@debug_option
def show(name: str, as_json: bool) -> None:
    """Show the whole profile of target NAME."""
    from edgecompress.targets import load_target

    profile = load_target(name)
    if as_json:
        echo(profile.model_dump_json(indent=2))
        return
    from edgecompress.report.tables import print_fitting, table

    rows = [(key, _shown(value), str(type(profile).model_fields[key].description)) for key, value in profile]
    rows.append(
        ("loads", _shown(profile.loads), "what can be loaded: the formats, and pack by this project's own runtime")
    )
    print_fitting(table(name, ("Key", "Value", "Meaning"), rows))


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "no limit" if value is None else str(value)
