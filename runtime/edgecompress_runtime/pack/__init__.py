"""The `.pack` file: a plan and its constants, entropy coded. The format is specified in runtime/FORMAT.md.

Importing this, and reading packs whose constants are raw or bit-packed, loads NumPy only.
"""

from __future__ import annotations

from edgecompress_runtime.pack.codecs import CODECS, FAST, Encoded, decode, encode_smallest
from edgecompress_runtime.pack.errors import PackError
from edgecompress_runtime.pack.pack_file import Pack, read_pack, write_pack

__all__ = ["CODECS", "FAST", "Encoded", "Pack", "PackError", "decode", "encode_smallest", "read_pack", "write_pack"]
