"""Instructions of single int8 layers on emulated Cortex-M boards, beside CMSIS-NN's for the same layers.

    EDGECOMPRESS_CMSIS_NN=FOLDER python tests/bench/layers_on_cortex_m.py [WORD...] [--cpu CPU]...

FOLDER holds CMSIS-NN's sources (github.com/ARM-software/CMSIS-NN), which arm-none-eabi-gcc -Ofast builds; without it
ours stands alone. WORD: a part of a layer's name. Every output of ours is compared with the plain kernels', and
CMSIS-NN's with ours, bit for bit. Exits 1 when one of ours differs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cortex_m import emulated
from rich.console import Console
from rich.table import Table

from edgecompress.targets import load_target
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.kernels.arithmetic import activation_range, product_ratio, quantize_multiplier
from edgecompress_runtime.kernels.convolution import channel_multipliers
from edgecompress_runtime.kernels.softmax import scaling as softmax_scaling
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.plan import Plan
from edgecompress_targets.cortex_m import emulator
from edgecompress_targets.cortex_m.boards import BOARDS
from edgecompress_targets.cortex_m.firmware_image import link

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime"))

from layer_cases import SAME, VALID, Layers

CPUS = ("cortex-m4", "cortex-m55")
Shape = tuple[int, ...]


def _product(a: Shape, b: Shape) -> Callable[[Layers], None]:
    """Of matrices whose depth is the last axis of both."""

    def add(made: Layers) -> None:
        ends = made.activation(a), made.activation(b), made.activation((*a[:-1], b[-2]), 0.2 * a[-1] ** 0.5)
        made.layer("BATCH_MATMUL", ends[:2], ends[2:], adjY=True)

    return add


def _pool(kind: str, size: Shape, window: int, stride: int) -> Callable[[Layers], None]:
    def add(made: Layers) -> None:
        shape = [-(-n // stride) for n in size[:2]]
        x, y = made.int8((1, *size), 0.05, -3), made.int8((1, *shape, size[2]), 0.05, -3)
        options = {"strideH": stride, "strideW": stride, "filterHeight": window, "filterWidth": window}
        made.layer(kind, [x], [y], padding=SAME, **options)

    return add


def _softmax(rows: int, depth: int) -> Callable[[Layers], None]:
    def add(made: Layers) -> None:
        ends = made.int8((rows, depth), 0.05, -3), made.int8((rows, depth), 1 / 256, -128)
        made.layer("SOFTMAX", ends[:1], ends[1:], beta=1.0)

    return add


LAYERS: dict[str, Callable[[Layers], None]] = {
    "BATCH_MATMUL, keys, 4 heads, 32 tokens, 16 channels": _product((1, 4, 32, 16), (1, 4, 32, 16)),
    "BATCH_MATMUL, values, 4 heads, 32 tokens, 16 channels": _product((1, 4, 32, 32), (1, 4, 16, 32)),
    "BATCH_MATMUL, keys, 4 heads, 64 tokens, 32 channels": _product((1, 4, 64, 32), (1, 4, 64, 32)),
    "BATCH_MATMUL, one query, 64 tokens, 32 channels": _product((1, 4, 1, 32), (1, 4, 64, 32)),
    "SOFTMAX, 128 rows of 32": _softmax(128, 32),
    "SOFTMAX, one row of 1000": _softmax(1, 1000),
    "FULLY_CONNECTED, 32 rows, 64 to 192": lambda made: made.dense(32, 64, 192),
    "FULLY_CONNECTED, one row, 256 to 128": lambda made: made.dense(1, 256, 128),
    "DEPTHWISE, 3x3, 40x40x16": lambda made: made.depthwise((40, 40, 16), (3, 3)),
    "DEPTHWISE, 3x3, 12x12x64": lambda made: made.depthwise((12, 12, 64), (3, 3)),
    "DEPTHWISE, 3x3, 6x6x128": lambda made: made.depthwise((6, 6, 128), (3, 3)),
    "DEPTHWISE, 3x3, stride 2, 24x24x48": lambda made: made.depthwise((24, 24, 48), (3, 3), stride=2),
    "DEPTHWISE, 5x5, 20x20x64": lambda made: made.depthwise((20, 20, 64), (5, 5)),
    "DEPTHWISE, 5x5, stride 2, 10x10x120": lambda made: made.depthwise((10, 10, 120), (5, 5), stride=2),
    "DEPTHWISE, 7x7, 10x10x96": lambda made: made.depthwise((10, 10, 96), (7, 7)),
    "DEPTHWISE, 7x7, stride 2, 40x40x24": lambda made: made.depthwise((40, 40, 24), (7, 7), stride=2),
    "MAX_POOL, 2x2, 64x64x16": _pool("MAX_POOL_2D", (64, 64, 16), 2, 2),
    "MAX_POOL, 2x2, 32x32x32": _pool("MAX_POOL_2D", (32, 32, 32), 2, 2),
    "MAX_POOL, 3x3, stride 2, 24x24x24": _pool("MAX_POOL_2D", (24, 24, 24), 3, 2),
    "AVERAGE_POOL, 2x2, 32x32x32": _pool("AVERAGE_POOL_2D", (32, 32, 32), 2, 2),
    "CONV, 3x3, stride 2, 32x32x3 to 16": lambda made: made.convolution((32, 32, 3), 16, (3, 3), stride=2),
    "CONV, 3x3, stride 2, 96x96x3 to 8": lambda made: made.convolution((96, 96, 3), 8, (3, 3), stride=2),
    "CONV, 1x1, 24x24x16 to 32": lambda made: made.convolution((24, 24, 16), 32, (1, 1)),
    "CONV, 1x1, 6x6x128 to 128": lambda made: made.convolution((6, 6, 128), 128, (1, 1), padding=VALID),
    "CONV, 3x3, 16x16x32 to 32": lambda made: made.convolution((16, 16, 32), 32, (3, 3)),
}

# ---- CMSIS-NN

# a copy of four bytes is no call
HEADERS = {
    "string.h": """#pragma once
#include <stddef.h>
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);
#define memcpy __builtin_memcpy
#define memset __builtin_memset
"""
}
MEMORY = """
#undef memcpy
#undef memset
void *memcpy(void *to, const void *from, size_t n) {
    uint8_t *t = to; const uint8_t *f = from;
    for (; n >= 4; n -= 4, t += 4, f += 4) *(uint32_t *)t = *(const uint32_t *)f;
    while (n--) *t++ = *f++;
    return to;
}
void *memset(void *to, int value, size_t n) {
    uint8_t *t = to; uint32_t word = (uint8_t)value * 0x01010101u;
    for (; n >= 4; n -= 4, t += 4) *(uint32_t *)t = word;
    while (n--) *t++ = (uint8_t)value;
    return to;
}
"""
FOLDERS = (
    "ConvolutionFunctions", "FullyConnectedFunctions", "NNSupportFunctions", "PoolingFunctions", "SoftmaxFunctions",
    "TransposeFunctions",
)  # fmt: skip


def _array(kind: str, name: str, values: Any) -> str:
    return f"static const {kind} {name}[] = {{{','.join(map(str, np.asarray(values).reshape(-1).tolist()))}}};\n"


def _dims(shape: Sequence[int]) -> str:
    return "(cmsis_nn_dims){" + ",".join(map(str, shape)) + "}"


def _convolution(plan: Plan, depthwise: bool) -> tuple[str, str]:
    """Declarations and a call."""
    (operator,) = plan.operators
    (x, w, bias), y, options = (plan.tensors[i] for i in operator.inputs), plan.tensors[operator.outputs[0]], operator
    chosen: Any = options.options
    multiplier, shift = channel_multipliers(x, w, y)
    pads = padding(chosen.padding, x.shape[1:3], y.shape[1:3], w.shape[1:3], chosen.strides, chosen.dilations)
    held = _array("int8_t", "w", w.data) + _array("int32_t", "bias", bias.data)
    held += _array("int32_t", "m", multiplier) + _array("int32_t", "s", shift)
    low, high = activation_range(chosen, y)
    tiles = [f"{{{b},{a}}}" for a, b in (chosen.strides, pads, (1, 1))]
    times = "1," if depthwise else ""
    kind, call = ("dw_conv", "depthwise_conv") if depthwise else ("conv", "convolve")
    shapes = [_dims(t.shape) for t in (x, w)] + [_dims((1, 1, 1, y.shape[3])), _dims(y.shape)]
    body = f"cmsis_nn_{kind}_params p = {{{-x.zero},{y.zero},{times}{','.join(tiles)},{{{low},{high}}}}};\n"
    body += "cmsis_nn_per_channel_quant_params q = {(int32_t *)m, (int32_t *)s};\n"
    body += f"cmsis_nn_dims X = {shapes[0]}, W = {shapes[1]}, B = {shapes[2]}, Y = {shapes[3]};\n"
    body += "cmsis_nn_context c = {buffer, 0};\n"
    body += f"arm_{call}_wrapper_s8(&c, &p, &q, &X, i, &W, w, &B, bias, &Y, o);\n"
    return held, body


def _dense(plan: Plan) -> tuple[str, str]:
    (operator,) = plan.operators
    (x, w, bias), y = (plan.tensors[i] for i in operator.inputs), plan.tensors[operator.outputs[0]]
    multiplier, shift = channel_multipliers(x, w, y)
    units, depth = w.shape
    held = _array("int8_t", "w", w.data) + _array("int32_t", "bias", bias.data)
    held += _array("int32_t", "m", multiplier) + _array("int32_t", "s", shift)
    assert w.data is not None and bias.data is not None
    sums = w.data.astype(np.int64).sum(1) * -x.zero + bias.data  # what CMSIS-NN prepares once for Helium
    held += "#ifdef ARM_MATH_MVEI\n" + _array("int32_t", "sums", sums) + "#define CONTEXT {(void *)sums, 0}\n#else\n"
    held += "#define CONTEXT {buffer, 0}\n#endif\n"
    body = f"cmsis_nn_fc_params p = {{{-x.zero},0,{y.zero},{{-128,127}}}};\n"
    body += "cmsis_nn_per_channel_quant_params q = {(int32_t *)m, (int32_t *)s}; cmsis_nn_context c = CONTEXT;\n"
    body += f"cmsis_nn_dims X = {_dims((x.shape[0], 1, 1, depth))}, W = {_dims((depth, 1, 1, units))};\n"
    body += f"cmsis_nn_dims B = {_dims((1, 1, 1, units))}, Y = {_dims((x.shape[0], 1, 1, units))};\n"
    return held, body + "arm_fully_connected_per_channel_s8(&c, &p, &q, &X, i, &W, w, &B, bias, &Y, o);\n"


def _matrices(plan: Plan) -> tuple[str, str]:
    (operator,) = plan.operators
    a, b, y = (plan.tensors[i] for i in (*operator.inputs, *operator.outputs))
    multiplier, shift = quantize_multiplier(product_ratio(a, b, y))
    body = f"cmsis_nn_bmm_params p = {{0,0,{{{-a.zero},{-b.zero},{y.zero},{{-128,127}}}}}};\n"
    body += f"cmsis_nn_per_tensor_quant_params q = {{{multiplier},{shift}}}; cmsis_nn_context c = {{buffer, 0}};\n"
    body += f"cmsis_nn_dims A = {_dims(a.shape)}, B = {_dims(b.shape)}, Y = {_dims(y.shape)};\n"
    return "", body + f"arm_batch_matmul_s8(&c, &p, &q, &A, i, &B, i + {a.size}, &Y, o);\n"


def _pooling(plan: Plan) -> tuple[str, str]:
    (operator,) = plan.operators
    x, y = plan.tensors[operator.inputs[0]], plan.tensors[operator.outputs[0]]
    chosen: Any = operator.options
    pads = padding(chosen.padding, x.shape[1:3], y.shape[1:3], chosen.window, chosen.strides)
    tiles = [f"{{{b},{a}}}" for a, b in (chosen.strides, pads)]
    name = "max_pool" if operator.kind == "MAX_POOL_2D" else "avgpool"
    body = f"cmsis_nn_pool_params p = {{{','.join(tiles)},{{-128,127}}}}; cmsis_nn_context c = {{buffer, 0}};\n"
    body += f"cmsis_nn_dims X = {_dims(x.shape)}, W = {_dims((1, *chosen.window, 1))}, Y = {_dims(y.shape)};\n"
    return "", body + f"arm_{name}_s8(&c, &p, &X, i, &W, &Y, o);\n"


def _rows(plan: Plan) -> tuple[str, str]:
    x = plan.tensors[plan.inputs[0]]
    multiplier, shift, smallest = softmax_scaling(x, 1.0)
    return "", f"arm_softmax_s8(i, {x.shape[0]}, {x.shape[1]}, {multiplier}, {shift}, {smallest}, o);\n"


CALLS: dict[str, Callable[[Plan], tuple[str, str]]] = {
    "CONV_2D": lambda plan: _convolution(plan, False),
    "DEPTHWISE_CONV_2D": lambda plan: _convolution(plan, True),
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _matrices,
    "MAX_POOL_2D": _pooling,
    "AVERAGE_POOL_2D": _pooling,
    "SOFTMAX": _rows,
}


@dataclass(frozen=True)
class CmsisNN:
    """Its sources, built for a CPU once."""

    sources: Path
    work: Path
    cpu: str

    def _compile(self, *files: str | Path) -> None:
        hard = load_target(self.cpu).triple.endswith("hf")
        words = [f"-mcpu={self.cpu}", "-mthumb", f"-mfloat-abi={'hard' if hard else 'soft'}", "-Ofast", "-w"]
        words += ["-ffreestanding", "-fno-tree-loop-distribute-patterns", "-ffunction-sections", "-fdata-sections"]
        include = ["-I", str(self.work), "-I", str(self.sources / "Include")]
        subprocess.run(["arm-none-eabi-gcc", *words, *include, "-c", *map(str, files)], cwd=self.work, check=True)

    def built(self) -> CmsisNN:
        """After all of it is compiled."""
        for name, text in HEADERS.items():
            (self.work / name).write_text(text)
        files = (f for folder in FOLDERS for f in sorted((self.sources / "Source" / folder).glob("*.c")))
        self._compile(*(f for f in files if not re.search("_(f16|f32|flt)", f.name)))
        objects = [str(o) for o in self.work.glob("*.o")]
        subprocess.run(["arm-none-eabi-ar", "rcs", str(self.work / "libnn.a"), *objects], check=True)
        return self

    def run(self, plan: Plan, record: bytes) -> tuple[int, bytes]:
        """(instructions, outputs) for a plan of one layer."""
        held, body = CALLS[plan.operators[0].kind](plan)
        y = plan.tensors[plan.outputs[0]]
        text = '#include "arm_nnfunctions.h"\n' + MEMORY + held
        text += "static int8_t buffer[1 << 18] __attribute__((aligned(16)));\n"
        text += f"void peer(int8_t *i, int8_t *o) {{\n{body}}}\n"
        (self.work / "peer.c").write_text(text)
        self._compile("peer.c")
        words = ["arm-none-eabi-ld", "-r", "peer.o", "libnn.a", "-o", "whole.o"]
        subprocess.run(words, cwd=self.work, check=True)
        header = f"""#include <stdint.h>
#define MODEL_ARENA_BYTES 16
#define MODEL_INPUT_BYTES {len(record)}
#define MODEL_OUTPUT_BYTES {y.size}
#define MODEL_DIGEST {{0}}
void peer(int8_t *i, int8_t *o);
#define MODEL_INVOKE(a, i, o) peer(i, o)
"""
        hard = load_target(self.cpu).triple.endswith("hf")
        elf = self.work / "peer.elf"
        link((self.work / "whole.o").read_bytes(), header, BOARDS[self.cpu], cpu=self.cpu, hard_float=hard, to=elf)
        run = emulator.run(elf, record, BOARDS[self.cpu])
        return round(run.instructions), run.outputs


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--cpu", action="append")
    asked = parser.parse_args()
    folder, failed = os.environ.get("EDGECOMPRESS_CMSIS_NN"), 0
    names = [n for n in LAYERS if not asked.words or any(word.lower() in n.lower() for word in asked.words)]
    for cpu in asked.cpu or CPUS:
        table = Table("layer", "thousand", "CMSIS-NN", "ours / CMSIS-NN", "exact", "peer equal", title=cpu)
        with tempfile.TemporaryDirectory() as work:
            peer = CmsisNN(Path(folder), Path(work), cpu).built() if folder else None
            for name in names:
                made = Layers(1)
                LAYERS[name](made)
                plan, feeds = made.plan(), made.feeds()
                record = b"".join(f.tobytes() for f in feeds)
                _, run = emulated(plan, np.frombuffer(record, np.int8), cpu)
                exact = run.outputs == b"".join(y.tobytes() for y in Executor(plan)(*feeds))
                count, outputs = peer.run(plan, record) if peer else (0, b"")
                theirs = (f"{count / 1e3:.1f}", f"{run.instructions / count:.2f}") if peer else ("", "")
                same = ("yes" if outputs == run.outputs else "no") if peer else ""
                table.add_row(name, f"{run.instructions / 1e3:.1f}", *theirs, "yes" if exact else "NO", same)
                print(name, cpu, f"{run.instructions / 1e3:.1f}", *theirs, exact, same, flush=True)
                failed += not exact
        Console(width=140).print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
