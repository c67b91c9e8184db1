"""What can go wrong for a reason the user can act on: one small hierarchy, one exit code each."""


class EdgeCompressError(Exception):
    """Base class. The message is one line: file, node or tensor; expected and found; what to do."""

    exit_code = 2


class InputError(EdgeCompressError):
    """A bad argument, or a file (model, data, recipe, target) that can't be read. Exit code 2."""


class UnsupportedModelError(EdgeCompressError):
    """A readable model that can't be converted: names every node and operator at fault. Exit code 3."""

    exit_code = 3


class MissingPackageError(InputError):
    """An optional package is needed; the message has the command that installs it. Exit code 2."""


class DeviceFault(EdgeCompressError):
    """A device can't be reached, is in use, or fails. Exit code 5."""

    exit_code = 5
