"""Loads a function that the user names as `file.py:function`, and executes their file to do so."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecompress.errors import InputError


def is_function_spec(spec: object) -> bool:
    """Whether a text has the form `file.py:function`."""
    return isinstance(spec, str) and spec.rpartition(":")[0].endswith(".py")


def load_function(spec: str) -> Callable[..., Any]:
    """The function that `file.py:function` names. The file is executed; imports from beside it work.

    Raises InputError when the file or the function is missing, or executing the file fails. What the function itself
    raises becomes an InputError that names it and the cause.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{spec}: there is no file {path}")
    module_spec = importlib.util.spec_from_file_location(f"edgecompress_user_{path.stem}", path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(f"{path}: {type(error).__name__} while importing it: {error}") from error
    finally:
        sys.path.pop(0)
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{path} has no function {name!r}; expected file.py:function")

    def named(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (Exception, SystemExit) as error:
            raise InputError(f"{spec} failed with {type(error).__name__}: {error}") from error

    return named


def call(spec: str, *arguments: Any) -> Any:
    """The result of the named function. Raises InputError as `load_function` and its function do."""
    return load_function(spec)(*arguments)
