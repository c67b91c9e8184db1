"""Messages for files that torch refuses to read, which say what they hold; nothing is unpickled to find out."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from edgecompress.support.interrupt import reraise_interrupt

PICKLED = (
    "a pickled Python object, which could run code when it is read; save only its weights, with "
    "torch.save(model.state_dict(), FILE)"
)
DAMAGED = "it is damaged, or another kind of file"
PICKLE = b"\x80"  # how a pickle of protocol 2 or later begins, and what torch.save wrote before its archives


def instead_of_torchscript(path: Path, data: bytes) -> str:
    """The message for a file that torch.jit.load refuses."""
    code = "pass them with the code that makes the model: file.py:factory --weights"
    what = {
        "weights": f"it holds only weights (a state_dict): {code} {path}",
        "pickle": f"it holds {PICKLED}, and {code} FILE",
    }.get(_kind(data), f"{DAMAGED}. Export or copy it again")
    return f"{path}: not a TorchScript file; {what}"


def instead_of_weights(path: Path, data: bytes) -> str:
    """The message for a file that torch.load refuses with weights_only=True."""
    what = {
        "torchscript": "it is a TorchScript file: pass it as the model, without --weights",
        "pickle": f"it holds {PICKLED}",
    }.get(_kind(data), f"{DAMAGED}. Save it with torch.save(model.state_dict(), FILE)")
    return f"{path}: not a file of plain tensors; {what}"


def _kind(data: bytes) -> str:
    """ "torchscript", "weights", "pickle", or "" for anything else."""
    import torch

    members = _members(data)
    if "constants.pkl" in members:
        return "torchscript"
    if "data.pkl" not in members and not data.startswith(PICKLE):
        return ""
    try:
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises of any kind
        reraise_interrupt(error)
        return "pickle"
    return "weights"


def _members(data: bytes) -> set[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return set()
