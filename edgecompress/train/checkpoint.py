"""Checkpoints: the state of a training run in a file that is either complete or absent."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgecompress.errors import InputError

VERSION = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Written beside the file, flushed to the disk, then renamed over it: a kill at any moment leaves the old
    file or the new one (POSIX rename; the folder is flushed too, so that a power cut doesn't undo it).

    Raises InputError when it can't be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save({"version": VERSION, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError(f"{path}: the checkpoint can't be written: {error.strerror or error}") from error
    except RuntimeError as error:  # torch's, of a file that was opened but takes no more
        partial.unlink(missing_ok=True)
        raise InputError(f"{path}: the checkpoint can't be written, is the disk full? {_first_line(error)}") from error


def load(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The state, or None when there is no file. Tensors are read to the CPU; nothing is unpickled.

    identity: what the run depends on. Raises InputError when the file is not a checkpoint, or one of another run.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or state.get("version") != VERSION:
            raise ValueError("the checkpoint has an unknown version")
    except Exception as error:  # torch raises of any kind
        raise InputError(f"{path}: not a checkpoint of edgecompress ({_first_line(error)}); remove it") from error
    different = [k for k in identity if state["identity"].get(k) != identity[k]]
    if different:
        raise InputError(
            f"{path}: the checkpoint is from a run with another {', '.join(different)}; remove it or use the same"
        )
    return state


def random_states() -> dict[str, Any]:
    """The random states of Python, NumPy and torch: nothing here draws from them, but hooks and user code may."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    states = {
        "python": random.getstate(),
        "numpy": [str(kind), torch.from_numpy(keys.astype(np.int64)), *(float(r) for r in rest)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """The opposite of `random_states`."""
    random.setstate(states["python"])
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), int(position), int(has_gauss), gauss))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
