"""`edgecompress build`: code for a microcontroller or another CPU from a .pack."""

from __future__ import annotations

import click

from edgecompress.cli.options import debug_option, file_option, not_empty


@click.command()
@click.argument("pack", metavar="FILE.pack", callback=not_empty)
@click.option("--target", default="cortex-m4", show_default=True, help="Device; see: edgecompress targets.")
@file_option("--target-file", type=click.Path(), help="Your own board's profile (TOML).")
@file_option("-o", "--output", type=click.Path(), help="Output folder.  [default: FILE-TARGET]")
@click.option("--weights", type=click.Choice(("coded", "plain")), default="coded", show_default=True,
              help="Clustered weights in flash: entropy coded, or int8 (larger, a little faster).")  # fmt: skip
@debug_option
def command(pack: str, target: str, target_file: str | None, output: str | None, weights: str) -> None:
    """Compile FILE.pack ahead of time: object file, static library, C header and example.

    Needs no C toolchain. With arm-none-eabi-gcc or the Python package ziglang, Cortex-M targets also get firmware
    for the board that QEMU emulates; with aarch64-linux-gnu-gcc, 64-bit Linux and Android get a shared library and a
    program.
    """
    from edgecompress.firmware import build
    from edgecompress.report.terminal import print_fitting

    print_fitting(build(pack, target, output=output, target_file=target_file, weights=weights))
