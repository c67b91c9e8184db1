"""The one exception that reading a `.pack` raises."""

from __future__ import annotations

from edgecompress_runtime.errors import RuntimeModelError


class PackError(RuntimeModelError):
    """A pack that can't be read, or a plan that can't be packed. One line: file, place, expected, found."""
