"""Instructions of whole networks on emulated Cortex-M boards, and of every network of tests/networks.py.

    python tests/bench/networks_on_cortex_m.py [NAME...] [--cpu CPU]... [--save FILE] [--before FILE] [--layers]

Without names: a transformer, a U-Net, inverted residuals with wide depthwise windows, and all networks of the tests.
--save writes the counts as JSON; --before compares with counts that were saved so. Every output is compared with the
plain kernels', bit for bit. Weights are random. Needs qemu-system-arm and arm-none-eabi-gcc. Exits 1 when an output
differs, or a network takes over 0.1 % more instructions than before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from cortex_m import emulated
from torch import Tensor, nn

from edgecompress.compress.quantize import quantize
from edgecompress.emit.pack import plan as lowered
from edgecompress.errors import EdgeCompressError
from edgecompress.evaluate.dataset import load_data
from edgecompress.ingest import load
from edgecompress.operators.rewriting import integer_parts
from edgecompress.recipe import Preprocess, Quantize
from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.plan import Plan

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import networks

CPUS = ("cortex-m4", "cortex-m55")
MORE = 1.001  # what a count may be of the one before


class Transformer(nn.Module):
    """Two encoder layers of 64 channels and four heads over 32 tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, activation="gelu", batch_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(1))


def _layer(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    return [convolution, nn.ReLU6()]


class UNet(nn.Module):
    """Three levels of 16 to 64 channels, with max pools, transposed convolutions and joins."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, 16, 32, 64)
        self.down = nn.ModuleList(nn.Sequential(*_layer(a, b, 3), *_layer(b, b, 3)) for a, b in pairwise(sizes))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in ((32, 64), (16, 32)))
        self.join = nn.ModuleList(nn.Sequential(*_layer(2 * a, a, 3)) for a in (32, 16))
        self.head, self.pool = nn.Conv2d(16, 2, 1), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for number, part in enumerate(self.down):
            x = part(x if number == 0 else self.pool(x))
            kept.append(x)
        for up, join, other in zip(self.up, self.join, kept[-2::-1]):
            x = join(torch.cat([up(x), other], 1))
        return self.head(x)


class Residual(nn.Module):
    """Expands, convolves each channel, projects; adds its input where shapes are the same."""

    def __init__(self, inputs: int, outputs: int, times: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * times
        parts = [*_layer(inputs, inner, 1), *_layer(inner, inner, kernel, stride, inner), nn.Conv2d(inner, outputs, 1)]
        self.body, self.adds = nn.Sequential(*parts), stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


def inverted_residuals() -> nn.Module:
    """Like MCUNet, for images of 80x80: depthwise windows of 3, 5 and 7."""
    blocks = (
        (16, 8, 1, 3, 1), (8, 16, 3, 7, 2), (16, 16, 4, 5, 1), (16, 24, 4, 7, 2), (24, 24, 4, 5, 1), (24, 40, 5, 5, 2),
        (40, 40, 5, 7, 1), (40, 48, 4, 3, 1), (48, 48, 4, 5, 1), (48, 96, 4, 7, 2), (96, 96, 4, 5, 1),
    )  # fmt: skip
    body = [*_layer(3, 16, 3, 2), *(Residual(*block) for block in blocks)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))


@dataclass(frozen=True)
class Torch:
    """make: the module. shape: of its input."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


OWN = {
    "a transformer": Torch(Transformer, (1, 32, 64)),
    "a U-Net": Torch(UNet, (1, 3, 64, 64)),
    "inverted residuals": Torch(inverted_residuals, (1, 3, 80, 80)),
}


def plan_of(name: str) -> Plan | None:
    """Of a network with int8 inputs and outputs; None for what no device of integers alone has."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in OWN:
            torch.manual_seed(0)
            path, own = Path(folder) / "network.onnx", OWN[name]
            torch.backends.mha.set_fastpath_enabled(False)
            torch.onnx.export(own.make().eval(), (torch.zeros(own.shape),), path, dynamo=False, opset_version=17)
            model = load(path).model
            samples = {model.graph.inputs[0].name: _normal(32, *own.shape[1:])}
        else:
            model = load(networks.export(name, folder)).model
            samples = networks.example(name, 32, seed=1)
        try:
            data = load_data(samples, model.graph.inputs, Preprocess())
            model = integer_parts(model, integer_only=True)
            quantized = quantize(model, data, Quantize(), integer_only=True).model
            return lowered(quantized, io_dtype=ir.DataType.INT8)
        except (EdgeCompressError, UnsupportedOperatorError) as error:
            print(f"{name}: left out: {str(error).splitlines()[0]}", flush=True)
            return None


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def _feed(random: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype == np.float32:
        return random.normal(size=shape).astype(dtype)
    low, high = (-128, 128) if dtype == np.int8 else (0, 2)
    return random.integers(low, high, shape).astype(dtype)


def counted(name: str, plan: Plan, cpu: str, *, layers: bool) -> tuple[int, bool]:
    """(instructions, whether outputs are the plain kernels')."""
    random = np.random.default_rng(1)
    feeds = [_feed(random, plan.tensors[i].shape, plan.tensors[i].dtype) for i in plan.inputs]
    record = np.frombuffer(b"".join(f.tobytes() for f in feeds), np.int8)
    compiled, run = emulated(plan, record, cpu, layers=layers)
    kinds: dict[str, int] = defaultdict(int)
    for operator, count in zip(compiled.program.steps, run.steps):
        kinds[operator.kind] += count
        shapes = [list(compiled.program.plan.tensors[i].shape) for i in (*operator.inputs[:2], operator.outputs[0])]
        print(f"{name} {cpu} {operator.kind:18} {count / 1e3:10.1f} k  {shapes}")
    for kind, count in sorted(kinds.items(), key=lambda pair: -pair[1]):
        print(f"{name} {cpu} {kind:18} {count / 1e3:10.1f} k in all")
    print(f"{name} {cpu} arena {compiled.program.layout.size:,} flash {compiled.flash:,}")
    exact = run.outputs == b"".join(y.tobytes() for y in Executor(plan)(*feeds))
    return round(run.instructions), exact


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--cpu", action="append")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--layers", action="store_true")
    asked = parser.parse_args()
    before = json.loads(asked.before.read_text()) if asked.before else {}
    counts, failed = {}, 0
    for name in asked.names or (*OWN, *networks.NETWORKS):
        if (plan := plan_of(name)) is None:
            continue
        for cpu in asked.cpu or CPUS:
            count, exact = counted(name, plan, cpu, layers=asked.layers)
            counts[f"{name}, {cpu}"] = count
            old = before.get(f"{name}, {cpu}")
            ratio = "" if old is None else f", before {old:,}: {count / old:.3f}"
            bad = not exact or (old is not None and count > old * MORE)
            failed += bad
            words = "" if exact else ", NOT EXACT"
            print(f"{name}, {cpu}: {count:,}{ratio}{words}{' <--' if bad else ''}", flush=True)
        if asked.save:
            asked.save.write_text(json.dumps(counts, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
