"""Which bytes of the arena the tensors and the scratch buffers of a plan take, from its kernel calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgecompress_runtime.codegen.memory import Buffer, Layout, Overlap, arrange
from edgecompress_runtime.families.shared.step import Part, Scratch, Step
from edgecompress_runtime.kernels.registry import Raw
from edgecompress_runtime.llvm.typed_numba import leaves
from edgecompress_runtime.plan import EXIT, Plan, Tensor


def shared_storage(plan: Plan) -> dict[Tensor, Tensor]:
    """Tensor -> the tensor whose bytes it is: a reshaped one, where both lie in the arena, is that which was reshaped;
    one that is reshaped into an output is that output."""
    ends = {plan.tensors[i] for i in (*plan.inputs, *plan.outputs)}
    given = {plan.tensors[i] for o in plan.operators if o.kind == EXIT for i in o.inputs}  # are copied to outputs
    owner: dict[Tensor, Tensor] = {}
    for operator in plan.operators:
        if operator.kind != "RESHAPE":
            continue
        x, y = plan.tensors[operator.inputs[0]], plan.tensors[operator.outputs[0]]
        whole = owner.get(x, x)
        if x.data is not None or whole in ends:
            continue
        if y in ends:
            alike = {t for t in (whole, *owner) if owner.get(t, t) is whole}
            if not alike & given:
                owner |= dict.fromkeys(alike, y)
        else:
            owner[y] = whole
    return owner


def states_in_place(plan: Plan, steps: Sequence[Step], owner: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
    """What a state becomes -> the state, whose bytes it can have: no step reads the state after one that writes there.

    A step that does both may have them in one place if it reads every byte before it writes there.
    """
    uses: dict[Tensor, list[int]] = {}
    for number, step in enumerate(steps):
        for tensor in {owner.get(t, t) for t in map(_tensor, leaves(step.arguments)) if t is not None}:
            uses.setdefault(tensor, []).append(number)
    found = {}
    for place, source in plan.states:
        before, after = plan.tensors[plan.inputs[place]], plan.tensors[plan.outputs[source]]
        last, first = max(uses.get(before, [-1])), min(uses.get(after, [-1]))
        if last < first or (last == first and steps[last].overlap.get(before) == 0):
            found[after] = before
    return found


def arranged_memory(plan: Plan, steps: Sequence[Step], owner: Mapping[Tensor, Tensor], alignment: int) -> Layout:
    """The arena's layout for these kernel calls; inputs and outputs of the plan lie outside of it, but states in bytes
    that nothing else has.

    owner: of `shared_storage`, and of `states_in_place`. alignment: of every offset, in bytes.
    """
    ends = {plan.tensors[i] for i in (*plan.given, *plan.taken)}
    kept = {plan.tensors[plan.inputs[place]] for place, _ in plan.states}
    life: dict[Tensor, tuple[int, int]] = dict.fromkeys(kept, (0, len(steps)))
    buffers: list[Buffer] = []
    overlaps: list[Overlap] = []
    for number, step in enumerate(steps):
        arguments = list(leaves(step.arguments))
        tensors = [t for t in map(_tensor, arguments) if t is not None]
        for tensor in {owner.get(t, t) for t in tensors} - ends - kept:
            life[tensor] = life.get(tensor, (number, number))[0], number
        buffers += [Buffer(a, a.size, number, number) for a in arguments if isinstance(a, Scratch)]
        overlaps += [
            Overlap(owner.get(y, y), owner.get(x, x), distance)
            for x, distance in step.overlap.items()
            for y in tensors
            if y is not x
        ]
    buffers += [Buffer(t, t.size * t.dtype.itemsize, *span) for t, span in life.items()]
    return arrange(buffers, overlaps, alignment)


def _tensor(argument: Any) -> Tensor | None:
    """The computed tensor that an argument is, or lies in."""
    tensor = argument.tensor if isinstance(argument, (Raw, Part)) else argument
    return tensor if isinstance(tensor, Tensor) and tensor.data is None else None
