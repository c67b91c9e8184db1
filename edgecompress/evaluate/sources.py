"""Sources of samples: arrays in memory, and .npy data in a file or in a .npz.

Each is read a chunk at a time, or at places in any order, so that memory does not grow with the number of samples.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from edgecompress.errors import InputError


class Source(Protocol):
    """Samples that can be read in order, a chunk at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(samples, *shape of one sample)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """The type that the samples are stored in."""
        ...

    def chunks(self, size: int, count: int) -> Iterator[np.ndarray]:
        """The first `count` samples in order, `size` at a time (fewer in the last)."""
        ...

    def at(self, index: np.ndarray) -> np.ndarray:
        """The samples at these places."""
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An array in memory (or mapped into it)."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def chunks(self, size: int, count: int) -> Iterator[np.ndarray]:
        for start in range(0, count, size):
            yield self.array[start : min(start + size, count)]

    def at(self, index: np.ndarray) -> np.ndarray:
        return self.array[index]


@dataclass(frozen=True)
class StoredSource:
    """Data in NumPy's .npy format; never unpickled.

    name: for messages. open: a fresh stream at the start of the data's header. place: the file that holds that stream
    as it is, and where it starts there, in bytes; None where it is packed.
    """

    name: str
    open: Callable[[], IO[bytes]]
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    offset: int
    place: tuple[Path, int] | None = None

    @classmethod
    def read_header(
        cls, name: str, open: Callable[[], IO[bytes]], place: tuple[Path, int] | None = None
    ) -> StoredSource:
        """Raises InputError unless the stream begins as .npy data of a plain type."""
        with reading(name), open() as stream:
            version = np.lib.format.read_magic(stream)
            readers: dict[tuple[int, int], Any] = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            if version not in readers:
                raise InputError(f"{name}: .npy format {version[0]}.{version[1]}; expected 1.0 or 2.0")
            shape, fortran_order, dtype = readers[version](stream)
            if dtype.hasobject or dtype.names:
                raise InputError(f"{name}: holds Python objects or records; expected an array of numbers")
            if any(length < 0 for length in shape):
                raise InputError(f"{name}: the array's shape {shape} has a negative length")
            return cls(name, open, shape, dtype, fortran_order, stream.tell(), place)

    def chunks(self, size: int, count: int) -> Iterator[np.ndarray]:
        if self.fortran_order:  # samples are interleaved in the file: there is no reading it in pieces
            with reading(self.name), self.open() as stream:
                array = np.lib.format.read_array(stream, allow_pickle=False)
            yield from ArraySource(array).chunks(size, count)
            return
        row = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        with reading(self.name), self.open() as stream:
            stream.read(self.offset)
            for start in range(0, count, size):
                samples = min(size, count - start)
                data = stream.read(samples * row)
                if len(data) != samples * row:
                    complete = start + len(data) // row
                    raise InputError(f"{self.name}: the file ends after {complete} of {self.shape[0]} samples")
                yield np.frombuffer(data, self.dtype).reshape(samples, *self.shape[1:])

    def at(self, index: np.ndarray) -> np.ndarray:
        return self._whole[index]

    @cached_property
    def _whole(self) -> np.ndarray:
        """The array, mapped into memory where the file holds it as it is."""
        if self.place is None:
            return read_all(self)
        (path, start), order = self.place, "F" if self.fortran_order else "C"
        with reading(self.name):
            return np.memmap(path, self.dtype, "r", start + self.offset, self.shape, order)  # type: ignore[call-overload]


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
UNREADABLE = (
    OSError, EOFError, ValueError, struct.error, SyntaxError, OverflowError, MemoryError, RuntimeError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@contextmanager
def reading(name: str | Path) -> Iterator[None]:
    """Within the context an error in reading a file becomes an InputError with the file's name."""
    try:
        yield
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: can't be read: {reason}") from error


def read_all(source: Source) -> np.ndarray:
    """All samples in one array, as labels need to be."""
    samples = source.shape[0] if source.shape else 0
    return np.concatenate([*source.chunks(samples, samples)]) if samples else np.empty(source.shape)


def open_npy(path: Path) -> StoredSource:
    """The array in a .npy file."""
    return StoredSource.read_header(str(path), lambda: path.open("rb"), (path, 0))


def open_npz(path: Path) -> dict[str, StoredSource]:
    """The arrays in a .npz file by name, each to be read by itself."""
    with reading(path):
        archive = zipfile.ZipFile(path)
    members = [name for name in archive.namelist() if name.endswith(".npy")]
    for member in members:
        if archive.getinfo(member).compress_type not in METHODS:
            raise InputError(f"{path}: {member!r} is packed by a method that NumPy does not write; save it again")
    if not members:
        raise InputError(f"{path}: holds no arrays")
    return {
        member[:-4]: StoredSource.read_header(
            f"{path}[{member[:-4]}]", partial(archive.open, member), _place(path, archive.getinfo(member))
        )
        for member in members
    }


def _place(path: Path, member: zipfile.ZipInfo) -> tuple[Path, int] | None:
    """Where a member that is not packed starts: behind its local header (APPNOTE.TXT, section 4.3.7)."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        return None
    with reading(path), path.open("rb") as stream:
        stream.seek(member.header_offset)
        fields = struct.unpack("<4s5H3I2H", stream.read(30))
    return path, member.header_offset + 30 + fields[-2] + fields[-1]
