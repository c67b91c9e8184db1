"""Checks the input shapes that a user passes before anything else uses them."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from edgecompress.errors import InputError

# No edge device holds a value of a quarter GiB; most likely a damaged attribute asks for it.
LARGEST_ELEMENTS = 2**26
SHOWN_DIMS = 12  # of a shape in a message


# Of an input: its shape or, for one file that takes several, a list of them.
GivenShapes = Mapping[str, Sequence[int] | Sequence[Sequence[int]]]


def checked_shapes(shapes: GivenShapes | None) -> dict[str, list[tuple[int, ...]]]:
    """{input name: its shapes}. Raises InputError unless all dimensions are whole numbers of at least 1."""
    if shapes is not None and not isinstance(shapes, Mapping):
        raise InputError(f'input_shapes: expected {{"image": (1, 3, 224, 224)}} or the like, found {shapes!r}')
    return {name: [_checked(name, shape) for shape in _each(given)] for name, given in (shapes or {}).items()}


def _each(given: Any) -> Sequence[Any]:
    """The shapes among what was given for one input."""
    several = isinstance(given, Sequence) and bool(given) and all(isinstance(shape, Sequence) for shape in given)
    return given if several and not isinstance(given, str) else [given]


def checked_batch(batch: int | None) -> int | None:
    """The batch size. Raises InputError unless it is a whole number of at least 1, or None."""
    if batch is not None and (not isinstance(batch, int) or isinstance(batch, bool) or batch < 1):
        raise InputError(f"batch = {batch!r}: expected a whole number of at least 1")
    return batch


def _checked(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    try:
        dims = tuple(operator.index(d) for d in shape)
    except TypeError as error:
        raise InputError(
            f"the shape of input {name!r}: expected whole numbers like (1, 3, 224, 224), found {shape!r}"
        ) from error
    listed = ",".join(map(str, dims[:SHOWN_DIMS])) + (",..." if len(dims) > SHOWN_DIMS else "")
    given = f"--input-shape {name}:{listed}"
    if any(d < 1 for d in dims):
        raise InputError(f"{given}: every dimension must be at least 1")
    if math.prod(dims) > LARGEST_ELEMENTS:
        raise InputError(f"{given}: too large; inputs of up to {LARGEST_ELEMENTS:,} elements can be converted")
    return dims
