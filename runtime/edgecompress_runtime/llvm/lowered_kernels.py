"""Kernels as Numba lowers them, kept on disk: lowering takes most of the time that a small program takes to compile.

A kernel is known by the place of its code, by what its closure holds, and by the digest of all sources, which settle
everything else that it can name.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import FunctionType
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.dispatcher import Dispatcher
from numba.core.typing import Signature
from numba.extending import _Intrinsic

from edgecompress_runtime.storage import kept_files, private_folder

PACKAGE = Path(__file__).parents[1]
KEPT = 2048  # files, some kilobytes each


@dataclass(frozen=True)
class Lowered:
    """Unoptimized LLVM IR. name: of the kernel in it. arguments: LLVM's types of its arguments."""

    text: str
    name: str
    arguments: tuple[str, ...]


def kept(function: Callable[..., None], signature: Signature, lower: Callable[[], tuple[str, str]]) -> Lowered:
    """What `lower` returns, text and the kernel's name, from disk where it is there. Its name is one that no other
    kernel has, and everything else in the text is its own, so that what different processes lowered can be linked."""
    if (told := description(function)) is None:
        return _own(*lower())
    parts = numba.__version__, llvmlite.__version__, sys.version, platform.machine(), kept_files.sources()
    digest = hashlib.sha256("\0".join((*parts, str(signature), told)).encode()).hexdigest()[:32]
    path = _folder_file(f"{digest}.kernel")
    if path and (data := kept_files.read(path)) is not None:
        return Lowered(**json.loads(zlib.decompress(data)))
    lowered = _own(*lower(), new=f"lowered.{digest}")
    if path:
        kept_files.write(path, zlib.compress(json.dumps(vars(lowered)).encode()), most=KEPT)
    return lowered


def _folder_file(name: str) -> Path | None:
    try:
        return private_folder.of_code("kernels") / name
    except private_folder.NotPrivateError:
        return None


def _own(text: str, name: str, new: str = "") -> Lowered:
    module = llvm.parse_assembly(text)
    for part in (*module.functions, *module.global_variables):
        if not part.is_declaration and part.name != name:
            part.linkage = "internal"
    kernel = module.get_function(name)
    kernel.name = new or name
    return Lowered(str(module), kernel.name, tuple(str(argument.type) for argument in kernel.arguments))


def description(function: Callable[..., None]) -> str | None:
    """Text that is the same for no two functions of this package that do different things; None for a function of
    others, or one whose closure holds what has no such text."""
    try:
        return _text(function)
    except TypeError:
        return None


def _text(value: Any) -> str:
    if isinstance(value, Dispatcher):
        return _text(value.py_func)
    if isinstance(value, _Intrinsic):
        return _text(value._defn)
    if isinstance(value, FunctionType):
        code = value.__code__
        place = Path(code.co_filename)
        if not place.is_relative_to(PACKAGE):
            raise TypeError(f"{value} is not of this package")
        cells = [_text(cell.cell_contents) for cell in value.__closure__ or ()]
        cells += [_text(default) for default in value.__defaults__ or ()]
        return f"{place.relative_to(PACKAGE)}:{code.co_firstlineno}({', '.join(cells)})"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_text, value))},)"
    if isinstance(value, (types.Type, Signature, np.dtype, ir.Type)):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str, bytes, range, Enum)):
        return repr(value)
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if is_dataclass(value):  # not what it has computed of its fields
        return f"{_text(type(value))}{_text([getattr(value, field.name) for field in fields(value)])}"
    if type(value).__module__.startswith(__name__.partition(".")[0]):
        return f"{_text(type(value))}{_text(sorted(vars(value).items()))}"
    raise TypeError(f"{value!r} has no text")
