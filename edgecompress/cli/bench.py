"""`edgecompress bench`: measure artifacts on devices, and compare their outputs with this machine's."""

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
from edgecompress.support.echo import echo

OUTPUTS_DIFFER = 4


@click.command(short_help="Run artifacts on devices: time, accuracy, memory.")
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True)
@click.option(
    "--device",
    "devices",
    multiple=True,
    callback=not_empty,
    shell_complete=completes(device_names),
    help="Name of a device; see: edgecompress devices. Repeatable.",
)
@file_option("--eval", "data", metavar="DATA", help="Samples, with labels if you have them; forms as in convert.")
@click.option("--runs", type=click.IntRange(1), help="Number of samples to run, from the first.  [default: all]")
@click.option(
    "--warmup",
    type=click.IntRange(0),
    help="Inferences that are run first and not measured.  [default: 3; emulators: 0]",
)
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Threads of interpreters.")
@file_option(
    "--preprocess", metavar="KEY=VALUE,...", help="How samples become inputs; keys: scale, mean, std, resize, layout."
)
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

    Shows the time of an inference, the accuracy on the device, the memory, and whether every output equals this
    machine's. Without --device, a built folder runs in the emulator of its target and a file runs on this machine;
    --device qemu is the emulator of the artifact's target. Emulators count instructions, because they know nothing of
    a device's clock. The exit code is 4 when outputs differ and 5 when a device fails; the results of the other
    devices are shown all the same.
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
        echo(result.to_json(), nl=False)
    else:
        from edgecompress.report.tables import print_fitting

        print_fitting(result)
    return DeviceFault.exit_code if result.failures else 0 if result.ok else OUTPUTS_DIFFER
