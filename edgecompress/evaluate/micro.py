"""TensorFlow Lite Micro's own interpreter, from the package tflite-micro: what microcontrollers compute."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecompress.evaluate import micro_process
from edgecompress.evaluate.batching import Feed, in_batches
from edgecompress.evaluate.interpreters import InterpreterError, Join, TFLiteIO, content, onnx_shape

PACKAGE = "tflite-micro"


@dataclass(frozen=True)
class ArenaUse:
    """Bytes of the arena that TFLM used. head: activations and scratch. persistent: its structures, with the pointers
    of this machine, so that a CPU of 32 bits takes less."""

    head: int
    persistent: int


class TFLM:
    """Each `run` is a process of its own, since TFLM aborts at some scales; `arena` is there after the first."""

    name = "TFLM"

    def __init__(self, data: bytes | Path, io: TFLiteIO) -> None:
        self.version = importlib.metadata.version(PACKAGE)
        self._data, self._io, self._join = content(data), io, Join(io)
        self._shapes = {t.name: onnx_shape(t) for t in io.inputs}
        self.arena: ArenaUse | None = None

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """As `interpreters.Interpreter` has it."""
        return in_batches(self._run_all, inputs, self._shapes)

    def _run_all(self, feeds: Sequence[Feed]) -> list[list[np.ndarray]]:
        stored = [np.stack([tensor.to_device(f[tensor.name]) for f in feeds]) for tensor in self._io.inputs]
        return [self._join(row) for row in zip(*self._stored_outputs(stored), strict=True)]

    def _stored_outputs(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "model.tflite").write_bytes(self._data)
            np.savez(folder / "inputs.npz", *inputs)
            command = [sys.executable, micro_process.__file__, name, str(len(self._io.outputs))]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            if done.returncode:
                raise InterpreterError(self.name, self.version, _reason(done.stderr))
            self.arena = _arena(done.stderr)
            with np.load(folder / "outputs.npz") as stored:
                return [stored[name] for name in stored.files]


def installed() -> bool:
    """Whether its package is."""
    return importlib.util.find_spec("tflite_micro") is not None


def _reason(words: str) -> str:
    """TFLM says what is wrong first, and Python last."""
    lines = [line.strip() for line in words.splitlines() if line.strip()] or ["it ended without a word"]
    return lines[-1 if lines[0].startswith("Traceback") else 0]


def _arena(words: str) -> ArenaUse | None:
    used = [re.search(rf"Arena allocation {part} (\d+) bytes", words) for part in ("head", "tail")]
    head, tail = (int(found[1]) if found else None for found in used)
    return None if head is None or tail is None else ArenaUse(head, tail)
