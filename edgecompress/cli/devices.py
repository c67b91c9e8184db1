"""`edgecompress devices`: list the devices that can be reached, and add one."""

from __future__ import annotations

from typing import Any

import click

from edgecompress.cli.options import config_option, debug_option, json_option
from edgecompress.support.echo import echo


@click.group(invoke_without_command=True, short_help="List the devices, or add one.")
@config_option
@json_option
@debug_option
@click.pass_context
def command(context: click.Context, config: str | None, as_json: bool) -> None:
    """List the devices, and say whether each can be reached now. `devices add` adds one to the configuration."""
    if context.invoked_subcommand is not None:
        return
    from edgecompress.devices.listing import list_devices

    found = list_devices(config)
    if as_json:
        echo(found.to_json(), nl=False)
    else:
        from edgecompress.report.tables import print_fitting

        print_fitting(found)


@command.command()
@click.argument("name")
@click.argument("driver")
@click.argument("settings", nargs=-1, metavar="KEY=VALUE...")
@config_option
@debug_option
def add(name: str, driver: str, settings: tuple[str, ...], config: str | None) -> None:
    """Add a device: ssh (host, user, target, ...), adb (serial, ...), serial (port, target, flash, ...).

    \b
    edgecompress devices add pi ssh host=raspberrypi.local user=pi target=raspberry-pi
    edgecompress devices add board serial port=/dev/ttyACM0 target=cortex-m4
        flash=pyocd chip=stm32l4r5zi
    """
    from edgecompress.devices.configuration import add_device

    path = add_device(name, {"driver": driver} | dict(_pair(driver, text) for text in settings), config)
    echo(f"Added {name} to {path}")


def _pair(driver: str, text: str) -> tuple[str, Any]:
    """ "baud=9600" -> ("baud", 9600); a value that is not TOML, or belongs to a setting that is a text, is a text."""
    import tomllib

    from edgecompress.devices.configuration import is_text
    from edgecompress.errors import InputError

    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InputError(f"{text!r}: expected KEY=VALUE, e.g. host=raspberrypi.local")
    try:
        found = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return key, value
    return key, value if is_text(driver, key) and not isinstance(found, str) else found
