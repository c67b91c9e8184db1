"""Instructions per inference of firmware on emulated Cortex-M boards, beside those of CMSIS-NN.

    EDGECOMPRESS_BENCH_DATA=DIR python tests/bench/cortex_m.py [CPU...] [--layers] [--cycles]

DIR holds models/ic_resnet8.onnx, models/ad_autoencoder.onnx (MLPerf Tiny, from mlcommons/tiny) and
data/datasets.py with `load("cifar10", "train" | "test", limit) -> (uint8 [n, 32, 32, 3], int64 [n])`. Needs
qemu-system-arm, arm-none-eabi-gcc and tflite-micro. Every output is compared with TFLM's, bit for bit.
An emulator counts instructions: it says nothing of cycles. Exits 1 when a line misses its limit or an output
differs. --layers: also the instructions of every layer. --cycles: also the cycles of Cortex-M0, M3 and M4 (cycles.py).
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from cycles import CPUS as CYCLES
from cycles import by_step
from rich.console import Console
from rich.table import Table
from tflite_micro.python.tflite_micro.runtime import Interpreter

from edgecompress.compress.quantize import quantize
from edgecompress.emit import tflite
from edgecompress.emit.pack import plan as lowered
from edgecompress.evaluate.dataset import load_data
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
from edgecompress.targets import load_target
from edgecompress_runtime.building.ahead_of_time import Compiled, compile_plan
from edgecompress_runtime.building.c_header import bench_header
from edgecompress_runtime.llvm.cross import Machine
from edgecompress_runtime.plan import Plan
from edgecompress_targets.connection.driver import Measured
from edgecompress_targets.cortex_m import emulator
from edgecompress_targets.cortex_m.boards import BOARDS
from edgecompress_targets.cortex_m.firmware_image import link

CPUS = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")
# million instructions; CMSIS-NN compiled by gcc -Ofast for the same networks, counted in the same way
CMSIS_NN = {
    "resnet8": {"cortex-m0": 97.57, "cortex-m3": 41.76, "cortex-m4": 29.87, "cortex-m7": 29.94, "cortex-m55": 4.81},
    "autoencoder": {"cortex-m4": 0.580, "cortex-m55": 0.147},
}
LIMIT = {"resnet8": {"cortex-m4": 22.0, "cortex-m7": 22.0, "cortex-m55": 3.5}, "autoencoder": {}}
ARENA, TEXT = 50_000, 18 * 1024  # bytes, of ResNet-8; text on the M4


@dataclass(frozen=True, eq=False)
class Network:
    """records: int8 [n, ...]; expected: what TFLM gives."""

    name: str
    plan: Plan
    records: np.ndarray
    expected: np.ndarray


def main() -> int:
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if not folder:
        print(f"skipped: EDGECOMPRESS_BENCH_DATA is not set\n\n{__doc__}")
        return 0
    cpus = [a for a in sys.argv[1:] if not a.startswith("-")] or CPUS
    columns = "network", "CPU", "M instr.", "M cycles", "CMSIS-NN", "limit", "arena", ".text", "flash", "stack", "exact"
    table, failed = Table(*columns), 0
    for network in (resnet8(Path(folder)), autoencoder(Path(folder))):
        for cpu in cpus:
            row, good = measured(network, cpu, layers="--layers" in sys.argv)
            table.add_row(network.name, cpu, *row, style=None if good else "red")
            failed += not good
        table.add_section()
    Console(width=120).print(table)
    return 1 if failed else 0


def emulated(
    plan: Plan, records: np.ndarray, cpu: str, *, coded: bool = True, layers: bool = False
) -> tuple[Compiled, Measured]:
    """The plan's firmware, and its run on these inputs."""
    profile = load_target(cpu)
    with tempfile.TemporaryDirectory() as work:
        elf = Path(work) / "model.elf"
        machine = Machine(profile.triple, cpu, profile.features)
        compiled = compile_plan(plan, "model", machine, profile=layers, coded=coded)
        model_h = bench_header(compiled.program, profiled=layers)
        link(compiled.object, model_h, BOARDS[cpu], cpu=cpu, hard_float=profile.triple.endswith("hf"), to=elf)
        return compiled, emulator.run(elf, records.tobytes(), BOARDS[cpu], timeout=600)


def measured(network: Network, cpu: str, *, layers: bool) -> tuple[list[str], bool]:
    compiled, run = emulated(network.plan, network.records, cpu, layers=layers)
    for operator, count in zip(compiled.program.steps, run.steps):
        output = compiled.program.plan.tensors[operator.outputs[0]].name
        print(f"{network.name} {cpu} {operator.kind:18} {count / 1e3:10.1f} k  {output}")
    exact = np.array_equal(np.frombuffer(run.outputs, np.int8), network.expected.reshape(-1))
    arena, millions = compiled.program.layout.size, run.instructions / 1e6
    limit = LIMIT[network.name].get(cpu)
    small = arena <= ARENA and (cpu != "cortex-m4" or compiled.text <= TEXT)
    good = exact and small and (limit is None or millions <= limit)
    peer = CMSIS_NN[network.name].get(cpu)
    cycles = ""
    if "--cycles" in sys.argv and cpu in CYCLES:
        _, counts = by_step(network.plan, network.records[0].tobytes(), cpu)
        cycles = f"{sum(c.cycles for c in counts) / 1e6:.3f}"
    numbers = [f"{millions:.3f}", cycles, "" if peer is None else f"{peer}", "" if limit is None else f"{limit}"]
    sizes = [f"{n:,}" for n in (arena, compiled.text, compiled.flash, run.stack)]
    return [*numbers, *sizes, "yes" if exact else "NO"], good


def resnet8(folder: Path) -> Network:
    datasets = module_at(folder / "data" / "datasets.py")
    calibration = datasets.load("cifar10", "train", 500)[0].transpose(0, 3, 1, 2).astype(np.float32)
    images = datasets.load("cifar10", "test", 20)[0].astype(np.float32)
    return _network("resnet8", folder / "models" / "ic_resnet8.onnx", calibration, images)


def autoencoder(folder: Path) -> Network:
    """No audio here: random spectra; the number of instructions does not depend on the values."""
    random = np.random.default_rng(0)
    spectra = random.normal(0, 1, (120, 640)).astype(np.float32)
    return _network("autoencoder", folder / "models" / "ad_autoencoder.onnx", spectra[:100], spectra[100:])


def _network(name: str, path: Path, calibration: np.ndarray, samples: np.ndarray) -> Network:
    model = load(path).model
    data = load_data(
        calibration.reshape(len(calibration), *model.graph.inputs[0].shape.numpy()[1:]),
        model.graph.inputs,
        Preprocess(),
    )
    quantized = quantize(model, data, Quantize(), integer_only=True).model
    plan = lowered(quantized, io_dtype=ir.DataType.INT8)
    x = plan.tensors[plan.inputs[0]]
    records = np.clip(np.round(samples / x.scale[0]) + x.zero, -128, 127).astype(np.int8).reshape(-1, *x.shape)
    interpreter = Interpreter.from_bytes(tflite.emit(quantized, io_dtype=ir.DataType.INT8).data, arena_size=1 << 22)
    expected = []
    for record in records:
        interpreter.set_input(record, 0)
        interpreter.invoke()
        expected.append(interpreter.get_output(0))
    return Network(name, plan, records, np.stack(expected))


def module_at(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
