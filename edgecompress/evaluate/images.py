"""Image files as samples: decoded and resized as they are read, with the values that the files hold."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecompress.errors import InputError, MissingPackageError
from edgecompress.evaluate.sources import Source, reading

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
WORKERS = min(os.cpu_count() or 1, 8)  # threads that decode files
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name for a number of channels
# Pillow's names for more than 8 bits, and the type that holds them: 16-bit integers, 32-bit integers, floats
WIDE = {"I;16": np.uint16, "I;16L": np.uint16, "I;16B": np.uint16, "I;16N": np.uint16, "I": np.int32, "F": np.float32}


@dataclass(frozen=True)
class ImageSource:
    """Image files, decoded and resized to [samples, height, width, channels] of `dtype` as they are read.

    dtype: uint8, or one of WIDE, whose values are kept as they are. All files have it.
    """

    files: tuple[Path, ...]
    height: int
    width: int
    channels: int
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.files), self.height, self.width, self.channels

    def chunks(self, size: int, count: int) -> Iterator[np.ndarray]:
        for start in range(0, count, size):
            yield self._read(self.files[start : min(start + size, count)])

    def at(self, index: np.ndarray) -> np.ndarray:
        return self._read([self.files[i] for i in index])

    def _read(self, files: Sequence[Path]) -> np.ndarray:
        with ThreadPoolExecutor(WORKERS) as pool:  # Pillow decodes and resizes without Python's lock
            pixels = list(pool.map(lambda file: read_image(file, self.height, self.width, self.channels), files))
        for file, array in zip(files, pixels, strict=True):
            if array.dtype != self.dtype:
                raise InputError(
                    f"{file}: has values of type {array.dtype}, but those of {self.files[0]} are {self.dtype}; "
                    "expected images of one type"
                )
        return np.stack(pixels)


@dataclass(frozen=True)
class ResizedSource:
    """uint8 [samples, h, w, channels] of another source, each resized to [height, width]."""

    source: Source
    height: int
    width: int

    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape[0], self.height, self.width, self.source.shape[3]

    def chunks(self, size: int, count: int) -> Iterator[np.ndarray]:
        return map(self._resized, self.source.chunks(size, count))

    def at(self, index: np.ndarray) -> np.ndarray:
        return self._resized(self.source.at(index))

    def _resized(self, samples: np.ndarray) -> np.ndarray:
        image = pillow()
        images = (image.fromarray(s[..., 0] if self.shape[3] == 1 else s) for s in samples)
        return np.stack([resized(i, self.height, self.width) for i in images])


def image_type(file: Path) -> np.dtype:
    """The type of the values that `read_image` returns for the file."""
    with reading(file), pillow().open(file) as opened:
        return np.dtype(WIDE.get(opened.mode, np.uint8))


def read_image(file: Path, height: int, width: int, channels: int) -> np.ndarray:
    """[height, width, channels], resized where it has another size: uint8, or the file's own values if they have more
    than 8 bits. Raises InputError for a file that can't be read, or has no such channels.
    """
    with reading(file), pillow().open(file) as opened:
        if opened.mode not in WIDE:
            return resized(opened.convert(MODES[channels]), height, width)
        values = np.asarray(opened).astype(WIDE[opened.mode])
    if channels == 4:
        raise InputError(f"{file}: has grey values of type {values.dtype}; expected red, green, blue and alpha")
    return np.repeat(_resized_wide(values, height, width)[..., None], channels, axis=-1)


def resized(image: Any, height: int, width: int) -> np.ndarray:
    """A Pillow image of 8 bits -> uint8 [height, width, channels], bilinear."""
    if image.size != (width, height):
        image = image.resize((width, height), pillow().Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, -1)


def _resized_wide(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """[h, w] -> [height, width] of the same type, bilinear in float32, to which Pillow's filters round."""
    if values.shape == (height, width):
        return values
    image = pillow().fromarray(values.astype(np.float32)).resize((width, height), pillow().Resampling.BILINEAR)
    result = np.asarray(image)
    return result if values.dtype.kind == "f" else np.rint(result).astype(values.dtype)


def list_images(folder: Path) -> tuple[tuple[Path, ...], np.ndarray | None, tuple[str, ...]]:
    """Files of a folder of class sub-folders, int64 labels, class names; or images alone: labels None.

    Labels follow the sorted names of the sub-folders. Files take turns between the classes, so that the
    first n of them are spread over all. Raises InputError when there is no image.
    """
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    groups = [[(file, label) for file in _images_in(group)] for label, group in enumerate(classes or [folder])]
    found = [entry for turn in itertools.zip_longest(*groups) for entry in turn if entry is not None]
    if not found:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"{folder}: no images ({suffixes}) in {'its sub-folders' if classes else 'it'}")
    labels = np.array([label for _, label in found], np.int64) if classes else None
    return tuple(file for file, _ in found), labels, tuple(c.name for c in classes)


def _images_in(folder: Path) -> list[Path]:
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in shown if path.suffix.lower() in IMAGE_SUFFIXES)


def pillow() -> Any:
    """The module PIL.Image. Raises MissingPackageError without Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError("images need Pillow: pip install pillow") from error
    return Image
