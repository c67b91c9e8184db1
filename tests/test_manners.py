"""How the command line behaves: what it prints where, completion, and two runs at once."""

from __future__ import annotations

import json
import os
import pty
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import edgecompress
from edgecompress.inspection.environment import CHECKS
from edgecompress.support.lock import locked
from edgecompress_targets.drivers.driver_table import BUILT_IN
from edgecompress_targets.drivers.local import LocalSettings

DIGITS = Path(__file__).parent.parent / "samples" / "digits"
MODEL, TRAIN, TEST = (str(DIGITS / name) for name in ("digits.onnx", "train.npz", "test.npz"))
HOLD = """
import sys, time
from edgecompress.support.lock import locked
with locked("outputs", sys.argv[1], RuntimeError):
    print(1, flush=True)
    time.sleep(60)
"""


def test_doctor_tells_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, out, _ = edgecompress("doctor", "--json")
    parts = {p["name"]: p for p in json.loads(out)["parts"]}
    assert code == 0 and len(parts) == len(CHECKS)
    from importlib.metadata import version

    assert parts["onnxruntime"]["found"] == version("onnxruntime")
    run_by = {device.prefix[0] for device in BUILT_IN.values() if isinstance(device, LocalSettings) and device.prefix}
    assert run_by and run_by <= parts.keys()
    for name in ("adb", "qemu-system-arm"):
        assert (parts[name]["found"] is None) == (shutil.which(name) is None)
    (tmp_path / "qemu-aarch64").write_text("#!/bin/sh\necho qemu-aarch64 version 99.8.7 '(Debian)'\n")
    (tmp_path / "qemu-aarch64").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, _ = edgecompress("doctor")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    assert "qemu-aarch64 99.8.7" in words and "adb - Android devices" in words and "apt install adb" in words


def test_quiet_prints_paths_and_verbose_tells_stages(tmp_path: Path) -> None:
    arguments = "convert", MODEL, "--target", "cortex-m4", "--format", "pack", "--calib", TRAIN, "-o", tmp_path / "out"
    code, out, error = edgecompress(*arguments, "-q")
    assert (code, out, error) == (0, f"{tmp_path}/out/digits.int8.pack\n", "")
    code, out, error = edgecompress(*arguments, "-v", "--json")
    assert code == 0 and json.loads(out)["status"] == "ok"
    assert [line.split(":")[0] for line in error.splitlines()][:2] == ["import", "float reference"]
    assert "emit pack: " in error
    code, out, error = edgecompress(*arguments)
    assert code == 0 and "Written to" in out and error == ""
    pack = tmp_path / "out" / "digits.int8.pack"
    code, out, _ = edgecompress("build", pack, "--target", "riscv32", "-o", tmp_path / "built", "-q")
    assert code == 0 and all(Path(line).exists() for line in out.splitlines()) and "build.json" in out
    code, out, _ = edgecompress("build", pack, "--target", "riscv32", "-o", tmp_path / "built", "--json")
    assert json.loads(out)["pack"] == pack.name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_one_that_the_shell_reads(shell: str) -> None:
    code, out, _ = edgecompress("completion", shell)
    assert code == 0 and "_EDGECOMPRESS_COMPLETE" in out
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n"], input=out, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("edgecompress con", {"convert"}),
        ("edgecompress convert --target cortex-m5", {"cortex-m55"}),
        ("edgecompress convert --recipe f", {"fast"}),
        ("edgecompress convert --format p", {"pack"}),
        ("edgecompress bench --device qemu-m5", {"qemu-m55"}),
        ("edgecompress flash --device loc", {"local"}),
        ("edgecompress convert --max-", {"--max-drop", "--max-size"}),
    ],
)
def test_completion(words: str, expected: set[str], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from edgecompress.cli import main

    monkeypatch.setenv("_EDGECOMPRESS_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit):
        main([])
    found = {line.split(",")[1] for line in capsys.readouterr().out.splitlines()}
    assert found == expected


def test_two_conversions_into_one_folder(tmp_path: Path) -> None:
    arguments = "convert", MODEL, "-o", tmp_path / "out"
    (tmp_path / "link").symlink_to(tmp_path)
    with locked("outputs", str((tmp_path / "out").resolve()), RuntimeError):
        code, _, error = edgecompress(*arguments)
        assert code == 2 and f"is being written by process {os.getpid()}" in error and "-o" in error
        assert edgecompress("convert", MODEL, "-o", tmp_path / "link" / "out")[0] == 2  # the same by another name
        assert edgecompress("convert", MODEL, "-o", tmp_path / "other")[0] == 0
        assert not (tmp_path / "out").exists()
    assert edgecompress(*arguments)[0] == 0


def test_the_lock_of_a_killed_process_is_open(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "1\n"
        with pytest.raises(RuntimeError, match=str(other.pid)), locked("outputs", str(tmp_path), RuntimeError):
            pass
        other.kill()
        other.wait()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with locked("outputs", str(tmp_path), RuntimeError):
                return
        except RuntimeError:
            time.sleep(0.05)
    raise AssertionError("still locked")


def test_where_the_cache_cannot_be_written_locks_are_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with locked("outputs", "x", RuntimeError):
        assert list(tmp_path.glob("edgecompress-*/outputs/*.lock"))


def test_a_link_that_somebody_planted_among_locks_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/x")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with locked("outputs", "x", RuntimeError):
        (lock,) = tmp_path.glob("edgecompress-*/outputs/*.lock")
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600 and stat.S_IMODE(lock.parent.stat().st_mode) == 0o700
    lock.unlink()
    lock.symlink_to(victim)  # one file in the folder
    with pytest.raises(OSError, match=lock.name), locked("outputs", "x", RuntimeError):
        pass
    lock.parent.rename(tmp_path / "elsewhere")  # the whole folder
    lock.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"no folder for locks: .*; .* is a symbolic link: remove it"):
        locked("outputs", "x", RuntimeError).__enter__()
    assert victim.read_text() == "precious"


@pytest.mark.long
def test_no_color(tmp_path: Path) -> None:
    """On a terminal, by way of a pseudo-terminal: a status that is red otherwise."""
    (tmp_path / "few.toml").write_text("[cluster]\nbits = 1\n")
    arguments = [
        MODEL,
        "--target",
        "cortex-m4",
        "--format",
        "pack",
        "--calib",
        TRAIN,
        "--eval",
        TEST,
        "--recipe",
        str(tmp_path / "few.toml"),
        "--max-drop",
        "0",
        "-o",
        str(tmp_path / "out"),
    ]
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm-256color"}
    for variables, red in (({}, True), ({"NO_COLOR": "1"}, False)):
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "edgecompress", "convert", *arguments]
        done = subprocess.Popen(command, stdout=slave, env=environment | variables)
        os.close(slave)
        text = _all(master)
        assert done.wait() == 4 and b"accuracy-limit-exceeded" in text
        assert (b"31m" in text) == red
        os.close(master)


def _all(file: int) -> bytes:
    text = b""
    try:
        while chunk := os.read(file, 65536):
            text += chunk
    except OSError:  # the other end is closed
        pass
    return text
