"""A network that ends early as a `.tflite` file: a signature for each stage, which the caller runs one after the other.

TFLite has no operator behind which a graph ends. The caller runs `stage_1`, and if its probabilities reach the
threshold is done; else it gives what `stage_1` made to `stage_2`, and so on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgecompress.graph.annotations import EXIT_STEPS, Exit
from edgecompress.lowering.flatbuffer import FlatBuffer, Signature
from edgecompress.lowering.tensor_io import Stage, TensorIO
from edgecompress.lowering.tensors import Operator

METADATA = "early_exits"


def signatures(
    buffer: FlatBuffer, inputs: Sequence[tuple[str, int]], outputs: Sequence[tuple[str, int]], exits: Sequence[Exit]
) -> list[Signature]:
    """One for each exit, and the last for the whole network. inputs, outputs: (name, tensor index) of the model's.

    A stage takes the inputs and hidden values that it reads, by name, from whichever stage made them, and gives the
    exit's outputs and the hidden values that later stages read.
    """
    ends, named = dict(outputs), {index: name for name, index in inputs}
    wanted = [list(dict.fromkeys((e.value, e.confidence))) for e in exits] + [[outputs[0][0]]]
    stages: list[list[Operator]] = []
    left = list(buffer.operators)
    for names in wanted:
        needed = _needed([*left, *_of_constants(buffer)], {ends[name] for name in names})
        stages.append([o for o in buffer.operators if o in needed])
        left = [o for o in left if o not in needed]
    reads = [{i for o in stage for i in o.inputs if i >= 0 and buffer.tensors[i].data is None} for stage in stages]
    makes = [{i for o in stage for i in o.outputs} for stage in stages]
    result = []
    for number, (stage, names) in enumerate(zip(stages, wanted)):
        later = set().union(*(read - made for read, made in zip(reads[number + 1 :], makes[number + 1 :])))
        hidden = sorted((makes[number] & later) - {ends[name] for name in names})
        named |= {ends[name]: name for name in names}
        for index in hidden:
            name = buffer.tensors[index].name
            named[index] = f"{name}/{index}" if name in named.values() else name
        given = [(named[index], index) for index in (*(ends[name] for name in names), *hidden)]
        taken = [(named[i], i) for i in sorted(reads[number] - makes[number])]
        result.append(Signature(f"stage_{number + 1}", taken, given, stage))
    return result


def stages_of(made: Sequence[Signature], exits: Sequence[Exit], outputs: dict[str, TensorIO]) -> tuple[Stage, ...]:
    """How to run the signatures. outputs: of the model, by name."""
    rows = []
    for signature, place in zip(made, [*exits, None]):
        first = next(iter(outputs.values()))
        value, confidence = (first, None) if place is None else (outputs[place.value], outputs[place.confidence])
        names = tuple(name for name, _ in signature.inputs), tuple(name for name, _ in signature.outputs)
        threshold = None if place is None else place.threshold / EXIT_STEPS
        rows.append(Stage(signature.key, *names, value, confidence, threshold))
    return tuple(rows)


def metadata(stages: Sequence[Stage]) -> dict[str, bytes]:
    """What a caller has to know, as JSON: of each signature the output that is the network's, and which output has to
    reach which threshold for it to be taken (null: it is the last)."""
    rows = [
        {
            "signature": stage.key,
            "value": stage.value.name,
            "confidence": None if stage.confidence is None else stage.confidence.name,
            "threshold": stage.threshold,
        }
        for stage in stages
    ]
    return {METADATA: json.dumps(rows).encode()}


def _needed(operators: Sequence[Operator], tensors: set[int]) -> set[Operator]:
    makers = {i: o for o in operators for i in o.outputs}
    found, queue = set[Operator](), list(tensors)
    while queue:
        operator = makers.get(queue.pop())
        if operator is not None and operator not in found:
            found.add(operator)
            queue += operator.inputs
    return found


def _of_constants(buffer: FlatBuffer) -> list[Operator]:
    """What expands constants is repeated where it is needed."""
    return [o for o in buffer.operators if all(i < 0 or buffer.tensors[i].data is not None for i in o.inputs)]
