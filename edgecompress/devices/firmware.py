"""`build`: compile a .pack file for one target."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Group
from rich.text import Text

from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.report.tables import Shown, table
from edgecompress.support.output import require_writable, write_files
from edgecompress.targets import load_target
from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.pack import PackError, read_pack
from edgecompress_targets import Profile
from edgecompress_targets.platforms import platform_of
from edgecompress_targets.tools import ToolError

if TYPE_CHECKING:
    from edgecompress_runtime.building.ahead_of_time import Compiled
    from edgecompress_runtime.codegen.interface import Interface

RECORD = "build.json"
WEIGHTS = ("coded", "plain")


class OrdinaryRecord(BaseModel):
    """A layer with slow kernels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operator: str = Field(description="its kind")
    name: str = Field(description="its output")
    share: float = Field(description="of the model's multiply-accumulates, that such kernels compute here")
    reason: str


class BuildRecord(BaseModel):
    """build.json: what the files beside it are, for `bench` and for people."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="C identifier that symbols and files start with")
    pack: str = Field(description="the file that was compiled, beside this one")
    pack_sha256: str = Field(description="the digest that the .pack file carries")
    target: Profile
    kernels: str = Field(description="family of CPUs whose kernels were compiled")
    image: str | None = Field(description="the program that `bench` runs")
    note: str | None = Field(description="why there is no image, if there is none")
    arena_bytes: int
    flash_bytes: int = Field(description="code and constants")
    text_bytes: int = Field(description="code alone")
    coded_saving_bytes: int = Field(description="bytes of flash that entropy-coded weights save over plain ones")
    layers_skipping_zeros: int = Field(0, description="layers that neither hold nor multiply weights that are zero")
    ordinary_layers: tuple[OrdinaryRecord, ...] = Field((), description="layers without a fast kernel for this CPU")
    stack_bytes: int | None = Field(description="bytes of stack that the invoke function uses, computed from its code")


@dataclass(frozen=True, repr=False)
class Build(Shown):
    """What was written, and where. Shows itself as a table in terminals and notebooks."""

    directory: Path
    files: tuple[str, ...]
    record: BuildRecord

    def __rich__(self) -> Group:
        record = self.record
        needs = (
            f"arena {record.arena_bytes:,} B, flash {record.flash_bytes:,} B ({record.text_bytes:,} B of it are code)"
        )
        if record.stack_bytes is not None:
            needs += f", stack {record.stack_bytes:,} B"
        if record.coded_saving_bytes:
            needs += f"\nentropy-coded weights: {record.coded_saving_bytes:,} B less flash than plain ones"
        if record.layers_skipping_zeros:
            layers = "layer skips" if record.layers_skipping_zeros == 1 else "layers skip"
            needs += f"\n{record.layers_skipping_zeros} {layers} weights that are zero"
        if record.ordinary_layers:
            from edgecompress_runtime.codegen.ordinary_layers import OrdinaryLayer, summary

            slow = [OrdinaryLayer(o.operator, o.name, o.share, o.reason) for o in record.ordinary_layers]
            needs += f"\n{summary(slow)}"
        head = Text.assemble(
            (record.pack, "bold"), " -> ", (record.target.name, "bold"), f"  ({record.kernels} kernels)\n{needs}"
        )
        names = set(self.files) | {record.pack}
        rows = [(name, described(name, record)) for name in sorted(names)]
        note = [Text(f"Nothing linked: {record.note}")] if record.note else []
        return Group(head, table("", ("File", "What it is"), rows), *note, Text(f"Written to {self.directory}"))


def described(file: str, record: BuildRecord) -> str:
    """What a file of a build is, in words; empty for other files."""
    kinds = {
        f"{record.name}.o": "object file with the model's code",
        f"lib{record.name}.a": "static library with the model's code",
        f"lib{record.name}.so": "shared library",
        f"{record.name}.h": "C header: the function, sizes, scales",
        "model.h": "C header for the program around the model",
        f"{record.name}_example.c": "C example that calls the model",
        f"{record.name}.py": "generated Python that was compiled",
        f"{record.name}.ll": "generated LLVM text that was compiled",
        f"{record.name}.elf": "firmware for the board that QEMU emulates",
        f"{record.name}.hex": "firmware for the board that QEMU emulates, as Intel HEX",
        f"{record.name}.bin": "firmware for the board that QEMU emulates, as a flash image",
        f"{record.name}_run": "program that reads a file of inputs and writes a file of outputs",
        record.pack: "the model that was compiled",
        RECORD: "figures of the build, which bench reads",
    }
    return kinds.get(file, "")


def build(
    pack: str | Path,
    target: str,
    *,
    output: str | Path | None = None,
    target_file: str | Path | None = None,
    weights: str = "coded",
    name: str | None = None,
) -> Build:
    """Compile a .pack for a device: object file, static library, C header, C example, and the generated Python.

    Needs no C toolchain. Where a linker for the target is installed: firmware for its emulated board (.elf, .hex,
    and .bin where memory is in one piece), or under Linux and Android a shared library and a program. A copy of the
    .pack and build.json go with them, so that `bench` can compare.
    output: the folder; default PACK-TARGET beside the pack. name: a C identifier that symbols, macros and files start
    with; default one made of the pack's name, another for every other name. weights: "coded" keeps them entropy coded
    in flash in layers where that saves a quarter or more (clustered ones), to be decoded on every inference; "plain"
    has them all as int8. Raises InputError for a bad argument, pack or target, UnsupportedModelError for an operator
    without a kernel or a model larger than the device.
    """
    return write_build(pack, target, output=output, target_file=target_file, weights=weights, name=name)[0]


def write_build(
    pack: str | Path,
    target: str,
    *,
    output: str | Path | None = None,
    target_file: str | Path | None = None,
    weights: str = "coded",
    name: str | None = None,
    profiled: bool = False,
) -> tuple[Build, Interface]:
    """As `build`, with what was compiled. profiled: the firmware counts each step of the program, too."""
    from edgecompress_runtime.building.ahead_of_time import compile_plan
    from edgecompress_runtime.building.c_header import bench_header
    from edgecompress_runtime.building.c_identifier import identifier, is_identifier
    from edgecompress_runtime.llvm.cross import Machine

    if weights not in WEIGHTS:
        raise InputError(f"weights = {weights!r}: expected {' or '.join(WEIGHTS)}")
    if name is not None and not is_identifier(name):
        raise InputError(f"name = {name!r}: expected a C identifier that starts with a letter, and not 'model'")
    path, profile = Path(pack), load_target(target, target_file)
    if "pack" not in profile.loads:
        raise InputError(
            f"target {profile.name}: .pack files are compiled to ELF objects, which {profile.triple} "
            "can't link; convert to tflite or onnx for this target"
        )
    directory = Path(output) if output is not None else path.with_name(f"{path.stem}-{profile.name}")
    require_writable(directory, (), ())
    try:
        read = read_pack(path)
        content, plan = path.read_bytes(), read.plan()
    except PackError as error:
        raise InputError(str(error)) from error
    try:
        machine = Machine(profile.triple, profile.cpu, profile.features)
        name = name or identifier(path.stem)
        compiled = compile_plan(plan, name, machine, profile=profiled, coded=weights == "coded")
    except RuntimeModelError as error:
        raise UnsupportedModelError(f"{path}: {error}") from error
    _require_room(path, compiled, profile)
    model_h = bench_header(compiled.program, profiled=profiled, digest=bytes.fromhex(read.digest))
    linked = _linked(compiled, profile, model_h)
    record = BuildRecord(
        name=compiled.program.name,
        pack=path.name,
        pack_sha256=read.digest,
        target=profile,
        kernels=compiled.program.family,
        image=linked.image,
        note=linked.note,
        arena_bytes=compiled.program.layout.size,
        flash_bytes=compiled.flash,
        text_bytes=compiled.text,
        coded_saving_bytes=compiled.program.saved,
        layers_skipping_zeros=compiled.program.skipping,
        ordinary_layers=tuple(
            OrdinaryRecord(operator=o.kind, name=o.name, share=o.share, reason=o.reason)
            for o in compiled.program.ordinary
        ),
        stack_bytes=compiled.stack,
    )
    files = {**compiled.files, "model.h": model_h.encode(), **linked.files}
    files[RECORD] = (record.model_dump_json(indent=2) + "\n").encode()
    if path.name in files:
        raise InputError(f"{path}: a file of this name is written beside it: rename it to {path.stem}.pack")
    beside = directory / path.name
    if not (beside.exists() and beside.samefile(path)):
        files[path.name] = content
    require_writable(directory, files, [path])
    write_files(directory, files)
    if linked.image:
        os.chmod(directory / linked.image, 0o755)
    return Build(directory, tuple(sorted(files)), record), compiled.program


def read_record(folder: Path) -> BuildRecord:
    """What `build` wrote to a folder. Raises InputError where it wrote nothing, or something else did."""
    try:
        return BuildRecord.model_validate_json((folder / RECORD).read_bytes())
    except OSError as error:
        raise InputError(
            f"{folder}: expected a folder that `edgecompress build` wrote: {RECORD}: {error.strerror}"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{folder / RECORD}: {where}: {first['msg']}; run `edgecompress build` again") from error


def _require_room(path: Path, compiled: Compiled, profile: Profile) -> None:
    arena = compiled.program.layout.size
    for what, needed, room in (("flash", compiled.flash, profile.flash_bytes), ("RAM", arena, profile.ram_bytes)):
        if room is not None and needed > room:
            raise UnsupportedModelError(f"{path}: needs {needed} bytes of {what}, {profile.name} has {room}")


@dataclass(frozen=True)
class _Linked:
    """files: linked ones by name; image: the program among them; note: why there is none."""

    files: Mapping[str, bytes]
    image: str | None
    note: str | None


def _linked(compiled: Compiled, profile: Profile, model_h: str) -> _Linked:
    platform, name = platform_of(profile), compiled.program.name
    if platform is None:
        return _Linked({}, None, f"no linker is known for {profile.triple}")
    try:
        files = platform.images(name, compiled.object, model_h, profile)
    except ToolError as error:
        return _Linked({}, None, str(error))
    return _Linked(files, platform.image(name), None)
