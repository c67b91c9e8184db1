"""The commands of each sample's README.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.long
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "devices"))

FIRMWARE = ("arm-none-eabi-gcc", "qemu-system-arm", "make")
PHONE = ("adb", "qemu-aarch64", "aarch64-linux-gnu-gcc")


def run(sample: str, folder: Path, needed: tuple[str, ...] = (), **variables: str) -> str:
    """What the blocks marked `sh` print and report, run one after the other in a folder with a link to samples/."""
    if missing := [program for program in needed if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    (folder / "samples").symlink_to(ROOT / "samples")
    (folder / "bin").mkdir()
    # this checkout's and this Python, whatever else is installed
    for name, arguments in (("edgecompress", "-m edgecompress"), ("python", ""), ("python3", "")):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        program.chmod(0o755)
    rooms = os.pathsep.join(map(str, (ROOT, ROOT / "runtime", ROOT / "targets")))
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": rooms,
        "OMP_NUM_THREADS": "1",
        "XDG_CONFIG_HOME": str(folder / "configuration"),
        **variables,
    }
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "samples" / sample / "README.md").read_text(), re.DOTALL)
    assert blocks
    done = subprocess.run(
        ["sh", "-e"], input="\n".join(blocks), cwd=folder, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def test_microcontroller(tmp_path: Path) -> None:
    out = run("microcontroller", tmp_path, FIRMWARE)
    assert out.rstrip().endswith("all right") and out.count("image of a") == 10


def test_own_model(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("own_model", tmp_path)
    assert "macs kept" in out and "net.py:metric" in out
    assert {p.suffix for p in (tmp_path / "build" / "net").iterdir()} == {".html", ".json", ".onnx", ".tflite", ".toml"}


def test_deep_compression(tmp_path: Path) -> None:
    """On the digits sample, made as large as MNIST's images: its figures say nothing."""
    pytest.importorskip("torch")
    digits = {}
    for part in ("train", "test"):
        file = np.load(ROOT / "samples" / "digits" / f"{part}.npz")
        images = np.kron(file["x"].reshape(-1, 8, 8), np.ones((1, 3, 3))) * (255 / 16)
        images = np.pad(images, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
        digits |= {f"{part}_x": images[:300], f"{part}_y": file["y"][:300]}
    np.savez(tmp_path / "mnist.npz", **digits)
    out = run("deep_compression", tmp_path, MNIST=str(tmp_path / "mnist.npz"))
    rows = [line.split() for line in out.splitlines() if line.startswith(("lenet-300-100 ", "lenet-5 "))]
    assert [row[0] for row in rows] == ["lenet-300-100", "lenet-5"]
    for row in rows:
        pruned, quantized, coded = (float(word.rstrip("x")) for word in row if word.endswith("x"))
        assert 5 < pruned < quantized < coded


def test_phone(tmp_path: Path) -> None:
    """With the real adb, and a stand-in for the phone's side."""
    import adbd

    if all(map(shutil.which, PHONE)):
        with adbd.running() as phone:
            where = f'127.0.0.1:{phone.port} folder={tmp_path}/phone prefix=["qemu-aarch64","-cpu","cortex-a53"]'
            out = run("phone", tmp_path, PHONE, PHONE=where)
        assert "phone" in out and "On devices" in out and " yes" in out
    else:
        run("phone", tmp_path, PHONE)
