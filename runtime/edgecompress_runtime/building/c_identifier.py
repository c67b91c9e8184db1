"""The C identifier that a model's symbols, macros and files start with."""

from __future__ import annotations

import hashlib
import re

PRECISIONS = ("int8", "dynamic", "float16", "float32")  # which `convert` puts behind a model's name
PLAIN = re.compile(r"[a-z][a-z0-9_]*")
HEADER = "model"  # model.h is the header of the program around the model
DIGITS = 8  # of a digest


def identifier(name: str) -> str:
    """A C identifier of a model's name, another one for every other name, also in capital letters.

    Most names are their own, a dot in front of a precision being an underscore. Where others could come to the same, a
    part of the name's digest follows.

    >>> identifier("digits.int8")
    'digits_int8'
    >>> identifier("2nd model-int8")
    'm2nd_model_int8_0dfcbdec'
    """
    stem, _, precision = name.rpartition(".")
    if precision in PRECISIONS and _is_plain(stem):
        return f"{stem}_{precision}"
    if _is_plain(name):
        return name
    plain = re.sub(r"[\W_]+", "_", name, flags=re.ASCII).strip("_").lower()
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:DIGITS]
    return f"{plain if PLAIN.match(plain) else f'm{plain}'}_{digest}"  # a letter comes first


def is_identifier(name: str) -> bool:
    """Whether C takes it for an identifier, and no file of a build has its name."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is not None and name.lower() != HEADER


def _is_plain(name: str) -> bool:
    """Whether no other name becomes this identifier."""
    last = name.rpartition("_")[2]
    is_digest = len(last) == DIGITS and re.fullmatch(r"[0-9a-f]+", last) is not None
    return PLAIN.fullmatch(name) is not None and name != HEADER and last not in PRECISIONS and not is_digest
