"""What can go wrong in the runtime."""

from __future__ import annotations


class RuntimeModelError(Exception):
    """A model that this runtime can't run, or inputs that don't fit it; the message says which and why."""


class UnsupportedOperatorError(RuntimeModelError):
    """An operator, or a form of it, for which there is no kernel."""


class MisfitError(ValueError):
    """An operator's options or tensors do not fit; `operators.check_plan` adds which operator it is."""
