"""Links an object file to a shared library and to a static command-line program, by GCC."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from edgecompress_targets.tools import call
from edgecompress_targets.work_folder import work_folder

PAGE = 16_384  # bytes; Android 15 loads nothing that is aligned to less


def images(compiler: str, packages: tuple[str, ...], name: str, model: bytes, model_h: str) -> dict[str, bytes]:
    """libNAME.so, which needs at most the C library, and NAME_run (support/runner.c). Raises ToolError."""
    support = resources.files("edgecompress_targets.linux") / "support"
    library, program = f"lib{name}.so", f"{name}_run"
    with work_folder() as temporary, resources.as_file(support) as sources:
        work = Path(temporary)
        (work / "model.o").write_bytes(model)
        (work / "model.h").write_text(model_h)
        link = "-O2", f"-Wl,-z,max-page-size={PAGE}", "-Wl,-z,noexecstack", "-Wl,--build-id=none", "-s"
        shared = "-shared", "-nostdlib", f"-Wl,-soname,{library}", work / "model.o", "-o", work / library
        static = "-static", "-I", work, sources / "runner.c", work / "model.o", "-lm", "-o", work / program
        for arguments in (shared, static):
            call(compiler, *link, *arguments, packages=packages)
        return {file: (work / file).read_bytes() for file in (library, program)}
