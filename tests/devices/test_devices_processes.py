"""What edgecompress starts ends with it, and what it leaves behind when it is killed goes with the next run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecompress_targets.cortex_m.boards import BOARDS
from edgecompress_targets.cortex_m.emulator import QEMU, EmulatorProcess
from edgecompress_targets.drivers.local import LocalShell
from edgecompress_targets.tools import TIE, tied
from edgecompress_targets.work_folder import work_folder

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")

HEAD = "import os, subprocess, sys, time\nfrom pathlib import Path\n"
BUSY = "import os; print(os.getpid(), flush=True)\nwhile True: pass"
# Prints what the program writes into a file, as soon as it is there.
TELLS = """import threading
def tell():
    while not (Path("number").exists() and Path("number").read_text()):
        time.sleep(0.02)
    print(Path("number").read_text(), flush=True)
threading.Thread(target=tell, daemon=True).start()"""
# Each starts something that would run for ever, and prints its number.
STARTERS = {
    "tied": f"""
from edgecompress_targets.tools import tied
subprocess.Popen(tied([sys.executable, "-c", {BUSY!r}]))
""",
    "tied without setpriv": f"""
from edgecompress_targets import tools
os.environ["PATH"] = ""
subprocess.Popen(tools.tied([sys.executable, "-c", {BUSY!r}]))
""",
    "a training process": f"""
code = "from edgecompress_targets.tools import end_with_starter; end_with_starter()\\n" + {BUSY!r}
subprocess.Popen([sys.executable, "-c", code])
""",
    "a program on this machine": f"""
from edgecompress_targets.drivers.local import LocalShell
Path("script.py").write_text({BUSY!r})
command = f"cd {{Path.cwd()}} && echo $$ > number; exec {{sys.executable}} script.py >&2"
{TELLS}
LocalShell("here").execute(command, 600)
""",
    "a program of adb": f"""
from edgecompress_targets.tools import captured
Path("script.py").write_text({BUSY!r}.replace("print(", "print(", 1))
{TELLS}
captured(["/bin/sh", "-c", f"echo $$ > number; exec {{sys.executable}} script.py"], timeout=600, most=1 << 20)
""",
}


def gone(process: int, seconds: float = 120) -> bool:
    """Whether the process ends, a zombie included."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    return False


def killed(code: str, folder: Path, environment: dict[str, str] | None = None) -> int:
    """The number that a process prints, which is then killed by SIGKILL."""
    command = [sys.executable, "-c", HEAD + code + "\ntime.sleep(600)"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=folder, env=os.environ | (environment or {})
    ) as starter:
        assert starter.stdout is not None
        number = int(starter.stdout.readline())
        starter.kill()
        starter.stdout.close()
    return number


@linux
@pytest.mark.parametrize("what", STARTERS)
def test_what_was_started_does_not_outlive_who_started_it(what: str, tmp_path: Path) -> None:
    assert gone(killed(STARTERS[what], tmp_path))


@linux
@pytest.mark.skipif(not any(Path(p, QEMU).exists() for p in os.get_exec_path()), reason=f"no {QEMU}")
def test_an_emulator_does_not_outlive_who_started_it(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(64))
    code = """
from edgecompress_targets.cortex_m.boards import BOARDS
from edgecompress_targets.cortex_m.emulator import EmulatorProcess
process = EmulatorProcess(Path("image"), BOARDS["cortex-m4"])
print(process._process.pid, flush=True)
"""
    assert gone(killed(code, tmp_path))


def test_an_emulator_that_is_closed_leaves_no_file_open(tmp_path: Path) -> None:
    if not any(Path(p, QEMU).exists() for p in os.get_exec_path()):
        pytest.skip(f"no {QEMU}")
    (tmp_path / "image").write_bytes(bytes(64))
    process = EmulatorProcess(tmp_path / "image", BOARDS["cortex-m4"])
    process.close()
    process.close()
    assert process._said.closed


def test_a_program_that_is_tied_keeps_its_words_and_its_code() -> None:
    program = ["sh", "-c", "echo $0 $1; exit 7", "a b", "--c"]
    for words in (tied(program), [sys.executable, "-c", TIE, str(os.getpid()), *program]):
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 7 and done.stdout == "a b --c\n"


@linux
def test_a_program_whose_starter_is_gone_does_not_begin() -> None:
    words = tied(["echo", "begun"])
    place = words.index(str(os.getpid()))
    for tie in (words[:place], [sys.executable, "-c", TIE]):
        done = subprocess.run([*tie, "1", "echo", "begun"], capture_output=True, text=True)
        assert not done.stdout


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("edgecompress-*/work/*")}


LEAVES = """
from edgecompress_targets.work_folder import work_folder
with work_folder() as folder:
    Path(folder, "file").write_text("left")
    print(os.getpid(), flush=True)
    time.sleep(600)
"""


def test_a_folder_of_a_killed_process_goes_with_the_next(temporary: Path) -> None:
    killed(LEAVES, temporary)
    assert len(left(temporary)) == 2  # the folder, and its lock
    with work_folder() as mine, work_folder() as another:
        assert left(temporary) == {Path(f).name + end for f in (mine, another) for end in ("", ".lock")}
    assert not left(temporary)


def test_a_folder_that_is_in_use_stays(temporary: Path) -> None:
    command = [sys.executable, "-c", HEAD + LEAVES]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline()
        with work_folder() as mine:
            assert len(left(temporary)) == 4 and Path(mine).is_dir()
        assert len(left(temporary)) == 2
        other.kill()


def test_folders_lie_elsewhere_where_somebody_prepared_theirs(temporary: Path) -> None:
    (temporary / f"edgecompress-{os.getuid()}").symlink_to(temporary)
    with work_folder() as folder:
        assert Path(folder).is_dir() and not (temporary / "work").exists()
    assert not Path(folder).exists()


def test_a_folder_goes_when_its_device_is_closed(temporary: Path) -> None:
    shell = LocalShell("here")
    assert Path(shell.root).is_dir()
    shell.close()
    assert not left(temporary)
