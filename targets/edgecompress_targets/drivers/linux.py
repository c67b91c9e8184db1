"""Drives a device under Linux or Android, whatever carries commands and files to it, in a folder of its own there."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from edgecompress_targets.connection.driver import (
    Advance,
    Benchmark,
    DeviceError,
    Found,
    LostError,
    Measured,
    Program,
    Summary,
)
from edgecompress_targets.connection.times import from_file

CPUFREQ = "/sys/devices/system/cpu/cpu0/cpufreq"
CLOCK = f"{CPUFREQ}/scaling_cur_freq", f"{CPUFREQ}/cpuinfo_max_freq", "/sys/class/thermal/thermal_zone0/temp"
# Counters of the processor's energy, microjoules: powercap (RAPL), else a sensor of hwmon.
ENERGY = "cat /sys/class/powercap/intel-rapl:0/energy_uj /sys/class/hwmon/hwmon*/energy1_input 2>/dev/null | head -n 1"
SLOWER = 10  # times slower than the first inference with its start-up: then it hangs
MOST_SAID = 1 << 20  # bytes that a command may print
MOST_RESULT = 1 << 26  # bytes of a benchmark's file
LONGEST_FACT = 120  # characters of what a device says about itself
LONGEST_NUMBER = 20  # digits
TRIES, PAUSE = 3, 0.5  # of what a lost connection cut short; seconds between them
P = ParamSpec("P")
R = TypeVar("R")


# The program has a process of its own. `cat` ends with the input, which is the connection's, and the program with it.
TIED = """exec 3<&0
sh -c {command} 3<&- </dev/null & program=$!
{{ cat <&3; kill -9 $program; }} >/dev/null 2>&1 & watch=$!
exec 3<&-
wait $program; code=$?
kill $watch 2>/dev/null
[ $code -le 128 ] || kill -$((code - 128)) $$
exit $code"""


def tied_to_input(command: str) -> str:
    """The command, which does not outlive the shell's standard input; it has none itself."""
    return TIED.format(command=shlex.quote(command))


class Shell(Protocol):
    """Runs commands and moves files on one device.

    All methods raise DeviceError when the device can't be reached or does not answer in time, and LostError when
    another try may succeed, for which they connect again.
    """

    def execute(self, command: str, timeout: float) -> tuple[int, bytes, bytes]:
        """(exit code, standard output, standard error) of a command for its `sh`, which prints at most MOST_SAID
        bytes.
        """
        ...

    def push(self, content: bytes, path: str) -> None:
        """Writes a file, all of it. Its folder exists, and its path has no special characters."""
        ...

    def pull(self, path: str, most: int) -> bytes:
        """The content of a file, which has at most `most` bytes."""
        ...

    def close(self) -> None:
        """Ends the connection; the next call connects again."""
        ...


def tried_again(method: Callable[Concatenate[LinuxDevice, P], R]) -> Callable[Concatenate[LinuxDevice, P], R]:
    """Repeats a method that raises LostError; the method cleans up before it raises, as far as it can."""

    @wraps(method)
    def whole(self: LinuxDevice, *args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(TRIES - 1):
            try:
                return method(self, *args, **kwargs)
            except LostError:
                time.sleep(PAUSE)
        try:
            return method(self, *args, **kwargs)
        except LostError as error:
            raise LostError(f"{error} ({TRIES} tries)") from error

    return whole


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait for the answer to a command, and for one inference."""

    answer: float = 20
    inference: float = 300


TIMEOUTS = Timeouts()


class LinuxDevice:
    """A driver (`driver.Driver`) for what a Shell reaches.

    root: the folder on the device for all files of ours. prefix: the words of an emulator in front of each program;
    empty where programs run by themselves. facts: name and command of what the device says about itself.
    instructions: counts the instructions of one inference of the program at a path, given its input record; None
    where the emulator can't count.
    """

    def __init__(
        self,
        name: str,
        shell: Shell,
        root: str,
        *,
        prefix: Sequence[str] = (),
        timeouts: Timeouts = TIMEOUTS,
        facts: Sequence[tuple[str, str]] = (),
        instructions: Callable[[str, bytes], int | None] = lambda file, record: None,
    ) -> None:
        self._name, self._shell, self._root = name, shell, root
        self._prefix, self._facts, self._instructions = tuple(prefix), facts, instructions
        self._timeout, self._inference_timeout = timeouts.answer, timeouts.inference
        self._there_before = self._brought = False
        self._attempts = 0

    @tried_again
    def probe(self) -> Found:
        """What the device says about itself. Raises DeviceError when it lacks the emulator in `prefix`."""
        self._require_prefix()
        system = fact(self._said("uname -sm"))
        facts = {name: said for name, command in self._facts if (said := fact(self._said(f"{command} 2>/dev/null; :")))}
        words = ", ".join([*facts.values(), system])
        return Found(f"{self._prefix[0]} on {words}" if self._prefix else words, facts)

    @tried_again
    def deploy(self, program: Program) -> None:
        """Copies the program's files into a folder of their own, compares their SHA-256 and starts the program once."""
        self._require_prefix()
        if program.machine and not self._prefix:
            machine = self._said("uname -m")
            if machine != program.machine:
                raise DeviceError(
                    f"{self._name}: the device is {machine}, but the program is for {program.machine}: "
                    "set another target in its configuration"
                )
        folder = self._folder(program)
        if self._is_whole(program, folder):
            self._there_before = not self._brought
            return
        part = f"{folder}.part"
        try:
            self._do(f"rm -rf {self._root}/*.part && mkdir -p {part}")
            for file, content in program.files.items():
                self._shell.push(content, f"{part}/{file}")
            if not self._is_whole(program, part):
                raise DeviceError(
                    f"{self._name}: the files that arrived in {part} differ from those that were sent (SHA-256)"
                )
            self._do(f"cd {part} && chmod 755 {' '.join(program.files)}")
            self._answer(program, part)
            self._brought = True  # or so it may be, where the connection is lost right behind it
            self._do(f"rm -rf {folder} && mv {part} {folder}")
        except BaseException:
            self._tidy(f"cd {part} && kill -9 $(cat {self._process}); rm -rf {part}")
            raise

    @tried_again
    def run(self, program: Program, inputs: bytes, advance: Advance | None = None) -> Measured:
        """Runs all records in one process after one that only finds out how long an inference takes."""
        folder, count = self._folder(program), len(inputs) // program.input_bytes
        if program.benchmark is not None:
            return self._benchmarked(program.benchmark, folder, count, advance)
        try:
            begun = time.monotonic()
            self._timed(program, folder, inputs[: program.input_bytes], self._inference_timeout)
            limit = max(self._inference_timeout, count * SLOWER * (time.monotonic() - begun))
            before = self._energy()
            outputs, times, said = self._timed(program, folder, inputs, limit)
            after = self._energy()
        except BaseException:
            files = " ".join([*self._files.values(), self._process])
            self._tidy(f"cd {folder} && kill -9 $(cat {self._process}); rm -f {files}")
            raise
        if len(outputs) != count * program.output_bytes:
            raise DeviceError(
                f"{self._name}: {len(outputs)} bytes of outputs came back, expected {count} x {program.output_bytes}"
            )
        if advance is not None:
            advance(count)
        if self._prefix:
            count_of_one = self._instructions(f"{folder}/{program.start[0]}", inputs[: program.input_bytes])
            if count_of_one is None:
                return Measured(outputs, (), "instructions", notes=("no instructions were counted",))
            note = "the instructions are those of the first inference, including reading and writing its files"
            return Measured(outputs, (count_of_one,), "instructions", notes=(note,))
        notes = [fact(line) for line in said.splitlines() if line.startswith("interpreter: ")][:1]
        notes += self._clock()
        # a counter that has gone round in between tells nothing
        energy = after - before if before is not None and after is not None and after > before else None
        return Measured(outputs, from_file(times, count, self._name), "ns", notes=tuple(notes), energy=energy)

    def remove(self, program: Program) -> None:
        """Removes the program unless it was on the device before this driver came."""
        if not self._there_before:
            self._tidy(f"rm -rf {self._folder(program)}; rmdir {self._root}")

    def close(self) -> None:
        """Ends the connection of the shell."""
        self._shell.close()

    @tried_again
    def keep(self, program: Program) -> None:
        """Makes the program stay on the device in place of its earlier versions."""
        self._there_before = True
        own = self._folder(program).rpartition("/")[2]
        others = f"for f in {program.name}-*; do [ $f = {own} ] || rm -rf $f; done"
        self._do(f"cd {self._root} && {others}")

    def _energy(self) -> int | None:
        said = "" if self._prefix else self._said(f"{ENERGY}; :")
        return _number(said)

    def _clock(self) -> list[str]:
        """Notes on a CPU that was slow, or too hot to be fast, where the kernel tells."""
        files = f"for f in {' '.join(CLOCK)}; do cat $f 2>/dev/null || echo none; done"
        now, most, heat = [*map(_number, self._said(files).split()), None, None, None][:3]
        notes = [f"clock after the run: {now / 1e3:.0f} of {most / 1e3:.0f} MHz"] if now and most else []
        return notes + ([f"temperature after the run: {heat / 1e3:.0f} degrees Celsius"] if heat else [])

    def _require_prefix(self) -> None:
        if self._prefix and self._shell.execute(f"command -v {self._prefix[0]}", self._timeout)[0]:
            package = "; on Debian: apt install qemu-user" if self._prefix[0].startswith("qemu-") else ""
            raise DeviceError(f"{self._name}: {self._prefix[0]} is not installed on it{package}")

    def _timed(self, program: Program, folder: str, inputs: bytes, timeout: float) -> tuple[bytes, bytes, str]:
        """Outputs, times, and what the program printed."""
        self._attempts += 1
        files = self._files
        self._shell.push(inputs, f"{folder}/{files['inputs']}")
        said = self._do(f"cd {folder} && {self._command(program)}", timeout)
        count = len(inputs) // program.input_bytes
        sizes = {"outputs": count * program.output_bytes, "times": 8 * count}
        outputs, times = (self._shell.pull(f"{folder}/{files[name]}", size) for name, size in sizes.items())
        self._do(f"cd {folder} && rm -f {' '.join(files.values())} {self._process}")
        return outputs, times, said

    def _benchmarked(self, benchmark: Benchmark, folder: str, runs: int, advance: Advance | None = None) -> Measured:
        limit = self._inference_timeout + self._timeout * runs
        self._attempts += 1
        words = shlex.join([word.format(runs=runs) for word in benchmark.start])
        try:
            said = self._do(f"cd {folder} && {{ echo $$ > {self._process}; exec {words} 2>&1; }}", limit)
            if benchmark.result is not None:
                said = self._shell.pull(f"{folder}/{benchmark.result}", MOST_RESULT).decode(errors="replace")
        finally:
            self._tidy(f"cd {folder} && kill -9 $(cat {self._process}); rm -f {self._process} {benchmark.result or ''}")
        found = benchmark.parse(said)
        if advance is not None:
            advance(runs)
        notes = (
            f"timed by {benchmark.name} on inputs of its own, so accuracy was not measured on the device",
            *self._clock(),
        )
        if isinstance(found, Summary):
            return Measured(b"", (), "ns", notes=notes, summary=found)
        return Measured(b"", found, "ns", notes=notes)

    def _answer(self, program: Program, folder: str) -> None:
        """Starts the program with nothing to compute."""
        if program.benchmark is not None:
            self._benchmarked(program.benchmark, folder, 1)
            return
        self._timed(program, folder, b"", self._inference_timeout)

    @property
    def _process(self) -> str:
        return f"process-{self._attempts}"

    @property
    def _files(self) -> dict[str, str]:
        """The files of this attempt: the last one may be tidied up late."""
        return {name: f"{name}-{self._attempts}.bin" for name in ("inputs", "outputs", "times")}

    def _command(self, program: Program) -> str:
        words = [*self._prefix, *(word.format(**self._files) for word in program.start)]
        return f"echo $$ > {self._process}; exec {shlex.join(words)}"

    def _is_whole(self, program: Program, folder: str) -> bool:
        """Whether all files are there with the right content, which the device reads back itself."""
        names = list(program.files)
        code, out, _ = self._shell.execute(f"cd {folder} 2>/dev/null && sha256sum {' '.join(names)}", self._timeout)
        found = [line.split()[0].lstrip("\\") for line in out.decode(errors="replace").splitlines() if line.strip()]
        return code == 0 and found == [hashlib.sha256(program.files[name]).hexdigest() for name in names]

    def _folder(self, program: Program) -> str:
        return f"{self._root}/{program.name}-{program.digest[:16]}"

    def _said(self, command: str) -> str:
        return self._do(command).replace("\0", "").strip()

    def _do(self, command: str, timeout: float | None = None) -> str:
        code, out, error = self._shell.execute(command, timeout or self._timeout)
        if code:
            said = (error.strip() or out.strip() or f"exit code {code}".encode()).decode(errors="replace")
            raise DeviceError(f"{self._name}: {said.splitlines()[-1]}")
        return out.decode(errors="replace")

    def _tidy(self, command: str) -> None:
        """Cleans up after a failure, as far as the device can still be reached."""
        with contextlib.suppress(DeviceError):
            self._shell.execute(f"({command}) >/dev/null 2>&1", self._timeout)


def fact(said: str) -> str:
    """The first line, cut where it is too long for a table."""
    return next(iter(said.strip().splitlines()), "").strip()[:LONGEST_FACT]


def _number(word: str) -> int | None:
    """The number, or None for what is none, or too long for one."""
    return int(word) if word.isdecimal() and len(word) <= LONGEST_NUMBER else None
