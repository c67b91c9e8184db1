"""Clustering of whole models, as their artifacts and ONNX Runtime see it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecompress.compress.cluster import Clustered, cluster, goal
from edgecompress.compress.cluster.kmeans import kmeans
from edgecompress.compress.quantize import Quantized, quantize, quantize_dynamic, simulation, to_float16
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit.tflite import emit
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import Dataset, load_data
from edgecompress.evaluate.interpreters import LiteRT, OnnxRuntime
from edgecompress.evaluate.metrics import snr_db
from edgecompress.graph.annotations import codebook, quantization
from edgecompress.graph.fusion import constant, layers
from edgecompress.ingest import load
from edgecompress.recipe import Cluster, Preprocess, Quantize, load_recipe

WEIGHTS = ("first", "depthwise", "residual", "up", "dense", "last")


def network() -> onnx.ModelProto:
    """Convolutions (dense, depthwise, transposed), a residual sum, a Gemm, and a MatMul with its bias."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        spread = rng.uniform(0.3, 3, (shape[0], *[1] * (len(shape) - 1))) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array((rng.laplace(size=shape) * spread).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "first", "b8"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["a+"]),
        helper.make_node("Conv", ["a+", "depthwise", "b8"], ["d"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Relu", ["d"], ["d+"]),
        helper.make_node("Conv", ["d+", "residual", "b8"], ["r"]),
        helper.make_node("Add", ["r", "a+"], ["s"]),
        helper.make_node("Relu", ["s"], ["s+"]),
        helper.make_node("ConvTranspose", ["s+", "up", "b6"], ["u"], strides=[2, 2]),
        helper.make_node("Relu", ["u"], ["u+"]),
        helper.make_node("GlobalAveragePool", ["u+"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "dense", "b6"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["h+"]),
        helper.make_node("Reshape", ["h+", "rows"], ["t"]),
        helper.make_node("MatMul", ["t", "last"], ["m"]),
        helper.make_node("Add", ["m", "b5"], ["y"]),
    ]
    constants = [
        weight("first", 8, 3, 3, 3),
        weight("depthwise", 8, 1, 3, 3),
        weight("residual", 8, 8, 1, 1),
        weight("up", 8, 6, 2, 2),
        weight("dense", 6, 6),
        weight("last", 3, 5),
        *(weight(f"b{n}", n) for n in (5, 6, 8)),
        numpy_helper.from_array(np.array([1, 2, 3]), "rows"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 5])
    graph = helper.make_graph(nodes, "net", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def images(count: int, seed: int) -> np.ndarray:
    """Smooth in space, as images are."""
    noise = np.random.default_rng(seed).normal(size=(count, 3, 8, 8))
    return np.cumsum(np.cumsum(noise, axis=2), axis=3).astype(np.float32) / 4


@pytest.fixture(scope="module")
def model() -> ir.Model:
    return load(network()).model


@pytest.fixture(scope="module")
def data(model: ir.Model) -> Dataset:
    return load_data(images(256, 1), model.graph.inputs, Preprocess())


@pytest.fixture(scope="module")
def int8(model: ir.Model, data: Dataset) -> Quantized:
    return quantize(model, data, Quantize())


@pytest.fixture(scope="module")
def clustered(int8: Quantized, data: Dataset) -> Clustered:
    return cluster(int8.model, int8.reference, data, Cluster(bits=4))


def unseen(model: ir.Model, reference: ir.Model) -> float:
    """Signal-to-noise ratio of the outputs on new data, in dB."""
    x = {"x": images(256, 2)}
    found = OnnxRuntime(simulation(model)).run(x)[0]
    return snr_db(OnnxRuntime(reference).run(x)[0], found)


def weights(model: ir.Model) -> dict[str, ir.Value]:
    return {name: model.graph.initializers[name] for name in WEIGHTS if name in model.graph.initializers}


def test_int8_weights_are_their_codebooks(int8: Quantized, clustered: Clustered) -> None:
    found = weights(clustered.model)
    assert len(clustered.layers) == len(WEIGHTS) and len(found) >= len(WEIGHTS) - 2
    for name, value in found.items():
        book, q = codebook(value), quantization(value)
        assert book is not None and q is not None and book.centroids.dtype == np.int8
        assert len(book.centroids) <= 16 and (np.diff(book.centroids.astype(int)) > 0).all()
        assert book.indices.dtype == np.uint8 and book.indices.shape == tuple(value.shape.numpy())
        np.testing.assert_array_equal(q.quantize(np.asarray(constant(value))), book.centroids[book.indices], name)
        before = quantization(weights(int8.model)[name])
        assert before is not None and q.axis == before.axis and len(q.scale) == len(before.scale)


def test_the_artifact_computes_what_was_predicted(clustered: Clustered) -> None:
    artifact = emit(clustered.model)
    x = {"x": images(64, 3)}
    found = LiteRT(artifact.data, artifact, reference=True).run(x)[0]
    assert snr_db(OnnxRuntime(simulation(clustered.model)).run(x)[0], found) > 35


def test_calibration_data_pays(int8: Quantized, data: Dataset, clustered: Clustered) -> None:
    blind = cluster(int8.model, int8.reference, None, Cluster(bits=4))
    assert blind.snr_db is None
    assert unseen(clustered.model, int8.reference) > unseen(blind.model, int8.reference) + 3


def test_channel_means_are_kept(model: ir.Model, data: Dataset) -> None:
    """Coarse clusters shift every layer's mean but for its bias, which takes the shift out."""
    found = cluster(model, model, data, Cluster(bits=1))
    names = [str((layer.bias_add or layer.node).outputs[0].name) for layer in layers(model.graph) if layer.bias]
    x = next(data.batches(256))
    exact, coarse = (OnnxRuntime(m, extra_outputs=names).run(x)[1:] for m in (model, found.model))
    for a, b in zip(exact, coarse, strict=True):
        channels = [i for i in range(a.ndim) if i != (1 if a.ndim != 3 else 2)]
        shift = np.abs((a - b).mean(axis=tuple(channels)))
        assert (shift < 0.02 * a.std()).all()
        assert np.square(a - b).mean() > 1e-4 * a.var()


@pytest.mark.parametrize("annotate", [ir.Model.clone, to_float16])
def test_float_weights_have_float_codebooks(model: ir.Model, data: Dataset, annotate) -> None:
    found = cluster(annotate(model), model, data, Cluster(bits=5))
    for value in weights(found.model).values():
        book, q = codebook(value), quantization(value)
        assert book is not None and book.centroids.dtype == np.float32 and len(book.scale) == 1
        assert (q is None) if annotate is not to_float16 else q.dtype == ir.DataType.FLOAT16
        np.testing.assert_array_equal(np.asarray(constant(value)), book.values())
    assert unseen(found.model, model) > 20


@pytest.mark.parametrize("bits", [4, 5])
@pytest.mark.parametrize("per_channel", [None, True])
@pytest.mark.parametrize("annotate, size", [(ir.Model.clone, 4), (to_float16, 2)])
def test_the_onnx_of_float_clusters_is_small_and_exact(
    model: ir.Model, data: Dataset, annotate, size: int, per_channel: bool | None, bits: int
) -> None:
    """Whatever is stored, ONNX Runtime computes what the simulation does; with one scale, and with as many as there
    are channels where float32 can hold them behind the table, weights are indices."""
    found = cluster(annotate(model), model, data, Cluster(bits=bits, per_channel=per_channel)).model
    x = {"x": images(64, 3)}
    data_, plain = onnx_emitter.emit(found), onnx_emitter.emit(annotate(model))
    np.testing.assert_array_equal(OnnxRuntime(data_).run(x)[0], OnnxRuntime(simulation(found)).run(x)[0])
    stored = {i.name: i for i in onnx.load_from_string(data_).graph.initializer}
    up = stored["up"]
    if size == 2 and per_channel:
        assert up.data_type == TensorProto.FLOAT16
        return
    assert up.data_type == (TensorProto.UINT4 if bits == 4 else TensorProto.UINT8)
    assert len(data_) < len(plain)
    if per_channel is None:
        assert len(up.raw_data) == (192 // 2 if bits == 4 else 192)
        types = {i.data_type for i in stored.values() if i.dims == [2**bits]}
        assert types == {TensorProto.FLOAT if size == 4 else TensorProto.FLOAT16}


def test_indices_that_would_not_be_the_weights_are_not_stored(model: ir.Model) -> None:
    """A codebook that is only nearly the weight, as that of a network clustered elsewhere."""
    found = cluster(model, model, None, Cluster(bits=4)).model
    value = weights(found)["up"]
    value.const_value = ir.tensor(np.asarray(constant(value)) * np.float32(1.0001), name=value.name)
    stored = {i.name: i for i in onnx.load_from_string(onnx_emitter.emit(found)).graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(stored["up"]), np.asarray(constant(value)))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("integers", [False, True])
def test_every_start_of_k_means_is_what_the_recipe_says(
    model: ir.Model, int8: Quantized, integers: bool, per_channel: bool
) -> None:
    """Without data a codebook for the whole layer is k-means: its optimum can't be beaten."""
    annotated, reference = (int8.model, int8.reference) if integers else (model, model)
    before = np.asarray(constant(weights(reference)["first"]))
    error = {}
    for init in ("optimal", "linear", "density", "random"):
        found = cluster(annotated, reference, None, Cluster(bits=4, init=init, per_channel=per_channel)).model
        error[init] = float(np.square(np.asarray(constant(weights(found)["first"])) - before).sum())
    assert len(set(error.values())) == 4
    if not per_channel:
        best = kmeans(before, np.ones(before.size), 16)
        least = np.square(best - before[..., None]).min(axis=-1).sum()
        assert error["optimal"] == pytest.approx(least, rel=0.1 if integers else 0.01)  # int8 centroids are rounded
        assert all(error["optimal"] < 0.999 * error[init] for init in ("linear", "density", "random"))


def test_dynamic_range_weights_keep_their_granularity(model: ir.Model, data: Dataset) -> None:
    annotated = quantize_dynamic(model, Quantize())
    found = cluster(annotated, model, data, Cluster(bits=5))
    for name, value in weights(found.model).items():
        before, q = quantization(weights(annotated)[name]), quantization(value)
        assert before is not None and q is not None and len(q.scale) == len(before.scale) and q.axis == before.axis
    assert unseen(found.model, model) > 20


def test_one_scale_for_all_channels(int8: Quantized, data: Dataset) -> None:
    found = cluster(int8.model, int8.reference, data, Cluster(bits=4, per_channel=False))
    assert all(len(set(quantization(value).scale)) == 1 for value in weights(found.model).values())


def test_pruned_weights_stay_zero(model: ir.Model, data: Dataset) -> None:
    pruned = model.clone()
    for value in weights(pruned).values():
        array = np.asarray(constant(value)).copy()
        array[np.abs(array) < np.median(np.abs(array))] = 0
        value.const_value = ir.tensor(array, name=value.name)
    annotated = quantize(pruned, data, Quantize(equalize=False))
    integers = annotated.model, annotated.reference
    for (start, reference), settings in (
        (integers, Cluster(bits=2)),
        (integers, Cluster(snr=15)),
        ((pruned, pruned), Cluster(bits=2)),
    ):
        found = cluster(start, reference, data, settings)
        for name, value in weights(found.model).items():
            zero, book = np.asarray(constant(weights(pruned)[name])) == 0, codebook(value)
            assert zero.any() and not np.asarray(constant(value))[zero].any()
            assert (book.centroids == 0).sum() == 1 and (settings.bits is None or len(book.centroids) <= 4)


@pytest.mark.long
def test_size_is_met(int8: Quantized, data: Dataset) -> None:
    sizes = {}
    for size in (500, 700):
        settings = Cluster(size=size)
        found = cluster(int8.model, int8.reference, data, settings)
        assert size - 60 <= found.bytes <= size
        asked = goal(found, settings)
        assert (asked.unit, asked.requested, asked.achieved) == ("bytes", size, found.bytes)
        count = sum(value.const_value.size for value in weights(found.model).values())
        assert asked.note == f"{8 * found.bytes / count:.2f} bits a weight, {found.snr_db:.1f} dB"
        sizes[size] = unseen(found.model, int8.reference)
    assert sizes[700] > sizes[500] + 3


@pytest.mark.long
def test_noise_is_met(int8: Quantized, data: Dataset) -> None:
    found = {snr: cluster(int8.model, int8.reference, data, Cluster(snr=snr)) for snr in (12, 20)}
    for snr, result in found.items():
        assert result.snr_db is not None and snr <= result.snr_db < snr + 2
        asked = goal(result, Cluster(snr=snr))
        assert (asked.unit, asked.requested, asked.achieved) == ("dB", snr, result.snr_db)
    assert found[12].bytes < found[20].bytes


def test_what_cannot_be_is_an_error(int8: Quantized, data: Dataset) -> None:
    with pytest.raises(InputError, match=r"cluster.size: 10 bytes are too few for .* weights"):
        cluster(int8.model, int8.reference, data, Cluster(bits="auto", size=10))
    with pytest.raises(InputError, match="need calibration data: give --calib"):
        cluster(int8.model, int8.reference, None, Cluster(bits="auto"))


def test_the_same_again_and_the_model_unchanged(int8: Quantized, data: Dataset, clustered: Clustered) -> None:
    before = ir.to_proto(int8.model).SerializeToString()
    again = cluster(int8.model, int8.reference, data, Cluster(bits=4))
    assert again.layers == clustered.layers and again.snr_db == clustered.snr_db
    assert emit(again.model).data == emit(clustered.model).data
    assert ir.to_proto(int8.model).SerializeToString() == before
    assert all(codebook(value) is None for value in weights(int8.model).values())


@pytest.mark.parametrize("bits", ["0", "9", "4.0", "true", '"four"'])
def test_bits_are_checked(bits: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f"[cluster]\nbits = {bits}\n")
    with pytest.raises(InputError, match=r"'cluster\.bits': should be a whole number from 1 to 8, or .auto."):
        load_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize(
    "text, wanted",
    [("size = 900", True), ("snr = 20", True), ('bits = "auto"', True), ("bits = 3", True), ('init = "linear"', False)],
)
def test_a_limit_alone_asks_for_clusters(text: str, wanted: bool, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f"[cluster]\n{text}\n")
    recipe = load_recipe(tmp_path / "r.toml")
    assert recipe.cluster.is_asked_for is wanted
    (tmp_path / "again.toml").write_text(recipe.to_toml())
    assert load_recipe(tmp_path / "again.toml") == recipe


@pytest.mark.parametrize("text", ["size = 900\nsnr = 20", "bits = 4\nsize = 900", "bits = 4\nsnr = 20"])
def test_limits_that_exclude_each_other_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f"[cluster]\n{text}\n")
    with pytest.raises(InputError, match=r"'cluster': .* and .* exclude each other: keep only one of them"):
        load_recipe(tmp_path / "r.toml")
