"""`edgecompress flash`: install an artifact on a device."""

from __future__ import annotations

import click

from edgecompress.cli.options import (
    completes,
    config_option,
    debug_option,
    device_names,
    json_option,
    not_empty,
    talk_options,
)
from edgecompress.support.echo import echo
from edgecompress.support.log import is_quiet


@click.command(short_help="Install an artifact on a device.")
@click.argument("artifact", callback=not_empty)
@click.option(
    "--device",
    required=True,
    callback=not_empty,
    shell_complete=completes(device_names),
    help="Name of the device; see: edgecompress devices.",
)
@talk_options
@config_option
@json_option
@debug_option
def command(artifact: str, device: str, config: str | None, as_json: bool) -> None:
    """Install ARTIFACT (.pack, .tflite, .onnx, or a folder of `edgecompress build`) on a device.

    What arrived is read back and compared. `bench` and `run` use what is already there.
    """
    from edgecompress.devices.flash import flash

    found = flash(artifact, device, config=config)
    if as_json:
        import json
        from dataclasses import asdict

        echo(json.dumps(asdict(found)))
    elif not is_quiet():
        echo(str(found))
