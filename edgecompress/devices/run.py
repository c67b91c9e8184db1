"""`run`: run an artifact on an input, on this machine or on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.text import Text

from edgecompress.devices.artifact import open_artifact
from edgecompress.devices.bench import execute
from edgecompress.devices.choice import device_for, usual_device
from edgecompress.devices.programs import prepare
from edgecompress.devices.samples import load_samples
from edgecompress.errors import InputError
from edgecompress.evaluate.images import IMAGE_SUFFIXES, MODES, read_image
from edgecompress.evaluate.metrics import is_classifier
from edgecompress.evaluate.sources import reading
from edgecompress.report.tables import Shown, table

TOP = 5  # classes shown
SHOWN = 8  # values of another output


@dataclass(frozen=True, eq=False, repr=False)
class Outputs(Shown):
    """arrays: output name -> array [n, ...] in the model's axis order, one row for each sample. Shows itself."""

    artifact: str
    device: str
    arrays: Mapping[str, np.ndarray]
    labels: tuple[str, ...] = ()

    @property
    def classes(self) -> bool:
        """Whether the first output is scores of classes."""
        return is_classifier(list(self.arrays.values()))

    def to_dict(self) -> dict[str, Any]:
        """Artifact, device and outputs by name, as `edgecompress run --json` prints them."""
        return {
            "artifact": self.artifact,
            "device": self.device,
            "outputs": {name: array.tolist() for name, array in self.arrays.items()},
        }

    def __rich__(self) -> Group:
        head = Text.assemble((self.artifact, "bold"), " on ", (self.device, "bold"))
        first = next(iter(self.arrays.values()))
        if self.classes:
            classes = [(str(i), self._top(scores)) for i, scores in enumerate(first)]
            return Group(head, table("", ("Sample", "Class: score"), classes))
        values = [(name, str(list(a.shape)), self._some(a)) for name, a in self.arrays.items()]
        return Group(head, table("", ("Output", "Shape", "First values"), values))

    def _top(self, scores: np.ndarray) -> str:
        best = np.argsort(-scores, kind="stable")[:TOP]
        return ", ".join(f"{self._label(int(i))}: {scores[i]:.4g}" for i in best)

    def _label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else str(index)

    @staticmethod
    def _some(array: np.ndarray) -> str:
        return ", ".join(f"{value:.4g}" for value in array.reshape(-1)[:SHOWN])


def run(
    artifact: str | Path,
    input: Any,
    *,
    device: str | None = None,
    labels: str | Path | None = None,
    preprocess: Mapping[str, Any] | None = None,
    config: str | Path | None = None,
) -> Outputs:
    """One or more samples through a .pack, .tflite or .onnx, or what `edgecompress build` wrote to a folder.

    input: an image file, one sample or an array of samples (.npy), or what `convert` takes as data. device: as for
    `bench`. labels: a text file, a class's name in each line. Raises InputError for what does not fit, DeviceFault for
    a device that fails.
    """
    opened = open_artifact(artifact)
    name, settings = usual_device(opened) if device is None else device_for(opened, device, config)
    classes = _labels(labels)
    shapes = [tuple(t.shape) for t in opened.inputs]
    samples = load_samples(opened, _samples(input, shapes), None, preprocess)
    prepared = prepare(opened, name, settings)
    _, measured = execute(prepared, name, settings, b"".join(samples.records))
    found = samples.outputs(measured.outputs)
    arrays = {t.name: array for t, array in zip(opened.outputs, found, strict=True)}
    return Outputs(opened.path.name, name, arrays, classes)


def _samples(input: Any, shapes: list[tuple[int, ...]]) -> Any:
    """What load_data takes: an image or a single sample becomes samples."""
    path = Path(input) if isinstance(input, (str, Path)) else None
    if path is not None and path.suffix.lower() in IMAGE_SUFFIXES:
        if len(shapes) != 1 or len(shapes[0]) != 4:
            raise InputError(
                f"{path}: is an image, but the model takes none: its inputs are {[list(s) for s in shapes]}"
            )
        return _image(path, shapes[0])
    if path is not None and path.suffix.lower() == ".npy":
        with reading(path):
            input = np.load(path, allow_pickle=False)
    if isinstance(input, np.ndarray) and len(shapes) == 1 and input.size == np.prod(shapes[0]):
        return input if input.ndim == len(shapes[0]) else input[None]  # one sample, without its batch axis
    return input


def _image(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """[1, height, width, channels], for channels first or last."""
    _, a, b, c = shape
    height, width, channels = (b, c, a) if a in MODES and c not in MODES else (a, b, c)
    if channels not in MODES:
        raise InputError(f"{path}: an image has 1, 3 or 4 channels, the model's input is {list(shape)}")
    return read_image(path, height, width, channels)[None]


def _labels(path: str | Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        return tuple(Path(path).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read: {error}") from error
