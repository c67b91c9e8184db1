"""A counted loop in LLVM's intermediate representation."""

from __future__ import annotations

from llvmlite import ir

from edgecompress_runtime.families.shared.words import BYTE, WORD


class Loop:
    """`for pointers in ...`: counts down, moves each pointer on by its step, carries values. Between its making and
    `close`, the builder writes the body."""

    def __init__(
        self, builder: ir.IRBuilder, count: ir.Value, pointers: list[ir.Value], values: list[ir.Value], each: int = 1
    ) -> None:
        """pointers, values: before the first iteration. each: what an iteration takes off the count; the loop ends when
        less is left."""
        self.each = each
        self.builder, self.entry = builder, builder.block
        self.body, self.done = builder.append_basic_block("body"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", count, WORD(each - 1)), self.body, self.done)
        builder.position_at_end(self.body)
        self.phis = []
        for start in [count, *pointers, *values]:
            phi = builder.phi(start.type)
            phi.add_incoming(start, self.entry)
            self.phis.append(phi)
        self.starts = [*pointers, *values]
        self.pointers, self.values = self.phis[1 : 1 + len(pointers)], self.phis[1 + len(pointers) :]

    def close(self, steps: list[int | ir.Value], values: list[ir.Value]) -> tuple[list[ir.Value], list[ir.Value]]:
        """The pointers and values after the loop."""
        b, block = self.builder, self.builder.block
        left = b.sub(self.phis[0], WORD(self.each))
        offsets = [WORD(step) if isinstance(step, int) else step for step in steps]
        pointers = [b.gep(p, [offset], source_etype=BYTE) for p, offset in zip(self.pointers, offsets)]
        for phi, value in zip(self.phis, [left, *pointers, *values]):
            phi.add_incoming(value, block)
        b.cbranch(b.icmp_signed(">", left, WORD(self.each - 1)), self.body, self.done)
        b.position_at_end(self.done)
        after = []
        for start, value in zip(self.starts, [*pointers, *values]):
            phi = b.phi(value.type)
            phi.add_incoming(start, self.entry)
            phi.add_incoming(value, block)
            after.append(phi)
        return after[: len(pointers)], after[len(pointers) :]
