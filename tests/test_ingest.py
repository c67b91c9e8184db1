"""`load` on every kind of source, against ONNX Runtime or torch on the original."""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from edgecompress.errors import InputError, MissingPackageError, UnsupportedModelError
from edgecompress.ingest import Ingested, load
from edgecompress.ingest.equality import relative_error
from edgecompress.ingest.pt2_archive import EXPRESSION


def small() -> onnx.ModelProto:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[batch,3,8,8] image) => (float[batch,5] scores) '
        "{ c = Conv(image, w) r = Relu(c) f = Flatten(r) p = MatMul(f, k) scores = Add(p, b) }"
    )
    rng = np.random.default_rng(0)
    for name, shape in {"w": (2, 3, 3, 3), "k": (72, 5), "b": (5,)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return proto


def run(model: ir.Model, *inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: x for i, x in zip(session.get_inputs(), inputs)})


def test_a_file_is_read_and_left_alone(tmp_path: Path):
    path = tmp_path / "модель v1:a.onnx"
    path.write_bytes(small().SerializeToString())
    path.chmod(0o444)
    before = path.stat().st_mtime_ns, path.read_bytes()
    found = load(path)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before and list(tmp_path.iterdir()) == [path]
    assert isinstance(found, Ingested)
    assert (found.format, found.path, found.opset) == ("onnx", path, 13)
    assert 0 <= found.max_relative_error <= 1e-5
    assert found.notes == ()
    assert list(found.model.graph.inputs[0].shape) == [1, 3, 8, 8]
    assert [node.op_type for node in found.model.graph] == ["Conv", "Relu", "Reshape", "Gemm"]


def test_objects_are_taken_and_left_alone():
    proto = small()
    data = proto.SerializeToString()
    assert len(list(load(proto).model.graph)) == 4 and proto.SerializeToString() == data
    model = ir.from_proto(proto)
    load(model)
    assert ir.to_proto(model).SerializeToString() == ir.to_proto(ir.from_proto(proto)).SerializeToString()


def test_the_canonical_model_is_valid_and_loads_again_unchanged():
    model = load(small()).model
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    again = load(proto)
    assert [(n.op_type, [v.name for v in n.inputs]) for n in again.model.graph] == [
        (n.op_type, [v.name for v in n.inputs]) for n in model.graph
    ]
    assert again.max_relative_error == 0.0 and again.notes == ()


def test_a_graph_without_a_name_gets_one():
    proto = small()
    proto.graph.name = ""
    assert load(proto).model.graph.name == "model" and proto.graph.name == ""


def test_an_interrupted_onnxruntime_is_no_unreadable_model(monkeypatch: pytest.MonkeyPatch):
    """What an import stopped by Ctrl-C raises from C++, and no InputError."""

    def interrupted(*arguments: object, **options: object) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(onnxruntime, "InferenceSession", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(small())


def test_a_chosen_batch_is_kept():
    found = load(small(), input_shapes={"image": (4, 3, 8, 8)})
    assert found.model.graph.outputs[0].shape == [4, 5] and found.notes == ()


def test_relative_error():
    a = np.array([1.0, -4.0, 0.0])
    assert relative_error(a, a + np.array([0, 0, 0.04])) == pytest.approx(0.01)
    assert relative_error(a, a[:2]) == float("inf")
    assert relative_error(np.array([np.nan, np.inf, 1]), np.array([np.nan, np.inf, 1])) == 0
    assert not relative_error(np.array([1.0]), np.array([np.nan])) <= 1


def test_a_model_that_normalises_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch):
    """The comparison with the original is what catches a defect of any pass."""
    from edgecompress.ingest.passes.gemm import CanonicalGemm

    rewrite = CanonicalGemm.rewrite

    def defective(self, node, edit):
        modified = rewrite(self, node, edit)
        bias = edit.graph.initializers["k/bias"]
        bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(1e-2))
        return modified

    monkeypatch.setattr(CanonicalGemm, "rewrite", defective)
    with pytest.raises(UnsupportedModelError, match=r"'scores' .* differs"):
        load(small())


def test_without_torch_the_message_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "net.py").write_text("def make(): pass")
    for source in ("model.pt2", "model.pt"):
        (tmp_path / source).write_bytes(b"PK")
    for source in ("model.pt2", "model.pt", "net.py:make"):
        with pytest.raises(MissingPackageError, match=r'pip install "edgecompress\[torch\]"'):
            load(str(tmp_path / source))


def test_expressions_of_archives_are_arithmetic():
    for text in ("s0", "2*s0 + Mod(s1, 3)", "Symbol('s31', positive=True, integer=True)", "(s0//2)**2", "-1.5"):
        assert EXPRESSION.fullmatch(text), text
    for text in ("__import__('os')", "exec('a')", "().__class__", "a.b", "Symbol('a').x", "open('f')", "f ('x')"):
        assert not EXPRESSION.fullmatch(text), text


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.py and everything that torch can save of its model."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("torch")
    (folder / "net_width.py").write_text("WIDTH = 4\n")
    (folder / "net.py").write_text(
        "import torch\nfrom net_width import WIDTH\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(3, WIDTH, 3, bias=False)\n"
        "        self.norm = torch.nn.BatchNorm2d(WIDTH)\n"
        "        self.head = torch.nn.Linear(WIDTH, 5)\n"
        "        self.drop = torch.nn.Dropout()\n"
        "    def forward(self, image):\n"
        "        print('a chatty model')\n"
        "        x = torch.relu(self.norm(self.conv(image)))\n"
        "        return self.head(self.drop(x.mean((2, 3))))\n"
        "def make():\n    return Net()\n"
        "def wrong():\n    return 3\n"
        "def fails():\n    raise KeyError('no such layer')\n"
    )
    sys.path.insert(0, str(folder))
    try:
        import net
    finally:
        sys.path.remove(str(folder))
    torch.manual_seed(0)
    module = net.make()
    with torch.no_grad():
        module.norm.running_mean.normal_()
        module.norm.running_var.uniform_(0.5, 2)
    module.eval()
    x = torch.randn(2, 3, 8, 8)
    torch.save(module.state_dict(), folder / "weights.pt")
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, folder / "checkpoint.pt")
    torch.save(module, folder / "pickled.pt")
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(module, (x,), dynamic_shapes=({0: batch},)), folder / "model.pt2")
    torch.jit.trace(module, x).save(folder / "traced.pt")
    torch.jit.script(module).save(folder / "scripted.pt")
    np.savez(folder / "expected.npz", x=x[:1].numpy(), y=module(x[:1]).detach().numpy())
    return folder


SHAPE = {"image": (1, 3, 8, 8)}


@pytest.mark.parametrize(
    ("source", "format_", "options"),
    [
        ("model.pt2", "pt2", {}),
        ("traced.pt", "torchscript", {"input_shapes": SHAPE}),
        ("scripted.pt", "torchscript", {"input_shapes": SHAPE}),
        ("net.py:make", "python", {"input_shapes": SHAPE, "weights": "weights.pt"}),
        ("net.py:make", "python", {"input_shapes": {"x": (1, 3, 8, 8)}, "weights": "checkpoint.pt"}),
    ],
)
def test_torch_sources_agree_with_torch(
    trained: Path, capfd: pytest.CaptureFixture[str], source: str, format_: str, options: dict
):
    if "weights" in options:
        options = options | {"weights": trained / options["weights"]}
    found = load(str(trained / source), **options)
    assert found.format == format_ and found.max_relative_error <= 1e-5
    assert sorted({n.op_type for n in found.model.graph} - {"GlobalAveragePool", "ReduceMean", "Reshape"}) == [
        "Conv",
        "Gemm",
        "Relu",
    ]
    assert found.model.graph.inputs[0].name == next(iter(options.get("input_shapes", SHAPE)))
    expected = np.load(trained / "expected.npz")
    (y,) = run(found.model, expected["x"])
    np.testing.assert_allclose(y, expected["y"], rtol=0, atol=1e-5)
    written = capfd.readouterr()
    assert written.err == "" and "chatty" not in written.out


def test_modules_are_taken_and_keep_their_mode(trained: Path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.Flatten(), torch.nn.Linear(12, 2)).train()
    found = load(module, input_shapes={"tokens": (1, 3)})
    assert module.training and found.model.graph.inputs[0].dtype == ir.DataType.INT64
    tokens = np.array([[6, 0, 3]])
    np.testing.assert_allclose(
        run(found.model, tokens)[0], module(torch.from_numpy(tokens)).detach().numpy(), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("source", "options", "mentions"),
    [
        ("traced.pt", {}, "--input-shape"),
        ("weights.pt", {"input_shapes": SHAPE}, "file.py:factory --weights"),
        ("pickled.pt", {"input_shapes": SHAPE}, "not a TorchScript file; it holds a pickled Python object"),
        ("net.py:make", {"input_shapes": SHAPE, "weights": "traced.pt"}, "it is a TorchScript file"),
        ("net.py:make", {"input_shapes": SHAPE, "weights": "net.py"}, "it is damaged, or another kind of file"),
        ("net.py:make", {}, "--input-shape image:"),
        ("net.py:make", {"input_shapes": {"image": (1, 4, 8, 8)}}, "image:1,4,8,8"),
        ("net.py:make", {"input_shapes": SHAPE, "weights": "pickled.pt"}, "torch.save(model.state_dict(), FILE)"),
        ("net.py:make", {"input_shapes": SHAPE, "weights": "model.pt2"}, "not a file of plain tensors"),
        ("net.py:make", {"input_shapes": SHAPE, "weights": "none.pt"}, "no such file"),
        ("net.py:nothing", {"input_shapes": SHAPE}, "no function 'nothing'"),
        ("net.py:wrong", {"input_shapes": SHAPE}, "returned an int"),
        ("net.py:fails", {"input_shapes": SHAPE}, "KeyError"),
        ("net.py", {}, "net.py:function"),
        ("other.py:make", {}, "no such file"),
        ("model.pt2", {"weights": "weights.pt"}, "file.py:factory"),
        ("model.pt2", {"input_shapes": {"other": (1, 3, 8, 8)}}, "no input 'other'"),
    ],
)
def test_torch_sources_that_are_refused(
    trained: Path, capfd: pytest.CaptureFixture[str], source: str, options: dict, mentions: str
):
    if "weights" in options:
        options = options | {"weights": trained / options["weights"]}
    with pytest.raises(InputError) as caught:
        load(str(trained / source), **options)
    message = str(caught.value)
    assert mentions in message and len(message.splitlines()) == 1
    for torch_says in ("Pytorch", "miniz", "Weights only", "weights_only"):
        assert torch_says not in message
    assert capfd.readouterr().err == ""


def test_weights_of_another_model_are_refused(trained: Path, tmp_path: Path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"w\.pt: doesn't fit the model"):
        load(f"{trained / 'net.py'}:make", weights=tmp_path / "w.pt", input_shapes=SHAPE)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("claims_pickle", [False, True])
def test_nothing_is_unpickled_from_a_pt2_archive(trained: Path, tmp_path: Path, claims_pickle: bool):
    """Whichever member of the archive is replaced by a pickle, the pickle doesn't run."""
    torch = pytest.importorskip("torch")
    trace = tmp_path / "was-here"
    payload = io.BytesIO()
    torch.save(Evil(trace), payload)
    with zipfile.ZipFile(trained / "model.pt2") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    path = tmp_path / "evil.pt2"
    for victim in members:
        for evil in (payload.getvalue(), pickle.dumps(Evil(trace))):
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
                for name, data in members.items():
                    if claims_pickle:
                        data = data.replace(b'"use_pickle": false', b'"use_pickle": true')
                    archive.writestr(name, evil if name == victim else data)
            with contextlib.suppress(InputError):
                load(path)
                assert not claims_pickle
            assert not trace.exists(), victim
    torch.load(io.BytesIO(payload.getvalue()), weights_only=False)
    assert trace.exists()  # the payload does work


@pytest.mark.parametrize("name", ["model.pt2", "traced.pt"])
def test_damaged_torch_files_are_refused(trained: Path, tmp_path: Path, name: str):
    data = (trained / name).read_bytes()
    path = tmp_path / name
    for cut in (0, 10, len(data) // 2, len(data) - 10):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError):
            load(path, input_shapes=SHAPE if name == "traced.pt" else None)
