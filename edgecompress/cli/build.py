"""`edgecompress build`: code for a microcontroller or another CPU from a .pack."""

from __future__ import annotations

import click

from edgecompress.cli.options import debug_option


@click.command()
@click.argument("pack", metavar="FILE.pack")
@click.option("--target", default="cortex-m4", show_default=True, help="Device; see: edgecompress targets.")
@click.option("--target-file", type=click.Path(), help="Your own board's profile (TOML).")
@click.option("-o", "--output", type=click.Path(), help="Output folder.  [default: FILE-TARGET]")
@debug_option
def command(pack: str, target: str, target_file: str | None, output: str | None) -> None:
    """Compile FILE.pack ahead of time: object file, static library, C header and example.

    Needs no C toolchain. With arm-none-eabi-gcc installed, Cortex-M targets also get firmware for the board
    that QEMU emulates.
    """
    from edgecompress.firmware import build

    built = build(pack, target, output=output, target_file=target_file)
    stack = "unknown" if built.stack is None else f"{built.stack:,} bytes"
    click.echo(f"arena {built.arena:,} bytes, flash {built.flash:,} bytes, stack {stack}")
    if built.note:
        click.echo(f"no firmware image: {built.note}")
    click.echo(f"Written to {built.directory}: {', '.join(built.files)}")
