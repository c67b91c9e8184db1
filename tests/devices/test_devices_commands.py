"""`devices`, `run` and `convert --device`, and what they refuse."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from command import edgecompress
from edgecompress.devices.artifact import open_artifact
from edgecompress.devices.bench import bench
from edgecompress.devices.choice import device_for
from edgecompress.devices.configuration import find_device, load_devices
from edgecompress.devices.firmware import build
from edgecompress.devices.run import run
from edgecompress.record.report import Report
from edgecompress.report.files import read_report
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.pack import read_pack
from edgecompress_targets.drivers import linux
from edgecompress_targets.drivers.serial_device import SerialSettings
from emulators import CORTEX_M

DIGITS = Path(__file__).resolve().parents[2] / "samples" / "digits"


@CORTEX_M
def test_convert_measures_on_the_device_and_reports_it(tmp_path: Path) -> None:
    """One command from the float model to figures of the device."""
    few = tmp_path / "few.npz"
    with np.load(DIGITS / "test.npz") as data:
        np.savez(few, x=data["x"][:40], y=data["y"][:40])
    code, out, error = edgecompress(
        "convert",
        DIGITS / "digits.onnx",
        "--target",
        "cortex-m4",
        "--calib",
        DIGITS / "train.npz",
        "--eval",
        few,
        "--device",
        "qemu-m4",
        "-o",
        tmp_path / "out",
    )
    assert code == 0 and "On devices" in out, error
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert [a.format for a in report.artifacts] == ["tflite", "pack"], "the device needs a pack"
    (found,) = report.devices
    checks = {a.format: a.checks[0] for a in report.artifacts}
    assert found.equal and found.accuracy == found.host_accuracy == checks["pack"].value and found.runs == 40
    for artifact in report.artifacts:
        outputs = run(tmp_path / "out" / artifact.path, few)
        with np.load(few) as data:
            right = next(iter(outputs.arrays.values())).argmax(1) == data["y"]
        assert 100 * right.mean() == pytest.approx(checks[artifact.format].value), artifact.format


def test_run_gives_what_the_kernels_give(pack: Path, samples: Path, tmp_path: Path) -> None:
    with np.load(samples) as data:
        one = data["x"][3]
    np.save(tmp_path / "one.npy", one)
    code, out, error = edgecompress("run", pack, "--input", tmp_path / "one.npy", "--json")
    assert code == 0, error
    plan = read_pack(pack).plan()
    x, y = plan.tensors[plan.inputs[0]], plan.tensors[plan.outputs[0]]
    stored = np.clip(np.rint(one / x.scale[0]) + x.zero, -128, 127).astype(np.int8).reshape(x.shape)
    expected = (Executor(plan)(stored)[0].astype(np.float32) - y.zero) * y.scale[0]
    (found,) = json.loads(out)["outputs"].values()
    np.testing.assert_allclose(found, expected.reshape(1, -1), rtol=1e-6)
    (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
    code, out, _ = edgecompress("run", pack, "--input", tmp_path / "one.npy", "--labels", tmp_path / "names.txt")
    best = "abcdefghij"[int(expected.argmax())]
    assert code == 0 and f"{best}: {expected.max():.4g}" in out


def test_run_takes_images_and_a_users_own_onnx(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    with np.load(DIGITS / "test.npz") as data:
        sample, label = data["x"][0].reshape(8, 8), int(data["y"][0])
    image.fromarray(sample.astype(np.uint8)).save(tmp_path / "digit.png")
    code, out, error = edgecompress("run", DIGITS / "digits.onnx", "--input", tmp_path / "digit.png", "--json")
    assert code == 0, error
    assert int(np.argmax(json.loads(out)["outputs"]["logits"])) == label


def test_bench_compares_artifacts_on_this_machine(pack: Path, other_pack: Path) -> None:
    found = bench([pack, other_pack], runs=5, warmup=2)
    assert found.ok and [r.counts.unit for r in found.results if r.counts] == ["ns", "ns"]
    assert all(r.equal is None and r.accuracy is None and r.data == "random inputs" for r in found.results)
    assert "On devices" in str(found) and max(map(len, str(found).splitlines())) <= 80


# With a Python there, so that nothing has to be compiled.
GONE = {"driver": "ssh", "host": "127.0.0.1", "port": 1, "python": "python3", "target": "raspberry-pi"}


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "PAUSE", 0)


def test_a_device_that_fails_costs_no_other_its_figures(pack: Path, other_pack: Path, configured, no_pause) -> None:
    config = configured(gone=GONE)
    arguments = "bench", pack, other_pack, "--device", "gone", "--device", "local", "--runs", "2", "--config", config
    code, out, error = edgecompress(*arguments, "--json")
    found = json.loads(out)
    assert code == 5 and [r["device"] for r in found["results"]] == ["local", "local"], error
    assert [(f["artifact"], f["device"], f["driver"]) for f in found["failures"]] == 2 * [("dense.pack", "gone", "ssh")]
    assert all("127.0.0.1:1" in f["error"] for f in found["failures"])
    code, out, _ = edgecompress("bench", *arguments[2:])
    assert code == 5 and "failed" in out and "- dense.pack on gone" in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, error = edgecompress("bench", pack, other_pack, "--device", "gone", "--config", config)
    assert code == 5 and out == "" and error.count("\n") == 1, "nothing was measured at all"
    code, out, error = edgecompress("bench", pack, tmp := config.parent / "none.pack", "--config", config)
    assert code == 2 and out == "" and str(tmp) in error, "bad arguments are found before anything runs"


def test_convert_reports_what_could_be_measured(tmp_path: Path, configured, no_pause) -> None:
    code, out, error = edgecompress(
        "convert",
        DIGITS / "digits.onnx",
        "--target",
        "linux-x86",
        "--format",
        "pack",
        "--device",
        "gone",
        "--device",
        "local",
        "--config",
        configured(gone=GONE),
        "-o",
        tmp_path / "out",
    )
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert code == 5 and [r.device for r in report.devices] == ["local"], error
    (failure,) = report.device_failures
    assert failure.device == "gone" and " on gone " in out
    assert failure.error[:40] in html.unescape((tmp_path / "out" / "report.html").read_text())


def test_devices_are_added_listed_and_refused(tmp_path: Path) -> None:
    config = tmp_path / "made" / "devices.toml"
    flash = 'flash=["pyocd", "load", "--target", "nrf52840", "{image}"]'
    settings = "port=/dev/ttyNONE", "target=cortex-m4", "baud=9600", flash, "timeout=0.2"
    code, out, error = edgecompress("devices", "add", "board", "serial", *settings, "--config", config)
    assert code == 0 and str(config) in out, error
    board = load_devices(config)["board"].model_dump()
    assert board["baud"] == 9600 and board["flash"][-1] == "{image}" and board["target"] == "cortex-m4"
    code, out, _ = edgecompress("devices", "--config", config, "--json")
    devices = {d["name"]: d for d in json.loads(out)["devices"]}
    assert code == 0 and {"local", "qemu-m0", "qemu-m55", "qemu-aarch64", "board"} <= set(devices)
    assert devices["local"]["error"] is None and devices["board"]["description"] == "flashed by pyocd"
    for arguments, expected in (
        (("board", "serial", "port=/dev/ttyACM0", "target=cortex-m4"), "device 'board' exists already"),
        (("pi", "telnet"), "expected one of adb, emulator, local, serial, ssh"),
        (("pi", "ssh", "target=raspberry-pi"), "key 'host' is missing"),
        (("pi", "ssh", "host=pi", "target=raspbery-pi"), "did you mean 'raspberry-pi'"),
        (("pi", "ssh", "hots=pi", "host=pi", "target=raspberry-pi"), "did you mean 'host'"),
        (("a.b", "ssh", "host=pi", "target=raspberry-pi"), "expected letters, digits"),
        (("küche", "ssh", "host=pi", "target=raspberry-pi"), "expected letters, digits"),
        (("pi", "ssh", "host"), "expected KEY=VALUE"),
    ):
        code, _, error = edgecompress("devices", "add", *arguments, "--config", config)
        assert code == 2 and expected in error and error.count("\n") == 1, error
    for text, expected in (("x = 1", "unknown key 'x'"), ("devices = 1", "expected tables"), ("[", "not valid TOML")):
        config.write_text(text)
        code, _, error = edgecompress("devices", "--config", config)
        assert code == 2 and expected in error and error.count("\n") == 1, error


BAD = {
    "driverless": ("host = 'x'", "key 'driver': is missing"),
    "hostless": ("driver = 'ssh'\ntarget = 'raspberry-pi'", "key 'host' is missing"),
    "nine": ("driver = 'emulator'\ntarget = 'cortex-m4'\ncpu = 'cortex-m9'", "key 'cpu': should be one of cortex-m0,"),
    "other-cpu": ("driver = 'emulator'\ntarget = 'cortex-m4'\ncpu = 'cortex-m3'", "expected one that driver emulator"),
    "phone": ("driver = 'serial'\nport = 'x'\ntarget = 'android'", "found 'android', expected one that driver serial"),
    "pi": ("driver = 'ssh'\nhost = 'x'\ntarget = 'cortex-m4'", "expected one that driver ssh reaches: android,"),
    "typo": ("driver = 'ssh'\nhost = 'x'\ntarget = 'raspbery-pi'", "key 'target': unknown target 'raspbery-pi': did"),
    "qemu-m4": ("driver = 'ssh'\nhost = 'x'\ntarget = 'android'", "is the name of a built-in device"),
    "chipless": ("driver = 'serial'\nport = 'x'\ntarget = 'cortex-m4'\nflash = 'pyocd'", "key 'chip' is missing"),
    "probe": ("driver = 'serial'\nport = 'x'\ntarget = 'cortex-m4'\nflash = 'jlink'", "should be one of pyocd,"),
}  # fmt: skip


def test_a_bad_table_stops_only_who_uses_it(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "edgecompress" / "devices.toml"
    config.parent.mkdir()
    config.write_text("".join(f"[devices.{name}]\n{text}\n" for name, (text, _) in BAD.items()))
    np.save(tmp_path / "one.npy", np.zeros(300, np.float32))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    code, _, error = edgecompress("run", pack, "--input", tmp_path / "one.npy")
    assert code == 0, error
    for name, (_, expected) in BAD.items():
        code, out, error = edgecompress("bench", pack, "--device", name)
        assert code == 2 and out == "" and f"{config}: devices.{name}: " in error and expected in error, (name, error)
    code, out, _ = edgecompress("devices", "--json")
    listed = {d["name"]: d for d in json.loads(out)["devices"]}
    assert code == 0 and listed["local"]["error"] is None
    assert all(expected in listed[name]["error"] for name, (_, expected) in BAD.items())
    assert edgecompress("devices", "add", "good", "adb", "serial=1")[0] == 0, "the others stay as they are"
    config.write_text("[")
    assert find_device("local") and edgecompress("bench", pack, "--device", "good")[0] == 2


def test_a_setting_that_is_a_text_is_written_as_one(tmp_path: Path) -> None:
    config = tmp_path / "devices.toml"
    for arguments in (
        ("phone", "adb", "serial=123456789"),
        ("quoted", "adb", 'serial="0x1"', "timeout=3"),
        ("pi", "ssh", "host=10", "user=1234", "target=raspberry-pi"),
    ):
        code, _, error = edgecompress("devices", "add", *arguments, "--config", config)
        assert code == 0, error
    found = load_devices(config)
    assert (found["phone"].serial, found["pi"].host, found["pi"].user) == ("123456789", "10", "1234")
    assert (found["quoted"].serial, found["quoted"].timeout) == ("0x1", 3)


@pytest.mark.parametrize("probe", [None, "77"])
@pytest.mark.parametrize(
    ("flash", "expected"),
    [
        ("pyocd", "pyocd load --no-wait {--uid 77} --target CHIP FILE"),
        (
            "openocd-cmsis-dap",
            "openocd -f interface/cmsis-dap.cfg {-c 'adapter serial 77'} -f target/CHIP.cfg "
            "-c 'program FILE verify reset exit'",
        ),
        (
            "openocd-jlink",
            "openocd -f interface/jlink.cfg {-c 'adapter serial 77'} -f target/CHIP.cfg "
            "-c 'program FILE verify reset exit'",
        ),
        (
            "openocd-stlink",
            "openocd -f interface/stlink.cfg {-c 'adapter serial 77'} -f target/CHIP.cfg "
            "-c 'program FILE verify reset exit'",
        ),
        ("st-flash", "st-flash {--serial 77} --reset write FILE 0x8000000"),
        ("dfu-util", "dfu-util {--serial 77} --alt 0 --dfuse-address 0x08000000:leave --download FILE"),
        ("esptool", "esptool --chip CHIP --port /dev/ttyACM0 write_flash 0x0 FILE"),
        (("mine", "-p", "{port}", "--probe={probe}", "{image}"), "mine -p /dev/ttyACM0 --probe={77} FILE"),
    ],
)
def test_the_exact_words_of_flash_commands(flash: object, expected: str, probe: str | None) -> None:
    """As in a shell; in braces what a probe's number adds."""
    chip = "CHIP" if "CHIP" in expected else None
    settings = SerialSettings(target="cortex-m4", port="/dev/ttyACM0", flash=flash, probe=probe, chip=chip)
    found = [word.replace("{image}", "FILE") for word in settings.flash_words]
    assert found == shlex.split(re.sub(r"{(.*)}", r"\1" if probe else "", expected))


@pytest.mark.long
@CORTEX_M
def test_qemu_is_the_emulator_that_fits(pack: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(300, np.float32))
    folder = build(pack, "cortex-m3", output=tmp_path / "built").directory
    found = bench(folder, ["qemu", "local"], runs=30, threads=2, eval=np.zeros((3, 300), np.float32))
    assert [r.device for r in found.results] == ["qemu-m3", "local"] and found.ok
    there, here = (result.notes for result in found.results)
    told = "--runs 30: there are 3 samples, and each was run once"
    assert told in there and told in here and found.results[0].runs == 3
    assert [note.partition(":")[0] for note in there if "threads" in note] == ["--threads 2"]
    assert not any("threads" in note for note in here)
    code, out, error = edgecompress("run", folder, "--input", tmp_path / "one.npy", "--json")
    assert code == 0 and json.loads(out)["device"] == "qemu-m3", error
    code, _, error = edgecompress("flash", folder, "--device", "qemu")
    assert code == 2 and "device qemu-m3: nothing can be installed on it" in error
    code, _, error = edgecompress("bench", pack, "--device", "qemu")
    assert code == 2 and "does not say which target it is for; give --device, one of qemu-m0, qemu-m3" in error
    code, out, error = edgecompress(
        "convert",
        DIGITS / "digits.onnx",
        "--target",
        "cortex-m3",
        "--calib",
        DIGITS / "train.npz",
        "--format",
        "pack",
        "--device",
        "qemu",
        "-o",
        tmp_path / "out",
    )
    assert code == 0 and "qemu-m3" in out, error
    (made,) = (tmp_path / "out").glob("*.pack")
    assert device_for(open_artifact(made), "qemu")[0] == "qemu-m3", "as the report beside it says"
    report = read_report(tmp_path / "out" / "report.json")
    (run,), (costs,) = report.devices, report.layer_costs
    assert run.counts is not None and costs.device == "qemu-m3" and costs.unit == run.counts.unit
    assert sum(layer.cost for layer in costs.layers) == pytest.approx(run.counts.middle, rel=0.02)
    code, _, error = edgecompress("convert", DIGITS / "digits.onnx", "--target", "linux-x86", "--device", "qemu")
    assert code == 2 and "there is no emulator for linux-x86" in error


def test_what_can_not_be_run_is_refused_in_one_line(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.tflite").write_bytes(b"no model")
    (tmp_path / "cut.onnx").write_bytes(b"no model")
    (tmp_path / "labels.png").write_bytes(b"no image")
    np.save(tmp_path / "wrong.npy", np.zeros((2, 7)))
    for arguments, expected in (
        (("run", tmp_path / "cut.tflite", "--input", tmp_path / "wrong.npy"), "LiteRT can't read it"),
        (("run", tmp_path / "cut.onnx", "--input", tmp_path / "wrong.npy"), "not a whole ONNX model"),
        (("run", pack, "--input", tmp_path / "wrong.npy"), "expected"),
        (("run", pack, "--input", tmp_path / "labels.png"), "is an image, but the model takes none"),
        (("run", pack, "--input", tmp_path / "none.npy"), "can't be read"),
        (("flash", pack, "--device", "qemu-m4"), "nothing can be installed on it"),
        (("bench", tmp_path / "cut.onnx", "--device", "qemu-m4"), "not a whole ONNX model"),
        (("bench", DIGITS / "digits.onnx", "--device", "qemu-m4"), "device qemu-m4 runs .pack"),
    ):
        code, _, error = edgecompress(*arguments)
        assert code == 2 and expected in error and error.count("\n") == 1, (arguments, error)
