"""Programs for RISC-V of 32 and 64 bits in QEMU's user-mode emulators equal the host's kernels, bit for bit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ahead import split, tight_header
from layer_cases import layers
from test_codegen import equal

from edgecompress.targets import load_target
from edgecompress_runtime.building.ahead_of_time import compile_plan
from edgecompress_runtime.llvm.cross import Machine
from edgecompress_runtime.plan import Plan
from edgecompress_targets.connection.driver import DeviceError
from edgecompress_targets.riscv.linker import program
from edgecompress_targets.user_emulation import UserEmulator
from emulators import RISCV

pytestmark = RISCV
EMULATORS = {"riscv32": UserEmulator("qemu-riscv32", "rv32"), "linux-riscv64": UserEmulator("qemu-riscv64", "rv64")}
every_target = pytest.mark.parametrize("target", sorted(EMULATORS))


def built(plan: Plan, target: str, folder: Path, *, coded: bool = True) -> Path:
    profile, path = load_target(target), folder / "model_run"
    compiled = compile_plan(plan, "model", Machine(profile.triple, profile.cpu, profile.features), coded=coded)
    path.write_bytes(program(compiled.object, tight_header(compiled.program), profile))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("target", "group"),
    [
        ("linux-riscv64", "blocks"),
        ("riscv32", "blocks"),
        ("riscv32", "skipping"),
        pytest.param("riscv32", "binary", marks=pytest.mark.long),
        pytest.param("linux-riscv64", "ternary", marks=pytest.mark.long),
        ("riscv32", "exact"),
        ("riscv32", "gated"),
        pytest.param("riscv32", "unlike", marks=pytest.mark.long),
        pytest.param("riscv32", "int16", marks=pytest.mark.long),
    ],
)
def test_layers_equal_the_hosts_kernels(target: str, group: str, tmp_path: Path) -> None:
    made = layers(group, seed=2)
    plan, records = made.plan(), [made.feeds(), made.feeds()]
    stream = b"".join(a.tobytes() for record in records for a in record)
    done = EMULATORS[target].run(built(plan, target, tmp_path), stream)
    for record, outputs in zip(records, split(plan, done.outputs), strict=True):
        equal(plan, record, outputs)


@every_target
def test_the_program_says_what_is_wrong_with_its_files(target: str, tmp_path: Path) -> None:
    path, emulator = built(layers("blocks", seed=0).plan(), target, tmp_path), EMULATORS[target]
    with pytest.raises(DeviceError, match=r"code 65: .*inputs.bin: its last record is not whole"):
        emulator.run(path, b"abc")
    done = subprocess.run([emulator.qemu, path], capture_output=True, text=True)
    assert done.returncode == 64 and "expected INPUTS OUTPUTS" in done.stderr
    done = subprocess.run([emulator.qemu, path, tmp_path / "none", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 74 and "none: can't be opened" in done.stderr
