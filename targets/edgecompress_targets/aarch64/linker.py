"""Object file -> shared library and static command-line program, by aarch64-linux-gnu-gcc."""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path

from edgecompress_targets.tools import call

GCC, PACKAGES = "aarch64-linux-gnu-gcc", ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross")
PAGE = 16_384  # bytes; Android 15 loads nothing that is aligned to less


def images(name: str, model: bytes, model_h: str) -> dict[str, bytes]:
    """libNAME.so, which needs no other library than libm, and NAME_run (support/runner.c). Raises ToolError."""
    support = resources.files("edgecompress_targets.aarch64") / "support"
    library, program = f"lib{name}.so", f"{name}_run"
    with tempfile.TemporaryDirectory() as temporary, resources.as_file(support) as sources:
        work = Path(temporary)
        (work / "model.o").write_bytes(model)
        (work / "model.h").write_text(model_h)
        link = "-O2", f"-Wl,-z,max-page-size={PAGE}", "-Wl,-z,noexecstack", "-Wl,--build-id=none", "-s"
        _gcc(*link, "-shared", "-nostdlib", f"-Wl,-soname,{library}", work / "model.o", "-o", work / library)
        _gcc(*link, "-static", "-I", work, sources / "runner.c", work / "model.o", "-lm", "-o", work / program)
        return {file: (work / file).read_bytes() for file in (library, program)}


def _gcc(*arguments: str | Path) -> None:
    call(GCC, *arguments, packages=PACKAGES)
