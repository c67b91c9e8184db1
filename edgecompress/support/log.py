"""What a run says of itself while it works: Python's logging, under the name "edgecompress".

Information: stages and epochs as they end. The command line shows it with -v; -q leaves errors alone.
"""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("edgecompress")
LOGGER.addHandler(logging.NullHandler())  # a library prints nothing unasked


def is_quiet() -> bool:
    """Whether nothing but errors is to be shown."""
    return not LOGGER.isEnabledFor(logging.WARNING)


def is_verbose() -> bool:
    """Whether it is shown what is being done."""
    return LOGGER.isEnabledFor(logging.INFO)
