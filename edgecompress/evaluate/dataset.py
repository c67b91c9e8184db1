"""Calibration and evaluation data: opens what the user has and gives it to a model in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.evaluate.images import ImageSource, ResizedSource, image_type, list_images
from edgecompress.evaluate.iterables import collected
from edgecompress.evaluate.preprocess import Adapter, adapt
from edgecompress.evaluate.sources import ArraySource, Source, open_npy, open_npz, read_all
from edgecompress.evaluate.streams import Streams
from edgecompress.recipe import Preprocess
from edgecompress.support.user_code import call, is_function_spec

LABELS = ("y", "label", "labels", "targets", "target")  # keys that hold labels, unless an input has that name
ONLY = "x"  # the key of a model's only input, if not its name


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples that fit a model, preprocessed as they are read.

    source: the name of the data. labels: [samples, ...] as given, or None; of the first output, where others have
    labels too. notes: what was done to make the data fit. output_labels: those given under an output's name. streams:
    how the samples, which are sequences then, go through a model with states.
    """

    source: str
    columns: Mapping[str, tuple[Source, Adapter]]
    labels: np.ndarray | None
    notes: tuple[str, ...]
    count: int
    output_labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    streams: Streams | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def is_labelled(self) -> bool:
        """Whether there are labels for any output."""
        return self.labels is not None or bool(self.output_labels)

    def head(self, n: int) -> Dataset:
        """The first `n` samples, or all of them when there are fewer."""
        return self.with_samples(self.columns, range(min(n, self.count)))

    def with_samples(self, columns: Mapping[str, tuple[Source, Adapter]], places: Sequence[int]) -> Dataset:
        """Other columns in place of these. places: where their samples' labels are."""
        index = np.fromiter(places, np.intp, len(places))
        labels = None if self.labels is None else self.labels[index]
        given = {key: array[index] for key, array in self.output_labels.items()}
        return replace(self, columns=columns, labels=labels, output_labels=given, count=len(index))

    def cut_to(self, shapes: Mapping[str, Sequence[int]]) -> Dataset:
        """The same samples for a model whose inputs have other shapes, by name: their first parts."""
        return replace(self, columns={k: (source, a.cut_to(shapes[k])) for k, (source, a) in self.columns.items()})

    def without_labels(self) -> Dataset:
        """The same samples alone."""
        return replace(self, labels=None, output_labels={})

    def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """Input name -> [n, *sample] (float32, or the input's integer type), n = `size` or what is left.

        Raises InputError when a sample holds NaN or infinity, or the data can't be read.
        """
        readers = {name: source.chunks(size, self.count) for name, (source, _) in self.columns.items()}
        for first in range(0, self.count, size):
            yield {name: self.columns[name][1](next(reader), first) for name, reader in readers.items()}


@dataclass(frozen=True)
class _Fit:
    """What data has to fit: a model's inputs, the names of its outputs, and how samples are preprocessed."""

    inputs: Sequence[ir.Value]
    outputs: Sequence[str]
    preprocess: Preprocess


def load_data(spec: Any, inputs: Sequence[ir.Value], preprocess: Preprocess, outputs: Sequence[str] = ()) -> Dataset:
    """Opens data for a model with these inputs and names of outputs; samples are read later, in batches.

    spec: a path (.npz with `x` or the inputs' names, and optionally `y` or outputs' names; .npy; a folder of class
    sub-folders of images, or of images), `file.py:function` (called without arguments), or what such
    a function may return: an array, (x, y), (one array for each input, y), a dict of arrays, an iterable of batches
    or a dataset of samples of these forms (PyTorch's DataLoader and Dataset, a generator), or a Dataset.
    Raises InputError that says what was expected and found: unreadable files, missing keys, shapes or
    types that don't fit, no samples, another number of labels than of samples.
    """
    source, data = _called(spec)
    if isinstance(data, Dataset):
        return data
    fit = _Fit(inputs, outputs, preprocess)
    if isinstance(data, Path) and data.is_dir():
        return _from_images(data, fit)
    return _assemble(_arrays(data, source, [str(value.name) for value in inputs]), source, fit)


def sample_shapes(spec: Any, preprocess: Preprocess, inputs: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of the samples for the inputs of these names, as far as they are known before the model is: not of a
    folder of images, unless `preprocess` says how large they become. spec: what `load_data` takes.

    Raises InputError as `load_data` does for what can't be read.
    """
    source, data = _called(spec)
    if isinstance(data, Dataset):
        return {name: stored.shape[1:] for name, (stored, _) in data.columns.items() if name in inputs}
    if isinstance(data, Path) and data.is_dir():
        return {} if preprocess.resize is None else dict.fromkeys(inputs[:1], (*preprocess.resize, 3))
    arrays = _arrays(data, source, inputs)
    keys = {name: _key(name, len(inputs), arrays) for name in inputs}
    found = {name: _resize(arrays[key], preprocess, source).shape[1:] for name, key in keys.items() if key is not None}
    if preprocess.layout == "nhwc":
        return {name: (*shape[-1:], *shape[:-1]) for name, shape in found.items()}
    return found


def _called(spec: Any) -> tuple[str, Any]:
    """The name of the data, and the data: a path, or what was given, or what the function that was named returned."""
    if is_function_spec(spec):
        return str(spec), collected(call(spec))
    return (str(spec), Path(spec)) if isinstance(spec, (str, Path)) else ("data", collected(spec))


def _arrays(data: Any, source: str, inputs: Sequence[str]) -> Mapping[str, Source]:
    """The arrays by key: in a file, or in memory, where those of a tuple go by the names of the inputs in order."""
    if isinstance(data, Path):
        if not data.exists():
            raise InputError(f"{data}: no such file or folder")
        if data.suffix.lower() == ".npz":
            return open_npz(data)
        if data.suffix.lower() == ".npy":
            return {ONLY: open_npy(data)}
        raise InputError(f"{data}: expected .npz, .npy, a folder of images, or file.py:function")
    if isinstance(data, tuple):
        data = _named(data, source, inputs)
    elif not isinstance(data, Mapping):
        data = {ONLY: data}
    arrays: dict[str, Source] = {}
    for key, content in data.items():
        try:
            array = np.asarray(content)
            if array.dtype.hasobject and not array.shape:  # None, a generator, an object of the user's
                raise TypeError("not an array")
            arrays[str(key)] = ArraySource(array)
        except (TypeError, ValueError) as error:
            raise InputError(f"{source}: {key!r} is a {type(content).__name__}; expected an array") from error
    return arrays


def _named(items: tuple[Any, ...], source: str, inputs: Sequence[str]) -> dict[Any, Any]:
    """A tuple's arrays by name: (x, y), where x may be a dict of the inputs, or the inputs in order and perhaps y."""
    if len(items) == 2 and isinstance(items[0], Mapping):
        return {**items[0], LABELS[0]: items[1]}
    if len(items) not in (len(inputs), len(inputs) + 1):
        expected = "x, y" if len(inputs) == 1 else f"{', '.join(inputs)}, y"
        raise InputError(f"{source}: is a tuple of {len(items)} items; expected ({expected})")
    return dict(zip([ONLY] if len(inputs) == 1 else inputs, items)) | dict(zip(LABELS[:1], items[len(inputs) :]))


def _from_images(folder: Path, fit: _Fit) -> Dataset:
    inputs, preprocess = fit.inputs, fit.preprocess
    if len(inputs) != 1:
        raise InputError(f"{folder}: the model has {len(inputs)} inputs, but images can feed only one; use .npz")
    files, labels, classes = list_images(folder)
    height, width, channels = _image_size(inputs[0], folder)
    height, width = preprocess.resize or (height, width)
    images = ImageSource(files, height, width, channels, image_type(files[0]))
    names = f" in {len(classes)} classes" if classes else " without labels, as there are no sub-folders of classes"
    data = _assemble({ONLY: images}, str(folder), fit, labels)
    wide = "" if images.dtype == np.uint8 else f", with values of type {images.dtype} as they are in the files"
    return replace(data, notes=(f"{len(files)} images{names}, resized to {height}x{width}{wide}", *data.notes))


def _image_size(value: ir.Value, folder: Path) -> tuple[int, int, int]:
    """Height, width and channels of an image input whose channels come first or last."""
    shape = tuple(value.shape.numpy()) if value.shape is not None else ()
    if len(shape) == 4 and shape[1] in (1, 3, 4):
        return shape[2], shape[3], shape[1]
    if len(shape) == 4 and shape[3] in (1, 3, 4):
        return shape[1], shape[2], shape[3]
    raise InputError(
        f"{folder}: images need an input of shape [1, channels (1, 3 or 4), height, width]; "
        f"{value.name!r} is {list(shape)}"
    )


def _assemble(found: Mapping[str, Source], source: str, fit: _Fit, labels: np.ndarray | None = None) -> Dataset:
    """Gives each input its data by name and checks everything that can be checked before reading it."""
    inputs, names = fit.inputs, [str(value.name) for value in fit.inputs]
    label_key = _label_key(found, [*names, *fit.outputs[1:]])
    columns, notes, used = {}, [], {label_key}
    for value in inputs:
        key = _key(str(value.name), len(inputs), found)
        if key is None:
            expected = f"{value.name!r}" + (f" (or {ONLY!r})" if len(inputs) == 1 else "")
            raise InputError(f"{source}: no array for input {value.name!r}; expected {expected}, found {sorted(found)}")
        used.add(key)
        described = f"{source}[{key}]" if len(inputs) > 1 else source
        data = _resize(found[key], fit.preprocess, described)
        if not data.shape:
            raise InputError(f"{described}: holds a single number; expected an array [samples, ...]")
        if data.shape[0] == 0:
            raise InputError(f"{described}: holds no samples")
        adapter, note = adapt(data, described, value, fit.preprocess)
        columns[adapter.name] = (data, adapter)
        notes += [note] if note else []
    counts = {name: data.shape[0] for name, (data, _) in columns.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"{source}: inputs have different numbers of samples: {counts}")
    count = next(iter(counts.values()))
    given = {name: _labels(found[name], source, name, count) for name in fit.outputs if name in found.keys() - used}
    if label_key is not None:
        labels = _labels(found[label_key], source, label_key, count)
    if labels is None and fit.outputs:
        labels = given.get(fit.outputs[0])
    if unused := [key for key in found if key not in used and key not in given]:
        notes.append(_unused(unused, names, has_labels=labels is not None))
    return Dataset(source, columns, labels, tuple(notes), count, given)


def _labels(stored: Source, source: str, key: str, count: int) -> np.ndarray:
    """All labels. Raises InputError unless they are numbers, one or several for each sample."""
    if stored.dtype.kind not in "uifb":
        raise InputError(f"{source}[{key}]: the labels have type {stored.dtype}; expected numbers")
    if not stored.shape or stored.shape[0] != count:
        raise InputError(f"{source}[{key}]: {stored.shape[0] if stored.shape else 'no'} labels for {count} samples")
    return read_all(stored)


def _label_key(found: Mapping[str, Source], taken: Sequence[str]) -> str | None:
    """The key of the labels; None if there are none. The only array is samples, whatever it is called.

    taken: names of inputs, and of outputs behind the first.
    """
    return next((key for key in LABELS if key in found and key not in taken and len(found) > 1), None)


def _unused(keys: Sequence[str], names: Sequence[str], *, has_labels: bool) -> str:
    """What to say of arrays that nothing reads."""
    listed = ", ".join(map(repr, keys))
    expected = ", ".join(map(repr, names)) + (f" or {ONLY!r}" if len(names) == 1 and ONLY not in names else "")
    labels = "" if has_labels else f", and labels under {', '.join(LABELS[:-1])} or {LABELS[-1]}"
    return f"nothing reads the array{'s' * (len(keys) > 1)} {listed}: samples are expected under {expected}{labels}"


def _key(name: str, inputs: int, found: Mapping[str, Source]) -> str | None:
    """The key of an input's data: its name or, for the only input, also `x` or the only key there is."""
    others = [key for key in found if key not in LABELS] or list(found)
    candidates = [name] + ([ONLY, *others[:1]] if inputs == 1 and (ONLY in found or len(others) == 1) else [])
    return next((key for key in candidates if key in found), None)


def _resize(data: Source, preprocess: Preprocess, described: str) -> Source:
    if preprocess.resize is None or isinstance(data, ImageSource) or data.shape[1:3] == preprocess.resize:
        return data
    if data.dtype != np.uint8 or len(data.shape) != 4 or data.shape[3] not in (1, 3, 4):
        raise InputError(
            f"{described}: preprocess.resize works on images and on uint8 arrays [n, height, width, channels]; "
            f"found {data.dtype} {list(data.shape)}"
        )
    return ResizedSource(data, *preprocess.resize)
