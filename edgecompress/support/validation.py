"""TOML files against pydantic models, with every fault in one readable line."""

from __future__ import annotations

import difflib
import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgecompress.errors import InputError

T = TypeVar("T", bound=BaseModel)

# pydantic's kinds of faults whose own words speak of its types, said in TOML's.
WORDS = {
    "bool_type": "should be true or false",
    "float_type": "should be a number",
    "int_type": "should be a whole number",
    "list_type": "should be a list",
    "string_too_short": "should not be empty",
    "string_type": "should be a text in quotes",
    "too_long": "should have {max_length} items",
    "too_short": "should not be empty",
    "tuple_type": "should be a list",
}


def read_toml(kind: type[T], file: Path | Traversable) -> T:
    """The file as a `kind`. Raises InputError naming the file and each key at fault, with the nearest key."""
    return validated(kind, parsed_toml(file), str(file))


def parsed_toml(file: Path | Traversable) -> dict[str, Any]:
    """The file's keys and values. Raises InputError where it can't be read, or is no TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: can't be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise InputError(f"{file}: not valid TOML: nested too deep") from error
    except ValueError as error:  # tomllib's own, bad UTF-8, and integers of thousands of digits
        raise InputError(f"{file}: not valid TOML: {error}") from error


def validated(kind: type[T], data: dict[str, Any], source: str) -> T:
    """`data` as a `kind`. Raises InputError as `read_toml` does, with `source` in place of the file."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        faults = [_fault(kind, dict(e)) for e in error.errors(include_url=False)]
        raise InputError(f"{source}: " + "; ".join(dict.fromkeys(faults))) from error


def nearest(name: str, known: list[str]) -> str:
    """A hint for an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def _fault(kind: type[BaseModel], error: dict[str, Any]) -> str:
    location = [str(part) for part in error["loc"]]
    where = ".".join(location)
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if error["type"] in WORDS:
        message = WORDS[error["type"]].format_map(error.get("ctx", {}))
    if error["type"] == "extra_forbidden":
        return f"unknown key {where!r}: {nearest(location[-1], _keys_at(kind, location[:-1]))}"
    if error["type"] == "missing" and isinstance(error["loc"][-1], int):
        return f"key {'.'.join(location[:-1])!r}: has too few items: found {list(error['input'])}"
    if error["type"] == "missing":
        return f"key {where!r} is missing"
    if error["type"] == "model_type":
        return f"key {where!r}: should be a table, found {error['input']!r}"
    if not where:  # about the file as a whole
        return message
    return f"key {where!r}: {message}, found {error['input']!r}"


def _keys_at(kind: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        section = kind.model_fields[part].annotation
        assert isinstance(section, type) and issubclass(section, BaseModel)
        kind = section
    return list(kind.model_fields)
