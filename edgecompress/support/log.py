"""Messages of a run while it works: Python's logging, under the name "edgecompress".

Level INFO has stages and epochs as they end. The command line shows it with -v; with -q it shows only errors.
"""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("edgecompress")
LOGGER.addHandler(logging.NullHandler())  # a library prints nothing unasked


def is_quiet() -> bool:
    """Whether only errors are to be shown."""
    return not LOGGER.isEnabledFor(logging.WARNING)


def is_verbose() -> bool:
    """Whether progress messages are shown."""
    return LOGGER.isEnabledFor(logging.INFO)
