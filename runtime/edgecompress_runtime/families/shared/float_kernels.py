"""The kernels of float32 that a CPU's vectors make fast, by operator."""

from __future__ import annotations

from functools import partial

from edgecompress_runtime.families.shared import float_layers as layers
from edgecompress_runtime.families.shared import vector_functions as functions
from edgecompress_runtime.families.shared.family import Prepare
from edgecompress_runtime.families.shared.float_blocks import FloatUnit


def float_kernels(unit: FloatUnit, threads: int = 1) -> dict[str, Prepare]:
    """threads: how many share large layers."""
    return {
        "CONV_2D": partial(layers.prepare_conv, unit, threads),
        "DEPTHWISE_CONV_2D": partial(layers.prepare_depthwise, unit, threads),
        "FULLY_CONNECTED": partial(layers.prepare_fully_connected, unit, threads),
        "BATCH_MATMUL": partial(layers.prepare_batch_matmul, unit),
        **{kind: partial(functions.prepare_function, kind, unit) for kind in functions.FUNCTIONS},
        "GELU": partial(functions.prepare_gelu, unit),
        "SOFTMAX": partial(functions.prepare_softmax, unit),
    }
