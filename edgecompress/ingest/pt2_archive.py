"""Checks that a .pt2 archive holds only tensors and a graph: torch would unpickle or evaluate anything else in it."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecompress.errors import InputError

# sympy evaluates the text of symbolic dimensions as Python. What torch writes is arithmetic on numbers,
# names, quoted names and sympy's classes: Symbol('s31', positive=True), Mod(s0, 2). No attribute, no
# function, no other string.
EXPRESSION = re.compile(r"(?!.*(?:__|\.\s*[A-Za-z_]|\b[a-z_]\w*\s*\())(?:'\w+'|[\w\s+\-*/(),<>=&|~.%])*")


def require_no_pickle(path: Path, data: bytes) -> None:
    """Raises InputError when the archive isn't one, or has pickled objects or code in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            documents = {name: json.loads(archive.read(name)) for name in names if name.endswith(".json")}
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{path}: not a whole .pt2 archive ({error}); it is truncated or another kind of file"
        ) from error
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: the archive has {repeated[0]!r} twice; export the model again")
    for name, document in documents.items():
        for key, value in _entries(document):
            if (key == "use_pickle" and value) or (key == "path_name" and re.match(r"(custom|opaque)", str(value))):
                raise InputError(f"{path}: {name} holds pickled objects, which could run code; only tensors are read")
            if key == "expr_str" and not EXPRESSION.fullmatch(str(value)):
                raise InputError(f"{path}: {name} holds the expression {value!r}; only arithmetic is read")


def _entries(document: Any) -> Iterator[tuple[str, Any]]:
    """Every (key, value) of a JSON document, at any depth."""
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield from item.items()
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
