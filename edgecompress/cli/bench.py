"""`edgecompress bench`: what `build` wrote, run in an emulator and compared with this machine's runtime."""

from __future__ import annotations

import click

from edgecompress.cli.options import debug_option, file_option, json_option, not_empty, parse_preprocess

OUTPUTS_DIFFER = 4


@click.command()
@click.argument("folder", metavar="DIR", callback=not_empty)
@click.option("--device", default="qemu", show_default=True, help="What runs it: qemu.")
@file_option("--eval", "data", metavar="DATA", required=True, help="Samples, with labels if there are any; as convert.")
@click.option("--runs", type=click.IntRange(1), default=20, show_default=True, help="How many samples, from the first.")
@file_option("--preprocess", metavar="KEY=VALUE,...", help="scale, mean, std, resize, layout.")
@json_option
@debug_option
def command(folder: str, device: str, data: str, runs: int, preprocess: str | None, as_json: bool) -> int:
    """Run what `edgecompress build` wrote to DIR in QEMU, and compare every output with this machine's, bit for bit.

    Counts instructions, not time: an emulator knows nothing of a device's clock. Exit code 4 when outputs differ.
    """
    from edgecompress.emulation import bench

    result = bench(folder, data, device=device, runs=runs, preprocess=parse_preprocess(preprocess))
    if as_json:
        click.echo(result.to_json(), nl=False)
    else:
        from edgecompress.report.terminal import print_fitting

        print_fitting(result)
    return 0 if result.ok else OUTPUTS_DIFFER
