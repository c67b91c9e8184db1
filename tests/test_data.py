"""Reading data: against the arrays that were stored, and the errors that bad data gets."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecompress.errors import InputError, MissingPackageError
from edgecompress.evaluate import images
from edgecompress.evaluate.dataset import Dataset, load_data
from edgecompress.recipe import Preprocess

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)  # channels last
LABELS = np.arange(7)


def value(name: str, *shape: int, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


IMAGE = [value("images:0", 1, 3, 4, 5)]


def load(spec, inputs=IMAGE, **preprocess) -> Dataset:
    return load_data(spec, inputs, Preprocess(**preprocess))


def everything(dataset: Dataset, size: int = 3) -> dict[str, np.ndarray]:
    batches = list(dataset.batches(size))
    assert [len(next(iter(b.values()))) for b in batches[:-1]] == [size] * (len(batches) - 1)
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


def refused(match: str, spec, inputs=IMAGE, **preprocess) -> None:
    with pytest.raises(InputError, match=match) as caught:
        everything(load(spec, inputs, **preprocess))
    assert "\n" not in str(caught.value)


def test_npz_with_labels_moves_channels_first(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=PIXELS, y=LABELS)
    data = load(tmp_path / "d.npz")
    read = everything(data)["images:0"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, PIXELS.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.labels, LABELS)
    assert len(data) == 7 and "channels last" in data.notes[0]


def test_preprocessing_is_scale_mean_std_per_channel():
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7])
    read = everything(load(PIXELS, scale=1 / 255, mean=list(mean), std=list(std)))["images:0"]
    expected = ((PIXELS / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(read, expected, rtol=1e-5, atol=1e-6)
    native = load(PIXELS, [value("x", 1, 4, 5, 3)], mean=list(mean))  # the model itself is channels last
    np.testing.assert_allclose(everything(native)["x"], PIXELS - mean, rtol=1e-6)
    refused("preprocess.mean has 2 numbers", PIXELS, mean=[1.0, 2.0])


@pytest.mark.parametrize("stored", [np.float32, np.float64, np.float16, ">f4", np.int16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_number_type_and_order(tmp_path, stored, order):
    array = np.asarray(PIXELS.transpose(0, 3, 1, 2), dtype=stored, order=order)
    np.save(tmp_path / "d.npy", array)
    np.testing.assert_array_equal(everything(load(tmp_path / "d.npy"))["images:0"], array)


def test_inputs_by_name_and_integers(tmp_path):
    inputs = [value("tokens", 1, 6, dtype=ir.DataType.INT64), value("état/h:0", 2, 1, 3)]
    tokens, state = RNG.integers(0, 9, (5, 6), dtype=np.int32), RNG.normal(size=(5, 2, 1, 3))
    np.savez(tmp_path / "d.npz", **{"tokens": tokens, "état/h:0": state})
    read = everything(load(tmp_path / "d.npz", inputs, scale=2.0))
    assert read["tokens"].dtype == np.int64
    np.testing.assert_array_equal(read["tokens"], tokens)  # integers are not preprocessed
    np.testing.assert_allclose(read["état/h:0"], 2 * state, rtol=1e-6)
    refused("no array for input 'état/h:0'; .*found \\['tokens'\\]", {"tokens": tokens}, inputs)
    refused("different numbers of samples", {"tokens": tokens[:4], "état/h:0": state}, inputs)
    refused("expected integers", {"tokens": tokens * 1.0, "état/h:0": state}, inputs)
    big = tokens.astype(np.int64) + 2**40
    refused("sample 0 .* outside int32", big, [value("tokens", 1, 6, dtype=ir.DataType.INT32)])


def test_an_input_called_y_is_no_label(tmp_path):
    np.savez(tmp_path / "d.npz", y=PIXELS)
    data = load(tmp_path / "d.npz", [value("y", 1, 4, 5, 3)])
    assert data.labels is None and len(data) == 7


def test_shapes_that_are_taken():
    gray = PIXELS[..., 0]
    np.testing.assert_array_equal(everything(load(gray, [value("x", 1, 1, 4, 5)]))["x"], gray[:, None])
    whole = everything(load(gray[:, None], [value("x", 1, 4, 5)]))["x"]  # the batch axis is in the samples
    assert whole.shape == (7, 1, 4, 5)
    with pytest.raises(InputError, match=r"the samples have shape \(4, 5, 3\); expected \(3, 4, 5\)"):
        load(PIXELS, layout="nchw")
    cube = RNG.normal(size=(2, 3, 3, 3)).astype(np.float32)
    inputs = [value("x", 1, 3, 3, 3)]
    np.testing.assert_array_equal(everything(load(cube, inputs))["x"], cube)
    moved = everything(load(cube, inputs, layout="nhwc"))["x"]
    np.testing.assert_array_equal(moved, cube.transpose(0, 3, 1, 2))


def test_folder_of_classes(tmp_path):
    for name, colour, count in (("zebra", 200, 1), ("ape", 10, 3), ("émeu", 90, 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (10, 8), (colour, i, 0)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "ape" / "notes.txt").write_text("not an image")
    data = load(tmp_path)
    classes, images = ["ape", "zebra", "émeu"], everything(data)["images:0"]
    assert [classes[label] for label in data.labels] == ["ape", "zebra", "émeu", "ape", "émeu", "ape"]
    np.testing.assert_array_equal(images[:, 0, 0, 0], [10, 200, 90, 10, 90, 10])
    np.testing.assert_array_equal(images[:, 1, 3, 4], [0, 0, 0, 1, 1, 2])
    assert images.shape == (6, 3, 4, 5) and set(data.head(3).labels) == {0, 1, 2}
    unlabelled = load(tmp_path / "ape")
    assert unlabelled.labels is None and len(unlabelled) == 3
    gray = everything(load(tmp_path / "zebra", [value("x", 1, 1, 8, 10)]))["x"]
    np.testing.assert_allclose(gray, 0.299 * 200, atol=1)
    refused("need an input of shape", tmp_path, [value("x", 1, 640)])
    refused("the samples have shape", tmp_path, resize=(9, 9))
    (tmp_path / "ape" / "0.png").write_bytes((tmp_path / "ape" / "0.png").read_bytes()[:40])
    refused("0.png: can't be read", tmp_path)


RAMP = np.linspace(0, 1, 32 * 24).reshape(32, 24)
DEEP = {
    "16bit.png": (RAMP * 65535).astype(np.uint16),
    "12-in-16.png": (RAMP * 4095).astype(np.uint16),
    "16bit.tif": (RAMP * 65535).astype(np.uint16),
    "int32.tif": (RAMP * 2**20 - 1000).astype(np.int32),
    "float.tif": (RAMP - 0.25).astype(np.float32),
    "float.tiff": (RAMP * 1e5).astype(np.float32),
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_more_than_8_bits_keep_their_values(tmp_path, name, channels):
    Image.fromarray(DEEP[name]).save(tmp_path / name)
    data = load(tmp_path, [value("x", 1, channels, 32, 24)], scale=0.5)
    np.testing.assert_array_equal(everything(data)["x"][0], np.stack([DEEP[name].astype(np.float32) / 2] * channels))
    assert str(DEEP[name].dtype) in data.notes[0]
    half = everything(load(tmp_path, [value("x", 1, channels, 16, 12)]))["x"][0, 0]  # a ramp stays one
    inner = DEEP[name].reshape(16, 2, 12, 2).mean(axis=(1, 3))[1:-1, 1:-1]
    np.testing.assert_allclose(half[1:-1, 1:-1], inner, atol=max(1, 2e-2 * np.ptp(inner)))
    refused("expected red, green, blue and alpha", tmp_path, [value("x", 1, 4, 32, 24)])
    Image.fromarray(np.zeros((32, 24), np.uint8)).save(tmp_path / "z.png")
    refused("z.png: has values of type uint8, .* expected images of one type", tmp_path, [value("x", 1, 1, 32, 24)])


@pytest.mark.parametrize("key", ["y", "label", "labels", "targets", "target"])
def test_labels_under_any_usual_key(tmp_path, key):
    np.savez(tmp_path / "d.npz", **{"pixels": PIXELS, key: LABELS})
    data = load(tmp_path / "d.npz")
    np.testing.assert_array_equal(data.labels, LABELS)
    assert not any("nothing reads" in note for note in data.notes)
    np.testing.assert_array_equal(everything(load({key: PIXELS}))["images:0"], PIXELS.transpose(0, 3, 1, 2))
    assert load({key: PIXELS}).labels is None  # the only array is samples
    assert load({key: PIXELS}, [value(key, 1, 4, 5, 3)]).labels is None


@pytest.mark.parametrize(
    "arrays, named",
    [
        ({"x": PIXELS, "classes": LABELS}, "'classes'"),
        ({"x": PIXELS, "Y": LABELS}, "'Y'"),
        ({"x": PIXELS, "y": LABELS, "labels": LABELS}, "'labels'"),
        ({"x": PIXELS, "ids": LABELS, "names": LABELS}, "s 'ids', 'names'"),
        ({"images:0": PIXELS, "x": PIXELS}, "'x'"),
    ],
)
def test_arrays_that_nothing_reads_are_named(arrays, named):
    (note,) = [note for note in load(arrays).notes if "nothing reads" in note]
    assert f"array{named if named[0] == 's' else ' ' + named}: samples are expected under 'images:0' or 'x'" in note
    assert ("and labels under y, label, labels, targets or target" in note) == ("y" not in arrays)


def test_resized_arrays_are_what_pillow_makes():
    read = everything(load(PIXELS, [value("x", 1, 3, 8, 6)], resize=(8, 6)))["x"]
    one = np.asarray(Image.fromarray(PIXELS[2]).resize((6, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(read[2], one.transpose(2, 0, 1))
    refused("preprocess.resize works on images", PIXELS * 1.0, resize=(8, 6))


def test_images_without_pillow(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingPackageError, match="pip install pillow"):
        images.pillow()


@pytest.mark.parametrize(
    "returned, labelled",
    [("x", False), ("(x, [0, 1])", True), ("{'images:0': x, 'y': [0, 1]}", True), ("x.tolist()", False)],
)
def test_function(tmp_path, returned, labelled):
    (tmp_path / "helper.py").write_text("SHAPE = (2, 3, 4, 5)")
    imports = "import numpy as np\nfrom helper import SHAPE\n"
    (tmp_path / "data.py").write_text(f"{imports}def f():\n    x = np.ones(SHAPE)\n    return {returned}\n")
    data = load(f"{tmp_path / 'data.py'}:f")
    assert everything(data)["images:0"].sum() == 120 and (data.labels is not None) == labelled


def test_function_errors(tmp_path):
    path = tmp_path / "data.py"
    refused("there is no file", f"{path}:f")
    path.write_text("def f():\n    return 1 / 0\n")
    refused("no function 'g'", f"{path}:g")
    refused("f failed with ZeroDivisionError: division by zero", f"{path}:f")
    path.write_text("def f(:")
    refused("SyntaxError while importing", f"{path}:f")


def test_bad_data(tmp_path):
    refused("no such file", tmp_path / "nothing.npz")
    (tmp_path / "d.txt").write_text("1 2 3")
    refused("expected .npz, .npy", tmp_path / "d.txt")
    refused("holds no samples", PIXELS[:0])
    refused("6 labels for 7 samples", (PIXELS, LABELS[:6]))
    refused("the labels have type <U1; expected numbers", (PIXELS, list("abcdefg")))
    refused(r"the samples have shape \(5, 3\)", PIXELS[0])
    refused("a single number", np.float32(3))
    refused("'x' is a NoneType; expected an array", None)
    refused("the data has type <U1; expected numbers", np.full((2, 3, 4, 5), "a"))
    refused("expected 'images:0' \\(or 'x'\\), found \\['a', 'b'\\]", {"a": PIXELS, "b": PIXELS})
    for bad in (np.nan, np.inf, 1e300):
        x = np.zeros((7, 3, 4, 5))
        x[5, 1, 2, 3] = bad
        refused("sample 5 for input 'images:0' has NaN or infinity", x)
    np.save(tmp_path / "pickled.npy", np.array([{}, {}]), allow_pickle=True)
    refused("Python objects", tmp_path / "pickled.npy")
    np.savez(tmp_path / "empty.npz")
    refused("holds no arrays", tmp_path / "empty.npz")
    (tmp_path / "empty").mkdir()
    refused("no images", tmp_path / "empty")


def test_memory_does_not_grow_with_samples(tmp_path):
    def peak(samples: int) -> int:
        path = tmp_path / f"{samples}.npz"
        np.savez_compressed(path, x=np.zeros((samples, 3, 32, 32), np.uint8))
        tracemalloc.start()
        total = sum(b["x"].shape[0] for b in load(path, [value("x", 1, 3, 32, 32)]).batches(16))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == samples
        return highest

    assert peak(4096) < 1.1 * peak(256)


ORIGINALS = {}
for form, save in (("npy", lambda f: np.save(f, PIXELS)), ("npz", lambda f: np.savez(f, x=PIXELS, y=LABELS))):
    buffer = io.BytesIO()
    save(buffer)
    ORIGINALS[form] = buffer.getvalue()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(ORIGINALS)), st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory, form, data):
    content = bytearray(ORIGINALS[form])
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("damaged") / f"d.{form}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        everything(load(path))
    except InputError as error:
        assert str(path) in str(error) or "labels" in str(error)


def test_header_that_promises_too_much(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 4, 5, 3)})
    (tmp_path / "d.npy").write_bytes(header.getvalue() + PIXELS.tobytes())
    refused("ends after 7 of 1000000000000000 samples", tmp_path / "d.npy")
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + PIXELS.tobytes())
    refused("ends after 7 of", tmp_path / "d.npz")


def test_header_with_a_negative_length(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (-7, 4, 5, 3)})
    (tmp_path / "d.npy").write_bytes(header.getvalue() + PIXELS.tobytes())
    refused("has a negative length", tmp_path / "d.npy")


@pytest.mark.parametrize("method", [1, 6, 9, 12, 14, 93, 95, 99])
def test_an_archive_packed_as_numpy_never_does(tmp_path, method):
    """Also LZMA whose properties are nonsense: its errors are of a kind of their own."""
    path = tmp_path / "d.npz"
    np.savez(path, x=PIXELS)
    content = bytearray(path.read_bytes())
    for sign, at in ((b"PK\3\4", 8), (b"PK\1\2", 10)):  # the entry, and the directory's
        content[content.index(sign) + at] = method
    path.write_bytes(content)
    refused("packed by a method that NumPy does not write", path)


def test_an_encrypted_archive(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=PIXELS)
    content = bytearray(path.read_bytes())
    for sign, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(sign) + at] |= 1
    path.write_bytes(content)
    refused("encrypted", path)
