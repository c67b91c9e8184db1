"""`edgecompress build`: compile a .pack file for a microcontroller or another CPU."""

from __future__ import annotations

import click

from edgecompress.cli.options import (
    completes,
    debug_option,
    file_option,
    json_option,
    not_empty,
    talk_options,
    target_names,
)
from edgecompress.support.echo import echo
from edgecompress.support.log import is_quiet


@click.command(short_help="Compile a .pack for a CPU, ahead of time.")
@click.argument("pack", metavar="FILE.pack", callback=not_empty)
@click.option(
    "--target",
    default="cortex-m4",
    show_default=True,
    shell_complete=completes(target_names),
    help="Target; see: edgecompress targets.",
)
@file_option("--target-file", type=click.Path(), help="Profile of your own board (TOML).")
@file_option("-o", "--output", type=click.Path(), help="Output folder.  [default: FILE-TARGET]")
@click.option(
    "--weights",
    type=click.Choice(("coded", "plain")),
    default="coded",
    show_default=True,
    help="How clustered weights lie in flash: entropy coded, or as int8 (larger, a little faster).",
)
@click.option("--name", metavar="NAME", help="C identifier that symbols and files start with.  [default: from FILE]")
@json_option
@talk_options
@debug_option
def command(
    pack: str, target: str, target_file: str | None, output: str | None, weights: str, name: str | None, as_json: bool
) -> None:
    """Compile FILE.pack ahead of time to an object file, a static library, a C header and an example.

    These need no C toolchain. With arm-none-eabi-gcc or the Python package ziglang installed, Cortex-M targets also
    get firmware for the board that QEMU emulates. With aarch64-linux-gnu-gcc or x86_64-linux-gnu-gcc, 64-bit Linux
    and Android targets also get a shared library and a program.
    """
    from edgecompress.devices.firmware import RECORD, build
    from edgecompress.report.tables import print_fitting

    made = build(pack, target, output=output, target_file=target_file, weights=weights, name=name)
    if as_json:
        echo((made.directory / RECORD).read_text(), nl=False)
    elif is_quiet():
        echo("\n".join(str(made.directory / name) for name in made.files))
    else:
        print_fitting(made)
