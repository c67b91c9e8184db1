"""`edgecompress run`: run an artifact on an input, on this machine or on a device."""

from __future__ import annotations

import click

from edgecompress.cli.options import (
    completes,
    config_option,
    debug_option,
    device_names,
    file_option,
    json_option,
    not_empty,
    parse_preprocess,
)
from edgecompress.support.echo import echo


@click.command(short_help="Run an artifact on one input.")
@click.argument("artifact", callback=not_empty)
@file_option("--input", "source", metavar="FILE", required=True, help="Image, .npy (one or more samples), or .npz.")
@click.option(
    "--device",
    callback=not_empty,
    shell_complete=completes(device_names),
    help="Name of a device; see: edgecompress devices.",
)
@file_option("--labels", type=click.Path(), help="Text file with the name of a class in each line.")
@file_option(
    "--preprocess", metavar="KEY=VALUE,...", help="How samples become inputs; keys: scale, mean, std, resize, layout."
)
@config_option
@json_option
@debug_option
def command(
    artifact: str,
    source: str,
    device: str | None,
    labels: str | None,
    preprocess: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Run ARTIFACT (.pack, .tflite, .onnx, or what `edgecompress build` wrote to a folder) on FILE.

    Shows the best classes, or the first values of the outputs. Without --device, a built folder runs in the emulator of
    its target, and a file runs on this machine.
    """
    from edgecompress.devices.run import run

    found = run(artifact, source, device=device, labels=labels, preprocess=parse_preprocess(preprocess), config=config)
    if as_json:
        import json

        echo(json.dumps(found.to_dict()))
    else:
        from edgecompress.report.tables import print_fitting

        print_fitting(found)
