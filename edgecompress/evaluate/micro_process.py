"""Runs a .tflite file in TensorFlow Lite Micro, as a script in a process of its own: where TFLM finds a number that it
has no code for it aborts, and takes the process with it.

Arguments: a folder with model.tflite and inputs.npz (unnamed arrays of [n, *input], in the file's order and
types), and how many outputs the file has. It writes outputs.npz there, likewise; TFLM's own words, and last how much of
the arena it used, go to standard error.
"""

import sys
from pathlib import Path

import numpy as np

ARENA = 1 << 28  # bytes; the system gives those alone that are written to


def main(folder: Path, outputs: int) -> None:
    """Run all samples."""
    from tflite_micro.python.tflite_micro.runtime import Interpreter

    interpreter = Interpreter.from_bytes((folder / "model.tflite").read_bytes(), arena_size=ARENA)
    with np.load(folder / "inputs.npz") as stored:
        inputs = [stored[name] for name in stored.files]
    runs = []
    for sample in zip(*inputs, strict=True):
        for index, array in enumerate(sample):
            interpreter.set_input(array, index)
        interpreter.invoke()
        runs.append([interpreter.get_output(i) for i in range(outputs)])
    np.savez(folder / "outputs.npz", *(np.stack(rows) for rows in zip(*runs, strict=True)))
    interpreter.print_allocations()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
