"""Programs for devices: firmware, a compiled program, or the artifact with a script that loads it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from edgecompress.devices.artifact import Artifact
from edgecompress.devices.firmware import BuildRecord, build, write_build
from edgecompress.errors import DeviceFault, InputError
from edgecompress.targets import load_target
from edgecompress_runtime.building.c_identifier import identifier
from edgecompress_runtime.codegen.interface import Interface
from edgecompress_targets import Profile
from edgecompress_targets.connection.driver import Program
from edgecompress_targets.drivers.benchmarks import MODEL, benchmark
from edgecompress_targets.drivers.settings import Settings
from edgecompress_targets.work_folder import work_folder


@dataclass(frozen=True)
class Prepared:
    """record: of the build behind the program, which has one thread; None where an interpreter runs the artifact."""

    program: Program
    record: BuildRecord | None


def prepare(artifact: Artifact, name: str, settings: Settings, *, threads: int = 1) -> Prepared:
    """name: of the device. Raises InputError where the device does not run such a file or nothing could be linked."""
    if artifact.format not in settings.formats:
        raise InputError(f"{artifact.path}: device {name} runs {', '.join('.' + f for f in settings.formats)}")
    python = getattr(settings, "python", None)
    if python and artifact.record is None:
        return Prepared(_script(artifact, python, threads), None)
    if (program := getattr(settings, "benchmark", {}).get(artifact.format)) is not None:
        return Prepared(_benchmarked(artifact, program, threads), None)
    return _compiled(artifact, name, settings)


def fits(ours: Profile, settings: Settings) -> bool:
    """Whether a device runs what was built for a target: the same CPU's firmware, or a program for the same instruction
    set, of which it needs no more."""
    theirs = load_target(settings.target)
    if settings.runs == "firmware":
        return ours.cpu == theirs.cpu
    return ours.triple.split("-")[:2] == theirs.triple.split("-")[:2] and set(ours.features) <= set(theirs.features)


def _script(artifact: Artifact, python: str, threads: int) -> Program:
    script, model = "run_model.py", f"model.{artifact.format}"
    source = (resources.files("edgecompress_targets.drivers") / script).read_bytes()
    start = python, script, model, "{inputs}", "{outputs}", "{times}", str(threads)
    return Program(
        identifier(artifact.path.stem),
        artifact.digest,
        artifact.input_bytes,
        artifact.output_bytes,
        {script: source, model: artifact.content},
        start,
    )


def _benchmarked(artifact: Artifact, program: str, threads: int) -> Program:
    files = {f"{MODEL}.{artifact.format}": artifact.content}
    return Program(
        identifier(artifact.path.stem),
        artifact.digest,
        artifact.input_bytes,
        artifact.output_bytes,
        files,
        (),
        benchmark=benchmark(artifact.format, program, threads),
    )


def profiled(artifact: Artifact, name: str, settings: Settings) -> tuple[Prepared, Interface]:
    """Firmware that counts each step, and its steps. Raises InputError where nothing could be linked."""
    with work_folder() as work:
        made, interface = write_build(artifact.path, settings.target, output=Path(work) / "built", profiled=True)
        return _of_build(artifact, made.directory, made.record, name, settings), interface


def _compiled(artifact: Artifact, name: str, settings: Settings) -> Prepared:
    with work_folder() as work:
        folder, record = artifact.folder, artifact.record
        if folder is None or record is None:
            made = build(artifact.path, settings.target, output=Path(work) / "built")
            folder, record = made.directory, made.record
        if not fits(record.target, settings):
            raise InputError(f"{folder}: built for {record.target.name}, but device {name} is a {settings.target}")
        return _of_build(artifact, folder, record, name, settings)


def _of_build(artifact: Artifact, folder: Path, record: BuildRecord, name: str, settings: Settings) -> Prepared:
    """What `build` wrote to a folder, as a program."""
    image = _image(folder, record, name, settings)
    content = _read(image)
    file = f"{record.name}{image.suffix}" if settings.runs == "firmware" else f"{record.name}_run"
    start = (file,) if settings.runs == "firmware" else (f"./{file}", "{inputs}", "{outputs}", "{times}")
    machine = record.target.triple.split("-")[0] if settings.runs == "program" else ""
    program = Program(
        record.name, artifact.digest, artifact.input_bytes, artifact.output_bytes, {file: content}, start, machine
    )
    return Prepared(program, record)


def _image(folder: Path, record: BuildRecord, name: str, settings: Settings) -> Path:
    """The program among what `build` wrote; for a board of the user's, what its `make` makes of that."""
    make = getattr(settings, "make", ())
    if make:
        for source in (resources.files("edgecompress_targets.cortex_m") / "support").iterdir():
            (folder / source.name).write_bytes(source.read_bytes())
        done = subprocess.run([word.replace("{folder}", str(folder)) for word in make], capture_output=True, text=True)
        if done.returncode:
            raise DeviceFault(f"{name}: {make[0]} failed: {(done.stderr.strip() or 'no reason').splitlines()[-1]}")
        return Path(settings.image.replace("{folder}", str(folder)))  # type: ignore[attr-defined]
    if record.image is None:
        raise InputError(f"{folder}: there is no program to run: {record.note}")
    return folder / record.image


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; run `edgecompress build` again") from error
