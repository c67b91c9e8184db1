"""The functions that a compiled model is entered by, in LLVM's intermediate representation.

One thread: its entry, void (arena, inputs..., outputs...). Several: thread t has ENTRY_t, void (arena, inputs...,
outputs..., sync, round), and those but the first ENTRY_wait_t, i64 (the same), which does a round whenever one is
begun, and returns the number of the next when none was for a while. sync: four int64, each in a cache line of its own:
arrivals at meetings since the first round, rounds begun, whether to stop waiting, and rounds that ENTRY_0 finished.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence

PREFIX = "edgecompress"  # the name of programs that are loaded here
ENTRY = f"{PREFIX}_invoke"
LINE = 64  # bytes
ARRIVED, BEGUN, STOP, FINISHED = 0, LINE, 2 * LINE, 3 * LINE  # in sync
SYNC = 4 * LINE
PATIENCE = 4_000  # turns of a loop that waits for the next round: some tenths of a millisecond
TURNS = 256  # of one that waits for other threads, before it lets others run
MEET = """
define internal void @meet(ptr %sync, i64 %target) noinline {
entry:
  %before = atomicrmw add ptr %sync, i64 1 seq_cst
  br label %look
look:
  %turn = phi i64 [0, %entry], [%next, %again]
  %arrived = load atomic i64, ptr %sync acquire, align 8
  %all = icmp sge i64 %arrived, %target
  br i1 %all, label %done, label %wait
wait:
  PAUSE
  %next = add i64 %turn, 1
  %part = and i64 %next, LAST_TURN
  %long = icmp eq i64 %part, 0
  br i1 %long, label %others, label %again
others:
  %said = call i32 @sched_yield()
  br label %again
again:
  br label %look
done:
  ret void
}
"""
WAIT = """
define i64 @NAME_wait_THREAD(FORMAL, ptr %sync, i64 %round) {
entry:
  %begun = getelementptr i8, ptr %sync, i64 BEGUN
  %stop = getelementptr i8, ptr %sync, i64 STOP
  br label %look
look:
  %now = phi i64 [%round, %entry], [%now, %wait], [%after, %work]
  %turn = phi i64 [0, %entry], [%next, %wait], [0, %work]
  %count = load atomic i64, ptr %begun acquire, align 8
  %any = icmp sgt i64 %count, %now
  br i1 %any, label %work, label %idle
work:
  call void @NAME_THREAD(ACTUAL, ptr %sync, i64 %now)
  %after = add i64 %now, 1
  br label %look
idle:
  %stopped = load atomic i64, ptr %stop acquire, align 8
  %ends = icmp ne i64 %stopped, 0
  %tired = icmp sge i64 %turn, PATIENCE
  %leave = or i1 %ends, %tired
  br i1 %leave, label %done, label %wait
wait:
  PAUSE
  %next = add i64 %turn, 1
  br label %look
done:
  ret i64 %now
}
"""


def meeting(number: int, threads: int) -> list[str]:
    """Lines that wait for all threads, for the `number`th time in a round, counted from 1."""
    return [f"%all_{number} = add i64 %base, {threads * number}", f"call void @meet(ptr %sync, i64 %all_{number})"]


def leaving(number: int, done: int, thread: int, threads: int) -> list[str]:
    """Lines with which a thread leaves a round after `done` meetings, counting itself as arrived at all others.

    number: another one at each place."""
    if threads == 1:
        return ["ret void"]
    lines = [
        f"%missed_{number} = sub i64 %meetings, {done}",
        f"%counted_{number} = atomicrmw add ptr %sync, i64 %missed_{number} seq_cst",
    ]
    return [*lines, *_finished(thread, f"_{number}"), "ret void"]


def _finished(thread: int, suffix: str = "") -> list[str]:
    """Lines by which the first thread says that it has finished the round."""
    if thread:
        return []
    return [
        f"%finished{suffix} = getelementptr i8, ptr %sync, i64 {FINISHED}",
        f"%rounds{suffix} = add i64 %round, 1",
        f"store i64 %rounds{suffix}, ptr %finished{suffix}, align 8",
    ]


def entries(entry: str, ends: Sequence[str], bodies: Sequence[Sequence[str]], meetings: int) -> list[str]:
    """entry: how their names begin. ends: names of the arena, inputs and outputs. bodies: what each thread does."""
    formal = ", ".join(f"ptr {name}" for name in ends)
    if len(bodies) == 1:
        return [_function(entry, formal, bodies[0])]
    threads, text = len(bodies), [_filled(MEET), "declare i32 @sched_yield()", "declare void @llvm.x86.sse2.pause()"]
    for thread, body in enumerate(bodies):
        counts = [f"%meetings = add i64 {meetings}, 0", f"%base = mul i64 %round, {threads * meetings}"]
        lines = [*counts, *body, *_finished(thread)]
        text.append(_function(f"{entry}_{thread}", f"{formal}, ptr %sync, i64 %round", lines))
        if thread:
            text.append(
                _filled(WAIT)
                .replace("NAME", entry)
                .replace("THREAD", str(thread))
                .replace("FORMAL", formal)
                .replace("ACTUAL", formal)
            )
    return text


def _function(name: str, formal: str, lines: Sequence[str]) -> str:
    body = "".join(f"  {line}\n" for line in [*lines, "ret void"])
    return f"define void @{name}({formal}) noinline {{\n{body}}}"


def _filled(text: str) -> str:
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    pause = "call void @llvm.x86.sse2.pause()" if x86 else ""
    for name, value in (
        ("PAUSE", pause),
        ("PATIENCE", PATIENCE),
        ("LAST_TURN", TURNS - 1),
        ("BEGUN", BEGUN),
        ("STOP", STOP),
    ):
        text = text.replace(name, str(value))
    return text
