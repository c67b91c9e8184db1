"""`edgecompress profile`: what each layer costs on a device."""

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
    talk_options,
)
from edgecompress.support.echo import echo


@click.command(short_help="Instructions or time of each layer of a .pack.")
@click.argument("artifact", metavar="ARTIFACT", callback=not_empty)
@click.option(
    "--device",
    callback=not_empty,
    shell_complete=completes(device_names),
    help="A device that runs firmware, its emulator (qemu), or this machine (local).",
)
@file_option("--eval", "data", metavar="DATA", help="Samples; forms as in convert.  [default: random inputs]")
@click.option("--runs", type=click.IntRange(1), help="Number of samples to run, from the first.  [default: all]")
@file_option(
    "--preprocess", metavar="KEY=VALUE,...", help="How samples become inputs; keys: scale, mean, std, resize, layout."
)
@talk_options
@config_option
@json_option
@debug_option
def command(
    artifact: str,
    device: str | None,
    data: str | None,
    runs: int | None,
    preprocess: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Show what each layer of ARTIFACT costs: a .pack, or what `edgecompress build` wrote to a folder.

    On a microcontroller the firmware reads its counter between layers: instructions in an emulator, cycles on a board.
    On this machine one thread looks at the clock. Without --device, a built folder runs in the emulator of its target
    and a file runs on this machine.
    """
    from edgecompress.devices.profile import profile

    result = profile(artifact, device, eval=data, runs=runs, preprocess=parse_preprocess(preprocess), config=config)
    if as_json:
        echo(result.to_json(), nl=False)
    else:
        from edgecompress.report.tables import print_fitting

        print_fitting(result)
