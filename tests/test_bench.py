"""`edgecompress build` and `bench` on the digits sample: figures, exit codes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from command import edgecompress
from edgecompress.compress.quantize import quantize
from edgecompress.devices.firmware import build
from edgecompress.emit import pack
from edgecompress.evaluate.dataset import load_data
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
from edgecompress.record.report import DeviceRun
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.pack import read_pack, write_pack
from edgecompress_targets.cortex_m import toolchain
from emulators import AARCH64, CORTEX_M, RISCV

DIGITS = Path(__file__).resolve().parents[1] / "samples" / "digits"
TEST = str(DIGITS / "test.npz")


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """int8 and float32: by the type of inputs and outputs."""
    folder = tmp_path_factory.mktemp("packs")
    model = load(DIGITS / "digits.onnx").model
    data = load_data(str(DIGITS / "train.npz"), model.graph.inputs, Preprocess())
    quantized = quantize(model, data, Quantize(), integer_only=True).model
    made = {}
    for name, dtype in (("int8", ir.DataType.INT8), ("float32", ir.DataType.FLOAT)):
        made[name] = folder / f"digits.{name}.pack"
        made[name].write_bytes(pack.emit(quantized, io_dtype=dtype, name="digits").data)
    return made


@pytest.fixture(scope="module")
def firmware(packs: dict[str, Path]) -> Path:
    return build(packs["int8"], "cortex-m4").directory


@CORTEX_M
def test_firmware_gives_the_hosts_outputs_and_its_figures(firmware: Path) -> None:
    code, out, _ = edgecompress("bench", firmware, "--eval", TEST, "--runs", "30", "--json")
    (found,) = json.loads(out)["results"]
    DeviceRun.model_validate(found)
    assert code == 0 and found["equal"] and found["agrees"] and found["different_runs"] == [] and found["runs"] == 30
    plan = read_pack(firmware / "digits.int8.pack").plan()
    with np.load(TEST) as data:
        images, labels = data["x"][:30].reshape(30, 1, 8, 8, 1), data["y"][:30]
    x, host = plan.tensors[plan.inputs[0]], Executor(plan)
    stored = np.clip(np.round(images / x.scale[0]) + x.zero, -128, 127).astype(np.int8)
    right = [int(host(image)[0].argmax()) == label for image, label in zip(stored, labels)]
    assert found["accuracy"] == pytest.approx(100 * np.mean(right)) and found["metric"] == "top1"
    counts = found["counts"]
    assert 100_000 < counts["min"] <= counts["median"] <= counts["p90"] <= counts["max"] < 1_000_000
    assert counts["unit"] == "instructions" and 50 < found["stack_bytes"] < 1024 and found["warmup"] == 0
    assert found["emulated"] and "mps2-an386" in found["description"] and found["kernels"] == "dsp"
    assert found["device"] == "qemu-m4" and found["host_accuracy"] == found["accuracy"]


@CORTEX_M
def test_the_table_fits_80_columns_and_speaks_of_no_time(firmware: Path) -> None:
    code, out, _ = edgecompress("bench", firmware, "--eval", TEST, "--runs", "2")
    assert code == 0 and "yes, bit for bit" in out and "Instructions per inference" in out
    assert max(map(len, out.splitlines())) <= 80
    assert not {"ms", "us", "s", "seconds"} & set(out.split())


@CORTEX_M
def test_float_layers_are_compared_to_rounding(tmp_path: Path) -> None:
    model = load(DIGITS / "digits.onnx").model
    (tmp_path / "float.pack").write_bytes(pack.emit(model, io_dtype=ir.DataType.FLOAT, name="digits").data)
    folder = build(tmp_path / "float.pack", "cortex-m4").directory
    code, out, error = edgecompress("bench", folder, "--eval", TEST, "--runs", "3", "--json")
    (found,) = json.loads(out)["results"]
    assert code == 0 and found["agrees"] and found["largest_difference"] < 1e-6, error
    assert 0 < found["stack_bytes"] < 1024


@CORTEX_M
def test_other_outputs_are_exit_code_4(firmware: Path, packs: dict[str, Path], tmp_path: Path) -> None:
    """The pack beside the program has one bias more than what was compiled, and the program says it is that."""
    plan = read_pack(packs["int8"]).plan()
    bias = next(t for t in reversed(plan.tensors) if t.data is not None and t.dtype == np.int32)
    bias.data[0] += 2000
    (tmp_path / "digits.int8.pack").write_bytes(write_pack(plan, "digits"))
    other = build(tmp_path / "digits.int8.pack", "cortex-m4", output=tmp_path / "built").directory
    digests = [bytes.fromhex(read_pack(folder / "digits.int8.pack").digest) for folder in (firmware, other)]
    image = (firmware / "digits_int8.elf").read_bytes()
    (other / "digits_int8.elf").write_bytes(image)
    code, _, error = edgecompress("bench", other, "--eval", TEST, "--runs", "5")
    assert code == 5 and "its firmware holds the model with digest" in error
    assert image.count(digests[0]) == 1
    (other / "digits_int8.elf").write_bytes(image.replace(*digests))
    code, out, _ = edgecompress("bench", other, "--eval", TEST, "--runs", "5", "--json")
    (found,) = json.loads(out)["results"]
    assert code == 4 and not found["equal"] and not found["agrees"] and found["different_runs"]
    code, out, _ = edgecompress("bench", other, "--eval", TEST, "--runs", "5")
    assert code == 4 and "differ, first 0" in out


@CORTEX_M
def test_a_program_that_fails_is_exit_code_5(firmware: Path, packs: dict[str, Path], tmp_path: Path) -> None:
    broken = build(packs["int8"], "cortex-m4", output=tmp_path).directory
    (broken / "digits_int8.elf").write_bytes(b"no program")
    code, _, error = edgecompress("bench", broken, "--eval", TEST, "--runs", "1")
    assert code == 5 and "qemu-system-arm ended: " in error and error.count("\n") == 1


@AARCH64
@pytest.mark.parametrize(
    "target, device",
    [pytest.param("android", "qemu-aarch64", marks=pytest.mark.long), ("raspberry-pi-5", "qemu-aarch64-dot")],
)
def test_64_bit_arm(target: str, device: str, packs: dict[str, Path], tmp_path: Path) -> None:
    code, out, _ = edgecompress("build", packs["float32"], "--target", target, "-o", tmp_path / "built")
    assert code == 0 and "libdigits_float32.so" in out and "digits_float32_run" in out
    code, out, _ = edgecompress("bench", tmp_path / "built", "--eval", TEST, "--runs", "450", "--json")
    (found,) = json.loads(out)["results"]
    assert code == 0 and found["equal"] and found["runs"] == 450 and found["accuracy"] > 97
    assert found["counts"]["unit"] == "instructions" and found["stack_bytes"] is None and found["device"] == device


@RISCV
@pytest.mark.parametrize(
    "target, pack",
    [("riscv32", "int8"), pytest.param("riscv32", "float32", marks=pytest.mark.long), ("linux-riscv64", "float32")],
)
def test_riscv(target: str, pack: str, packs: dict[str, Path], tmp_path: Path) -> None:
    code, out, _ = edgecompress("build", packs[pack], "--target", target, "-o", tmp_path / "built")
    assert code == 0 and f"digits_{pack}_run" in out
    code, out, _ = edgecompress("bench", tmp_path / "built", "--eval", TEST, "--runs", "20", "--json")
    (found,) = json.loads(out)["results"]
    assert code == 0 and found["agrees"] and found["device"] == f"qemu-{target.removeprefix('linux-')}"


def test_an_object_that_nothing_would_link_is_not_built(packs, tmp_path):
    code, out, error = edgecompress("build", packs["int8"], "--target", "ios", "-o", tmp_path / "built")
    assert code == 2 and not out and "ELF" in error and error.count("\n") == 1
    assert not (tmp_path / "built").exists()


def test_build_reads_well_and_records_what_it_made(packs: dict[str, Path], tmp_path: Path) -> None:
    code, out, _ = edgecompress("build", packs["int8"], "-o", tmp_path / "built")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    assert all(p.name in out for p in (tmp_path / "built").iterdir())
    record = json.loads((tmp_path / "built" / "build.json").read_text())
    assert record["pack_sha256"] == read_pack(tmp_path / "built" / "digits.int8.pack").digest
    assert (record["image"] is None) == ("Nothing linked" in out)


def test_build_into_the_packs_own_folder_leaves_the_pack_alone(packs: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "digits.pack"
    path.write_bytes(packs["int8"].read_bytes())
    build(path, "riscv32", output=tmp_path)
    assert path.read_bytes() == packs["int8"].read_bytes() and (tmp_path / "digits.o").exists()


def test_without_tools_nothing_is_linked_and_bench_names_the_packages(
    packs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain, "find_spec", lambda name: None)  # ziglang, which no PATH hides
    for target, linker, emulator in (
        ("cortex-m4", "gcc-arm-none-eabi", "qemu-system-arm"),
        ("android", "gcc-aarch64-linux-gnu", "qemu-user"),
    ):
        code, out, _ = edgecompress("build", packs["int8"], "--target", target, "-o", tmp_path / target)
        words = " ".join(out.split())
        assert code == 0 and "Nothing linked" in words and linker in words and "libdigits_int8.a" in words
        code, _, error = edgecompress("bench", tmp_path / target, "--eval", TEST)
        assert code == 2 and linker in error
        record = json.loads((tmp_path / target / "build.json").read_text())
        (tmp_path / target / "program").touch()
        (tmp_path / target / "build.json").write_text(json.dumps(record | {"image": "program", "note": None}))
        code, _, error = edgecompress("bench", tmp_path / target, "--eval", TEST)
        assert code == 5 and f"apt install {emulator}" in error, error


def test_bench_refuses_what_it_does_not_understand(packs: dict[str, Path], tmp_path: Path) -> None:
    for arguments, expected in (
        ([tmp_path, "--eval", TEST], "build.json: No such file"),
        ([tmp_path, "--eval", TEST, "--runs", "0"], "--runs"),
        ([tmp_path / "no.pack", "--eval", TEST], "no.pack"),
        ([packs["int8"], "--eval", TEST, "--device", "qemu-m5"], "did you mean 'qemu-m55'"),
        ([packs["int8"], "--eval", TEST, "--device", ""], "is empty"),
        ([tmp_path / "model.h5"], "expected .pack, .tflite, .onnx, or a folder"),
        ([], "ARTIFACT"),
    ):
        code, _, error = edgecompress("bench", *arguments)
        assert code == 2 and expected in error and error.count("\n") == 1
    (tmp_path / "build.json").write_text("{}")
    code, _, error = edgecompress("bench", tmp_path, "--eval", TEST)
    assert code == 2 and "run `edgecompress build` again" in error


@CORTEX_M
def test_bench_refuses_another_pack(packs: dict[str, Path], tmp_path: Path) -> None:
    built = build(packs["int8"], "cortex-m0", output=tmp_path).directory
    (built / "digits.int8.pack").write_bytes(packs["float32"].read_bytes())
    code, _, error = edgecompress("bench", built, "--eval", TEST)
    assert code == 2 and "changed since it was compiled" in error
