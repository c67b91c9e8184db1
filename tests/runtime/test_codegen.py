"""Compiled programs without QEMU or a C toolchain: run here by LLVM's JIT, or looked into as objects."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from ahead import compiled_here, here, kernels_for
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import BLOCKS, CASES, OF_ALL_KINDS, UNLIKE, Layers, layers, unlike

from edgecompress.cli.build import command
from edgecompress.compress.quantize import quantize
from edgecompress.devices.firmware import build
from edgecompress.emit.pack import plan as lowered
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import load_data
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
from edgecompress.targets import all_targets, load_target
from edgecompress_runtime.building.ahead_of_time import compile_plan
from edgecompress_runtime.building.c_identifier import identifier
from edgecompress_runtime.building.stack_use import stack_bytes
from edgecompress_runtime.codegen.llvm_writer import llvm_program
from edgecompress_runtime.codegen.ordinary_layers import summary
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.families.aarch64.skipping_neon import PLACES, entries
from edgecompress_runtime.families.shared.coding import coded
from edgecompress_runtime.families.shared.decoding import TO_BYTES, TO_HALVES
from edgecompress_runtime.families.shared.skipping import gathered, neighbours
from edgecompress_runtime.families.table import FAMILIES
from edgecompress_runtime.llvm.cross import Machine
from edgecompress_runtime.pack import read_pack, write_pack
from edgecompress_runtime.plan import Plan, Tensor

DIGITS = Path(__file__).resolve().parents[2] / "samples" / "digits"


def equal(plan: Plan, feeds: list[np.ndarray], outputs: list[np.ndarray], tolerance: float = 0.0) -> None:
    """Bit for bit what the host's ordinary kernels give; tolerance: of float32 where it may differ, relative to 1 or
    more."""
    writers = {i: o.kind for o in plan.operators for i in o.outputs}
    for index, ours, theirs in zip(plan.outputs, outputs, Executor(plan)(*feeds)):
        name = f"{plan.tensors[index].name} of {writers.get(index)}"
        if tolerance and ours.dtype == np.float32:
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=name)
        else:
            assert np.array_equal(ours, theirs), f"{name}: {int((ours != theirs).sum())} differ"


@pytest.fixture(scope="module")
def digits() -> Plan:
    model = load(DIGITS / "digits.onnx").model
    data = load_data(str(DIGITS / "train.npz"), model.graph.inputs, Preprocess())
    return lowered(quantize(model, data, Quantize(), integer_only=True).model, io_dtype=ir.DataType.INT8)


@pytest.mark.parametrize(
    "groups",
    [
        ("blocks",),
        *(pytest.param(g, marks=pytest.mark.long) for g in (("exact", "real", "arithmetic"), ("int16", "int16 real"))),
    ],
)
def test_layers_equal_the_ordinary_kernels(groups: tuple[str, ...]) -> None:
    made = layers(*groups, seed=0)
    plan, feeds = made.plan(), made.feeds()
    equal(plan, feeds, here(plan, feeds), tolerance=2e-6)


def test_clustered_layers_keep_their_codes_and_equal_the_ordinary_kernels() -> None:
    made = layers("clustered", seed=0)
    plan, feeds = made.plan(), made.feeds()
    steps = [
        s
        for o in plan.operators
        for s in FAMILIES["generic"].steps(
            o.kind, [plan.tensors[i] for i in o.inputs], [plan.tensors[i] for i in o.outputs], o.options
        )
    ]
    assert all(step.saved > 0 for step in steps), [step.kernel.__name__ for step in steps]
    equal(plan, feeds, here(plan, feeds))


@pytest.mark.parametrize("family", ["generic", pytest.param("v6m", marks=pytest.mark.long)])
def test_closed_channels_are_left_out_and_all_outputs_equal_the_ordinary_kernels(family: str) -> None:
    made = layers("gated", seed=0)
    plan, feeds = made.plan(), made.feeds()
    kinds = Counter(operator.kind for operator in llvm_program(plan, "model", FAMILIES[family]).steps)
    assert "MUL" not in kinds and "GATHER" not in kinds and kinds["TABLE"] == len(CASES["gated"])
    equal(plan, feeds, here(plan, feeds, family))


@pytest.mark.parametrize("size", UNLIKE)
def test_no_channel_keeps_a_layer_from_its_fast_kernel(size: str) -> None:
    """Those that no fast kernel holds are computed apart from the others."""
    for kind in OF_ALL_KINDS:
        made = Layers(0)
        unlike(kind, size, size, size)(made)
        (o,) = made.operators
        ends = [made.tensors[i] for i in o.inputs], [made.tensors[i] for i in o.outputs]
        for family in FAMILIES.values():
            first, *others = family.steps(o.kind, *ends, o.options)
            assert "edgecompress_runtime.families" in first.kernel.__module__, (family.name, kind)
            apart = [step.arguments[4][1][0] for step in others]
            assert sum(apart) <= (3 if size == "large" else 0), (family.name, kind)


def test_a_program_says_which_layers_have_ordinary_kernels_and_why() -> None:
    made = Layers(0)
    for name in ("1x1", "dilated columns"):
        CASES["blocks"][name](made)
    CASES["unlike"]["1x1, apart"](made)
    dilated, apart = llvm_program(made.plan(), "model", FAMILIES["dsp"]).ordinary
    counts = 4 * 5 * 16 * 6, 6 * 9 * 4 * 2 * 3 * 4, 4 * 5 * 16 * 22
    assert dilated.reason == "columns of the window are dilated" and dilated.share == counts[1] / sum(counts)
    assert apart.reason.startswith("1 of 22 channels") and apart.share == pytest.approx(counts[2] / 22 / sum(counts))
    assert re.fullmatch(r"38\.9 % of the multiplications .*CONV_2D t\d+: columns.*", summary([dilated, apart]))


@pytest.mark.parametrize("name", BLOCKS)
def test_each_layer_with_an_ordinary_kernel_has_a_reason(name: str) -> None:
    made = Layers(0)
    BLOCKS[name](made)
    for layer in llvm_program(made.plan(), "model", FAMILIES["helium"]).ordinary:
        assert "factors or sums" not in layer.reason, layer


def test_channels_of_unlike_sizes_equal_the_ordinary_kernels() -> None:
    made = layers("unlike", seed=0)
    plan, feeds = made.plan(), made.feeds()
    equal(plan, feeds, here(plan, feeds))


def test_layers_read_past_an_image_without_a_padded_copy() -> None:
    made = layers("padded", seed=0)
    plan, feeds = made.plan(), made.feeds()
    assert "PAD" not in {o.kind for o in llvm_program(plan, "model", FAMILIES["generic"]).steps}
    equal(plan, feeds, here(plan, feeds))


def test_a_padded_copy_stays_where_others_need_it() -> None:
    """An operator that is no convolution reads it, the caller wants it, or windows lie in front of the image."""

    def kinds(plan: Plan) -> set[str]:
        return {o.kind for o in llvm_program(plan, "model", FAMILIES["generic"]).steps}

    made = Layers(0)
    CASES["padded"]["3x3, stride 2"](made)
    pad = made.operators[0].outputs[0]
    assert "PAD" in kinds(replace(made.plan(), outputs=(pad, made.operators[1].outputs[0])))
    shape, tensor = made.tensors[pad].shape, made.tensors[pad]
    made.layer("RELU", [pad], [made.tensor(shape, tensor.dtype, tensor.scale, tensor.zero_point)])
    assert "PAD" in kinds(made.plan())
    far = Layers(0)
    CASES["padded"]["3x3, stride 2"](far)
    far.tensors[far.operators[0].inputs[1]] = replace(
        far.tensors[far.operators[0].inputs[1]], data=np.array([[0, 0], [3, 0], [1, 1], [0, 0]], np.int32)
    )
    assert "PAD" in kinds(far.plan())


def test_transposed_convolutions_equal_the_ordinary_kernel() -> None:
    made = layers("upscaled", seed=0)
    plan, feeds = made.plan(), made.feeds()
    assert "TRANSPOSE_CONV" not in {o.kind for o in llvm_program(plan, "model", FAMILIES["generic"]).steps}
    equal(plan, feeds, here(plan, feeds))


def test_layers_skip_zeros_and_equal_the_ordinary_kernels() -> None:
    made = layers("skipping", seed=0)
    plan, feeds = made.plan(), made.feeds()
    assert "plain_skipping_strip_4" in kernels_for(plan, FAMILIES["generic"])
    equal(plan, feeds, here(plan, feeds))


@pytest.mark.long  # a board's emulator runs some of them in every run
def test_sums_are_looked_up_and_equal_the_ordinary_kernels() -> None:
    made = layers("binary", "ternary", seed=0)
    plan, feeds = made.plan(), made.feeds()
    kinds = {f"{code}_tables_{pixels}" for code in ("binary", "ternary") for pixels in (4, 1)}
    assert kinds <= kernels_for(plan, FAMILIES["generic"])
    equal(plan, feeds, here(plan, feeds))


def test_looked_up_sums_of_extreme_inputs_fit_their_16_bits() -> None:
    made = Layers(0)
    for depth in (252, 255, 256):
        made.convolution((1, 4, depth), 16, (1, 1))
        made.limit(-1, 1)
        w = made.tensors[made.operators[-1].inputs[1]].data
        assert w is not None
        w[:4], w[4:8] = -1, 1
    plan = made.plan()
    assert "binary_tables_4" in kernels_for(plan, FAMILIES["generic"])
    for value in (-128, 127):
        feeds = [np.full(f.shape, value, np.int8) for f in made.feeds()]
        equal(plan, feeds, here(plan, feeds))


@given(
    st.integers(1, 1400),
    st.floats(0, 1),
    st.sampled_from([(neighbours, n) for n in (1, 4, 16)] + [(gathered, 16)]),
    st.integers(0),
)
def test_a_list_has_each_weight_but_zeros_at_its_place(
    places: int, share: float, form: tuple[Callable[..., Any], int], seed: int
) -> None:
    random, (made, inputs) = np.random.default_rng(seed), form
    weights = random.integers(-128, 128, places).astype(np.int8) * (random.random(places) < share**3)
    found, at = np.zeros(places + inputs + 256, np.int64), 0
    for *values, way in made(inputs)(weights):
        at += int(np.uint8(way)) * (1 if made is gathered else inputs)
        numbers = [int(n) & 255 for n in values[inputs:]] or range(inputs)
        for number, value in zip(numbers, values[:inputs]):
            found[at + number] += int(value)
    assert np.array_equal(found[:places], weights) and not found[places:].any()


@given(st.integers(64, 900), st.floats(0, 1), st.booleans(), st.integers(0))
def test_a_list_of_sixteen_channels_has_each_weight_but_zeros_at_its_place(
    places: int, share: float, has_dot: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    weights = random.integers(-128, 128, (16, places)).astype(np.int8) * (random.random((16, places)) < share**3)
    found, at, order = np.zeros((16, places), np.int64), 0, PLACES[has_dot]
    for way, cells in zip(*entries(weights, np.argsort(order.reshape(-1)))):
        at += int(way)
        for vector, (numbers, values) in enumerate(cells.reshape(4, 2, 16)):
            for lane, own in enumerate(order):
                np.add.at(found[4 * vector + lane], at + numbers[own].astype(np.int64), values[own].astype(np.int64))
    assert np.array_equal(found, weights)


def test_a_lone_weight_and_weights_that_hardly_repeat() -> None:
    assert coded(np.full(1000, -7, np.int8)) is not None
    assert coded(np.arange(-128, 128, dtype=np.int8).repeat(4)) is None  # 8 bits each
    assert coded(np.array([1, 2, 1, 1], np.int8)) is None  # smaller than its own table


@pytest.fixture(scope="module")
def decoders() -> Iterator[dict[str, Callable[..., None]]]:
    """The device's decoders, compiled for this machine."""
    made = [replace(d.function, shared=False) for d in (TO_BYTES, TO_HALVES)]
    engine, addresses = compiled_here(made, {})
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int32, ctypes.c_int32)
    yield {name: prototype(addresses(f.symbol)) for name, f in zip(("bytes", "halves"), made)}
    del engine


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 500), st.integers(0, 2**32), st.lists(st.integers(0, 80), max_size=3))
def test_parts_of_a_code_are_the_weights_again(
    decoders: dict[str, Callable[..., None]], distinct: int, fours: int, seed: int, cuts: list[int]
) -> None:
    random = np.random.default_rng(seed)
    values = random.permutation(np.arange(-128, 128))[:distinct]
    shares = random.exponential(size=distinct) ** 3 + 1e-9
    weights = random.choice(values, 4 * fours, p=shares / shares.sum()).astype(np.int8)
    code = coded(weights)
    if code is None:
        return
    ends = sorted({4 * min(cut, fours) for cut in cuts} | {4 * fours})
    for name, dtype, decoder in (("bytes", np.int8, TO_BYTES), ("halves", np.int16, TO_HALVES)):
        table, out, start = np.zeros(decoder.table, np.int8), np.full(4 * fours + 8, 99, dtype), 0
        for end in ends:
            part = out[start:]
            decoders[name](code.ctypes.data, table.ctypes.data, part.ctypes.data, end - start, start)
            start = end
        assert np.array_equal(out[:start], weights) and (out[start:] == 99).all()


def test_a_network_in_its_arena_equals_the_ordinary_kernels(digits: Plan) -> None:
    with np.load(DIGITS / "test.npz") as data:
        images = np.clip(np.round(data[data.files[0]][:3] / digits.tensors[digits.inputs[0]].scale[0]) - 128, -128, 127)
    for image in images.astype(np.int8):
        feed = image.reshape(digits.tensors[digits.inputs[0]].shape)
        equal(digits, [feed], here(digits, [feed]))


@pytest.mark.parametrize("name", ["residual", "inverted_residual", "channel_shuffle", "unet_bilinear", "transformer"])
def test_networks_equal_the_ordinary_kernels(name: str, exported: Callable[[str], Path]) -> None:
    random = np.random.default_rng(0)
    model = load(exported(name)).model
    samples = {v.name: random.normal(0, 1, (8, *v.shape.numpy()[1:])).astype(np.float32) for v in model.graph.inputs}
    data = load_data(samples, model.graph.inputs, Preprocess())
    plan = lowered(quantize(model, data, Quantize()).model, io_dtype=ir.DataType.INT8)
    feeds = [random.integers(-128, 128, plan.tensors[i].shape).astype(plan.tensors[i].dtype) for i in plan.inputs]
    equal(plan, feeds, here(plan, feeds))


def test_an_output_that_is_an_input_a_constant_or_another_output_is_filled() -> None:
    made = Layers(4)
    made.sum((1, 4))
    plan = made.plan()
    constant = Tensor("constant", (3,), np.dtype(np.int8), data=np.arange(3, dtype=np.int8))
    ends = (plan.inputs[0], plan.outputs[0], plan.outputs[0], len(plan.tensors))
    plan = replace(plan, tensors=(*plan.tensors, constant), outputs=ends)
    feeds = made.feeds()
    equal(plan, feeds, here(plan, feeds))


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "cortex-m55", "riscv32", "android"])
def test_an_object_for_each_kind_of_cpu_needs_nothing_from_outside(target: str, digits: Plan, tmp_path: Path) -> None:
    profile = next(p for p in all_targets() if p.name == target)
    compiled = compile_plan(digits, "m2_digits", Machine(profile.triple, profile.cpu, profile.features))
    assert compiled.object.startswith(b"\x7fELF") and compiled.program.entry == "m2_digits_invoke"
    assert 0 < compiled.text < 16_384 and compiled.flash > compiled.text
    nm = shutil.which("llvm-nm") or shutil.which("arm-none-eabi-nm") or shutil.which("nm")
    if nm is None:
        pytest.skip("no nm to look into objects with (Debian: binutils)")
    for name in ("m2_digits.o", "libm2_digits.a"):
        (tmp_path / name).write_bytes(compiled.files[name])
        done = subprocess.run([nm, tmp_path / name], capture_output=True, text=True)
        if "file format not recognized" in done.stderr:
            pytest.skip(f"{nm} can't read objects for {profile.triple}")
        kinds = {line.split()[-1]: line.split()[-2] for line in done.stdout.splitlines() if len(line.split()) > 1}
        assert kinds["m2_digits_invoke"] == "T"
        outside = {name for name, kind in kinds.items() if kind in "UC"}
        # every C compiler's own library has these; Armv6-M multiplies 32 bits by 32 to 32 only
        assert outside <= ({"__aeabi_lmul", "__aeabi_llsl", "__aeabi_lasr"} if target == "cortex-m0" else set())


def test_same_plan_same_bytes() -> None:
    made = Layers(3)
    made.convolution((4, 4, 4), 4, (3, 3))
    machine = Machine("thumbv7em-none-eabihf", "cortex-m4", ("+dsp",))
    first, second = (compile_plan(made.plan(), "model", machine) for _ in range(2))
    assert first.files == second.files


def test_build_command_writes_what_a_firmware_project_needs(digits: Plan, tmp_path: Path) -> None:
    (tmp_path / "digits.pack").write_bytes(write_pack(digits, "digits"))
    result = CliRunner().invoke(command, [str(tmp_path / "digits.pack"), "--target", "cortex-m4"])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "digits-cortex-m4"
    names = {p.name for p in folder.iterdir()}
    assert {"digits.o", "libdigits.a", "digits.h", "digits_example.c", "digits.ll"} <= names
    header = (folder / "digits.h").read_text()
    assert "void digits_invoke(int8_t *arena, const int8_t *input_0, int8_t *output_0);" in header
    assert "#define DIGITS_INPUT_0_BYTES 64" in header and "#define DIGITS_STACK_BYTES" in header
    assert ("digits.elf" in names) == ("Nothing linked" not in result.output)


def test_build_says_what_is_too_large(digits: Plan, tmp_path: Path) -> None:
    (tmp_path / "digits.pack").write_bytes(write_pack(digits, "digits"))
    profile = load_target("cortex-m4").model_dump() | {"name": "tiny", "flash_bytes": 4096}
    lines = [f"{k} = {list(v) if isinstance(v, tuple) else v!r}" for k, v in profile.items()]
    toml = "\n".join(lines).replace("True", "true").replace("'", '"')
    (tmp_path / "tiny.toml").write_text(toml)
    arguments = [str(tmp_path / "digits.pack"), "--target-file", str(tmp_path / "tiny.toml")]
    result = CliRunner().invoke(command, arguments)
    assert "bytes of flash, tiny has 4096" in str(result.exception)


# in each row, names that are alike in all but what C does not allow
ALIKE = [
    ("模型一", "模型二", "型一模", "__", "", " "),
    ("a-b", "a_b", "a b", "a.b", "a~b", "a__b", "A_b", "a_B", "-a_b", "a_b_"),
    ("digits.int8", "digits_int8", "digits-int8", "Digits.int8", "digits int8", "digits.int8.int8"),
    ("größe", "grosse", "gr__e", "grØße", "GRÖSSE", "größe.int8"),
    ("9x", "m9x", "_9x", "x9", "m_9x"),
    ("model", "Model", "MODEL", "model_", "model.int8"),
]


def test_names_are_usual_ones_where_nothing_comes_near() -> None:
    assert [identifier(name) for name in ("digits", "kws_dscnn.int8", "net.float16")] == [
        "digits",
        "kws_dscnn_int8",
        "net_float16",
    ]


def test_two_names_are_two_identifiers() -> None:
    names = [name for row in ALIKE for name in row]
    names += [identifier(name) for name in names]  # files that are called so
    found = {name: identifier(name) for name in names}
    assert len({i.upper() for i in found.values()}) == len(found)
    assert all(re.fullmatch("[a-z][a-z0-9_]*", i) and "__" not in i for i in found.values() if i not in names)


def one_dense(seed: int) -> Plan:
    made = Layers(seed)
    made.dense(1, 16, 4 + seed)
    return made.plan()


def c_compiler() -> str:
    compiler = shutil.which("arm-none-eabi-gcc")
    if compiler is None:
        pytest.skip("no arm-none-eabi-gcc (Debian: gcc-arm-none-eabi)")
    return compiler


@pytest.mark.parametrize("name", ["model.pack", "模型一.pack", "9 x-y.pack", "Model.int8.pack", "for.pack"])
def test_an_example_compiles_whatever_its_model_is_called(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(write_pack(one_dense(0), "dense"))
    made = build(tmp_path / name, "cortex-m4", output=tmp_path / "out")
    folder, symbol = made.directory, made.record.name
    assert len(made.files) == len(set(made.files)) == len(list(folder.iterdir()))
    assert "MODEL_INVOKE" in (folder / "model.h").read_text() and read_pack(folder / name).model == "dense"
    flags, example = ("-mcpu=cortex-m4", "-Werror", "-Wall"), folder / f"{symbol}_example.c"
    subprocess.run([c_compiler(), *flags, "-c", example, "-o", tmp_path / "e.o"], check=True)


@pytest.mark.parametrize(
    "names", [("模型一", "模型二"), ("a-b", "a_b"), ("Net", "net"), ("a.int8", "a_int8"), ("x y", "x.y")]
)
def test_two_models_are_one_program(names: tuple[str, str], tmp_path: Path) -> None:
    """In C++, with both headers, and one arena for both."""
    objects, includes, calls, compiler = [], [], [], c_compiler()
    for seed, name in enumerate(names):
        path = tmp_path / f"{name}.pack"
        path.write_bytes(write_pack(one_dense(seed), "dense"))
        made = build(path, "cortex-m4", output=tmp_path / str(seed))
        symbol = made.record.name
        objects.append(made.directory / f"{symbol}.o")
        includes.append(f'#include "{made.directory / symbol}.h"')
        calls.append(
            f"{symbol}_invoke(arena, input, output);"
            f"static_assert({symbol.upper()}_OUTPUT_0_BYTES == {4 + seed} && {symbol.upper()}_ARENA_ALIGNMENT == 4, "
            '"own");'
        )
    memory = "alignas(4) int8_t arena[9999], input[16], output[8];"
    text = "\n".join([*includes, memory, f"int main() {{{' '.join(calls)}}}"])
    (tmp_path / "two.cpp").write_text(text)
    cpu = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]
    flags = ["-x", "c++", "-std=c++17", "-fno-exceptions", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables"]
    two = tmp_path / "two.o"
    subprocess.run([compiler, *cpu, *flags, "-Werror", "-c", tmp_path / "two.cpp", "-o", two], check=True)
    subprocess.run([compiler, *cpu, "-nostdlib", "-Wl,-emain", two, *objects, "-o", tmp_path / "two"], check=True)


def test_a_build_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "模.pack").write_bytes(write_pack(one_dense(0), "dense"))
    result = CliRunner().invoke(command, [str(tmp_path / "模.pack"), "--name", "Gesture", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "void Gesture_invoke(" in (tmp_path / "out" / "Gesture.h").read_text()
    for name in ("model", "2x", "a-b", "größe", "", "_x"):
        result = CliRunner().invoke(command, [str(tmp_path / "模.pack"), "--name", name])
        assert "expected a C identifier" in str(result.exception)


@pytest.mark.parametrize("name", ["net.h", "model.h", "build.json", "libnet.a"])
def test_a_pack_that_is_called_as_a_file_of_the_build_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(write_pack(one_dense(0), "dense"))
    with pytest.raises(InputError, match="a file of this name is written beside it: rename it"):
        build(path, "cortex-m4", name="net")


def test_stack_is_read_from_prologues() -> None:
    text = """
f_invoke:
\tpush\t{r4, r5, r7, lr}
\tsub\tsp, #24
\tbl\tlayer
\tbl\tother
layer:
\tpush.w\t{r4-r11, lr}
\tsub.w\tsp, sp, #100
\tbl\thelper
\tbl\t__muldi3
\tvpush\t{d8, d9}
helper:
\tstr\tlr, [sp, #-4]!
other:
\tsub\tsp, #120
"""
    assert stack_bytes(text, "f_invoke", "thumbv7em-none-eabihf") == 16 + 24 + 36 + 100 + 16 + 4
    assert stack_bytes(text + "\tsub.w\tsp, sp, r4\n", "f_invoke", "thumbv7em-none-eabihf") is None
