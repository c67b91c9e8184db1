"""Checked access to JSON: whatever a pack's header holds, a caller gets the type and range it asked for.

Every function raises PackError naming the key, what it should be, and what was found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from edgecompress_runtime.pack.errors import PackError

T = TypeVar("T")
INT32 = (-(2**31), 2**31 - 1)
INT64 = (-(2**63), 2**63 - 1)


def member(record: dict[str, Any], key: str, convert: Callable[..., T], *arguments: Any) -> T:
    """`convert(record[key], *arguments)`, with the key put in front of what goes wrong."""
    if key not in record:
        raise PackError(f"{key} is missing")
    return within(key, convert, record[key], *arguments)


def within(place: str, convert: Callable[..., T], *arguments: Any) -> T:
    """`convert(*arguments)`; a PackError gets `place` in front, so that messages read outside in."""
    try:
        return convert(*arguments)
    except PackError as error:
        raise PackError(f"{place}: {error}") from None


def integer(value: Any, low: int, high: int) -> int:
    """An integer from `low` to `high`; true and false are none."""
    if type(value) is not int or not low <= value <= high:  # bool is a subclass of int
        raise _wrong(f"an integer from {low} to {high}", value)
    return value


def number(value: Any) -> float:
    """A finite number as a float."""
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:  # true for NaN
        raise _wrong("a finite number", value)
    return float(value)


def shortest(value: np.floating) -> float:
    """The number with the fewest digits that is this value in its own type: digits are most of a header."""
    short = float(str(value))
    return short if type(value)(short) == value else float(value)


def text(value: Any) -> str:
    """A string of Unicode characters: JSON can also hold halves of them, which nobody can print or write."""
    if type(value) is not str or any("\ud800" <= character <= "\udfff" for character in value):
        raise _wrong("a string", value)
    return value


def record(value: Any) -> dict[str, Any]:
    """An object."""
    if type(value) is not dict:
        raise _wrong("an object", value)
    return value


def sequence(value: Any, at_most: int, convert: Callable[..., T], *arguments: Any) -> tuple[T, ...]:
    """A list of at most `at_most` items, each through `convert(item, *arguments)`."""
    if type(value) is not list or len(value) > at_most:
        raise _wrong(f"a list of at most {at_most} items", value)
    items: list[T] = []
    try:
        items.extend(convert(item, *arguments) for item in value)  # those before an error stay
    except PackError as error:
        raise PackError(f"item {len(items)}: {error}") from None
    return tuple(items)


def _wrong(expected: str, found: Any) -> PackError:
    if type(found) in (list, dict):
        shown = f"a {type(found).__name__} of {len(found)} items"
    elif type(found) is int and found.bit_length() > 64:  # printing a huge integer is slow, or refused
        shown = f"an integer of {found.bit_length()} bits"
    else:
        shown = repr(found)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return PackError(f"expected {expected}, found {shown}")
