"""Messages of a run while it works: Python's logging, under the name "edgecompress".

Level INFO has stages and epochs as they end. The command line shows it with -v; with -q it shows only errors.
"""

from __future__ import annotations

import logging

from edgecompress.visible import visible


class _Visible(logging.Filter):
    """Makes every record's text visible, on one line, whoever handles it afterwards."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = visible(record.getMessage()).replace("\n", "\\u000a"), None
        return True


LOGGER = logging.getLogger("edgecompress")
LOGGER.addHandler(logging.NullHandler())  # a library prints nothing unasked
LOGGER.addFilter(_Visible())


def is_quiet() -> bool:
    """Whether only errors are to be shown."""
    return not LOGGER.isEnabledFor(logging.WARNING)


def is_verbose() -> bool:
    """Whether progress messages are shown."""
    return LOGGER.isEnabledFor(logging.INFO)
