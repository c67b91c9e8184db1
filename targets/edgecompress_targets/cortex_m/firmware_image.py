"""Links an object file to an ELF for an emulated board, with a linker script and model.h."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from edgecompress_targets.cortex_m.boards import Board
from edgecompress_targets.cortex_m.toolchain import Toolchain, installed
from edgecompress_targets.work_folder import work_folder

STACK_BYTES = 8192
BAUD = 115_200  # no emulator keeps to it

SCRIPT = """ENTRY(reset_handler)
MEMORY {{
  VECTORS (rx) : ORIGIN = {v.origin:#x}, LENGTH = {v.length:#x}
  CODE (rx) : ORIGIN = {c.origin:#x}, LENGTH = {c.length:#x}
  RAM (rw) : ORIGIN = {r.origin:#x}, LENGTH = {r.length:#x}
}}
SECTIONS {{
  .vectors : {{ KEEP(*(.vectors)) }} > {vectors}
  .text : {{ *(.text*) *(.rodata*) }} > CODE
  .ARM.exidx : {{ *(.ARM.exidx*) }} > CODE
  .data : ALIGN(4) {{ data_start = .; *(.data*) . = ALIGN(4); data_end = .; }} > RAM AT > CODE
  data_load = LOADADDR(.data);
  .bss (NOLOAD) : ALIGN(16) {{ bss_start = .; *(.bss*) *(COMMON) . = ALIGN(4); bss_end = .; }} > RAM
  .stack (NOLOAD) : ALIGN(8) {{ stack_limit = .; . += {stack}; stack_top = .; }} > RAM
}}
"""


def linker_script(board: Board) -> str:
    """The script for GNU ld: vectors, code and constants, data, zeroed memory, stack."""
    # one region has one location counter: vectors share CODE where both start at the same address
    vectors = "CODE" if board.vectors == board.code else "VECTORS"
    return SCRIPT.format(v=board.vectors, c=board.code, r=board.ram, vectors=vectors, stack=STACK_BYTES)


def images(name: str, model: bytes, model_h: str, board: Board, *, cpu: str, hard_float: bool) -> dict[str, bytes]:
    """{file name: content}: NAME.elf, NAME.hex, and NAME.bin where the board's flash is one region. Raises
    ToolError.
    """
    with work_folder() as temporary:
        elf, toolchain = Path(temporary) / f"{name}.elf", installed()
        link(model, model_h, board, cpu=cpu, hard_float=hard_float, to=elf, toolchain=toolchain)
        for suffix in ("hex", "bin") if board.vectors == board.code else ("hex",):
            toolchain.copy(elf, suffix)
        return {file.name: file.read_bytes() for file in sorted(elf.parent.glob(f"{name}.*"))}


def link(
    model: bytes,
    model_h: str,
    board: Board,
    *,
    cpu: str,
    hard_float: bool,
    to: Path,
    toolchain: Toolchain | None = None,
) -> None:
    """Writes an ELF that serves the model over the board's UART (support/serve.c).

    toolchain: by default the one that is installed. Raises ToolError.
    """
    support = resources.files("edgecompress_targets.cortex_m") / "support"
    with work_folder() as temporary, resources.as_file(support) as sources:
        work = Path(temporary)
        (work / "model.o").write_bytes(model)
        (work / "model.h").write_text(model_h)
        (work / "board.ld").write_text(linker_script(board))
        arguments: list[str | Path] = [sources / file for file in ("startup.c", "serve.c", "uart_cmsdk.c")]
        arguments += [f"-DUART_BASE={board.uart:#x}", f"-DUART_DIVIDER={board.systick_hz // BAUD}"]
        arguments += ["-I", work, "-T", work / "board.ld", work / "model.o", "-o", to]
        (toolchain or installed()).link(*arguments, cpu=cpu, hard_float=hard_float, entry="reset_handler")
