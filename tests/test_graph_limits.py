"""Models that say that they are larger than they can be are refused at once; long ones load in linear time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecompress.errors import EdgeCompressError, InputError, UnsupportedModelError
from edgecompress.ingest import load

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]


def model(
    nodes: list[onnx.NodeProto], functions: tuple[onnx.FunctionProto, ...] = (), **graph: object
) -> onnx.ModelProto:
    made = helper.make_graph(nodes, "g", [X], [Y], **graph)
    return helper.make_model(made, opset_imports=OPSETS, ir_version=9, functions=functions)


def chain(operators: list[str], domain: str = "", end: str = "y") -> list[onnx.NodeProto]:
    names = ["x", *(f"v{i}" for i in range(1, len(operators))), end]
    return [
        helper.make_node(op, [names[i]], [names[i + 1]], name=f"n{i}", domain=domain) for i, op in enumerate(operators)
    ]


def function(name: str, calls: list[str], domain: str = "f") -> onnx.FunctionProto:
    return helper.make_function("f", name, ["x"], ["y"], chain(calls, domain), OPSETS)


def calls(depth: int, wide: int) -> onnx.ModelProto:
    """Functions that each call the one before, `wide` times."""
    functions = [function("F0", ["Relu"] * wide, "")]
    functions += [function(f"F{i}", [f"F{i - 1}"] * wide) for i in range(1, depth)]
    return model(chain([f"F{depth - 1}"], "f"), tuple(functions))


def nested(depth: int, calls: tuple[onnx.FunctionProto, ...] = (), inner: str = "Relu") -> onnx.ModelProto:
    """If nodes within If nodes."""
    names = iter(f"w{i}" for i in range(10_000))
    out = next(names)
    body = [helper.make_node(inner, ["x"], [out], name="inner", domain="f" if calls else "")]
    for _ in range(depth):
        value = helper.make_tensor_value_info(out, TensorProto.FLOAT, [1, 4])
        branch = helper.make_graph(body, "branch", [], [value])
        out = next(names)
        both = {"then_branch": branch, "else_branch": branch}
        if depth > 2:  # or each level doubles the file
            del both["else_branch"]
        body = [helper.make_node("If", ["c"], [out], name=f"if{out}", **both)]
    body.append(helper.make_node("Relu", [out], ["y"]))
    return model(body, calls, initializer=[numpy_helper.from_array(np.array(True), "c")])


HUGE = {
    "two calls each, 40 deep": lambda: calls(40, 2),
    "a thousand calls each, 6 deep": lambda: calls(6, 1000),
    "calls 65 deep": lambda: calls(65, 1),
    "calls 500 deep": lambda: calls(500, 1),
    "a function that calls itself": lambda: model(chain(["F"], "f"), (function("F", ["F"]),)),
    "functions in a circle": lambda: model(chain(["A"], "f"), (function("A", ["B"]), function("B", ["A"]))),
    "If nodes 17 deep": lambda: nested(17),
    "If nodes 25 deep": lambda: nested(25),
    "a graph that calls": lambda: nested(2, tuple(calls(30, 2).functions), "F29"),
    "50,001 nodes": lambda: model(chain(["Relu"] * 50_001)),
}  # fmt: skip


@pytest.mark.parametrize("name", HUGE)
def test_what_would_grow_without_end_is_refused_at_once(name: str, tmp_path: Path) -> None:
    proto = HUGE[name]()
    onnx.save(proto, tmp_path / "m.onnx")
    begun = time.process_time()
    with pytest.raises((InputError, UnsupportedModelError)) as raised:
        load(tmp_path / "m.onnx")
    assert time.process_time() - begun < 10
    message = str(raised.value)
    assert "\n" not in message and len(message) < 400
    assert "node '" in message or "50,001 nodes" in message
    with pytest.raises(EdgeCompressError):
        load(proto)


@pytest.mark.parametrize("proto", [calls(3, 2), calls(30, 1), nested(1), model(chain(["Relu"] * 300))])
def test_what_is_within_bounds_loads(proto: onnx.ModelProto) -> None:
    assert load(proto).max_relative_error == 0


def test_a_long_chain_loads_in_linear_time() -> None:
    operators = ["Relu", "Sigmoid", "Tanh", "Abs"]

    def seconds(length: int) -> float:
        proto = model(chain(operators * (length // 4)))
        begun = time.process_time()
        load(proto)
        return time.process_time() - begun

    seconds(40)  # imports
    # 4 times as much where time is linear, 16 times where it is quadratic; a busy machine lies between.
    short, long = (min(seconds(length), seconds(length)) for length in (400, 1600))
    assert long < 10 * short


def tensor(dims: list[int], data_type: int = TensorProto.FLOAT, **data: object) -> onnx.TensorProto:
    return TensorProto(dims=dims, data_type=data_type, name="w", **data)


TENSORS = {
    "raw data too short": tensor([1 << 40], raw_data=bytes(16)),
    "raw data too long": tensor([2], raw_data=bytes(16)),
    "raw data of no element": tensor([0, 1 << 62], raw_data=bytes(4)),
    "values too few": tensor([1, 1 << 30, 1 << 30], float_data=[1.0]),
    "values too many": tensor([1], float_data=[1.0] * 5),
    "no values at all": tensor([1 << 62, 1 << 62, 1 << 62]),
    "a negative dimension": tensor([-1, 4], raw_data=bytes(16)),
    "forty dimensions": tensor([1] * 40, raw_data=bytes(4)),
    "packed four bits": tensor([9], TensorProto.INT4, raw_data=bytes(4)),
    "half precision": tensor([3], TensorProto.FLOAT16, int32_data=[1, 2]),
    "text": tensor([2], TensorProto.INT64, string_data=[b"a"]),
}  # fmt: skip
PLACES: dict[str, Callable[[onnx.TensorProto], onnx.ModelProto]] = {
    "initializer": lambda t: model([helper.make_node("Add", ["x", "w"], ["y"])], initializer=[t]),
    "constant": lambda t: model(
        [helper.make_node("Constant", [], ["w"], value=t), helper.make_node("Add", ["x", "w"], ["y"])]
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_holds_what_its_shape_says(name: str, place: str) -> None:
    with pytest.raises(InputError, match="tensor 'w'"):
        load(PLACES[place](TENSORS[name]))


@pytest.mark.parametrize("version", [-(2**63), -1, 0, 1001, 2**31 - 1, 2**63 - 1])
@pytest.mark.parametrize("domain", ["", "f"])
def test_a_version_of_the_operators_that_can_not_be(version: int, domain: str) -> None:
    proto = model(chain(["Relu"]))
    next(o for o in proto.opset_import if o.domain == domain).version = version
    with pytest.raises(InputError, match="version"):
        load(proto)


@pytest.mark.parametrize(("outputs", "said"), [(3, 2), (2, 3), (1, 2), (2, 1), (2, 0), (2, -1), (2, 2**62)])
def test_a_split_has_as_many_outputs_as_it_says(outputs: int, said: int) -> None:
    names = [f"s{i}" for i in range(outputs)]
    split = helper.make_node("Split", ["x"], names, axis=1, num_outputs=said, name="split")
    with pytest.raises(InputError, match="Split"):
        load(model([split, helper.make_node("Concat", names, ["y"], axis=1)]))
