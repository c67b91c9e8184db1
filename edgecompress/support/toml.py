"""Values as TOML."""

from __future__ import annotations

import json
from typing import Any


def toml_value(value: Any) -> str:
    """A text, number, truth value, list of such, or (inline) table of such by text.

    >>> toml_value(["a", 1, True])
    '["a", 1, true]'
    """
    # JSON's strings, numbers and booleans are TOML's too, once non-ASCII is left as it is; 0x7f alone is
    # legal in JSON strings and not in TOML's.
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_value(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
