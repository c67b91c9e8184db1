"""Programs and shared libraries for 64-bit Arm under qemu-aarch64 equal the host's kernels, bit for bit."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from ahead import kernels_for, one_layer, split, stack_used, tight_header
from layer_cases import Layers, layers
from test_codegen import equal
from test_float_layers import Layers as FloatLayers
from test_float_layers import all_layers as float_layers
from test_float_layers import real

from edgecompress.compress.quantize import quantize
from edgecompress.emit.pack import plan as lowered
from edgecompress.evaluate.dataset import load_data
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
from edgecompress.targets import load_target
from edgecompress_runtime.building.ahead_of_time import Compiled, compile_plan
from edgecompress_runtime.families.table import FAMILIES
from edgecompress_runtime.llvm.cross import Machine
from edgecompress_runtime.plan import Plan
from edgecompress_targets.aarch64.emulator import QEMU, emulator_of
from edgecompress_targets.connection.driver import DeviceError
from edgecompress_targets.linux.platform import AARCH64 as AARCH64_LINUX
from emulators import AARCH64

pytestmark = AARCH64
CALLER = """#include <stdio.h>
#include "model.h"
static int8_t a[MODEL_ARENA_BYTES] __attribute__((aligned(16))), i[MODEL_INPUT_BYTES], o[MODEL_OUTPUT_BYTES];
int main(void) {
    fread(i, 1, sizeof i, stdin);
    MODEL_INVOKE(a, i, o);
    return fwrite(o, 1, sizeof o, stdout) != sizeof o;
}
"""


def built(plan: Plan, folder: Path, target: str = "raspberry-pi", *, coded: bool = True) -> Compiled:
    """libmodel.so, model_run and model.h in a folder."""
    profile = load_target(target)
    compiled = compile_plan(plan, "model", Machine(profile.triple, profile.cpu, profile.features), coded=coded)
    model_h = tight_header(compiled.program)
    for name, content in AARCH64_LINUX.images("model", compiled.object, model_h, profile).items():
        (folder / name).write_bytes(content)
    (folder / "model_run").chmod(0o755)
    (folder / "model.h").write_text(model_h)
    return compiled


def feeds_of(plan: Plan, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [
        (random.normal(0, 1, t.shape) if t.dtype.kind == "f" else random.integers(-128, 128, t.shape)).astype(t.dtype)
        for t in (plan.tensors[i] for i in plan.inputs)
    ]


def run(plan: Plan, folder: Path, records: list[list[np.ndarray]], target: str = "raspberry-pi") -> None:
    stream = b"".join(a.tobytes() for record in records for a in record)
    done = emulator_of(load_target(target)).run(folder / "model_run", stream)
    for record, outputs in zip(records, split(plan, done.outputs), strict=True):
        equal(plan, record, outputs)


@pytest.mark.parametrize(
    "target, family", [("raspberry-pi", "neon"), ("android", "neon"), ("raspberry-pi-5", "neon_dot")]
)
def test_layers_equal_the_hosts_kernels(target: str, family: str, tmp_path: Path) -> None:
    made = layers("blocks", "wide", "pairs", seed=2)
    plan = made.plan()
    built(plan, tmp_path, target)
    kernels = {
        f"{family}_convolution",
        f"{family}_dense",
        "neon_depthwise_16",
        "neon_depthwise_8",
        "neon_sums",
        "neon_products",
    }
    assert kernels <= kernels_for(plan, FAMILIES[family])
    run(plan, tmp_path, [made.feeds(), made.feeds()], target)


def test_float_layers_equal_the_hosts_kernels(tmp_path: Path) -> None:
    plan = float_layers().plan()
    built(plan, tmp_path)
    assert all("float" in name for name in kernels_for(plan, FAMILIES["neon"]))
    run(plan, tmp_path, [feeds_of(plan, seed) for seed in range(2)])


@pytest.mark.long
def test_channels_of_unlike_sizes_equal_the_hosts_kernels(tmp_path: Path) -> None:
    made = layers("unlike", seed=2)
    built(made.plan(), tmp_path)
    run(made.plan(), tmp_path, [made.feeds(), made.feeds()])


@pytest.mark.long
@pytest.mark.parametrize("target, family", [("raspberry-pi", "neon"), ("raspberry-pi-5", "neon_dot")])
def test_zeros_are_skipped_and_outputs_equal_the_hosts_kernels(target: str, family: str, tmp_path: Path) -> None:
    made = layers("skipping wide", seed=4)
    plan = made.plan()
    built(plan, tmp_path, target)
    kinds = {f"{family}_skipping_{kind}" for kind in ("strip_4", "strip_2", "strip_1", "rows_4", "rows_1")}
    assert kinds <= kernels_for(plan, FAMILIES[family])
    run(plan, tmp_path, [made.feeds(), made.feeds()], target)


@pytest.mark.long
@pytest.mark.parametrize("name", ["residual", "inverted_residual", "channel_shuffle", "unet_bilinear"])
def test_networks_with_float_ends_equal_the_hosts_kernels(
    name: str, tmp_path: Path, exported: Callable[[str], Path]
) -> None:
    random = np.random.default_rng(0)
    model = load(exported(name)).model
    samples = {v.name: random.normal(0, 1, (8, *v.shape.numpy()[1:])).astype(np.float32) for v in model.graph.inputs}
    data = load_data(samples, model.graph.inputs, Preprocess())
    plan = lowered(quantize(model, data, Quantize()).model, io_dtype=ir.DataType.FLOAT)
    built(plan, tmp_path)
    run(plan, tmp_path, [feeds_of(plan, seed) for seed in range(3)])


def test_a_program_loads_the_shared_library(tmp_path: Path) -> None:
    made = layers("blocks", seed=5)
    plan, feeds = made.plan(), made.feeds()
    built(plan, tmp_path)
    symbols = subprocess.run(
        ["aarch64-linux-gnu-nm", "-D", tmp_path / "libmodel.so"], capture_output=True, text=True, check=True
    )
    assert [line.split()[1:] for line in symbols.stdout.splitlines()] == [["T", "model_invoke"]]
    (tmp_path / "caller.c").write_text(CALLER)
    subprocess.run(
        ["aarch64-linux-gnu-gcc", "caller.c", "-I.", "-L.", "-lmodel", "-Wl,-rpath,$ORIGIN", "-o", "caller"],
        cwd=tmp_path,
        check=True,
    )
    command = [QEMU, "-cpu", "max", "-L", "/usr/aarch64-linux-gnu", tmp_path / "caller"]
    done = subprocess.run(command, input=b"".join(a.tobytes() for a in feeds), capture_output=True, check=True)
    equal(plan, feeds, split(plan, done.stdout)[0])


def test_stack_is_what_a_run_uses(tmp_path: Path) -> None:
    """All but the caller's frame."""
    compiled = built(one_layer(), tmp_path)
    assert compiled.stack is not None
    assert abs(stack_used(compiled, AARCH64_LINUX.compiler, tmp_path, QEMU) - compiled.stack) < 64


def test_instructions_are_counted_and_neon_needs_fewer(tmp_path: Path) -> None:
    """Of a 1x1 convolution of 64 to 64 channels: 16 products an instruction with a dot product, 16 in three without."""
    made, counts = Layers(0), {}
    made.convolution((8, 8, 64), 64, (1, 1))
    record = made.feeds()[0].tobytes()
    for target in ("raspberry-pi", "raspberry-pi-5"):
        built(made.plan(), tmp_path, target)
        counts[target] = emulator_of(load_target(target)).instructions(tmp_path / "model_run", record)
    macs = 8 * 8 * 64 * 64
    assert 3 * macs / 16 < counts["raspberry-pi"] < 0.35 * macs and macs / 16 < counts["raspberry-pi-5"] < 0.2 * macs


def test_instructions_of_a_float_layer(tmp_path: Path) -> None:
    """A 3x3 convolution of 32 to 32 channels: 4 products in a multiplication and an addition, and their loads."""
    layers = FloatLayers()
    w = real(32, 3, 3, 32, random=np.random.default_rng(0))
    layers.add("CONV_2D", [real(1, 12, 12, 32), w], real(1, 12, 12, 32), padding=0, strideH=1, strideW=1)
    plan, macs = layers.plan(), 12 * 12 * 32 * 9 * 32
    built(plan, tmp_path)
    record = feeds_of(plan, 0)[0].tobytes()
    count = emulator_of(load_target("raspberry-pi")).instructions(tmp_path / "model_run", record)
    assert macs / 2 < count < 0.8 * macs


def test_the_program_says_what_is_wrong_with_its_files(tmp_path: Path) -> None:
    made = layers("blocks", seed=0)
    plan = made.plan()
    built(plan, tmp_path)
    with pytest.raises(DeviceError, match=r"code 65: .*its last record has 3 bytes"):
        emulator_of(load_target("raspberry-pi")).run(tmp_path / "model_run", b"abc")
    done = subprocess.run([QEMU, tmp_path / "model_run"], capture_output=True, text=True)
    assert done.returncode == 64 and "INPUTS OUTPUTS" in done.stderr
