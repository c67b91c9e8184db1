"""EXIT: whether the probabilities of a classifier in the middle of a network are clear enough to end there.

After Teerapittayanon, McDanel and Kung, BranchyNet: Fast Inference via Early Exiting from Deep Neural Networks (2016),
with the largest probability in place of their entropy: a comparison in place of logarithms.
"""

from __future__ import annotations

from edgecompress_runtime.kernels.arithmetic import Array, Number, i32
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares
from edgecompress_runtime.options import ExitOptions

STEPS = 256  # that thresholds are counted in, as int8 probabilities are


def reaches(x: Array, y: Array, count: Number, threshold: Number) -> None:
    """y is one byte: 1 where one of `count` values, stored or float32, is at least the threshold, else 0."""
    reached: Number = i32(0)
    for i in range(count):
        if x[i] >= threshold:
            reached = i32(1)
    y[0] = reached


@prepares("EXIT", of_any_type=True)
def _prepare(inputs: Inputs, outputs: Outputs, options: ExitOptions) -> list[Call]:
    x, (y,), threshold = inputs[0], outputs, options.threshold
    least: int | float = threshold / STEPS
    if x.is_int8:
        least = threshold + x.zero
    elif x.is_int16:
        least = threshold * (2**15 // STEPS)  # of probabilities with the scale 2**-15
    return [call(reaches, x, y, x.size, least)]
