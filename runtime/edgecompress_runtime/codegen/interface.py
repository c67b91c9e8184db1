"""What a caller has to know about a compiled model."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress_runtime.codegen.memory import Layout
from edgecompress_runtime.codegen.ordinary_layers import OrdinaryLayer
from edgecompress_runtime.plan import KeptState, Operator, Plan

HOOK = "edgecompress_layer"  # void (int32_t step), called before each step of a profiled program and after the last


@dataclass(frozen=True, eq=False, kw_only=True)
class Interface:
    """Its functions' symbols and its constants' start with `name`.

    plan: whose inputs and outputs it takes. layout: of the arena; alignment: of its address, in bytes. steps: the
    operator of each kernel call in order. family: of the CPUs whose kernels it has. saved: bytes of flash that coded
    weights take less than plain ones. skipping: layers that leave out weights that are zero. ordinary: layers that have
    ordinary kernels. states: what the arena keeps between calls.
    """

    name: str
    plan: Plan
    layout: Layout
    alignment: int
    steps: tuple[Operator, ...]
    family: str
    saved: int
    skipping: int
    ordinary: tuple[OrdinaryLayer, ...]
    states: tuple[KeptState, ...] = ()

    @property
    def entry(self) -> str:
        """The C function: void (arena, inputs..., outputs...)."""
        return f"{self.name}_invoke"
