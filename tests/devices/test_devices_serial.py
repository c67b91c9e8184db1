"""Boards behind a serial line, all of them emulated: every kind of CPU, lines that lose bytes, boards that fail."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from lossy import Faults, LossyLine

from command import edgecompress
from edgecompress.devices.artifact import open_artifact
from edgecompress.devices.device_lock import locked
from edgecompress.devices.firmware import build
from edgecompress.devices.programs import prepare
from edgecompress_targets.connection.driver import DeviceError, Program
from edgecompress_targets.connection.flash_image import parts
from edgecompress_targets.connection.serial_port import SerialPort
from edgecompress_targets.cortex_m.boards import BOARDS
from edgecompress_targets.cortex_m.emulator import EmulatorProcess, emulated_port
from edgecompress_targets.cortex_m.firmware_image import link
from edgecompress_targets.drivers.driver_table import BUILT_IN
from emulators import CORTEX_M

pytestmark = CORTEX_M
BOARD = BOARDS["cortex-m4"]


@pytest.fixture(scope="module")
def built(pack: Path) -> Path:
    return build(pack, "cortex-m4").directory


@pytest.fixture(scope="module")
def program(built: Path) -> Program:
    return prepare(open_artifact(built), "qemu-m4", BUILT_IN["qemu-m4"]).program


@pytest.fixture
def image(program: Program, tmp_path: Path) -> Path:
    (tmp_path / "image.elf").write_bytes(program.files[program.start[0]])
    return tmp_path / "image.elf"


@pytest.fixture
def board(image: Path):
    process = EmulatorProcess(image, BOARD)
    yield process
    process.close()


def number(process: EmulatorProcess) -> int:
    return int(process.url.rpartition(":")[2])


@pytest.mark.parametrize("name", ["qemu-m0", "qemu-m3", "qemu-m7", "qemu-m33", "qemu-m55"])
def test_every_cpu_gives_this_machines_outputs(name: str, pack: Path, samples: Path) -> None:
    code, out, error = edgecompress("bench", pack, "--device", name, "--eval", samples, "--runs", "8", "--json")
    assert code == 0, error
    (found,) = json.loads(out)["results"]
    assert found["equal"] and found["accuracy"] == found["host_accuracy"] and found["runs"] == 8
    assert found["counts"]["unit"] == "instructions" and found["counts"]["min"] > 300 and found["stack_bytes"] > 50


def benched(line: LossyLine, built: Path, samples: Path, configured) -> dict[str, Any]:
    """Of twelve inferences over a line, which is closed then."""
    config = configured(board={"driver": "serial", "port": line.url, "target": "cortex-m4"})
    code, out, error = edgecompress(
        "bench", built, "--device", "board", "--eval", samples, "--runs", "12", "--config", config, "--json"
    )
    line.close()
    assert code == 0, error
    (found,) = json.loads(out)["results"]
    return found


@pytest.mark.parametrize(
    "faults",
    [Faults(flip=0.01), Faults(drop=0.01), Faults(flip=0.004, drop=0.004, delay=0.05, split=0.3)],
    ids=["flipped", "lost", "all at once"],
)
def test_a_bad_line_gives_the_right_results(
    faults: Faults, board: EmulatorProcess, built: Path, samples: Path, configured
) -> None:
    line = LossyLine(number(board), faults, seed=7)
    found = benched(line, built, samples, configured)
    assert found["equal"] and found["counts"]["unit"] == "cycles" and "sent again" in found["notes"][0]
    assert line.changed > 30


def test_a_line_that_is_cut_is_one_clear_line(board: EmulatorProcess, built: Path, samples: Path, configured) -> None:
    line = LossyLine(number(board), Faults(cut_after=3000))
    config = configured(board={"driver": "serial", "port": line.url, "target": "cortex-m4", "timeout": 2})
    code, out, error = edgecompress("bench", built, "--device", "board", "--eval", samples, "--config", config)
    line.close()
    assert code == 5 and out == "" and error.count("\n") == 1 and "the connection was lost" in error


def test_a_line_that_is_cut_twice_goes_on(board: EmulatorProcess, built: Path, samples: Path, configured) -> None:
    line = LossyLine(number(board), Faults(cut_after=1500, cuts=2))
    found = benched(line, built, samples, configured)
    assert found["equal"] and found["runs"] == 12 and "the connection was lost and opened again, 2 x" in found["notes"]


def test_a_line_that_is_cut_after_the_last_inference(board: EmulatorProcess, program: Program) -> None:
    inputs, sent = bytes(range(256)) * program.input_bytes, []
    inputs = inputs[: program.input_bytes * 2]

    def over(faults: Faults):
        line = LossyLine(number(board), faults)
        port = SerialPort("board", line.url)
        try:
            found = port.measure(inputs)
        finally:
            port.close()
            line.close()
        sent.append(line.carried)
        return found

    whole, lost = over(Faults()), 0
    for _ in range(2):  # to the first, the board was still starting: more was sent
        over(Faults())
    for last in (24, 30, 60):  # bytes, of the two or three frames behind the last inference
        cut = over(Faults(cut_after=min(sent[:3]) - last, cuts=1))
        assert (cut.outputs, len(cut.counts), cut.stack) == (whole.outputs, 2, whole.stack)
        lost += cut.notes == ("the connection was lost and opened again, 1 x",)
    assert lost


def test_a_line_that_comes_back_to_another_program(
    board: EmulatorProcess, program: Program, other_pack: Path, tmp_path: Path
) -> None:
    other = build(other_pack, "cortex-m4", output=tmp_path / "other").directory
    found = prepare(open_artifact(other), "qemu-m4", BUILT_IN["qemu-m4"]).program
    (tmp_path / "other.elf").write_bytes(found.files[found.start[0]])
    second = EmulatorProcess(tmp_path / "other.elf", BOARD)
    line = LossyLine(number(board), Faults(cut_after=1500, cuts=1), then=number(second))
    port = SerialPort("board", line.url)
    try:
        port.require(program)
        with pytest.raises(DeviceError, match="the device now runs another program"):
            port.measure(bytes(program.input_bytes * 100))
    finally:
        port.close()
        line.close()
        second.close()


def test_a_dead_board_is_given_up_in_time(built: Path, configured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"socket://127.0.0.1:{silent.getsockname()[1]}"
        config = configured(board={"driver": "serial", "port": url, "target": "cortex-m4", "timeout": 1})
        begun = time.monotonic()
        code, _, error = edgecompress("flash", built, "--device", "board", "--config", config)
    assert code == 5 and "no answer to HELLO within 1 s" in error and time.monotonic() - begun < 120


def test_a_board_without_a_port_and_one_with_another_model(
    board: EmulatorProcess, other_pack: Path, configured
) -> None:
    config = configured(
        gone={"driver": "serial", "port": "/dev/ttyNONE", "target": "cortex-m4", "timeout": 0.1},
        board={"driver": "serial", "port": board.url, "target": "cortex-m4"},
    )
    code, _, error = edgecompress("run", other_pack, "--input", other_pack, "--device", "gone", "--config", config)
    assert code == 2 and "expected .npz" in error
    code, _, error = edgecompress("flash", other_pack, "--device", "gone", "--config", config)
    assert code == 5 and "/dev/ttyNONE" in error
    code, _, error = edgecompress("flash", other_pack, "--device", "board", "--config", config)
    assert code == 5 and "its firmware holds the model with digest" in error and "flash it first" in error


@pytest.mark.parametrize("what", ["killed", "reset"])
def test_a_board_that_goes_away_in_the_middle(what: str, image: Path, program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = EmulatorProcess(image, BOARD, options=("-monitor", f"tcp:127.0.0.1:{port},server=on,wait=off"))
    line = emulated_port("board", process, BOARD, patience=5)

    def fail() -> None:
        if what == "killed":
            process.close()
        else:
            with socket.create_connection(("127.0.0.1", port)) as monitor:
                monitor.sendall(b"system_reset\n")
                time.sleep(0.2)

    timer = threading.Timer(0.3, fail)
    try:
        line.require(program)
        timer.start()
        with pytest.raises(DeviceError, match="ended" if what == "killed" else "was reset, or another program"):
            line.measure(bytes(program.input_bytes * 100_000))
    finally:
        timer.join()
        line.close()
        process.close()


def test_sigterm_ends_the_emulator(built: Path, tmp_path: Path) -> None:
    """A stand-in for QEMU that writes down its process, and never answers."""
    emulator, pid = tmp_path / "qemu-system-arm", tmp_path / "pid"
    started = f"echo $$ > {pid}.part; mv {pid}.part {pid}; exec sleep 600"
    emulator.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit\n{started}\n')
    emulator.chmod(0o755)
    paths = os.pathsep.join(str(Path(__file__).resolve().parents[2] / room) for room in ("", "runtime", "targets"))
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecompress", "bench", str(built), "--device", "qemu-m4"],
        text=True,
        env=os.environ | {"PYTHONPATH": paths, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 240
    while not pid.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    assert process.communicate(timeout=240)[1].strip() == "error: interrupted"
    assert process.returncode == 143 and not Path("/proc", pid.read_text().strip()).exists()


def test_a_fault_of_the_cpu_is_told(tmp_path: Path) -> None:
    """A model that jumps to nowhere."""
    header = """#include <stdint.h>
#define MODEL_ARENA_BYTES 16
#define MODEL_INPUT_BYTES 4
#define MODEL_OUTPUT_BYTES 4
#define MODEL_DIGEST {0}
#define MODEL_INVOKE(a, i, o) { (void)(a), (void)(i), (void)(o); __asm__ volatile("udf #0"); }
"""
    (tmp_path / "nothing.c").touch()
    subprocess.run(["arm-none-eabi-gcc", "-mthumb", "-mcpu=cortex-m4", "-c", "nothing.c"], cwd=tmp_path, check=True)
    elf = tmp_path / "fault.elf"
    link((tmp_path / "nothing.o").read_bytes(), header, BOARD, cpu="cortex-m4", hard_float=False, to=elf)
    process = EmulatorProcess(elf, BOARD)
    line = emulated_port("board", process, BOARD)
    try:
        with pytest.raises(DeviceError, match="a CPU fault stopped the program"):
            line.measure(bytes(4))
    finally:
        line.close()
        process.close()


def test_one_run_at_a_time(board: EmulatorProcess, built: Path, samples: Path, configured) -> None:
    config = configured(board={"driver": "serial", "port": board.url, "target": "cortex-m4"})
    arguments = "bench", built, "--device", "board", "--eval", samples, "--runs", "2", "--config", config
    with locked("board", board.url):
        code, _, error = edgecompress(*arguments)
    assert code == 5 and "is in use by process" in error and error.count("\n") == 1
    assert edgecompress(*arguments)[0] == 0


def test_the_flash_command_gets_the_image(board: EmulatorProcess, built: Path, configured, tmp_path: Path) -> None:
    """Commands of real probes are not run here: what they are called with is."""
    copy = tmp_path / "copied.elf"
    table = {"driver": "serial", "port": board.url, "target": "cortex-m4", "flash": ["cp", "{image}", str(copy)]}
    config = configured(board=table)
    code, out, error = edgecompress("flash", built, "--device", "board", "--config", config)
    assert code == 0 and "is on board" in out, error
    assert copy.read_bytes()[:4] == b"\x7fELF"
    config = configured(board=table | {"flash": ["cp", "{image}", "/nowhere/at/all"]})
    code, _, error = edgecompress("flash", built, "--device", "board", "--config", config)
    assert code == 5 and "cp failed: cp: cannot create regular file" in error
    config = configured(board=table | {"flash": ["no-such-probe", "{image}"]})
    code, _, error = edgecompress("flash", built, "--device", "board", "--config", config)
    assert code == 5 and "its flash command 'no-such-probe' is not installed" in error


def test_what_arrived_in_flash_is_read_back(
    built: Path, other_pack: Path, program: Program, configured, tmp_path: Path
) -> None:
    """A board that has other weights, and says that it has this model."""
    other = build(other_pack, "cortex-m4", output=tmp_path / "other")
    there = (tmp_path / "other" / "dense.elf").read_bytes()
    wrong = there.replace(bytes.fromhex(other.record.pack_sha256), bytes.fromhex(program.digest))
    assert wrong != there
    (tmp_path / "wrong.elf").write_bytes(wrong)
    board = EmulatorProcess(tmp_path / "wrong.elf", BOARD)
    config = configured(board={"driver": "serial", "port": board.url, "target": "cortex-m4", "flash": ["true"]})
    code, _, error = edgecompress("flash", built, "--device", "board", "--config", config)
    board.close()
    assert code == 5 and "differs from what was sent (CRC-32)" in error and error.count("\n") == 1


def test_files_for_flash_have_the_parts_that_objcopy_finds(built: Path) -> None:
    elf, hexadecimal, plain = ((built / f"dense.{kind}").read_bytes() for kind in ("elf", "hex", "bin"))
    for name, content in (("a.elf", elf), ("a.HEX", hexadecimal)):
        found = parts(name, content)
        assert found
        memory = bytearray(len(plain))
        for address, data in found:
            memory[address : address + len(data)] = data
        assert memory == plain, name
    assert parts("a.bin", plain) is None
    for name, content in (
        ("a.elf", elf[:60]),
        ("a.elf", b"no"),
        ("a.hex", hexadecimal[:-13]),
        ("a.hex", b":0000ZZ"),
        ("a.hex", hexadecimal[: hexadecimal.rindex(b":")]),
        ("a.elf", elf[:0x1100]),
    ):
        with pytest.raises(ValueError, match=f"{name}: not a whole file"):
            parts(name, content)


STAND_IN = """#!/bin/sh
# a stand-in for pyocd: lists three probes, writes down what it is called with
[ "$1" = json ] && echo '{"boards": [{"unique_id": "0001", "info": "STLink", "target": "stm32l4r5zi"},
                                     {"unique_id": "0002", "info": "DAPLink", "target": "nrf52840"},
                                     {"unique_id": "0003", "info": "JLink", "target": "cortex_m"}]}'
echo "$@" >> "$RECORD"
"""


def test_pyocd_is_called_and_its_probes_are_listed(
    board: EmulatorProcess, pack: Path, configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyocd").write_text(STAND_IN)
    (tmp_path / "pyocd").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    config = configured(
        board={
            "driver": "serial",
            "port": board.url,
            "target": "cortex-m4",
            "flash": "pyocd",
            "chip": "stm32l4r5zi",
            "probe": "0001",
            "make": ["true"],
            "image": "{folder}/dense.hex",
        }
    )
    code, out, error = edgecompress("flash", pack, "--device", "board", "--config", config)
    assert code == 0, error
    *words, image = (tmp_path / "record").read_text().split()
    assert words == "load --no-wait --uid 0001 --target stm32l4r5zi".split()
    assert image.endswith("/dense.hex"), "its own suffix"
    code, out, _ = edgecompress("devices", "--config", config, "--json")
    ours, other, bare = (c for c in json.loads(out)["connected"] if c["driver"] == "probe")
    assert code == 0 and (ours["target"], ours["description"], ours["add"]) == ("cortex-m4", "STLink, of board", None)
    assert other["target"] is None and other["add"] == (
        "edgecompress devices add NAME serial port=PORT target=TARGET flash=pyocd chip=nrf52840 probe=0002"
    )
    assert "chip=CHIP probe=0003" in bare["add"], "pyocd does not know what is behind it"
    assert "chip=nrf52840" in " ".join(edgecompress("devices", "--config", config)[1].split())


def test_another_boards_own_project_makes_the_image(
    board: EmulatorProcess, pack: Path, samples: Path, configured, tmp_path: Path
) -> None:
    """A project in one line, for want of another board."""
    copy = tmp_path / "flashed.bin"
    make = "cd {folder} && ls serve.c board.h counter.h model.h libdense.a && cp dense.elf mine.bin"
    table = {
        "driver": "serial",
        "port": board.url,
        "target": "cortex-m4",
        "make": ["sh", "-c", make],
        "image": "{folder}/mine.bin",
        "flash": ["cp", "{image}", str(copy)],
    }
    config = configured(board=table, broken=table | {"make": ["sh", "-c", "echo no compiler >&2; exit 1"]})
    arguments = "bench", pack, "--eval", samples, "--runs", "2", "--config", config, "--device"
    code, _, error = edgecompress(*arguments, "board")
    assert code == 0 and copy.exists(), error
    code, _, error = edgecompress(*arguments, "broken")
    assert code == 5 and "sh failed: no compiler" in error


def test_a_port_can_be_closed_before_it_was_opened(tmp_path: Path) -> None:
    """And twice; after that it is opened as if nothing had been."""
    port = SerialPort("board", str(tmp_path / "none"), patience=0.1)
    port.close()
    port.close()
    with pytest.raises(DeviceError, match=f"board.*{tmp_path}/none"):
        _ = port.session
    port.close()
