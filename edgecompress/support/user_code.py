"""Functions of the user's: named as `file.py:function`, whose file is executed, or given as Python objects."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecompress.errors import InputError

_given: dict[str, Callable[..., Any]] = {}  # spec -> the function, of those that were given as Python objects


def spec_of(function: Callable[..., Any]) -> str:
    """The name, in the form `file.py:function`, by which `load_function` finds a function that was given as an object.

    Another process finds it by that name too, where it is a function at the top of a file.
    """
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # an object that can be called
        file = inspect.getsourcefile(type(function)) if type(function).__module__ != "builtins" else None
    name = getattr(function, "__qualname__", type(function).__qualname__).replace("<locals>.", "")
    spec = f"{file if file is not None and Path(file).is_file() else 'session.py'}:{name}"
    same = [s for s in _given if s == spec or s.startswith(f"{spec}#")]
    for known in same:
        if _given[known] is function:
            return known
    spec += f"#{len(same) + 1}" if same else ""
    _given[spec] = function
    return spec


def is_function_spec(spec: object) -> bool:
    """Whether a text has the form `file.py:function`."""
    return isinstance(spec, str) and spec.rpartition(":")[0].endswith(".py")


def load_function(spec: str) -> Callable[..., Any]:
    """The function that `file.py:function` names. The file is executed, unless the function was given as an object;
    imports from beside it work.

    Raises InputError when the file or the function is missing, or executing the file fails. What the function itself
    raises becomes an InputError that names it and the cause.
    """
    function = _given[spec] if spec in _given else _from_file(spec)

    def named(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (Exception, SystemExit) as error:
            raise InputError(f"{spec} failed with {type(error).__name__}: {error}") from error

    return named


def _from_file(spec: str) -> Callable[..., Any]:
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
    return function


def call(spec: str, *arguments: Any) -> Any:
    """The result of the named function. Raises InputError as `load_function` and its function do."""
    return load_function(spec)(*arguments)
