"""Devices under Linux and Android: a real OpenSSH server, the real adb client with a stand-in for adbd, and what goes
wrong on the way to them. AArch64 programs are run by qemu-aarch64."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import adbd
import pytest
import sshd
from lossy import Faults, LossyLine
from test_devices_processes import gone

from command import edgecompress
from disks import mounted
from edgecompress import convert
from edgecompress.devices.firmware import build
from edgecompress_targets.connection.driver import DeviceError, LostError, Program
from edgecompress_targets.drivers import linux, ssh
from edgecompress_targets.drivers.adb import AdbSettings, AdbShell
from edgecompress_targets.drivers.linux import LinuxDevice
from edgecompress_targets.drivers.ssh import SshSettings, SshShell
from emulators import ADB, SSH

QEMU = ["qemu-aarch64", "-cpu", "cortex-a53"]
HANGS = ["sh", "-c", 'test -s "$1" && exec sleep 600; exec qemu-aarch64 "$0" "$@"']  # once it has inputs
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240  # seconds until a test gives up; a busy machine needs many


@pytest.fixture(scope="module")
def built(pack: Path) -> Path:
    return build(pack, "raspberry-pi").directory


@pytest.fixture(scope="module")
def other_built(other_pack: Path) -> Path:
    return build(other_pack, "raspberry-pi").directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    pytest.importorskip("paramiko", reason='needs paramiko: pip install "edgecompress[devices]"')
    with sshd.running(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory):
    with adbd.running() as running:
        yield running


def table(phone: adbd.Adbd, tmp_path: Path, **changes: object) -> dict[str, object]:
    return {
        "driver": "adb",
        "serial": f"127.0.0.1:{phone.port}",
        "folder": str(tmp_path / "phone"),
        "prefix": QEMU,
        "timeout": 60,
    } | changes


@pytest.fixture
def two_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "TRIES", 2)
    monkeypatch.setattr(linux, "PAUSE", 0.1)


def kept(folder: Path) -> list[str]:
    """What is on the device."""
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


@SSH
def test_ssh_gives_this_machines_outputs_and_leaves_nothing(
    server: sshd.Sshd, built: Path, samples: Path, configured
) -> None:
    config = configured(pi=server.table())
    code, out, error = edgecompress("bench", built, "--device", "pi", "--eval", samples, "--config", config, "--json")
    assert code == 0, error
    (found,) = json.loads(out)["results"]
    assert found["equal"] and found["accuracy"] == found["host_accuracy"] and found["runs"] == 40
    assert found["counts"] is None and found["emulated"], "an emulator's times say nothing"
    assert kept(server.folder / "device") == []
    code, out, _ = edgecompress("devices", "--config", config)
    assert code == 0 and "qemu-aarch64 on" in out


@SSH
def test_ssh_runs_the_boards_own_python_and_tells_time(
    server: sshd.Sshd, pack: Path, samples: Path, configured
) -> None:
    python = server.folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={os.pathsep.join(sys.path)} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    config = configured(board=server.table(prefix=[], python=str(python), target="linux-x86"))
    code, out, error = edgecompress("bench", pack, "--device", "board", "--eval", samples, "--config", config, "--json")
    assert code == 0, error
    (found,) = json.loads(out)["results"]
    counts = found["counts"]
    assert found["equal"] and found["warmup"] == 3 and counts["unit"] == "ns"
    assert 0 < counts["min"] <= counts["median"] <= counts["p99"] <= counts["max"]
    assert any(note.startswith("interpreter: edgecompress-runtime") for note in found["notes"])


@SSH
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"port": 1, "timeout": 2}, "pi (127.0.0.1:1): can't be reached: Connection refused (3 tries)"),
        ({"key": "{folder}/stranger"}, "refused the key"),
        ({"known_hosts": "{folder}/none"}, "its host key is not in"),
        ({"known_hosts": "{folder}/wrong"}, "its host key differs from the one in"),
        ({"prefix": []}, "the program is for aarch64"),
        ({"prefix": ["qemu-nothing"]}, "qemu-nothing is not installed on it"),
        ({"folder": "/dev/null/x"}, "Not a directory"),
    ],
    ids=["no server", "key", "unknown host", "another host", "architecture", "emulator", "folder"],
)
def test_ssh_that_can_not_be_is_one_clear_line(
    changes: dict[str, object], expected: str, server: sshd.Sshd, built: Path, configured
) -> None:
    kind, key = (server.folder / "stranger.pub").read_text().split()[:2]
    (server.folder / "wrong").write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
    filled = {k: v.format(folder=server.folder) if isinstance(v, str) else v for k, v in changes.items()}
    config = configured(pi=server.table(**filled))
    if "prefix" in changes and not changes["prefix"] and os.uname().machine == "aarch64":
        pytest.skip("this machine is the architecture that is meant to be wrong")
    code, out, error = edgecompress("flash", built, "--device", "pi", "--config", config)
    assert code == 5 and out == "" and error.count("\n") == 1 and expected in error
    assert ("tries" in error) == ("port" in changes), "what helps to try again is tried again, and nothing else"


@SSH
def test_a_port_that_speaks_no_ssh_is_one_line(server: sshd.Sshd, built: Path, configured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            while True:
                try:
                    connection, _ = other.accept()
                except OSError:
                    return
                connection.sendall(b"220 mail\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        config = configured(pi=server.table(port=other.getsockname()[1], timeout=2))
        paths = os.pathsep.join(str(ROOT / room) for room in ("", "runtime", "targets"))
        main = "from edgecompress.cli import main; main()"
        command = [sys.executable, "-c", main, "flash", str(built), "--device", "pi", "--config", str(config)]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 5 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.long
@SSH
def test_flash_keeps_the_version_before_until_the_new_one_has_answered(
    server: sshd.Sshd, built: Path, other_built: Path, samples: Path, configured
) -> None:
    folder = server.folder / "device"
    config = configured(pi=server.table(), broken=server.table(prefix=["false"]))
    code, out, error = edgecompress("flash", built, "--device", "pi", "--config", config)
    assert code == 0 and "is on pi" in out, error
    (first,) = kept(folder)
    code, _, error = edgecompress("flash", other_built, "--device", "broken", "--config", config)
    assert code == 5 and kept(folder) == [first], error
    assert edgecompress("bench", built, "--device", "pi", "--eval", samples, "--runs", "2", "--config", config)[0] == 0
    assert kept(folder) == [first], "bench leaves what was flashed"
    assert edgecompress("bench", other_built, "--device", "pi", "--runs", "2", "--config", config)[0] == 0
    assert kept(folder) == [first], "bench of another version, too"
    assert edgecompress("flash", other_built, "--device", "pi", "--config", config)[0] == 0
    (second,) = kept(folder)
    assert second != first
    shutil.rmtree(folder)


@SSH
@pytest.mark.parametrize("when", ["deploy", "run"])
def test_ssh_that_is_cut(when: str, server: sshd.Sshd, built: Path, samples: Path, configured, two_tries) -> None:
    folder, prefix = server.folder / "device", HANGS if when == "run" else ["sh", "-c", "exec sleep 600"]
    config = configured(pi=server.table(prefix=prefix), well=server.table())
    with cutting(folder, server.cut, 2, at_start=when == "deploy"):
        code, out, error = edgecompress("bench", built, "--device", "pi", "--eval", samples, "--config", config)
    assert code == 5 and out == "" and error.count("\n") == 1
    assert "the connection was lost" in error and "(2 tries)" in error
    assert not sleeping(folder), "what ran there was ended"
    code, _, error = edgecompress("flash", built, "--device", "well", "--config", config)
    assert code == 0 and [name.endswith(".part") for name in kept(folder)] == [False], error
    shutil.rmtree(folder)


# hangs the first time that it has inputs
HANGS_ONCE = ["sh", "-c", "test -s \"$1\" && mkdir {once} 2>/dev/null && exec sleep 600; "
              'exec qemu-aarch64 "$0" "$@"']  # fmt: skip


def once(folder: Path) -> list[str]:
    return [word.format(once=folder / "once") for word in HANGS_ONCE]


@SSH
def test_ssh_that_is_cut_once_goes_on(
    server: sshd.Sshd, built: Path, samples: Path, configured, tmp_path: Path
) -> None:
    folder = tmp_path / "device"
    config = configured(pi=server.table(prefix=once(tmp_path), folder=str(folder)))
    with cut_when(tmp_path / "once", server.cut):
        code, out, error = edgecompress(
            "bench", built, "--device", "pi", "--eval", samples, "--config", config, "--json"
        )
    assert code == 0 and json.loads(out)["results"][0]["equal"], error
    assert kept(folder) == [] and not sleeping(folder)


@SSH
def test_an_ssh_server_may_come_late(
    server: sshd.Sshd, built: Path, configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First its port refuses."""
    monkeypatch.setattr(linux, "TRIES", 100)  # however late
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = (server.folder / "known_hosts").read_text()
    (tmp_path / "known").write_text(known.replace(str(server.port), str(port)))
    changes = {"port": port, "known_hosts": str(tmp_path / "known"), "folder": str(tmp_path / "device")}
    config = configured(pi=server.table(**changes))
    lines: list[LossyLine] = []
    timer = threading.Timer(linux.PAUSE * 1.5, lambda: lines.append(LossyLine(server.port, Faults(), listen=port)))
    timer.start()
    code, _, error = edgecompress("flash", built, "--device", "pi", "--config", config)
    timer.join()
    lines[0].close()
    assert code == 0 and len(kept(tmp_path / "device")) == 1, error


@SSH
def test_ctrl_c_cleans_up_on_the_device(server: sshd.Sshd, built: Path, samples: Path, configured) -> None:
    folder, config = server.folder / "device", configured(pi=server.table(prefix=HANGS))
    arguments = "bench", str(built), "--device", "pi", "--eval", str(samples), "--config", str(config)
    paths = os.pathsep.join(str(ROOT / room) for room in ("", "runtime", "targets"))
    command = [sys.executable, "-c", "from edgecompress.cli import main; main()", *arguments]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True)
    wait_for(folder, "process-*")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and error.strip() == "error: interrupted"
    assert kept(folder) == [] and not sleeping(folder)


def test_energy_is_what_a_counter_says(pack: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that rises as time does, in place of the processor's."""
    monkeypatch.setattr(linux, "ENERGY", "date +%s%N")
    code, out, _ = edgecompress("bench", pack, "--eval", samples, "--json")
    (found,) = json.loads(out)["results"]
    assert code == 0 and 0 < found["energy_microjoules"] * 43 < 1e9 * found["wall_seconds"]  # 40 and 3 to warm up
    monkeypatch.setattr(linux, "ENERGY", "echo 7")
    (found,) = json.loads(edgecompress("bench", pack, "--eval", samples, "--json")[1])["results"]
    assert found["energy_microjoules"] is None


LITERT = """INFO: Log parameter values verbosely: [0]
INFO: count=3 first=900 curr=500 min=480 max=900 avg=626.667 std=193

INFO: Running benchmark for at least 40 iterations and at least 0 seconds.
INFO: count=40 first=470 curr=462 min=455 max=530 avg=470.25 std=12{more}

INFO: Inference timings in us: Init: 3113, First inference: 900, Warmup (avg): 626.667, Inference (avg): 470.25
"""


@pytest.mark.skipif(shutil.which("adb") is None, reason="not installed: adb (apt install adb)")
def test_benchmarks_of_others(phone: adbd.Adbd, configured, tmp_path: Path) -> None:
    """Stand-ins for benchmark_model and onnxruntime_perf_test, which print and write what those do."""
    folder = Path(__file__).parents[2] / "samples" / "digits"
    convert(folder / "digits.onnx", "android", output=tmp_path / "out", formats=["tflite", "onnx"])
    (tmp_path / "said").write_text(LITERT.format(more=""))
    (tmp_path / "benchmark_model").write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/words\ntest -f model.tflite && cat {tmp_path}/said\n'
    )
    (tmp_path / "onnxruntime_perf_test").write_text(
        "#!/bin/sh\necho Session creation time cost: 0.1 s\n"
        'i=0; while [ $i -lt $5 ]; do i=$((i + 1)); echo "model,0.00$i,4096" >> result.csv; done\n'
    )
    programs = {"tflite": str(tmp_path / "benchmark_model"), "onnx": str(tmp_path / "onnxruntime_perf_test")}
    for program in programs.values():
        os.chmod(program, 0o755)
    config = configured(phone={**table(phone, tmp_path), "benchmark": programs, "prefix": []})

    def counts(artifact: str, runs: int) -> dict[str, float]:
        code, out, error = edgecompress(
            "bench", tmp_path / "out" / artifact, "--device", "phone", "--runs", str(runs), "--config", config, "--json"
        )
        assert code == 0, error
        (found,) = json.loads(out)["results"]
        assert found["accuracy"] is None and found["equal"] is None and "of its own" in found["notes"][0]
        return found["counts"]

    found = counts("digits.dynamic.tflite", 5)
    assert (found["min"], found["max"], found["mean"], found["median"]) == (455000, 530000, 470250, None)
    assert "--num_runs=5 " in (tmp_path / "words").read_text()
    (tmp_path / "said").write_text(LITERT.format(more=" p5=456 median=466 p95=520"))
    assert counts("digits.dynamic.tflite", 5)["median"] == 466000
    found = counts("digits.dynamic.onnx", 3)
    assert (found["min"], found["median"], found["max"]) == (1_000_000, 2_000_000, 3_000_000)
    (tmp_path / "said").write_text("Failed to load model")
    artifact = tmp_path / "out" / "digits.dynamic.tflite"
    code, _, error = edgecompress("bench", artifact, "--device", "phone", "--config", config)
    assert code == 5 and "no line of statistics" in error and error.count("\n") == 1
    assert kept(tmp_path / "phone") == []


@pytest.mark.long
@SSH
def test_ssh_with_a_full_disk_and_a_line_that_changes_bytes(
    server: sshd.Sshd, built: Path, samples: Path, configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bench(folder: Path) -> tuple[int, str, str]:
        config = configured(pi=server.table(folder=str(folder)))
        return edgecompress("bench", built, "--device", "pi", "--eval", samples, "--config", config)

    with mounted(tmp_path / "small", "size=64k") as small:
        code, out, error = bench(small / "device")
        assert code == 5 and out == "" and "No space left on device" in error and error.count("\n") == 1
        assert kept(small / "device") == []
    push = ssh.SshShell.push

    def changed(self: ssh.SshShell, content: bytes, path: str) -> None:
        push(self, content[:99] + bytes([content[99] ^ 1]) + content[100:], path)

    with monkeypatch.context() as patch:
        patch.setattr(ssh.SshShell, "push", changed)
        code, _, error = bench(tmp_path / "device")
        assert code == 5 and "differ from those that were sent (SHA-256)" in error and error.count("\n") == 1
        assert kept(tmp_path / "device") == []
    assert bench(tmp_path / "device")[0] == 0


@pytest.mark.long
@SSH
def test_a_killed_flash_leaves_nothing_half_done(server: sshd.Sshd, built: Path, configured, tmp_path: Path) -> None:
    """A folder has its name when all that is in it was read back; what was on its way is put aside by the next."""
    folder = tmp_path / "device"
    config = configured(pi=server.table(folder=str(folder)))
    arguments = "flash", str(built), "--device", "pi", "--config", str(config)
    command = [sys.executable, "-c", "from edgecompress.cli import main; main()", *arguments]
    paths = os.pathsep.join(str(ROOT / room) for room in ("", "runtime", "targets"))
    choose = random.Random(0)
    for _ in range(4):
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stderr=subprocess.DEVNULL)
        time.sleep(choose.uniform(0.5, 2.5))
        process.kill()
        process.wait()
        assert len([name for name in kept(folder) if not name.endswith(".part")]) <= 1
    code, _, error = edgecompress(*arguments)
    (name,) = kept(folder)
    assert code == 0 and not name.endswith(".part"), error
    assert len(list((folder / name).iterdir())) == 1


@ADB
def test_adb_gives_this_machines_outputs(phone: adbd.Adbd, built: Path, samples: Path, configured, tmp_path) -> None:
    config = configured(phone=table(phone, tmp_path))
    code, out, error = edgecompress(
        "bench", built, "--device", "phone", "--eval", samples, "--config", config, "--json"
    )
    assert code == 0, error
    (found,) = json.loads(out)["results"]
    assert found["equal"] and found["accuracy"] == found["host_accuracy"] and "Stand-in, 14" in found["description"]
    assert kept(tmp_path / "phone") == []


@ADB
def test_a_phone_that_is_not_configured_is_listed(phone: adbd.Adbd, tmp_path: Path) -> None:
    address = f"127.0.0.1:{phone.port}"
    subprocess.run(["adb", "connect", address], check=True, capture_output=True)
    (tmp_path / "none.toml").touch()
    code, out, _ = edgecompress("devices", "--config", tmp_path / "none.toml", "--json")
    (found,) = [c for c in json.loads(out)["connected"] if c["address"] == address]
    assert code == 0 and found["description"] == "Stand-in, Android 14" and found["target"] == "android"
    subprocess.run(["adb", "disconnect", address], check=True, capture_output=True)


@ADB
def test_adb_faults(phone: adbd.Adbd, built: Path, samples: Path, configured, tmp_path, two_tries) -> None:
    config = configured(
        phone=table(phone, tmp_path),
        nowhere=table(phone, tmp_path, serial="127.0.0.1:1"),
        unplugged=table(phone, tmp_path, serial="ABC123"),
        slow=table(phone, tmp_path, prefix=HANGS),
    )

    def fails(device: str) -> str:
        code, out, error = edgecompress("bench", built, "--device", device, "--eval", samples, "--config", config)
        assert code == 5 and out == "" and error.count("\n") == 1
        return error

    assert "refused" in fails("nowhere") and "'ABC123' not found" in fails("unplugged")
    phone.full = True
    assert "No space left on device" in fails("phone")
    phone.full, phone.flip = False, True
    assert "differ from those that were sent (SHA-256)" in fails("phone") and kept(tmp_path / "phone") == []
    phone.flip = False
    with cutting(tmp_path / "phone", phone.cut, 2):
        assert "(2 tries)" in fails("slow")
    code, _, error = edgecompress("bench", built, "--device", "phone", "--eval", samples, "--config", config)
    assert code == 0 and kept(tmp_path / "phone") == [], error


@ADB
def test_adb_that_is_cut_once_goes_on(phone: adbd.Adbd, built: Path, samples: Path, configured, tmp_path) -> None:
    folder = tmp_path / "phone"
    config = configured(phone=table(phone, tmp_path, prefix=once(tmp_path)))
    with cut_when(tmp_path / "once", phone.cut):
        code, out, error = edgecompress(
            "bench", built, "--device", "phone", "--eval", samples, "--config", config, "--json"
        )
    assert code == 0 and json.loads(out)["results"][0]["equal"], error
    phone.cut_pushes = 1
    code, _, error = edgecompress("flash", built, "--device", "phone", "--config", config)
    assert code == 0 and phone.cut_pushes == 0 and len(kept(folder)) == 1, error


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "600000\n1800000\n81500\n",
            ("clock after the run: 600 of 1800 MHz", "temperature after the run: 82 degrees Celsius"),
        ),
        ("none\nnone\n47000\n", ("temperature after the run: 47 degrees Celsius",)),
        ("none\nnone\nnone\n", ()),
    ],
)
def test_a_slow_clock_and_a_hot_cpu_are_told(said: str, expected: tuple[str, ...]) -> None:
    """A board that answers as the kernel's files do; no such board was ever asked."""
    record, count = bytes(4), 3
    program = Program("name", "0" * 64, 4, 2, {"program": b""}, ("./program", "{inputs}", "{outputs}", "{times}"))

    class Answers:
        def execute(self, command: str, timeout: float) -> tuple[int, bytes, bytes]:
            return 0, said.encode() if "cpufreq" in command else b"", b""

        def push(self, content: bytes, path: str) -> None: ...

        def pull(self, path: str, most: int) -> bytes:
            return bytes(8 * count if "times" in path else 2 * count)

        def close(self) -> None: ...

    measured = LinuxDevice("board", Answers(), "folder").run(program, record * count)
    assert measured.notes == expected and measured.counts == (0, 0, 0) and measured.unit == "ns"


@contextmanager
def cutting(folder: Path, cut: Callable[[], None], times: int, *, at_start: bool = False) -> Iterator[None]:
    """As often, each time when a program hangs on the device that was not there before."""
    seen: set[str] = set()

    def watch() -> None:
        for _ in range(times):
            deadline = time.monotonic() + PATIENCE
            while not (new := hanging(folder, at_start) - seen):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            seen.update(new)
            cut()

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()


def hanging(folder: Path, at_start: bool) -> set[str]:
    """The numbers of the processes there. Without inputs a program only shows that it starts, which lasts as long as
    the device likes: unless `at_start`, such processes are left out."""
    found = set()
    for file in folder.glob("*/process-*"):
        with suppress(FileNotFoundError):
            if at_start or file.with_name(f"inputs-{file.name.rpartition('-')[2]}.bin").stat().st_size:
                found.add(file.read_text().strip())
    return found - {""}


@contextmanager
def cut_when(sign: Path, cut: Callable[[], None]) -> Iterator[None]:
    """Once, when that file is there."""
    thread = threading.Thread(target=lambda: (wait_for(sign.parent, sign.name), cut()))
    thread.start()
    yield
    thread.join()


def wait_for(folder: Path, name: str) -> None:
    """Until a program runs on the device."""
    deadline = time.monotonic() + PATIENCE
    while not (list(folder.glob(f"*/{name}")) or list(folder.glob(name))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)


def sleeping(folder: Path) -> bool:
    """Whether a program of ours still runs with its working folder there, some time after it should not."""
    deadline = time.monotonic() + PATIENCE
    while any(map(partial(works_in, folder), Path("/proc").glob("[0-9]*"))):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.05)
    return False


def works_in(folder: Path, process: Path) -> bool:
    try:
        return str(process.joinpath("cwd").readlink()).startswith(str(folder))
    except OSError:
        return False


OVER_SSH = """
import json, sys
from edgecompress_targets.drivers.ssh import SshSettings, SshShell
SshShell("pi", SshSettings.model_validate(json.loads(sys.argv[1]))).execute(sys.argv[2], 600)
"""


@SSH
def test_a_program_on_a_board_ends_with_the_connection(server: sshd.Sshd, tmp_path: Path) -> None:
    """Also when who is connected is killed, and whatever the program does."""
    number = tmp_path / "number"
    command = f"echo $$ > {number}.part; mv {number}.part {number}; exec sleep 600"
    words = [sys.executable, "-c", OVER_SSH, json.dumps(server.table()), command]
    with subprocess.Popen(words) as connected:
        until = time.monotonic() + PATIENCE
        while not number.exists() and time.monotonic() < until:
            time.sleep(0.05)
        connected.kill()
    assert gone(int(number.read_text()))


OVER_ADB = """
import json, sys
from edgecompress_targets.drivers.adb import AdbSettings, AdbShell
AdbShell("phone", AdbSettings.model_validate(json.loads(sys.argv[1]))).execute(sys.argv[2], 600)
"""


@pytest.mark.skipif(shutil.which("adb") is None, reason="not installed: adb (apt install adb)")
@pytest.mark.parametrize("way", ["killed", "stopped", "cut", "too long", "deaf"])
def test_a_program_on_a_phone_ends_with_the_connection(way: str, phone: adbd.Adbd, tmp_path: Path) -> None:
    """adbd closes a program's input when the connection ends, and does nothing else to it."""
    number = tmp_path / "number"
    deaf = "trap '' HUP INT TERM PIPE; " if way == "deaf" else ""
    command = f"{deaf}echo $$ > {number}.part; mv {number}.part {number}; exec sleep 600"
    settings = table(phone, tmp_path)
    if way == "too long":
        shell = AdbShell("phone", AdbSettings.model_validate(settings))
        for seconds in (2, 20, PATIENCE):  # until it lasts long enough for the program to begin
            with pytest.raises(DeviceError, match="did not end within"):
                shell.execute(command, seconds)
            if number.exists():
                break
    else:
        with subprocess.Popen(
            [sys.executable, "-c", OVER_ADB, json.dumps(settings), command], stderr=subprocess.DEVNULL
        ) as connected:
            until = time.monotonic() + PATIENCE
            while not number.exists() and time.monotonic() < until:
                time.sleep(0.05)
            end = {"killed": connected.kill, "deaf": connected.kill, "stopped": connected.terminate, "cut": phone.cut}
            end[way]()
    assert gone(int(number.read_text()))


@pytest.mark.skipif(shutil.which("adb") is None, reason="not installed: adb (apt install adb)")
def test_a_phone_gives_what_a_command_says_and_its_code(phone: adbd.Adbd, tmp_path: Path) -> None:
    shell = AdbShell("phone", AdbSettings.model_validate(table(phone, tmp_path)))
    assert shell.execute("echo \"a 'b'\"; echo c >&2; exit 7", 20) == (7, b"a 'b'\n", b"c\n")
    assert shell.execute("cat; echo $?", 20) == (0, b"0\n", b"")  # without input
    assert shell.execute("kill -9 $$", 20)[0] == 128 + 9
    shell.close()


@SSH
def test_a_board_gives_what_a_command_says_and_its_code(server: sshd.Sshd) -> None:
    shell = SshShell("pi", SshSettings.model_validate(server.table()))
    assert shell.execute("echo \"a 'b'\"; echo c >&2; exit 7", 20) == (7, b"a 'b'\n", b"c\n")
    assert shell.execute("cat; echo $?", 20) == (0, b"0\n", b"")  # without input
    with pytest.raises(LostError, match="cut off"):
        shell.execute("kill -9 $$", 20)
    shell.close()
