"""MobileNetV2 0.35 for images of 96x96, padded as PyTorch pads: instructions and memory on emulated Cortex-M boards.

    python tests/bench/padded_layers.py [CPU...]

At stride 2 PyTorch pads as much in front as behind, which TFLite's SAME can't say: the file has a PAD there, the
program has none. Weights are random, BatchNorm statistics those of random images. Every output is compared with the
plain kernels', bit for bit. Needs qemu-system-arm and arm-none-eabi-gcc. Exits 1 when one differs.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from cortex_m import emulated
from near_zero import images
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from edgecompress.compress.quantize import quantize
from edgecompress.emit.pack import plan as lowered
from edgecompress.evaluate.dataset import load_data
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
from edgecompress_runtime.execute import Executor

CPUS, WIDTH = ("cortex-m0", "cortex-m4", "cortex-m55"), 0.35
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _wide(channels: int) -> int:
    return max(8, int(channels * WIDTH + 4) // 8 * 8)


def _layer(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class Block(nn.Module):
    """Expands, convolves each channel, projects; adds its input where shapes are the same."""

    def __init__(self, inputs: int, outputs: int, stride: int, times: int) -> None:
        super().__init__()
        inner = inputs * times
        first = [*_layer(inputs, inner, 1), nn.ReLU6()] if times > 1 else []
        second = [*_layer(inner, inner, 3, stride, inner), nn.ReLU6(), *_layer(inner, outputs, 1)]
        self.body, self.adds = nn.Sequential(*first, *second), stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


def mobilenet_v2() -> nn.Module:
    """In eval mode."""
    torch.manual_seed(0)
    channels = _wide(32)
    parts: list[nn.Module] = [*_layer(3, channels, 3, 2), nn.ReLU6()]
    for times, wanted, count, stride in STAGES:
        for number in range(count):
            parts.append(Block(channels, _wide(wanted), stride if number == 0 else 1, times))
            channels = _wide(wanted)
    parts += [*_layer(channels, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 2)]
    model = nn.Sequential(*parts)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.from_numpy(images(16, 1)))
    return model.eval()


def main() -> int:
    table, failed = Table("CPU", "M instructions", "arena", "with input and output", "flash", "PADs", "exact"), 0
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "mobilenet_v2.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(mobilenet_v2(), (torch.zeros(1, 3, 96, 96),), path, dynamo=False, opset_version=17)
        model = load(path).model
    data = load_data(images(40, 2), model.graph.inputs, Preprocess())
    plan = lowered(quantize(model, data, Quantize(), integer_only=True).model, io_dtype=ir.DataType.INT8)
    x, y = plan.tensors[plan.inputs[0]], plan.tensors[plan.outputs[0]]
    real = images(2, 3).transpose(0, 2, 3, 1)
    records = np.clip(np.round(real / x.scale[0]) + x.zero, -128, 127).astype(np.int8)
    expected = b"".join(Executor(plan)(r[None])[0].tobytes() for r in records)
    for cpu in sys.argv[1:] or CPUS:
        compiled, run = emulated(plan, records, cpu)
        exact, arena = run.outputs == expected, compiled.program.layout.size
        pads = Counter(operator.kind for operator in compiled.program.steps)["PAD"]
        cells = f"{run.instructions / 1e6:.3f}", *(f"{n:,}" for n in (arena, arena + x.size + y.size, compiled.flash))
        table.add_row(cpu, *cells, str(pads), "yes" if exact else "NO", style=None if exact else "red")
        failed += not exact
    Console(width=120).print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
