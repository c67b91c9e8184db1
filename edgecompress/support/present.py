"""Values that a type says may be None, where what is known of the model says that they are there."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def present(value: T | None) -> T:
    """The value. Raises AssertionError when it is None, which is a defect of this program."""
    assert value is not None
    return value
