"""The command line, run in this process."""

from __future__ import annotations

from pathlib import Path

import click
from click.testing import CliRunner

from edgecompress.cli import main


def edgecompress(*arguments: str | Path) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)"""

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("rest", nargs=-1, type=click.UNPROCESSED)
    def whole(rest: tuple[str, ...]) -> None:
        main(rest)

    done = CliRunner().invoke(whole, ["--", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr
