"""A `.pack` as an object: read from a file or from bytes, and written from a plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.operators import check_plan
from edgecompress_runtime.pack.codecs import FAST, Encoded, decode, encode_smallest
from edgecompress_runtime.pack.container import read_container, write_container
from edgecompress_runtime.pack.errors import PackError
from edgecompress_runtime.pack.fields import within
from edgecompress_runtime.pack.header import DTYPES, Header, from_json, to_json
from edgecompress_runtime.plan import Plan, Tensor

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Pack:
    """What a file holds, still encoded.

    name: the file's, for messages. model: the model's name. size: bytes of the file. digest: SHA-256 that the
    file carries, 64 hexadecimal digits. graph: the plan; constants have data None. encoded: for each tensor
    (codec, params, blob), None for a computed one.
    """

    name: str
    model: str
    size: int
    digest: str
    graph: Plan
    encoded: tuple[Encoded | None, ...]

    def array(self, index: int) -> np.ndarray:
        """The constant tensor `index`, decoded: [its shape], its dtype. Raises PackError if it is damaged."""
        tensor, encoded = self.graph.tensors[index], self.encoded[index]
        if encoded is None:
            raise PackError(f"{self.name}: tensor {tensor.name[:80]!r} is computed and has no stored values")
        codec, params, data = encoded
        place = f"{self.name}: tensor {tensor.name[:80]!r}"
        return within(place, decode, codec, params, data, tensor.shape, tensor.dtype)

    def plan(self) -> Plan:
        """The plan with every constant decoded. Raises PackError, also for operators whose tensors don't fit."""
        tensors = (
            tensor if encoded is None else replace(tensor, data=self.array(index))
            for index, (tensor, encoded) in enumerate(zip(self.graph.tensors, self.encoded, strict=True))
        )
        plan = replace(self.graph, tensors=tuple(tensors))
        try:
            check_plan(plan)
        except RuntimeModelError as error:
            raise PackError(f"{self.name}: {error}") from error
        return plan


def read_pack(source: str | os.PathLike[str] | bytes) -> Pack:
    """A file or its bytes -> Pack, after all its checksums.

    Raises PackError with one line, that starts with the file's name, for anything that is not a sound pack.
    """
    if isinstance(source, bytes):
        name, data = "pack", source
    else:
        name = os.fspath(source)
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise PackError(f"{name}: {error.strerror}") from error
    container = within(name, read_container, data)
    header = within(name, from_json, container.header, container.blobs)
    return Pack(name, header.model, len(data), container.digest, header.plan, header.encoded)


def write_pack(
    plan: Plan,
    model: str,
    *,
    codecs: Iterable[str] = FAST,
    encode: Callable[[int, Tensor], Encoded | None] | None = None,
) -> bytes:
    """A plan with its constants' arrays -> the file's bytes, each constant in its smallest encoding.

    codecs: names to choose from; add a slow one, as "rans" is, where size matters more than speed. encode: called with
    a constant's index and tensor, may return an encoding of its own choice, or None for the smallest.
    Raises PackError where the plan can't be read back: a tensor is read before it is written, a scale is not
    positive, a dtype or an array does not fit.
    """
    chosen = tuple(codecs)
    encoded: list[Encoded | None] = []
    for index, tensor in enumerate(plan.tensors):
        own = None if tensor.data is None or encode is None else encode(index, tensor)
        encoded.append(own or (None if tensor.data is None else _smallest(tensor, chosen)))
    json, blobs = to_json(Header(model, plan, tuple(encoded)))
    data = write_container(json, blobs)
    read_pack(data)  # what can't be read back is refused here, not on the device
    return data


def _smallest(tensor: Tensor, codecs: tuple[str, ...]) -> Encoded:
    array = tensor.data
    assert array is not None
    fits = array.shape == tuple(tensor.shape) and array.dtype == tensor.dtype
    if not fits or array.dtype not in DTYPES.values():
        raise PackError(
            f"tensor {tensor.name!r}: expected {tensor.dtype} {list(tensor.shape)} of a dtype among "
            f"{', '.join(DTYPES)}; its array is {array.dtype} {list(array.shape)}"
        )
    return encode_smallest(array, codecs)
