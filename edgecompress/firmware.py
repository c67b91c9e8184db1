"""`build`: a .pack in, code for one target out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.output import require_writable, write_files
from edgecompress.targets import load_target
from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.pack import PackError, read_pack
from edgecompress_targets import Profile

if TYPE_CHECKING:
    from edgecompress_runtime.ahead_of_time import Compiled


@dataclass(frozen=True)
class Build:
    """What was written. arena, flash, stack: bytes; stack is None where it is not known. note: why there is no
    complete firmware, if there is none."""

    directory: Path
    files: tuple[str, ...]
    arena: int
    flash: int
    stack: int | None
    note: str | None


def build(
    pack: str | Path, target: str, *, output: str | Path | None = None, target_file: str | Path | None = None
) -> Build:
    """Compile a .pack for a device: object file, static library, C header, C example, and the generated Python.

    Needs no C toolchain. Where a linker for the target's emulated board is installed: the board's complete
    firmware as well (.elf, .hex, and .bin where memory is in one piece).
    output: the folder; default PACK-TARGET beside the pack. Raises InputError for a bad pack or target,
    UnsupportedModelError for an operator without a kernel or a model larger than the device.
    """
    from edgecompress_runtime.ahead_of_time import compile_plan
    from edgecompress_runtime.cross import Machine

    path, profile = Path(pack), load_target(target, target_file)
    directory = Path(output) if output is not None else path.with_name(f"{path.stem}-{profile.name}")
    require_writable(directory, (), ())
    try:
        plan = read_pack(path).plan()
    except PackError as error:
        raise InputError(str(error)) from error
    try:
        compiled = compile_plan(plan, path.stem, Machine(profile.triple, profile.cpu, profile.features))
    except RuntimeModelError as error:
        raise UnsupportedModelError(f"{path}: {error}") from error
    _require_room(path, compiled, profile)
    files, (firmware, note) = dict(compiled.files), _firmware(compiled, profile)
    files |= firmware
    require_writable(directory, files, [path])
    write_files(directory, files)
    return Build(directory, tuple(files), compiled.program.layout.size, compiled.flash, compiled.stack, note)


def _require_room(path: Path, compiled: Compiled, profile: Profile) -> None:
    arena = compiled.program.layout.size
    for what, needed, room in (("flash", compiled.flash, profile.flash_bytes), ("RAM", arena, profile.ram_bytes)):
        if room is not None and needed > room:
            raise UnsupportedModelError(f"{path}: needs {needed} bytes of {what}, {profile.name} has {room}")


def _firmware(compiled: Compiled, profile: Profile) -> tuple[dict[str, bytes], str | None]:
    """(files, None), or ({}, why there are none)."""
    if profile.family != "cortex_m":
        return {}, f"no board support for {profile.family}"
    from edgecompress_targets.cortex_m.boards import BOARDS
    from edgecompress_targets.cortex_m.firmware import FirmwareError, images

    if profile.cpu not in BOARDS:
        return {}, f"no emulated board with a {profile.cpu}"
    from edgecompress_runtime.c_header import bench_header

    try:
        return images(compiled.program.name, compiled.object, bench_header(compiled.program), BOARDS[profile.cpu],
                      cpu=profile.cpu, hard_float=profile.triple.endswith("hf")), None  # fmt: skip
    except FirmwareError as error:
        return {}, str(error)
