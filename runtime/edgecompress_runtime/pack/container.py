"""The `.pack` file: a JSON header and blobs of bytes, every byte of it under a checksum (FORMAT.md, "File").

Nothing here knows what a tensor is. Offsets are not stored: blobs follow one another at multiples of 64
bytes, so that a file has only lengths to check.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgecompress_runtime.pack.errors import PackError

MAGIC = b"\x89ECP\r\n\x1a\n"  # as PNG: text-mode transfers and 7-bit channels destroy it visibly
VERSION = 1
ALIGNMENT = 64
PREFIX = struct.Struct("<8sIIIIQ32s")  # magic, version, header stored, plain; blobs; file; digest
BLOB = struct.Struct("<II")  # length, CRC32
DIGEST_AT = PREFIX.size - 32
HEADER_LIMIT = 1 << 26  # bytes of JSON; a header compresses well, so its plain size has to be bounded


@dataclass(frozen=True, eq=False)
class Container:
    """header: the JSON object. blobs: views into the file's bytes. digest: SHA-256, 64 hexadecimal digits."""

    header: dict[str, Any]
    blobs: tuple[memoryview, ...]
    digest: str


def write_container(header: dict[str, Any], blobs: Sequence[bytes]) -> bytes:
    """The file's bytes. Raises PackError for a header over 64 MiB, NaN in it, or a blob of 4 GiB or more."""
    try:
        plain = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise PackError(f"the header is not JSON: {error}") from None
    stored = zlib.compress(plain, 9)
    if len(plain) > HEADER_LIMIT:
        raise PackError(f"the header has {len(plain)} bytes of JSON, but the format allows at most {HEADER_LIMIT}")
    if any(len(blob) >> 32 for blob in blobs):
        raise PackError("a blob has 4 GiB or more")

    file = bytearray(PREFIX.size)
    for blob in blobs:
        file += BLOB.pack(len(blob), zlib.crc32(blob))
    file += stored
    for blob in blobs:
        file += bytes(-len(file) % ALIGNMENT)
        file += blob
    PREFIX.pack_into(file, 0, MAGIC, VERSION, len(stored), len(plain), len(blobs), len(file), b"")
    file[DIGEST_AT : PREFIX.size] = _digest(memoryview(file))
    return bytes(file)


def read_container(data: bytes) -> Container:
    """Checks every length, each blob's CRC32 and the digest of the whole.

    Raises PackError naming what is damaged; a caller adds the file's name.
    """
    view = memoryview(data).toreadonly()
    if not MAGIC.startswith(data[: len(MAGIC)]):
        raise PackError("not a .pack file: it does not start with the format's magic bytes")
    if len(view) < PREFIX.size:
        raise PackError(f"cut short: {len(view)} bytes, but the fixed part alone takes {PREFIX.size}")
    _, version, stored_size, plain_size, count, size, digest = PREFIX.unpack_from(view)
    if version != VERSION:
        raise PackError(
            f"the file has format version {version}, but this reader knows only version {VERSION}: update edgecompress"
        )
    if size != len(view):
        raise PackError(f"cut short or extended: {len(view)} bytes, but its header says {size}")
    header_at = PREFIX.size + BLOB.size * count
    if header_at + stored_size > size:
        raise PackError(f"damaged: {count} blobs and a header of {stored_size} bytes do not fit into a file of {size}")

    blobs, end = [], header_at + stored_size
    for index, (length, crc) in enumerate(BLOB.iter_unpack(view[PREFIX.size : header_at])):
        start = end + -end % ALIGNMENT
        end = start + length
        if end > size:
            raise PackError(f"damaged: blob {index} would end at byte {end}, past the end of the file ({size} bytes)")
        blobs.append(view[start:end])
        if (found := zlib.crc32(blobs[-1])) != crc:
            raise PackError(f"damaged: blob {index} has CRC32 {found:08x}, expected {crc:08x}")
    if end != size:
        raise PackError(f"damaged: {size - end} bytes after the last blob")
    if (computed := _digest(view)) != digest:
        raise PackError(f"damaged: SHA-256 is {computed.hex()}, expected {digest.hex()}")
    header = _header(view[header_at : header_at + stored_size], plain_size)
    return Container(header, tuple(blobs), digest.hex())


def _digest(file: memoryview) -> bytes:
    """SHA-256 of all bytes but the digest's own 32."""
    digest = hashlib.sha256(file[:DIGEST_AT])
    digest.update(file[PREFIX.size :])
    return digest.digest()


def _header(stored: memoryview, plain_size: int) -> dict[str, Any]:
    """The JSON object; the checksums hold by now, so what is wrong here was written so."""
    if plain_size > HEADER_LIMIT:
        raise PackError(f"its header claims {plain_size} bytes of JSON, but the format allows at most {HEADER_LIMIT}")
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(stored, plain_size + 1)  # never more memory than the limit
    except zlib.error as error:
        raise PackError(f"its header is not zlib data: {error}") from None
    if len(plain) != plain_size or not inflate.eof or inflate.unused_data:
        raise PackError(f"its header is not {plain_size} bytes of JSON, as the fixed part says")
    try:
        header = json.loads(plain.decode(), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise PackError(f"its header is not JSON: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(header, dict):
        raise PackError("its header is not a JSON object")
    return header


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError("a number is too large")
    return value
