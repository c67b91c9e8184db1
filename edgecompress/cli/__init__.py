"""The command line: `edgecompress`. A command's module is imported when the command is asked for."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
from collections.abc import Sequence

import click

from edgecompress import __version__
from edgecompress.errors import EdgeCompressError, InputError
from edgecompress.support.echo import echo
from edgecompress.support.interrupt import watched
from edgecompress.support.log import LOGGER

COMMANDS = (
    "bench", "build", "compare", "completion", "convert", "devices", "doctor", "flash", "inspect", "profile", "report",
    "run", "sensitivity", "targets",
)  # fmt: skip
INTERRUPTED = 128 + signal.SIGINT  # what a shell reports for a program stopped by Ctrl-C


class _Echo(logging.Handler):
    """Writes each line to whatever stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        echo(record.getMessage(), err=True)


class LazyGroup(click.Group):
    """Commands are modules of this package, each with a `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command of this name; None when there is none."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{name}").command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgecompress")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def cli() -> None:
    """Makes a trained model smaller and faster for one device, and measures the result."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Exit codes: 0 success; 1 a defect of this program; 2 bad arguments or unreadable input; 3 the model can't be
    converted or run, or not in all formats; 4 the model was converted, but a limit on accuracy or size was not met, or
    a device's outputs differ; 5 a device can't be reached, is in use, or fails; 130 interrupted by Ctrl-C,
    143 by SIGTERM.
    A failure is one line on stderr; --debug anywhere in the arguments shows the traceback as well.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    LOGGER.handlers = [_Echo()]
    LOGGER.setLevel(logging.WARNING)
    with watched() as watch:
        try:
            sys.exit(cli.main(arguments, prog_name="edgecompress", standalone_mode=False))
        except Exception as error:
            # A library that a signal stopped may raise any error, so any failure after a signal is an interruption.
            message, code = ("interrupted", 128 + watch.came) if watch.came else _failure(error)
            if "--debug" in arguments:
                import traceback

                echo(traceback.format_exc(), err=True, nl=False)
            echo(f"error: {message}", err=True)
            sys.exit(code)


def _failure(error: Exception) -> tuple[str, int]:
    if isinstance(error, EdgeCompressError):
        return _one_line(str(error)), error.exit_code
    if isinstance(error, click.Abort):  # what click makes of Ctrl-C
        return "interrupted", INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return f"expected a command: {', '.join(COMMANDS)} (see: edgecompress --help)", error.exit_code
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "edgecompress"
        return f"{_one_line(error.format_message())} (see: {command} --help)", error.exit_code
    if isinstance(error, click.ClickException):
        return _one_line(error.format_message()), error.exit_code
    if isinstance(error, OSError):  # a full disk, a closed output, a name too long: no defect of this program
        where = f"{error.filename}: " if error.filename else "can't read or write: "
        return _one_line(f"{where}{error.strerror or error}"), InputError.exit_code
    return f"unexpected {type(error).__name__}: {_one_line(str(error))} (run again with --debug for the traceback)", 1


def _one_line(text: str) -> str:
    return " ".join(text.split())
