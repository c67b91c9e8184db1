"""What a conversion costs beside ONNX Runtime's `quantize_static`: CPU seconds and peak memory of whole processes.

    python tests/bench/conversion_cost.py [--samples 32] [--folder FOLDER] [NETWORK ...]

Ours is `edgecompress convert MODEL --calib DATA -q` for android: int8 .tflite and .onnx, both checked in their
interpreters, with a report. Theirs is a Python process that prepares the model (`quant_pre_process`: shapes inferred,
graph optimized) and quantizes it to int8 (QDQ, per channel, ranges by MinMax) with the same samples; it checks nothing.
`float` lines are our float .tflite alone (`--format tflite`, no data). Networks are seeded; BatchNormalization has the
statistics of the data. `resnet8` and `digits` are trained: the first is read from the folder that
EDGECOMPRESS_BENCH_DATA names (models/ic_resnet8.onnx), the second from samples/digits. Models and data are kept in
FOLDER, if it is given, for another run.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import search_time
import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).parents[2]
MEGABYTE = 1 << 20

PEER = """
import sys
import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

model, data, prepared, result = sys.argv[1:]

class Samples(CalibrationDataReader):
    def __init__(self):
        import onnxruntime
        name = onnxruntime.InferenceSession(prepared, providers=["CPUExecutionProvider"]).get_inputs()[0].name
        self.left = iter([{name: x[None]} for x in np.load(data)["x"]])

    def get_next(self):
        return next(self.left, None)

quant_pre_process(model, prepared)
quantize_static(prepared, result, Samples(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
"""


@dataclass(frozen=True)
class Cost:
    """Of one process: CPU seconds, and the largest resident set, in megabytes of 2^20 bytes."""

    seconds: float
    megabytes: float


class Basic(nn.Module):
    """Two 3x3 convolutions beside the input, or beside a 1x1 convolution of it."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(*_conv(inputs, width, 3, stride), nn.ReLU(), *_conv(width, width, 3))
        beside = stride > 1 or inputs != width
        self.beside = nn.Sequential(*_conv(inputs, width, 1, stride)) if beside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.path(x) + self.beside(x))


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)


def resnet18() -> nn.Module:
    """For images [n, 3, 224, 224] of 1,000 classes (He et al. 2016)."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [*_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Basic(inputs, width, stride), Basic(width, width, 1)]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


def resnet50() -> nn.Module:
    """Of blocks that add little to what passes them by, as in trained networks, so that int8 needs no search."""
    network = search_time.resnet50()
    for module in network.modules():
        if isinstance(module, search_time.Bottleneck):
            nn.init.constant_(module.path[-1].weight, 0.3)
    return network


class Block(nn.Module):
    """Attention and a perceptron, each behind a LayerNormalization and beside its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.joint, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        joint = self.joint(self.before(x)).reshape(n, length, 3, self.heads, width // self.heads)
        q, k, v = joint.permute(2, 0, 3, 1, 4)
        shares = ((q * (width // self.heads) ** -0.5) @ k.transpose(2, 3)).softmax(-1)
        x = x + self.out((shares @ v).transpose(1, 2).reshape(n, length, width))
        return x + self.narrow(F.gelu(self.wide(self.between(x))))


class ViT(nn.Module):
    """ViT-B/16 (Dosovitskiy et al. 2021), for images [n, 3, 224, 224] of 1,000 classes."""

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 197, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


def vit() -> nn.Module:
    torch.manual_seed(0)
    return ViT()


def mlp() -> nn.Module:
    """262 MB of weights, for [n, 1024]."""
    torch.manual_seed(0)
    widths = (1024, 4096, 4096, 4096, 4096)
    hidden = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(4096, 2720))


def vectors(count: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 1024)


# name -> (network, samples)
SEEDED: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "resnet18": (resnet18, search_time.images),
    "resnet50": (resnet50, search_time.images),
    "vit": (vit, search_time.images),
    "mlp": (mlp, vectors),
}
TRAINED = ("digits", "resnet8")
NETWORKS = (*TRAINED, *SEEDED)


def prepare(name: str, folder: Path, samples: int) -> tuple[Path, Path]:
    """(model, data) of a network, made unless they are there."""
    model, data = folder / f"{name}.onnx", folder / f"{name}-{samples}.npz"
    if name == "digits":
        model = ROOT / "samples/digits/digits.onnx"
        np.savez(data, x=np.load(ROOT / "samples/digits/train.npz")["x"][:samples].astype(np.float32))
    elif name == "resnet8":
        model = Path(os.environ["EDGECOMPRESS_BENCH_DATA"]) / "models/ic_resnet8.onnx"
        noise = np.random.default_rng(0).random((samples, 3, 8, 8), np.float32)
        np.savez(data, x=255 * noise.repeat(4, 2).repeat(4, 3))
    elif not (model.exists() and data.exists()):
        make, draw = SEEDED[name]
        network, x = make(), draw(samples)
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = None  # so that the statistics are those of all batches
            for batch in x.split(8):
                network(batch)
        torch.onnx.export(network.eval(), (x[:1],), str(model), dynamo=False, opset_version=17)
        np.savez(data, x=x.numpy())
    return model, data


def cost(command: list[str]) -> Cost:
    """Runs a command; raises RuntimeError if it fails."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 4):  # 4: seeded weights may miss a limit
            output.seek(0)
            raise RuntimeError(f"exit code {process.returncode}: {output.read()}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / MEGABYTE)


def measure(name: str, folder: Path, samples: int) -> None:
    """Prints one line for int8, and one for float."""
    model, data = prepare(name, folder, samples)
    convert = [sys.executable, "-m", "edgecompress", "convert", str(model), "-q"]
    peer = [sys.executable, "-c", PEER, str(model), str(data), str(folder / "prepared.onnx"), str(folder / "peer.onnx")]
    theirs = cost(peer)
    ours = cost([*convert, "--calib", str(data), "-o", str(folder / f"{name}-int8")])
    alone = cost([*convert, "--format", "tflite", "-o", str(folder / f"{name}-float")])
    print(
        f"{name:10} {model.stat().st_size / 1e6:6.1f} MB   int8: {ours.seconds:6.1f} s {ours.megabytes:6.0f} MB   "
        f"quantize_static: {theirs.seconds:6.1f} s {theirs.megabytes:6.0f} MB   "
        f"ratio {ours.seconds / theirs.seconds:5.2f} {ours.megabytes / theirs.megabytes:5.2f}   "
        f"float .tflite: {alone.seconds:5.1f} s {alone.megabytes:6.0f} MB",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}; default: all")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.networks or NETWORKS:
            if name == "resnet8" and "EDGECOMPRESS_BENCH_DATA" not in os.environ:
                print("resnet8: skipped, EDGECOMPRESS_BENCH_DATA is not set")
                continue
            measure(name, folder, options.samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
