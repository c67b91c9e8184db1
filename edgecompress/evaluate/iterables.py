"""Python objects that give samples or batches one after the other, such as PyTorch's Dataset and DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edgecompress.errors import InputError

LARGEST = 4 << 30  # bytes kept in memory; what is larger belongs in .npy files, which are read where they lie


def collected(data: Any) -> Any:
    """The arrays of all batches or samples, in the form that they came in: an array, a tuple of arrays, or a dict.

    Takes an iterator or iterable of batches ([n, ...] each, such as a DataLoader), or a dataset of samples ([...]
    each: an object with a length and items by number, or a list of tuples or dicts). Anything else comes back as it
    is. Raises InputError when there are none, when one differs from the first, and above LARGEST.
    """
    if _holds_samples(data):
        return _joined((data[i] for i in range(len(data))), data, samples=True)
    if _gives_batches(data):
        return _joined(iter(data), data, samples=False)
    return data


def _holds_samples(data: Any) -> bool:
    if isinstance(data, list):
        return bool(data) and isinstance(data[0], (tuple, dict))
    if isinstance(data, (str, bytes, tuple, Mapping)) or hasattr(data, "__array__"):
        return False
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _gives_batches(data: Any) -> bool:
    known = isinstance(data, (str, bytes, tuple, list, Mapping)) or hasattr(data, "__array__")
    return isinstance(data, Iterable) and not known


def _joined(items: Iterator[Any], data: Any, *, samples: bool) -> Any:
    """Each part of the items, put together along the axis of samples."""
    what, item = f"data from a {type(data).__name__}", "sample" if samples else "batch"
    columns: dict[Any, list[np.ndarray]] = {}
    form, size = None, 0
    for number, content in enumerate(items):
        parts = _parts(content)
        form = form or type(content)
        if columns and list(parts) != list(columns):
            raise InputError(f"{what}: {item} {number} holds {list(parts)}, but the first one {list(columns)}")
        for key, value in parts.items():
            array = _array(value, f"{what}: {item} {number}")
            array = array[None] if samples else array
            if not array.shape:
                raise InputError(f"{what}: {item} {number} is a single number; expected an array [n, ...]")
            columns.setdefault(key, []).append(array)
            size += array.nbytes
        if size > LARGEST:
            raise InputError(
                f"{what}: more than {LARGEST >> 30} GiB; save it as .npy files or an .npz file, or give fewer samples"
            )
    if not columns:
        raise InputError(f"{what}: holds no samples")
    arrays = {key: _concatenated(pieces, what) for key, pieces in columns.items()}
    if form is not None and issubclass(form, Mapping):
        return arrays
    whole = tuple(arrays.values())
    return whole if len(whole) > 1 else whole[0]


def _parts(content: Any) -> dict[Any, Any]:
    if isinstance(content, Mapping):
        return dict(content)
    return dict(enumerate(content)) if isinstance(content, (tuple, list)) else {0: content}


def _array(value: Any, where: str) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor of PyTorch's, perhaps on another device
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} holds a {type(value).__name__}; expected arrays of numbers") from error
    if array.dtype.kind not in "uifb":
        raise InputError(f"{where} holds a {type(value).__name__}; expected arrays of numbers")
    return array


def _concatenated(pieces: list[np.ndarray], what: str) -> np.ndarray:
    for piece in pieces:
        if piece.shape[1:] != pieces[0].shape[1:]:
            raise InputError(
                f"{what}: samples of shapes {list(pieces[0].shape[1:])} and {list(piece.shape[1:])}; make them alike, "
                "for example with Resize"
            )
    return np.concatenate(pieces)
