"""`load` in somebody's process: with few addresses left, threads, forks, and a cache that others can reach."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layer_cases import CASES
from layer_cases import Layers as TableLayers
from test_host import Layers, quantized, weights

from edgecompress_runtime import load
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.families.x86.variants import available
from edgecompress_runtime.loading import code_cache
from edgecompress_runtime.pack import read_pack, write_pack
from edgecompress_runtime.plan import Tensor
from edgecompress_runtime.storage import kept_files, private_folder

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


def layer(depth: int, units: int, seed: int = 0) -> bytes:
    """A fully connected layer, and tanh of a float32, which calls the C library."""
    rng, layers = np.random.default_rng(seed), Layers()
    w, bias = weights((units, depth), 0, rng)
    layers.add("FULLY_CONNECTED", [quantized((1, depth), 0.05, 9), w, bias], quantized((1, units), 0.9, 3))
    real = Tensor("real", (1, 7), np.dtype(np.float32))
    layers.add("TANH", [real], Tensor("tanh", (1, 7), np.dtype(np.float32)))
    return write_pack(layers.plan(), f"layer {seed}", codecs=("raw",))


def inputs_of(pack: bytes, seed: int = 0) -> list[np.ndarray]:
    plan, rng = read_pack(pack).plan(), np.random.default_rng(seed)
    return [rng.normal(0, 9, plan.tensors[i].shape).astype(plan.tensors[i].dtype) for i in plan.inputs]


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A pack of 1 MB, and its code in a cache beside it, for one thread and for two."""
    folder = tmp_path_factory.mktemp("large")
    path = folder / "large.pack"
    path.write_bytes(layer(1000, 1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_CACHE_DIR", str(folder / "cache"))
        for threads in (1, 2):
            model = load(path, threads=threads)
            found = model(*inputs_of(path.read_bytes()))
            for ours, plain in zip(found, Executor(read_pack(path).plan())(*inputs_of(path.read_bytes()))):
                np.testing.assert_allclose(ours, plain, rtol=1e-6)  # tanh is the C library's here
            np.save(folder / "expected.npy", found[0])
            np.savez(folder / "inputs.npz", *inputs_of(path.read_bytes()))
    return path


# Takes 3 GiB of addresses but for some holes near their end, as large libraries do: the system then puts what fits into
# a hole, and the rest below.
CROWDED = """
import ctypes, mmap, sys
from pathlib import Path
import numpy as np
from edgecompress_runtime.loading.model import load
folder, threads, holes = Path(sys.argv[1]), int(sys.argv[2]), [int(kib) << 10 for kib in sys.argv[3:]]
libc, size = ctypes.CDLL(None, use_errno=True), 3 << 30
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
NORESERVE = 0x4000
start = libc.mmap(None, size, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE, -1, 0)
assert start not in (None, ctypes.c_void_p(-1).value), ctypes.get_errno()
end = start + size - (1 << 20)
for hole in holes:
    end -= hole + (64 << 10)
    assert libc.munmap(end, hole) == 0
model = load(folder / "large.pack", threads=threads)
inputs = np.load(folder / "inputs.npz")
found = model(*(inputs[name] for name in inputs.files))
assert model.compile_seconds == 0 and np.array_equal(found[0], np.load(folder / "expected.npy"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MAP_NORESERVE is Linux's")
@pytest.mark.parametrize(
    "holes, threads", [((16,), 1), ((64,), 1), ((512,), 2), ((4, 4, 4), 2), ((1200, 8), 1), ((16, 64, 256, 512), 2)]
)
def test_code_runs_where_free_addresses_lie_far_apart(large: Path, holes: tuple[int, ...], threads: int) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(large.parent / "cache")}
    command = [sys.executable, "-c", CROWDED, large.parent, str(threads), *map(str, holes)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-600:]


BESIDE = """
import sys
if sys.argv[2] == "first":
    import torch
import numpy as np
from edgecompress_runtime.loading.model import load
model = load(sys.argv[1] + "/large.pack", threads=1)
if sys.argv[2] == "then":
    import torch
inputs = np.load(sys.argv[1] + "/inputs.npz")
found = model(*(inputs[name] for name in inputs.files))
assert model.compile_seconds == 0 and np.array_equal(found[0], np.load(sys.argv[1] + "/expected.npy"))
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="no PyTorch")
@pytest.mark.parametrize("when", ["first", pytest.param("then", marks=pytest.mark.long)])
def test_code_runs_beside_pytorch(large: Path, when: str) -> None:
    """Whose default build, where the machine has it, takes gigabytes of addresses for CUDA's libraries."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(large.parent / "cache")}
    command = [sys.executable, "-c", BESIDE, large.parent, when]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-600:]


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MAP_NORESERVE is Linux's")
def test_code_of_10_megabytes_runs_where_free_addresses_lie_far_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "large.pack"
    path.write_bytes(layer(3200, 3200))
    inputs = inputs_of(path.read_bytes())
    np.savez(tmp_path / "inputs.npz", *inputs)
    found = load(path, threads=1)(*inputs)[0]
    assert np.array_equal(found, Executor(read_pack(path).plan())(*inputs)[0])
    np.save(tmp_path / "expected.npy", found)
    done = subprocess.run([sys.executable, "-c", CROWDED, tmp_path, "1", "16", "512"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-600:]


def test_more_constants_than_instructions_reach_run_kernel_by_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("edgecompress_runtime.loading.compile_for_host.REACH", 99)
    pack = layer(12, 10)
    assert np.array_equal(load(pack)(*inputs_of(pack))[0], Executor(read_pack(pack).plan())(*inputs_of(pack))[0])
    assert not list(tmp_path.rglob("*.native"))


FIRST_CALLS = """
import sys, threading
import numpy as np
from edgecompress_runtime import load
loaded = [load(path) for path in sys.argv[2:]]
models = loaded * (int(sys.argv[1]) // len(loaded))
feeds = [[np.full(t.shape, 3, t.dtype) for t in model.inputs] for model in models]
together, results = threading.Barrier(len(models)), {}
def call(n):
    together.wait()
    results[n] = models[n](*feeds[n])
threads = [threading.Thread(target=call, args=(n,)) for n in range(len(models))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(results) == len(models), results
for n, model in enumerate(models):
    assert all(np.array_equal(a, b) for a, b in zip(results[n], model(*feeds[n])))
"""


@pytest.mark.parametrize(
    ("packs", "threads"),
    [(1, 2), (1, 12), (2, 6), pytest.param(3, 6, marks=pytest.mark.long), pytest.param(4, 8, marks=pytest.mark.long)],
)
def test_threads_that_make_the_first_call_together(packs: int, threads: int, tmp_path: Path) -> None:
    """Of one model, and of several."""
    paths = [tmp_path / f"{seed}.pack" for seed in range(packs)]
    for seed, path in enumerate(paths):
        path.write_bytes(layer(30, 20 + seed, seed))
    command = [sys.executable, "-c", FIRST_CALLS, str(threads), *map(str, paths)]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0 and not done.stderr, done.stderr[-600:]


FORKS = """
import os, signal, sys, threading, time
import numpy as np
from edgecompress_runtime import load
new, old = load(sys.argv[1]), load(sys.argv[2], threads=int(sys.argv[3]))
feeds = [np.full(t.shape, 3, t.dtype) for t in old.inputs]
expected = old(*feeds)[0]
stopped = threading.Event()
def infer():
    while not stopped.is_set():
        old(*feeds)
others = [threading.Thread(target=infer), threading.Thread(target=lambda: new(*(feeds[0][:, :30], feeds[1])))]
for other in others:
    other.start()
children = []
for _ in range(12):  # while one thread compiles, and another is within an inference
    child = os.fork()
    if child == 0:
        signal.alarm(240)
        for model, given in ((old, feeds), (new, (feeds[0][:, :30], feeds[1]))):
            found = model(*given)
        os._exit(0 if np.array_equal(old(*feeds)[0], expected) else 1)
    children.append(child)
    time.sleep(0.01)
codes = [os.waitpid(child, 0)[1] for child in children]
stopped.set()
for other in others:
    other.join()
print(codes)
sys.exit(any(codes))
"""


@forks
@pytest.mark.parametrize(
    "threads",
    [
        1,
        2,
        pytest.param(3, marks=pytest.mark.long),
        pytest.param(4, marks=pytest.mark.long),
        pytest.param(8, marks=pytest.mark.long),
    ],
)
def test_forks_while_other_threads_compile_and_infer(large: Path, tmp_path: Path, threads: int) -> None:
    (tmp_path / "new.pack").write_bytes(layer(30, 20, 2 + threads))
    command = [sys.executable, "-W", "ignore", "-c", FORKS, tmp_path / "new.pack", large, str(threads)]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(large.parent / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr[-600:]


# ---- the cache ----


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, bytes]:
    """Two packs, whose code is in the cache."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    packs = layer(30, 20), layer(31, 21, 1)
    for pack in packs:
        path = place(pack)
        code_cache.write(path, code_cache.Artifact(b"code of " + pack[:64], 64, (), ()))
        assert code_cache.read(path) is not None
    return packs


def place(pack: bytes) -> Path:
    path = code_cache.place(pack, available()[0].name)
    assert path is not None
    return path


def swapped(ours: Path, other: Path) -> None:
    ours.write_bytes(other.read_bytes())


def link(ours: Path, other: Path) -> None:
    ours.unlink()
    ours.symlink_to(other)


def flipped(ours: Path, _: Path) -> None:
    data = bytearray(ours.read_bytes())
    data[-1] ^= 1
    ours.write_bytes(data)


def cut(ours: Path, _: Path) -> None:
    ours.write_bytes(ours.read_bytes()[:20])


def emptied(ours: Path, _: Path) -> None:
    ours.write_bytes(b"")


def new_key(ours: Path, _: Path) -> None:
    """As a file of somebody who does not know the key."""
    (ours.parent / "key").write_bytes(bytes(kept_files.KEY))


def short_key(ours: Path, _: Path) -> None:
    (ours.parent / "key").write_bytes(b"short")


@pytest.mark.parametrize("tamper", [swapped, link, flipped, cut, emptied, new_key, short_key])
def test_code_that_is_not_this_packs_is_not_loaded(
    kept: tuple[bytes, bytes], tamper: Callable[[Path, Path], None]
) -> None:
    ours, other = map(place, kept)
    tamper(ours, other)
    assert code_cache.read(ours) is None
    again = code_cache.Artifact(b"compiled again", 64, (), ())
    code_cache.write(ours, again)
    found = code_cache.read(ours)
    assert found is not None and found.code == again.code


def test_the_cache_is_this_users_alone(kept: tuple[bytes, bytes]) -> None:
    folder = place(kept[0]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())
    folder.chmod(0o777)
    assert stat.S_IMODE(place(kept[0]).parent.stat().st_mode) == 0o700


def linked_folder(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")


def dangling_link(folder: Path) -> None:
    folder.symlink_to(folder.parent / "nothing")


def file_in_the_way(folder: Path) -> None:
    folder.touch()


@pytest.mark.parametrize("prepare", [linked_folder, dangling_link, file_in_the_way])
@pytest.mark.parametrize("below", [(), ("devices",)])
def test_a_folder_that_somebody_prepared_is_refused(
    tmp_path: Path, prepare: Callable[[Path], None], below: tuple[str, ...]
) -> None:
    prepare(tmp_path / "edgecompress-1000")
    with pytest.raises(private_folder.NotPrivateError, match=str(tmp_path / "edgecompress-1000")):
        private_folder.private(tmp_path, "edgecompress-1000", *below)


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    with pytest.raises(private_folder.NotPrivateError, match=r"belongs to user \d+, not to \d+: remove it"):
        private_folder.private(tmp_path, "mine")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    assert code_cache.place(b"", "generic") is None
    pack = layer(5, 3)
    assert np.array_equal(load(pack)(*inputs_of(pack))[0], Executor(read_pack(pack).plan())(*inputs_of(pack))[0])
    assert not list(tmp_path.rglob("*.native"))


def test_a_model_says_which_layers_have_ordinary_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its code comes from the disk."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    made = TableLayers(0)
    CASES["blocks"]["depthwise, two outputs a channel"](made)
    pack = write_pack(made.plan(), "model")
    for _ in range(2):
        model = load(pack)
        model(*made.feeds())
        (line,) = model.ordinary_layers
        assert line.endswith("several outputs a channel (100.0 %)")
    assert model.compile_seconds == 0
