"""Fuzzes both sides of the serial protocol: what a host makes of a device that lies, and firmware of a host that does.

    python tests/bench/fuzz_frames.py [--seconds 60] [--seed 0]            the host's side
    python tests/bench/fuzz_frames.py --firmware 10000000 [--seed 0]       serve.c, under gcc's sanitizers

On the host's side nine inputs of ten are a stream of changed frames for the receiver; the tenth steers a device that
answers a whole session by the protocol, but for lies in some of its answers. Time is simulated there: a session has to
give up in less than an hour of it. Firmware reads frames whose fields are changed before their checksum is made, and
changed bytes behind that; only MEMORY is left out, which may read any address by design.
"""

from __future__ import annotations

import itertools
import random
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from fuzzing import EDGES, Fuzzer, changed_bytes, chosen, main

from edgecompress_targets.connection import session as sessions
from edgecompress_targets.connection.driver import DeviceError
from edgecompress_targets.connection.frames import ANSWER, Frame, Kind, Receiver, Status, decoded
from edgecompress_targets.connection.session import Session

ROOT = Path(__file__).resolve().parents[2]
SERVE = ROOT / "targets" / "edgecompress_targets" / "cortex_m" / "support" / "serve.c"
LONGEST_SESSION = 3600.0  # seconds of simulated time
HONEST = (1, 1, 64, 40, 10, 100, 3)  # version, counter, payload, input, output, arena, steps
PATIENCE = 2.0
LIES = ("payload length", "bytes", "status", "kind", "session", "sequence", "lost", "noise", "twice", "value", "late")


class Clock:
    """In place of `time` in the session: every look at it takes a tenth of a millisecond."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1e-4
        if self.now > LONGEST_SESSION:
            raise AssertionError("the session does not end")
        return self.now


class Liar:
    """A port with a device behind it that answers as PROTOCOL.md says, but for the lies that `plan` steers."""

    timeout: float | None = None

    def __init__(self, plan: bytes, clock: Clock) -> None:
        self._rng, self._clock = random.Random(plan), clock
        self._share = self._rng.choice((0.0, 0.02, 0.2, 1.0))
        self._hello = [self._edge(v) if self._rng.random() < self._share / 4 else v for v in HONEST]
        self._receiver, self._line = Receiver(), bytearray()

    def write(self, data: bytes) -> int:
        for request in self._receiver(data):
            if request is not None:
                self._line += b"".join(self._answers(request))
        return len(data)

    def read(self, size: int = 1) -> bytes:
        if not self._line:
            self._clock.now += self.timeout or 0.0
        result = bytes(self._line[:size])
        del self._line[:size]
        return result

    @property
    def in_waiting(self) -> int:
        return len(self._line)

    def _edge(self, usual: int) -> int:
        return self._rng.choice((*EDGES, usual - 1, usual + 1))

    def _payload(self, request: Frame) -> bytes:
        if request.kind == Kind.HELLO:
            sizes = (n % (256, 256, 65_536, 2**32, 2**32, 2**32, 2**32)[i] for i, n in enumerate(self._hello))
            return struct.pack("<BBHIIII32s", *sizes, bytes(32))
        if request.kind == Kind.INVOKE:
            return struct.pack("<II", 5, zlib.crc32(bytes(min(self._hello[4] % 2**32, 1 << 16))))
        if request.kind in (Kind.READ, Kind.STEPS) and len(request.payload) == 6:
            wanted = struct.unpack("<IH", request.payload)[1]
            return bytes(wanted * (4 if request.kind == Kind.STEPS else 1))
        return bytes(0 if request.kind == Kind.WRITE else 4)

    def _answers(self, request: Frame) -> Iterator[bytes]:
        rng, payload = self._rng, self._payload(request)
        fields = {"session": request.session, "sequence": request.sequence, "kind": request.kind | ANSWER, "status": 0}
        lie = rng.choice(LIES) if rng.random() < self._share else ""
        if lie in fields:
            fields[lie] = self._edge(fields[lie]) % (65_536 if lie in ("session", "sequence") else 256)
        elif lie == "payload length":
            payload = payload[: rng.randrange(len(payload) + 1)] + rng.randbytes(rng.choice((0, 1, 40, 300, 5000)))
        elif lie == "value":
            payload = changed_bytes(rng, payload)
        elif lie == "late":
            self._clock.now += rng.choice((0.01, 0.5, 1.9, 3.0, 100.0))
        line = Frame(**fields, payload=payload).encoded()
        if lie == "bytes":
            line = changed_bytes(rng, line)
        if lie == "noise":
            yield rng.randbytes(rng.choice((1, 10, 5000)))
        yield from itertools.repeat(line, {"lost": 0, "twice": 2}.get(lie, 1))


def conversation(plan: bytes) -> str:
    """A whole session with a liar."""
    clock = Clock()
    sessions.time = clock  # type: ignore[assignment]
    talk = Session(Liar(plan, clock), "liar", baud=115_200, patience=PATIENCE, inference_patience=PATIENCE)
    if talk.hello.input_bytes + talk.hello.output_bytes > 1 << 12 or talk.hello.steps > 1 << 10:
        return "session, large"  # and bounded, but slow
    talk.infer(bytes(talk.hello.input_bytes))
    talk.steps()
    talk.stack()
    talk.checksum(0, 4)
    return "session"


def stream(data: bytes) -> str:
    frames = Receiver()(data)
    assert all(frame is None or decoded(frame.encoded()[1:-1]) == frame for frame in frames)
    return "stream" if any(frames) else "stream without a frame"


def make(rng: random.Random, left_out: frozenset[int]) -> bytes:
    if rng.random() < 0.1:
        return b"S" + rng.randbytes(8)
    payload = rng.randbytes(rng.choice((0, 1, 8, 56, 253, 256, 300)))
    frame = Frame(
        rng.randrange(65_536), rng.randrange(65_536), rng.choice(list(Kind)) | ANSWER, rng.choice(list(Status)), payload
    )
    data = frame.encoded() * rng.choice((1, 1, 2))
    for source in chosen(rng, left_out):
        data = changed_bytes(source, data)
    return b"R" + data


def read(data: bytes) -> str:
    return conversation(data[1:]) if data[:1] == b"S" else stream(data[1:])


HEAD = """#include <stdint.h>
#include "model.h"
int uart_read(void);
void uart_write(uint8_t);
void uart_start(void);
void edgecompress_layer(int32_t);
static uint32_t ticks(void);
static void ticks_restart(void), ticks_stop(void);
static int counter;
"""
HARNESS = r"""
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;
static uint32_t next_random(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state >> 11;
}
static uint8_t line[1200];
static uint32_t have, at_byte;
static uint64_t answered, answers_by_status[8];
static jmp_buf out;
static int last, position;
int uart_read(void) { if (at_byte < have) return line[at_byte++]; longjmp(out, 1); }
void uart_write(uint8_t byte) { answered++, position = byte ? position + 1 : 0; if (position == 1) last = byte; }
void uart_start(void) {}
uint32_t stack_limit[64] = {0}, stack_top[1];
static uint32_t clock_now;
static uint32_t ticks(void) { return clock_now++; }
static void ticks_restart(void) {}
static void ticks_stop(void) {}
static int counter = 1;
void bench_invoke(int8_t *arena, const int8_t *input, int8_t *output) {
    for (int i = 0; i < MODEL_OUTPUT_BYTES; i++) output[i] = input[i % MODEL_INPUT_BYTES];
    for (int i = 0; i < MODEL_STEPS + 1; i++) edgecompress_layer(i);
    arena[0] = 1;
}

static const uint32_t edges[] = {0, 1, 2, 3, 4, 39, 40, 41, 299, 300, 301, 64, 65, 255, 256, 257, 260, 262, 264, 65535,
    65536, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
static uint32_t edge(void) { return next_random() % 3 ? edges[next_random() % (sizeof edges / 4)] : next_random(); }

/* A frame whose fields are sensible or not, under a right checksum, then maybe with changed bytes. */
static void make(void) {
    uint8_t frame[700];
    uint32_t size = next_random() % 4 ? 4 + next_random() % 5 : next_random() % 300;
    if (next_random() % 50 == 0) size = next_random() % 600;
    for (uint32_t i = 0; i < sizeof frame; i++) frame[i] = next_random() % 3 ? 0 : (uint8_t)next_random();
    uint32_t number = next_random() % 8 ? session : next_random();
    frame[0] = number, frame[1] = number >> 8, frame[2] = next_random() % 3, frame[3] = 0;
    frame[4] = next_random() % 10 ? 1 + next_random() % 6 : next_random(), frame[5] = next_random() % 2;
    if (frame[4] == 1 && next_random() % 20) frame[4] = 4;
    if (frame[4] == MEMORY) frame[4] = READ;
    if (next_random() % 2) { /* an offset and a length */
        put32(frame + 6, edge());
        uint32_t wanted = edge();
        frame[10] = wanted, frame[11] = wanted >> 8, size = next_random() % 8 ? 6 : size;
    }
    if (frame[4] == INVOKE && next_random() % 2) put32(frame + 6, crc32(input, MODEL_INPUT_BYTES)), size = 4;
    uint32_t length = HEADER + size;
    put32(frame + length, crc32(frame, length)), length += CHECKSUM;
    have = 0, line[have++] = 0;
    for (uint32_t at = 0, run;; at += run + 1) { /* COBS */
        for (run = 0; at + run < length && frame[at + run] && run < 254; run++) {}
        line[have++] = run + 1;
        memcpy(line + have, frame + at, run), have += run;
        if (at + run == length) break;
        if (run == 254) at--;
    }
    line[have++] = 0;
    for (uint32_t n = next_random() % 4 ? 0 : 1 + next_random() % 3; n--;)
        line[next_random() % have] = next_random() % 2 ? 0 : next_random();
    if (next_random() % 64 == 0) have = next_random() % have + 1;
}

static void loop(void) {
    static uint32_t length;
LOOP
}

int main(int argc, char **argv) {
    uint64_t count = strtoull(argv[1], 0, 10);
    state = strtoull(argv[2], 0, 10) * 2654435761u + 88172645463325252u;
    session = 7;
    for (uint64_t i = 0; i < count; i++) {
        make(), at_byte = 0;
        if (!setjmp(out)) loop();
        answers_by_status[answer[5] & 7]++;
    }
    printf("firmware: %ju frames, %ju bytes answered, by status:", (uintmax_t)count, (uintmax_t)answered);
    for (int i = 0; i < 8; i++) printf(" %ju", (uintmax_t)answers_by_status[i]);
    puts("");
    return 0;
}
"""


def firmware(count: int, seed: int) -> int:
    """serve.c with its own loop, fed by a harness; its answer when a byte is out of place is a sanitizer's."""
    text = SERVE.read_text()
    start = text.index("_Noreturn int main(void)")
    body = text[text.index("    for (;;) {\n        int byte", start) : text.rindex("}")]
    code = HEAD + text[:start].replace('#include "board.h"\n', "").replace('#include "counter.h"\n', "")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "model.h").write_text(
            "#define MODEL_ARENA_BYTES 16\n#define MODEL_INPUT_BYTES 40\n#define MODEL_OUTPUT_BYTES 300\n"
            "#define MODEL_STEPS 65\n#define MODEL_DIGEST {1}\n#define MODEL_INVOKE(a, i, o) bench_invoke(a, i, o)\n"
            "void bench_invoke(int8_t *, const int8_t *, int8_t *);\n"
        )
        (folder / "fuzz.c").write_text(code + HARNESS.replace("LOOP", body))
        options = ["-O1", "-g", "-w", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        subprocess.run(["gcc", *options, "-I", work, str(folder / "fuzz.c"), "-o", str(folder / "fuzz")], check=True)
        return subprocess.run([str(folder / "fuzz"), str(count), str(seed)]).returncode


FUZZER = Fuzzer("frames", make, read, (DeviceError,), ".bin")

if __name__ == "__main__":
    if "--firmware" in sys.argv:
        seed = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 0
        sys.exit(firmware(int(sys.argv[sys.argv.index("--firmware") + 1]), seed))
    sys.exit(main(FUZZER))
