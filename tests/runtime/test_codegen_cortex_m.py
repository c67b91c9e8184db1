"""Firmware on QEMU's boards equals LiteRT's reference kernels and the host's, bit for bit."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from ahead import kernels_for, on_board, split
from layer_cases import Layers, layers
from lite import yardstick
from test_codegen import DIGITS, equal

from edgecompress.compress.quantize import quantize
from edgecompress.emit import tflite
from edgecompress.emit.pack import plan as lowered
from edgecompress.evaluate.dataset import load_data
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
from edgecompress.targets import load_target
from edgecompress_runtime.building.ahead_of_time import compile_plan
from edgecompress_runtime.building.c_header import bench_header
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.families.table import family_of
from edgecompress_runtime.llvm.cross import Machine
from edgecompress_runtime.options import SoftmaxOptions
from edgecompress_runtime.plan import Operator, Plan, Tensor
from edgecompress_targets.cortex_m import emulator, toolchain
from edgecompress_targets.cortex_m.boards import BOARDS
from edgecompress_targets.cortex_m.firmware_image import link
from edgecompress_targets.cortex_m.toolchain import GNU, ZIG
from edgecompress_targets.tools import MissingToolError
from emulators import CORTEX_M

pytestmark = CORTEX_M


@pytest.fixture(scope="module")
def quantized() -> ir.Model:
    model = load(DIGITS / "digits.onnx").model
    data = load_data(str(DIGITS / "train.npz"), model.graph.inputs, Preprocess())
    return quantize(model, data, Quantize(), integer_only=True).model


@pytest.mark.parametrize("cpu", ["cortex-m0", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"])
def test_digits_equal_tflm(cpu: str, quantized: ir.Model, tmp_path: Path) -> None:
    plan = lowered(quantized, io_dtype=ir.DataType.INT8)
    x = plan.tensors[plan.inputs[0]]
    with np.load(DIGITS / "test.npz") as data:
        images = data[data.files[0]][:20]
    stored = np.clip(np.round(images / x.scale[0]) + x.zero, -128, 127).astype(np.int8)
    records = [image.reshape(x.shape) for image in stored]
    outputs, run = on_board(cpu, plan, [[r] for r in records], tmp_path / "digits.elf")
    data = tflite.emit(quantized, io_dtype=ir.DataType.INT8).data
    expected = [yardstick(data, [record])[0] for record in records]
    assert all(np.array_equal(y, e) for (y,), e in zip(outputs, expected, strict=True))
    assert len({e.tobytes() for e in expected}) > 10, "the images should differ"
    assert 0 < run.instructions < 5_000_000 and 0 < run.stack < 1024


@pytest.mark.parametrize(
    ("cpu", "groups"),
    [
        ("cortex-m0", ("blocks", "pairs")),
        ("cortex-m4", ("blocks", "matrices", "pairs", "moves")),
        ("cortex-m55", ("blocks", "matrices", "pairs", "windows", "moves")),
        ("cortex-m4", ("exact", "arithmetic")),
        *(pytest.param(cpu, ("unlike",), marks=pytest.mark.long) for cpu in ("cortex-m0", "cortex-m33")),
        pytest.param("cortex-m55", ("unlike", "padded", "upscaled"), marks=pytest.mark.long),
        *(pytest.param(cpu, ("gated",), marks=pytest.mark.long) for cpu in ("cortex-m0", "cortex-m4")),
        ("cortex-m0", ("int16",)),
        pytest.param("cortex-m55", ("int16",), marks=pytest.mark.long),
    ],
)
def test_layers_equal_the_hosts_kernels(cpu: str, groups: tuple[str, ...], tmp_path: Path) -> None:
    made = layers(*groups, seed=2)
    plan, feeds = made.plan(), made.feeds()
    (outputs,), _ = on_board(cpu, plan, [feeds], tmp_path / "layers.elf")
    equal(plan, feeds, outputs, tolerance=2e-6)


@pytest.mark.long
@pytest.mark.parametrize("cpu", ["cortex-m0", "cortex-m4", "cortex-m55"])
def test_clustered_layers_stay_coded_in_flash_and_equal_the_hosts_kernels(cpu: str, tmp_path: Path) -> None:
    made = layers("clustered", seed=2)
    plan, feeds = made.plan(), made.feeds()
    (outputs,), run = on_board(cpu, plan, [feeds], tmp_path / "layers.elf")
    equal(plan, feeds, outputs)
    profile = load_target(cpu)
    machine = Machine(profile.triple, profile.cpu, profile.features)
    small, large = (compile_plan(plan, "model", machine, coded=coded) for coded in (True, False))
    weights = sum(t.data.size for t in plan.tensors if t.data is not None and t.is_int8)
    assert small.flash < large.flash - weights // 4 and large.program.saved == 0
    assert small.stack is not None and small.stack <= run.stack < small.stack + 200


@pytest.mark.long
@pytest.mark.parametrize(
    ("cpu", "kernels"),
    [("cortex-m0", {"plain"}), ("cortex-m4", {"dsp", "dsp_four"}), ("cortex-m55", {"helium", "helium_picked"})],
)
def test_zeros_are_skipped_and_outputs_equal_the_hosts_kernels(cpu: str, kernels: set[str], tmp_path: Path) -> None:
    made = layers("skipping", seed=3)
    plan, feeds = made.plan(), made.feeds()
    (outputs,), run = on_board(cpu, plan, [feeds], tmp_path / "layers.elf")
    equal(plan, feeds, outputs)
    assert {k.split("_skipping_")[0] for k in kernels_on(cpu, plan) if "_skipping_" in k} == kernels
    if cpu != "cortex-m4":
        return
    for tensor in plan.tensors:  # as many weights, none of them zero
        if tensor.data is not None and tensor.is_int8:
            tensor.data[tensor.data == 0] = 1
    _, dense = on_board(cpu, plan, [feeds], tmp_path / "dense.elf")
    assert (
        not any("skipping" in kernel for kernel in kernels_on(cpu, plan))
        and run.instructions < 0.7 * dense.instructions
    )


@pytest.mark.parametrize(
    ("cpu", "group", "kernels"),
    [
        ("cortex-m4", "ternary", {"ternary_tables_4", "ternary_tables_1"}),
        pytest.param("cortex-m4", "binary", {"binary_tables_4", "binary_tables_1"}, marks=pytest.mark.long),
        pytest.param("cortex-m0", "binary", {"binary_tables_4", "binary_tables_1"}, marks=pytest.mark.long),
        pytest.param("cortex-m0", "ternary", {"ternary_tables_4", "ternary_tables_1"}, marks=pytest.mark.long),
        pytest.param(
            "cortex-m55", "binary", {"helium_convolution_binary", "helium_dense_binary"}, marks=pytest.mark.long
        ),
        pytest.param("cortex-m55", "ternary", {"helium_convolution_ternary"}, marks=pytest.mark.long),
    ],
)
def test_layers_of_few_values_equal_the_hosts_kernels(cpu: str, group: str, kernels: set[str], tmp_path: Path) -> None:
    made = layers(group, seed=4)
    plan, feeds = made.plan(), made.feeds()
    (outputs,), run = on_board(cpu, plan, [feeds], tmp_path / "layers.elf")
    equal(plan, feeds, outputs)
    assert kernels <= kernels_on(cpu, plan)
    assert 0 < run.stack < 1024


def test_floats_behind_bytes_in_a_record_are_aligned_for_the_model(tmp_path: Path) -> None:
    scale, zero = np.float32([0.05]), np.int32([-3])
    kinds = {
        "a": ((1, 3), np.int8),
        "x": ((1, 5), np.float32),
        "d": ((1, 3), np.float32),
        "s": ((1, 5), np.float32),
        "r": ((1, 3), np.int8),
    }
    tensors = [
        Tensor(name, shape, np.dtype(kind), *((scale, zero) if kind is np.int8 else ()))
        for name, (shape, kind) in kinds.items()
    ]
    operators = [
        Operator("DEQUANTIZE", (0,), (2,)),
        Operator("QUANTIZE", (2,), (4,)),
        Operator("SOFTMAX", (1,), (3,), SoftmaxOptions(1.0)),
    ]
    plan = Plan(tuple(tensors), tuple(operators), (0, 1), (4, 3))
    feeds = [np.int8([[1, 2, 3]]), np.float32([[1, 2, 3, 4, 5]])]
    ((stored, real),), _ = on_board("cortex-m4", plan, [feeds], tmp_path / "model.elf")
    expected = Executor(plan)(*feeds)
    assert np.array_equal(stored, expected[0]) and np.allclose(real, expected[1], rtol=1e-5)


def kernels_on(cpu: str, plan: Plan) -> set[str]:
    profile = load_target(cpu)
    return kernels_for(plan, family_of(profile.triple, profile.features))


@pytest.mark.parametrize(
    ("cpu", "soft"),
    [("cortex-m0", True), ("cortex-m4", False), ("cortex-m4", True), ("cortex-m7", False), ("cortex-m55", False)],
)
def test_float_layers_need_no_c_library(cpu: str, soft: bool, tmp_path: Path) -> None:
    made = layers("real", seed=0)
    plan, feeds = made.plan(), made.feeds()
    (outputs,), run = on_board(cpu, plan, [feeds], tmp_path / "floats.elf", soft=soft)
    equal(plan, feeds, outputs, tolerance=2e-6)
    assert 0 < run.stack < 1024


@pytest.mark.long
@pytest.mark.skipif(find_spec("ziglang") is None, reason="not installed: ziglang (pip install ziglang)")
@pytest.mark.parametrize("cpu", ["cortex-m0", "cortex-m4"])
def test_zig_links_firmware_that_gives_the_same(cpu: str, tmp_path: Path) -> None:
    made = Layers(5, values=9)
    made.convolution((6, 6, 8), 12, (3, 3))
    plan, feeds = made.plan(), made.feeds()
    profile, board = load_target(cpu), BOARDS[cpu]
    compiled = compile_plan(plan, "model", Machine(profile.triple, profile.cpu, profile.features))
    hard = profile.triple.endswith("hf")
    elf = tmp_path / "model.elf"
    link(compiled.object, bench_header(compiled.program), board, cpu=cpu, hard_float=hard, to=elf, toolchain=ZIG)
    run = emulator.run(elf, feeds[0].tobytes(), board)
    equal(plan, feeds, split(plan, run.outputs)[0])
    images = []
    for tools in (ZIG, GNU):
        tools.copy(elf, "bin")
        images.append(elf.with_suffix(".bin").read_bytes())
    assert images[0] == images[1] and len(images[0]) > compiled.flash


def test_without_any_linker_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program: None)
    monkeypatch.setattr(toolchain, "find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match=r"apt install gcc-arm-none-eabi; anywhere: pip install ziglang"):
        toolchain.installed()
    monkeypatch.setattr(toolchain, "find_spec", lambda name: object())
    assert toolchain.installed() is ZIG


LOOP = """#include <stdint.h>
#define MODEL_ARENA_BYTES 16
#define MODEL_INPUT_BYTES 4
#define MODEL_OUTPUT_BYTES 4
#define MODEL_DIGEST {0}
#define MODEL_INVOKE(a, i, o) { uint32_t n = *(uint32_t *)(i); \\
    __asm__ volatile(".syntax unified\\n1: subs %0, #1\\n bne 1b" : "+l"(n) : : "cc"); }
"""


@pytest.mark.long
@pytest.mark.parametrize("cpu", ["cortex-m0", "cortex-m33"])
def test_instructions_are_counted_to_a_tick_and_beyond_systicks_24_bits(cpu: str, tmp_path: Path) -> None:
    """A loop of two instructions, in place of a model."""
    (tmp_path / "nothing.c").touch()
    machine = "-mthumb", f"-mcpu={cpu}", "-mfloat-abi=soft"
    subprocess.run(["arm-none-eabi-gcc", *machine, "-c", "nothing.c"], cwd=tmp_path, check=True)
    link((tmp_path / "nothing.o").read_bytes(), LOOP, BOARDS[cpu], cpu=cpu, hard_float=False, to=tmp_path / "loop.elf")
    rounds = [1_000, 1_000_000, 500_000_000]
    run = emulator.run(tmp_path / "loop.elf", np.array(rounds, "<u4").tobytes(), BOARDS[cpu])
    tick = BOARDS[cpu].instructions_per_tick
    assert all(abs(count - 2 * n) <= 2 * tick for count, n in zip(run.counts, rounds, strict=True)), run.counts
