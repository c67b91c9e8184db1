"""Links an object file to a static RISC-V program for Linux, by riscv64-unknown-elf-gcc, for 32 and 64 bits."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from edgecompress_targets.profile import Profile
from edgecompress_targets.tools import call
from edgecompress_targets.work_folder import work_folder

GCC, PACKAGES = "riscv64-unknown-elf-gcc", ("gcc-riscv64-unknown-elf",)
EXTENSIONS = "mafdc"  # in the order of an architecture's name


def program(model: bytes, model_h: str, profile: Profile) -> bytes:
    """The program that support/runner.c and the model make. Raises ToolError."""
    support = resources.files("edgecompress_targets.riscv") / "support"
    with work_folder() as temporary, resources.as_file(support) as sources:
        work = Path(temporary)
        (work / "model.o").write_bytes(model)
        (work / "model.h").write_text(model_h)
        options = "-O2", "-ffreestanding", "-nostdlib", "-static", "-Wl,--no-relax", "-Wl,--build-id=none", "-s"
        call(
            GCC,
            *_machine(profile),
            *options,
            "-I",
            work,
            sources / "runner.c",
            work / "model.o",
            "-lgcc",
            "-o",
            work / "run",
            packages=PACKAGES,
        )
        return (work / "run").read_bytes()


def _machine(profile: Profile) -> tuple[str, str]:
    """GCC's options for the CPU; numbers are passed in floating-point registers where it has them."""
    bits = profile.triple[len("riscv") :][:2]
    extensions = "".join(e for e in EXTENSIONS if f"+{e}" in profile.features)
    abi = f"{'ilp32' if bits == '32' else 'lp64'}{'d' if 'd' in extensions else ''}"
    return f"-march=rv{bits}i{extensions}", f"-mabi={abi}"
