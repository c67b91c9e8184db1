"""Errors that the user can do something about: one small hierarchy with an exit code for each kind."""

from edgecompress.visible import visible

LONGEST_MESSAGE = 4000  # characters: a name may have millions


class EdgeCompressError(Exception):
    """Base class. The message is one line: the file, node or tensor, what was expected and found, and what to do."""

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        text = visible(message)  # names of strangers are in it, and libraries print tracebacks
        super().__init__(text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 3]}...")


class InputError(EdgeCompressError):
    """A bad argument, or a file (model, data, recipe or target) that can't be read. Exit code 2."""


class UnsupportedModelError(EdgeCompressError):
    """A model that was read but can't be converted. The message names every node and operator at fault. Exit code 3."""

    exit_code = 3


class MissingPackageError(InputError):
    """An optional package is missing. The message has the command that installs it. Exit code 2."""


class DeviceFault(EdgeCompressError):
    """A device can't be reached, is in use, or fails. Exit code 5."""

    exit_code = 5
