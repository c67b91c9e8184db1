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
TUPLE = {"type": "builtins.tuple", "context": "null"}


def safe_archive(path: Path, data: bytes) -> bytes:
    """The archive without what torch would need other packages for: types that group inputs and outputs, such as those
    of transformers, become tuples of the same members.

    Raises InputError when the archive isn't one, or has pickled objects or code in it.
    """
    documents = _checked_documents(path, data)
    try:
        changed = [name for name, document in documents.items() if _make_types_plain(document)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a program of torch.export ({type(error).__name__}: {error})") from error
    if not changed:
        return data
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, json.dumps(documents[name]) if name in changed else old.read(name))
    return written.getvalue()


def _checked_documents(path: Path, data: bytes) -> dict[str, Any]:
    """The archive's JSON documents. Raises InputError when it isn't one, or has pickled objects or code in it."""
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
    return documents


def _make_types_plain(document: Any) -> bool:
    """Has the document, in place, group inputs and outputs by plain types alone. Returns whether it had others."""
    calls = document.get("graph_module", {}).get("module_call_graph", []) if isinstance(document, dict) else []
    changed = False
    for signature in (call["signature"] for call in calls if call["signature"] is not None):
        for key in ("in_spec", "out_spec"):
            version, tree = json.loads(signature[key])
            if _make_plain(tree):
                signature[key] = json.dumps([version, tree])
                changed = True
    return changed


def _make_plain(tree: Any) -> bool:
    """Makes tuples, in place, of all groups that are of other types. Returns whether there were any.

    The context of a type is more than data: torch imports the modules that it names.
    """
    nodes, changed = [tree], False
    while nodes:
        node = nodes.pop()
        nodes += node["children_spec"]
        if not _is_plain(node["type"], node["context"]):
            node.update(TUPLE)
            changed = True
    return changed


def _is_plain(kind: Any, context: Any) -> bool:
    """Whether the group is a leaf, a tuple, a list, or a dict with texts as keys."""
    if kind == "builtins.dict":
        keys = json.loads(context)
        return isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    return (kind, context) in [(None, None), ("builtins.tuple", "null"), ("builtins.list", "null")]


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
