"""From artifact to measured device, with figures: emulated boards, SSH, adb, and a bad serial line.

    [EDGECOMPRESS_BENCH_DATA=DIR] python tests/bench/devices.py [digits] [ssh] [adb] [lossy] [resnet8]

digits: the whole command on the sample for an emulated Cortex-M4; ssh, adb: the same on a real OpenSSH server and on
the tests' stand-in for adbd, both on this machine, programs run by qemu-aarch64; lossy: 1,000 inferences over a serial
line that changes 1 % of the bytes, beside a good one; resnet8: 1,000 images of CIFAR-10 on an emulated Cortex-M4, for
which DIR holds models/ic_resnet8.onnx (mlcommons/tiny) and data/datasets.py with `load("cifar10", "train" | "test",
limit) -> (uint8 [n, 32, 32, 3], int64 [n])`. Exits 1 when an accuracy or an output is not this machine's.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "samples" / "digits"
sys.path.insert(0, str(ROOT / "tests" / "devices"))

import adbd  # noqa: E402
import sshd  # noqa: E402
from lossy import Faults, LossyLine  # noqa: E402

from edgecompress import convert  # noqa: E402
from edgecompress.devices.artifact import open_artifact  # noqa: E402
from edgecompress.devices.bench import bench, on_host  # noqa: E402
from edgecompress.devices.configuration import add_device  # noqa: E402
from edgecompress.devices.programs import prepare  # noqa: E402
from edgecompress.devices.samples import load_samples  # noqa: E402
from edgecompress.record.report import DeviceRun, Report  # noqa: E402
from edgecompress_targets.connection.serial_port import SerialPort  # noqa: E402
from edgecompress_targets.cortex_m.boards import BOARDS  # noqa: E402
from edgecompress_targets.cortex_m.emulator import EmulatorProcess  # noqa: E402
from edgecompress_targets.drivers.driver_table import BUILT_IN  # noqa: E402

INFERENCES, CHANGED = 1000, 0.01
QEMU = ["qemu-aarch64", "-cpu", "cortex-a53"]


def digits(work: Path) -> bool:
    """edgecompress convert samples/digits/digits.onnx --target cortex-m4 --calib ... --eval ... --device qemu-m4"""
    return _command(work, "cortex-m4", "qemu-m4", None)


def ssh(work: Path) -> bool:
    """The same for raspberry-pi through SSH."""
    with sshd.running(work) as server:
        config = add_device("pi", server.table(), work / "devices.toml")
        return _command(work, "raspberry-pi", "pi", config)


def adb(work: Path) -> bool:
    """The same for android through adb."""
    with adbd.running() as phone:
        table = {"driver": "adb", "serial": f"127.0.0.1:{phone.port}", "folder": str(work / "phone"), "prefix": QEMU}
        config = add_device("phone", table, work / "devices.toml")
        return _command(work, "android", "phone", config)


def _command(work: Path, target: str, device: str, config: Path | None) -> bool:
    output = work / "converted"
    words = [
        "convert",
        str(DIGITS / "digits.onnx"),
        "--target",
        target,
        "--calib",
        str(DIGITS / "train.npz"),
        "--eval",
        str(DIGITS / "test.npz"),
        "--device",
        device,
        "-o",
        str(output),
    ]
    words += ["--config", str(config)] if config else []
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "from edgecompress.cli import main; main()", *words],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - begun
    (run,) = Report.model_validate_json((output / "report.json").read_bytes()).devices
    print(f"  whole command {wall:.1f} s, of it deploying and running {run.wall_seconds:.1f} s")
    return _told(run)


def _told(run: DeviceRun) -> bool:
    counts = "" if run.counts is None else f", median {run.counts.median:,.0f} {run.counts.unit}"
    print(f"  {run.artifact} on {run.device} ({run.description}): {run.runs:,} inferences{counts}")
    print(f"  accuracy there {run.accuracy:.2f} %, here {run.host_accuracy:.2f} %, equal bit for bit: {run.equal}")
    return bool(run.equal) and run.accuracy == run.host_accuracy


def lossy(work: Path) -> bool:
    """1,000 inferences of the digits model over a serial line that changes 1 % of the bytes."""
    made = convert(
        DIGITS / "digits.onnx",
        "cortex-m4",
        calib=str(DIGITS / "train.npz"),
        formats=["pack"],
        output=work / "converted",
    )
    artifact = open_artifact(made.artifacts["pack"])
    samples = load_samples(artifact, str(DIGITS / "test.npz"), None, None)
    inputs = [samples.records[i % len(samples.records)] for i in range(INFERENCES)]
    expected = on_host(samples).outputs
    size = artifact.output_bytes
    records = len(samples.records)
    right = b"".join(expected[i % records * size : (i % records + 1) * size] for i in range(INFERENCES))
    program = prepare(artifact, "qemu-m4", BUILT_IN["qemu-m4"]).program
    image = work / "image.elf"
    image.write_bytes(program.files[program.start[0]])
    walls, good = [], True
    for faults in (Faults(), Faults(flip=CHANGED)):
        process = EmulatorProcess(image, BOARDS["cortex-m4"])
        line = LossyLine(int(process.url.rpartition(":")[2]), faults, seed=1)
        port = SerialPort("board", line.url)
        try:
            port.require(program)
            begun = time.perf_counter()
            measured = port.measure(b"".join(inputs))
            walls.append(time.perf_counter() - begun)
            traffic = port.session.traffic
        finally:
            port.close()
            line.close()
            process.close()
        wrong = sum(measured.outputs[at : at + size] != right[at : at + size] for at in range(0, len(right), size))
        good &= wrong == 0
        print(
            f"  {line.changed:,} of {line.carried:,} bytes changed: {INFERENCES} inferences, {wrong} wrong, "
            f"{walls[-1]:.1f} s, {traffic.again:,} of {traffic.frames:,} frames sent again"
        )
    print(f"  time over that of the good line: {walls[1] / walls[0]:.2f}")
    return good


def resnet8(work: Path) -> bool:
    """MLPerf Tiny's ResNet-8 on 1,000 images of CIFAR-10."""
    data = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if not data:
        print("  skipped: EDGECOMPRESS_BENCH_DATA is not set")
        return True
    folder = Path(data)
    load = _module(folder / "data" / "datasets.py").load
    images, labels = load("cifar10", "test", INFERENCES)
    calibration = load("cifar10", "train", 500)[0].astype(np.float32)
    made = convert(
        folder / "models" / "ic_resnet8.onnx",
        "cortex-m4",
        calib=calibration,
        formats=["pack"],
        output=work / "converted",
    )
    begun = time.perf_counter()
    result = bench(made.artifacts["pack"], "qemu-m4", eval=(images.astype(np.float32), labels))
    print(f"  bench, building included: {time.perf_counter() - begun:.0f} s")
    return _told(result.results[0])


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PARTS: dict[str, Callable[[Path], bool]] = {f.__name__: f for f in (digits, ssh, adb, lossy, resnet8)}


def main() -> int:
    failed = 0
    for name in sys.argv[1:] or PARTS:
        print(f"{name}: {PARTS[name].__doc__}", flush=True)
        with tempfile.TemporaryDirectory() as work:
            failed += not PARTS[name](Path(work))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
