"""Programs and shared libraries for x86 equal the host's kernels, bit for bit, on this machine where it has the CPU."""

from __future__ import annotations

import ctypes
import mmap
import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ahead import one_layer, split, stack_used
from layer_cases import Layers, layers
from test_codegen import equal

from edgecompress.targets import load_target
from edgecompress_runtime.building.ahead_of_time import Compiled, compile_plan
from edgecompress_runtime.building.c_header import bench_header
from edgecompress_runtime.families.x86.variants import available, variant_for
from edgecompress_runtime.llvm.cross import Machine
from edgecompress_runtime.plan import Plan
from edgecompress_targets.linux.platform import X86_64
from emulators import needs

pytestmark = [
    needs(X86_64.compiler),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="runs what it builds for x86 here"),
]
TARGETS = ("linux-x86", "linux-x86-vnni")
NO_ACCESS = 0
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module", params=[pytest.param(TARGETS[0], marks=pytest.mark.long), *TARGETS[1:]])
def target(request: pytest.FixtureRequest) -> str:
    if variant_for(load_target(request.param).features) not in available():
        pytest.skip(f"this CPU is no {request.param}")
    return str(request.param)


def built(plan: Plan, folder: Path, target: str) -> Compiled:
    profile = load_target(target)
    compiled = compile_plan(plan, "model", Machine(profile.triple, profile.cpu, profile.features))
    linked = X86_64.images("model", compiled.object, bench_header(compiled.program), profile)
    for name, content in linked.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o755)
    return compiled


def all_layers() -> Layers:
    """Those of other families, such that most kernels skip zeros, and some of small weights."""
    made = layers("blocks", "wide", seed=2)
    made.convolution((6, 6, 64), 96, (1, 1))
    made.dense(1, 256, 128)
    made.convolution((5, 5, 32), 64, (3, 3))
    for operator in made.operators[-3:]:
        w = made.tensors[operator.inputs[1]].data
        assert w is not None
        w[made.random.random(w.shape) < 0.9] = 0
    made.convolution((5, 6, 9), 18, (3, 3))
    made.limit(-1, 1)
    made.dense(2, 70, 37)
    made.limit(-1, 0, 1)
    made.convolution((4, 5, 16), 20, (1, 1))
    made.limit(-64, 64)
    return made


@pytest.fixture(scope="module")
def every_layer(target: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Layers, Compiled, Path]:
    made, folder = all_layers(), tmp_path_factory.mktemp("x86")
    return made, built(made.plan(), folder, target), folder


def test_layers_equal_the_hosts_kernels(every_layer: tuple[Layers, Compiled, Path], target: str) -> None:
    made, compiled, folder = every_layer
    plan, records = made.plan(), [made.feeds(), made.feeds()]
    records += [[np.full_like(a, end) for a in made.feeds()] for end in (-128, 127)]
    assert compiled.program.family == {"linux-x86": "x86 avx2", "linux-x86-vnni": "x86 avx512_vnni"}[target]
    assert 0 < compiled.text < compiled.flash
    (folder / "i").write_bytes(b"".join(a.tobytes() for record in records for a in record))
    subprocess.run([folder / "model_run", folder / "i", folder / "o"], check=True, capture_output=True)
    for record, outputs in zip(records, split(plan, (folder / "o").read_bytes()), strict=True):
        equal(plan, record, outputs)


def test_stack_is_what_a_run_uses(target: str, tmp_path: Path) -> None:
    """All but the caller's frame, and what aligning one may take."""
    compiled = built(one_layer(), tmp_path, target)
    assert compiled.stack is not None
    assert abs(stack_used(compiled, X86_64.compiler, tmp_path) - compiled.stack) < 128


class Fenced:
    """Memory that ends where access to the next page is refused: a read behind it ends the process."""

    def __init__(self, size: int) -> None:
        whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, whole + mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        refused = libc.mprotect(ctypes.c_void_p(start + whole), mmap.PAGESIZE, NO_ACCESS)
        assert refused == 0, ctypes.get_errno()
        self.address, self._start = start + whole - size, whole - size
        self.array = np.frombuffer(self._map, np.int8, size, self._start)


def test_a_callers_memory_is_all_that_the_shared_library_reads_and_writes(
    every_layer: tuple[Layers, Compiled, Path],
) -> None:
    made, compiled, folder = every_layer
    plan, feeds = made.plan(), made.feeds()
    symbols = subprocess.run(["nm", "-D", "--defined-only", folder / "libmodel.so"], capture_output=True, text=True)
    assert [line.split()[1:] for line in symbols.stdout.splitlines()] == [["T", "model_invoke"]]
    alignment = compiled.program.alignment
    arena = Fenced(-(-compiled.program.layout.size // alignment) * alignment)
    inputs = [Fenced(a.nbytes) for a in feeds]
    outputs = [Fenced(plan.tensors[i].size * plan.tensors[i].dtype.itemsize) for i in plan.outputs]
    for fenced, feed in zip(inputs, feeds):
        fenced.array[:] = feed.reshape(-1).view(np.int8)
    function = ctypes.CDLL(str(folder / "libmodel.so")).model_invoke
    function(*(ctypes.c_void_p(fenced.address) for fenced in (arena, *inputs, *outputs)))
    equal(plan, feeds, split(plan, b"".join(fenced.array.tobytes() for fenced in outputs))[0])
