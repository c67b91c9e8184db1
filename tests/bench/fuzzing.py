"""What the fuzzers of one format share: inputs by number, a child that reads them, and a parent that watches it.

An input is a seed, changed by a list of mutations, all of which follow from the run's seed and the input's number: so
every input can be made again, and one that fails is made smaller by leaving mutations out. The child reads inputs one
after the other. Whatever is no refusal in one visible line fails: another exception, a signal, more than HANG seconds,
more memory than `most_memory`. The parent then says which input it was, what was left of it, and how to repeat it.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HANG = 10.0  # seconds of the processor for one input
LONGEST_MESSAGE = 5000
GROWTH = 512 << 20  # bytes that a process may grow from its 2,000th input to its last
STATE = struct.Struct("<QdQ")  # the number of the input, the process's seconds when it began, how many were read
EDGES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)


@dataclass(frozen=True)
class Fuzzer:
    """One format.

    make: (the input's random numbers, the ways to change it that are left out) -> the input. read: reads it, and says
    in a word how that ended; raises nothing but what it says in `refusals`. most_memory: bytes of address space beyond
    what the process has when it starts.
    """

    name: str
    make: Callable[[random.Random, frozenset[int]], bytes]
    read: Callable[[bytes], str]
    refusals: tuple[type[Exception], ...]
    suffix: str
    most_memory: int = 4 << 30


def chosen(rng: random.Random, left_out: frozenset[int], most: int = 5) -> list[random.Random]:
    """A source of random numbers for each mutation of an input that is not left out."""
    count = 1 + min(int(rng.expovariate(0.6)), most - 1)
    sources = [random.Random(rng.getrandbits(64)) for _ in range(count)]
    return [source for i, source in enumerate(sources) if i not in left_out]


def changed_bytes(rng: random.Random, data: bytes, times: int = 1) -> bytes:
    """The data with bytes flipped, set, inserted, removed, repeated or cut off."""
    result = bytearray(data)
    for _ in range(times):
        at = rng.randrange(len(result) + 1)
        kind = rng.randrange(7)
        if kind == 0 and at < len(result):
            result[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(result):
            result[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            result[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 3:
            del result[at : at + rng.randrange(1, 17)]
        elif kind == 4:
            result[at:at] = result[at : at + rng.randrange(1, 65)]
        elif kind == 5:
            size = rng.choice((2, 4, 8))
            result[at : at + size] = (rng.choice(EDGES) % 256**size).to_bytes(size, "little")
        else:
            del result[at:]
    return bytes(result)


def main(fuzzer: Fuzzer) -> int:
    """The command line of a fuzzer."""
    parser = argparse.ArgumentParser(description=f"Fuzz {fuzzer.name}.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--count", type=int, default=10**12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--repeat", type=Path, help="read this file instead")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--without", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.repeat is not None:
        print(_judged(fuzzer, given.repeat.read_bytes()))
        return 0
    if given.child is not None:
        return _child(fuzzer, given)
    return _parent(fuzzer, given)


def _input(fuzzer: Fuzzer, seed: int, number: int, left_out: frozenset[int] = frozenset()) -> bytes:
    return fuzzer.make(random.Random(f"{seed}:{number}"), left_out)


def _judged(fuzzer: Fuzzer, data: bytes) -> str:
    """How reading ended. Raises whatever is wrong."""
    try:
        return fuzzer.read(data)
    except fuzzer.refusals as error:
        text = str(error)
        if not text or not text.isprintable() or len(text) > LONGEST_MESSAGE:
            raise AssertionError(f"not one visible line of at most {LONGEST_MESSAGE} characters: {text!r}") from error
        return f"refused: {type(error).__name__}"


def _child(fuzzer: Fuzzer, given: argparse.Namespace) -> int:
    """Reads inputs until time or count is up, and keeps the state where the parent sees it."""
    file = Path(given.child)
    with file.open("r+b") as stream:
        state = mmap.mmap(stream.fileno(), STATE.size)
    left_out = frozenset(map(int, filter(None, given.without.split(","))))
    found: Counter[str] = Counter()
    begun, number, done = time.monotonic(), given.first, 0
    _judged(fuzzer, _input(fuzzer, given.seed, given.first, frozenset(range(100))))  # imports and compiles
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + fuzzer.most_memory,) * 2)
    before = 0
    while time.monotonic() - begun < given.seconds and done < given.count:
        state[:] = STATE.pack(number, time.process_time(), done)
        data = _input(fuzzer, given.seed, number, left_out)
        try:
            found[_judged(fuzzer, data)] += 1
        except BaseException:
            traceback.print_exc()
            return 3
        number, done = number + 1, done + 1
        if done % 2000 == 0:
            now = _resident()
            before = before or now
            if now > before + GROWTH:
                print(f"memory grew from {before >> 20} to {now >> 20} MiB", file=sys.stderr)
                return 3
    state[:] = STATE.pack(number, 1e9, done)
    print("; ".join(f"{count:,} {what}" for what, count in found.most_common(12)))
    return 0


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _parent(fuzzer: Fuzzer, given: argparse.Namespace) -> int:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        ended, number, done, said = _watched(given, Path(work), given.first, given.seconds, given.count, ())
        seconds = time.monotonic() - begun
        rate = f"{done:,} inputs in {seconds:,.0f} s ({done / seconds:,.0f} a second)"
        print(f"{fuzzer.name}: {rate}, seed {given.seed}, numbers {given.first:,} to {number:,}: {ended}")
        print(said)
        if ended == "all right":
            return 0
        left_out = _fewest(fuzzer, given, Path(work), number, ended)
    data = _input(fuzzer, given.seed, number, left_out)
    if not ended.startswith(("hangs", "signal")):
        data = _shorter(fuzzer, data)
    path = Path(tempfile.gettempdir(), f"fuzz-{fuzzer.name}-{given.seed}-{number}{fuzzer.suffix}")
    path.write_bytes(data)
    print(f"input {number} of seed {given.seed}, {len(data):,} bytes, without the mutations {sorted(left_out)}")
    print(f"repeat it: python {sys.argv[0]} --repeat {path}")
    return 1


def _watched(
    given: argparse.Namespace, work: Path, first: int, seconds: float, count: int, left_out: Sequence[int]
) -> tuple[str, int, int, str]:
    """Runs a child: (how it ended, the number of its last input, how many it read, what it printed)."""
    file = work / "state"
    file.write_bytes(STATE.pack(first, 60.0, 0))  # it imports first
    words = [sys.executable, sys.argv[0], "--child", str(file), "--seed", str(given.seed), "--first", str(first)]
    words += ["--seconds", str(seconds), "--count", str(count), "--without", ",".join(map(str, left_out))]
    output = (work / "said").open("w+b")
    with subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True) as process:
        ended, late = "", 0
        try:
            while process.poll() is None:
                time.sleep(0.2 if count > 1 else 0.02)
                number, since, _ = STATE.unpack(file.read_bytes())
                late = late + 1 if _processor_time(process.pid) - since > HANG else 0
                if late > 2:  # a state may be read while it is written
                    ended = f"hangs: more than {HANG:.0f} s"
                    break
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    number, _, done = STATE.unpack(file.read_bytes())
    code = process.returncode
    if not ended:
        ended = f"signal {-code}" if code < 0 else "fails" if code else "all right"
    output.seek(0)
    return ended, number, done, output.read().decode(errors="replace")[-4000:].strip()


def _processor_time(process: int) -> float:
    """Seconds of a process: other programs on the machine do not count."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _fewest(fuzzer: Fuzzer, given: argparse.Namespace, work: Path, number: int, ended: str) -> frozenset[int]:
    """The most mutations that can be left out so that the input fails alike."""
    left_out: list[int] = []
    for i in range(8):
        attempt = [*left_out, i]
        if _input(fuzzer, given.seed, number, frozenset(attempt)) == _input(
            fuzzer, given.seed, number, frozenset(left_out)
        ):
            continue
        if _watched(given, work, number, 60, 1, attempt)[0] == ended:
            left_out = attempt
    return frozenset(left_out)


def _shorter(fuzzer: Fuzzer, data: bytes) -> bytes:
    """Fewer bytes that fail with the same exception, within ten seconds."""

    def failure(data: bytes) -> tuple[str, int] | None:
        try:
            _judged(fuzzer, data)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__} {last.filename}", last.lineno or 0
        return None

    wanted, until = failure(data), time.monotonic() + 10
    size = len(data) // 2
    while wanted is not None and size and time.monotonic() < until:
        at = 0
        while at < len(data) and time.monotonic() < until:
            attempt = data[:at] + data[at + size :]
            if failure(attempt) == wanted:
                data = attempt
            else:
                at += size
        size //= 2
    return data
