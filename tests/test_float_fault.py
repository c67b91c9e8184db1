"""A float artifact that computes something else than the model is our fault: named, exit 3, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from command import edgecompress as command
from edgecompress.conversion import artifacts
from test_interpreters import parse

RNG = np.random.default_rng(0)
GRAPH = """(float[1, 4, 6, 6] x) => (float[1, 3] y, float[1, 4, 6, 6] z) {
    c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w, b)
    r = Relu(c)
    a = AveragePool<kernel_shape = [6, 6]>(r)
    s = Constant<value_ints = [1, 4]>()
    f = Reshape(a, s)
    g = Gemm<transB = 1>(f, v, u)
    y = Softmax<axis = 1>(g)
    z = Sigmoid(c)
}"""
WEIGHTS = {name: RNG.normal(size=shape).astype(np.float32)
           for name, shape in {"w": (4, 4, 3, 3), "b": (4,), "v": (3, 4), "u": (3,)}.items()}  # fmt: skip

Damage = Callable[[ir.Model], None]


def node(model: ir.Model, output: str) -> ir.Node:
    return next(n for n in model.graph if n.outputs[0].name == output)


def other_weights(name: str) -> Damage:
    def damage(model: ir.Model) -> None:
        for n in model.graph:
            if n.outputs[0].name == name:
                value = n.inputs[1]
                value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.5), name=value.name)

    return damage


def other_operator(name: str, kind: str) -> Damage:
    def damage(model: ir.Model) -> None:
        changed = node(model, name)
        changed.op_type = kind
        changed.attributes.pop("count_include_pad", None)

    return damage


# what is done to the model before it is written -> the user's node that the message names
DAMAGES: dict[str, tuple[Damage, str]] = {
    "weights of a convolution": (other_weights("c"), "Conv 'c'"),
    "weights of a matrix": (other_weights("g"), "Gemm 'g'"),
    "another activation": (other_operator("r", "Abs"), "Relu 'r'"),
    "another pooling": (other_operator("a", "MaxPool"), "AveragePool 'a'"),
    "a function of the last layer": (other_operator("z", "Tanh"), "Sigmoid 'z'"),
}


def convert(tmp_path: Path, weights: str, format: str) -> tuple[int, str]:
    (tmp_path / "asked.toml").write_text(f'[quantize]\nweights = "{weights}"\n')
    model = parse(GRAPH, **WEIGHTS)
    ir.save(model, tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", RNG.normal(size=(12, 4, 6, 6)).astype(np.float32))
    code, _, error = command(
        "convert", tmp_path / "net.onnx", "--recipe", tmp_path / "asked.toml", "--format", format, "--eval",
        tmp_path / "x.npy", "-o", tmp_path / "out")  # fmt: skip
    return code, error


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize(("weights", "format"), [("float32", "onnx"), ("float32", "tflite"), ("float16", "pack")])
def test_the_first_node_that_differs_is_named(tmp_path, monkeypatch, name, weights, format):
    damage, expected = DAMAGES[name]
    emit = artifacts.EMITTERS[format]

    def damaged(model, *rest):
        clone = model.clone()
        damage(clone)
        return emit(clone, *rest)

    monkeypatch.setitem(artifacts.EMITTERS, format, damaged)
    code, error = convert(tmp_path, weights, format)
    assert code == 3 and not (tmp_path / "out").exists(), error
    assert f"the .{format} file computes something else than the model: output " in error
    assert f"the first node that differs is {expected} (" in error and error.count("\n") == 1


@pytest.mark.parametrize("weights", ["float32", "float16"])
@pytest.mark.parametrize("format", ["onnx", "tflite", "pack"])
def test_without_damage_nothing_is_said(tmp_path, weights, format):
    code, error = convert(tmp_path, weights, format)
    assert code == 0, error


def test_what_roundings_do_is_no_fault(tmp_path):
    """A difference of nearly equal values: 1e-7 of them is a thousandth of what is left."""
    graph = """(float[1, 8] x) => (float[1, 8] y) {
        a = MatMul(x, w)
        k = Constant<value_float = 3000.0>()
        b = Add(a, k)
        y = Sub(b, k)
    }"""
    model = parse(graph, w=RNG.normal(size=(8, 8)).astype(np.float32) / 100)
    ir.save(model, tmp_path / "net.onnx")
    (tmp_path / "asked.toml").write_text('[quantize]\nweights = "float32"\n')
    np.save(tmp_path / "x.npy", RNG.normal(size=(20, 8)).astype(np.float32))
    code, _, error = command(
        "convert", tmp_path / "net.onnx", "--recipe", tmp_path / "asked.toml", "--eval", tmp_path / "x.npy", "-o",
        tmp_path / "out")  # fmt: skip
    assert code == 0, error
