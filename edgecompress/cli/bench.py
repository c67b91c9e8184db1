"""`edgecompress bench`: artifacts on devices, measured, and compared with this machine."""

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
from edgecompress.errors import DeviceFault

OUTPUTS_DIFFER = 4


@click.command(short_help="Run artifacts on devices: time, accuracy, memory.")
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True)
@click.option(
    "--device",
    "devices",
    multiple=True,
    callback=not_empty,
    shell_complete=completes(device_names),
    help="Its name; see: edgecompress devices. Repeatable.",
)
@file_option("--eval", "data", metavar="DATA", help="Samples, with labels if there are any; as convert.")
@click.option("--runs", type=click.IntRange(1), help="How many samples, from the first.  [default: all]")
@click.option("--warmup", type=click.IntRange(0), help="Inferences before those.  [default: 3; emulators: 0]")
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Of interpreters.")
@file_option("--preprocess", metavar="KEY=VALUE,...", help="scale, mean, std, resize, layout.")
@talk_options
@config_option
@json_option
@debug_option
def command(
    artifacts: tuple[str, ...],
    devices: tuple[str, ...],
    data: str | None,
    runs: int | None,
    warmup: int | None,
    threads: int,
    preprocess: str | None,
    config: str | None,
    as_json: bool,
) -> int:
    """Run each ARTIFACT (.pack, .tflite, .onnx, or what `edgecompress build` wrote to a folder) on each device.

    Shows how long an inference takes, accuracy as computed there, whether every output is this machine's, and
    memory. Without --device, a built folder is run in its target's emulator, a file on this machine; --device qemu is
    the emulator of the artifact's target. Emulators count instructions, not time: they know nothing of a device's
    clock. Exit code 4 when outputs differ, 5 when a device fails; what others measured is shown all the same.
    """
    from edgecompress.devices.bench import bench

    result = bench(
        artifacts,
        devices,
        eval=data,
        runs=runs,
        warmup=warmup,
        threads=threads,
        preprocess=parse_preprocess(preprocess),
        config=config,
    )
    if as_json:
        click.echo(result.to_json(), nl=False)
    else:
        from edgecompress.report.tables import print_fitting

        print_fitting(result)
    return DeviceFault.exit_code if result.failures else 0 if result.ok else OUTPUTS_DIFFER
