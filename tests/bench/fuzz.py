"""Coverage-guided fuzzing of everything that reads a stranger's bytes.

    pip install atheris && python tests/bench/fuzz.py [SECONDS]

For each reader in READERS a process of its own runs for SECONDS (default 60), started on real files. A reader may
refuse what it is given, with the error that it is documented to raise; anything else, a hang or a crash ends the run
with exit code 1 and leaves the input in the current folder: from there it goes into a test.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "samples" / "digits"
LONGEST, MEMORY = 20, 2048  # seconds for one input; megabytes


def onnx_file(data: bytes, file: Path) -> None:
    from edgecompress.errors import EdgeCompressError
    from edgecompress.ingest import load

    with contextlib.suppress(EdgeCompressError):
        load(file)


def pack(data: bytes, file: Path) -> None:
    from edgecompress_runtime.pack import PackError, read_pack

    with contextlib.suppress(PackError):
        read_pack(data).plan()


def recipe(data: bytes, file: Path) -> None:
    from edgecompress.errors import InputError
    from edgecompress.recipe import load_recipe
    from edgecompress.targets import load_target

    for read in (load_recipe, lambda path: load_target("android", path)):
        with contextlib.suppress(InputError):
            read(file)


def samples(data: bytes, file: Path) -> None:
    from edgecompress.errors import InputError
    from edgecompress.evaluate.dataset import load_data
    from edgecompress.ingest import load
    from edgecompress.recipe import Preprocess

    inputs = _MODELS.setdefault("digits", load(DIGITS / "digits.onnx").model).graph.inputs
    with contextlib.suppress(InputError):
        load_data(str(file), inputs, Preprocess()).head(2)


def report(data: bytes, file: Path) -> None:
    from edgecompress.errors import InputError
    from edgecompress.report.files import read_report
    from edgecompress.report.html import page

    with contextlib.suppress(InputError):
        page(read_report(file))


def frames(data: bytes, file: Path) -> None:
    from edgecompress_targets.connection.frames import Receiver, decoded

    Receiver()(data)
    for line in data.split(b"\0"):
        decoded(line)


def flash_image(data: bytes, file: Path) -> None:
    from edgecompress_targets.connection.flash_image import parts

    for name in ("a.elf", "a.hex"):
        with contextlib.suppress(ValueError):
            parts(name, data)


_MODELS: dict[str, object] = {}
# What reads, and the ending of its files.
READERS: dict[str, tuple[Callable[[bytes, Path], None], str]] = {
    "onnx": (onnx_file, ".onnx"), "pack": (pack, ".pack"), "recipe": (recipe, ".toml"), "samples": (samples, ".npz"),
    "report": (report, ".json"), "frames": (frames, ".bin"), "flash": (flash_image, ".elf"),
}  # fmt: skip


def seeds(folder: Path) -> None:
    """Real files, one folder a reader."""
    import edgecompress

    made = edgecompress.convert(
        DIGITS / "digits.onnx", "cortex-m4", calib=DIGITS / "train.npz", formats=["pack"], output=folder / "made"
    )
    found = {
        "onnx": DIGITS / "digits.onnx",
        "pack": made.artifacts["pack"],
        "recipe": folder / "made" / "recipe.toml",
        "samples": DIGITS / "test.npz",
        "report": folder / "made" / "report.json",
    }
    for name in READERS:
        (folder / name).mkdir()
        content = found[name].read_bytes() if name in found else b"\x01\x02\x03\x00"
        (folder / name / "seed").write_bytes(content)


def fuzz(name: str, corpus: str, seconds: int) -> None:
    """In this process, which libFuzzer ends."""
    import atheris

    reader, suffix = READERS[name]
    with atheris.instrument_imports(include=["edgecompress", "edgecompress_runtime", "edgecompress_targets"]):
        reader(b"", Path("/nonexistent"))
    file = Path(tempfile.mkdtemp()) / f"input{suffix}"

    def one(data: bytes) -> None:
        file.write_bytes(data)
        reader(data, file)

    options = [f"-max_total_time={seconds}", f"-timeout={LONGEST}", f"-rss_limit_mb={MEMORY}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, corpus], one)
    atheris.Fuzz()


def main() -> int:
    seconds, failed = int(sys.argv[1]) if len(sys.argv) > 1 else 60, []
    with tempfile.TemporaryDirectory() as work:
        seeds(Path(work))
        for name in READERS:
            arguments = json.dumps([name, str(Path(work) / name), seconds])
            done = subprocess.run([sys.executable, __file__, "--one", arguments], capture_output=True, text=True)
            said = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
            print(f"{name:8} {said[0].split()[-1] if said else '?':>9} inputs: {'FAILED' if done.returncode else 'ok'}")
            if done.returncode:
                failed.append(name)
                print(done.stderr[-3000:])
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(*json.loads(sys.argv[2]))
    else:
        sys.exit(main())
