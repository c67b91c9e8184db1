"""Text of strangers (names in models, labels, what a device says) in which nothing acts on a terminal or a reader."""

from __future__ import annotations

import re

_SUSPECT = re.compile(r"[^\n\t -~]")


def visible(text: str) -> str:
    """The text with every character that can't be seen written as JSON would escape it; line ends and tabs stay.

    These are control characters (C0, C1, DEL), those that turn the direction of writing or have no width, line
    separators of Unicode, lone surrogates, and code points without a character. JSON stays the same JSON.

    >>> visible("a\\x1b[2J\\u202eb")
    'a\\\\u001b[2J\\\\u202eb'
    """
    return _SUSPECT.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
