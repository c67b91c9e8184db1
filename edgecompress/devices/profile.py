"""`profile`: what each layer of a `.pack` costs on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group

from edgecompress.devices.artifact import Artifact, open_artifact
from edgecompress.devices.bench import execute
from edgecompress.devices.choice import HOST, Named, device_for, emulator_of
from edgecompress.devices.programs import profiled
from edgecompress.devices.samples import Samples, load_samples
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.recipe.effective import OWN_FORMAT
from edgecompress.record.layer_costs import LayerCost, LayerCosts
from edgecompress.report.cost_table import layer_costs
from edgecompress.report.tables import Shown
from edgecompress_runtime.codegen.interface import Interface
from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.operators import RECORDS
from edgecompress_runtime.pack import read_pack
from edgecompress_runtime.plan import Operator
from edgecompress_targets.drivers.driver_table import BUILT_IN
from edgecompress_targets.drivers.settings import Settings


class Profile(Shown, LayerCosts):
    """What each layer costs on one device. Shows itself as a table in terminals and notebooks."""

    def to_json(self) -> str:
        """JSON text, as `edgecompress profile --json` prints it."""
        return self.model_dump_json(indent=2) + "\n"

    def __rich__(self) -> Group:
        return layer_costs(self)


def profile(
    artifact: str | Path,
    device: str | None = None,
    *,
    eval: Any = None,
    runs: int | None = None,
    preprocess: Mapping[str, Any] | None = None,
    config: str | Path | None = None,
) -> Profile:
    """Run a .pack (or the one in a folder of `edgecompress build`) with a counter or clock read between its layers.

    device: as for `bench`: one that runs firmware counts instructions or cycles, this machine (`local`) measures
    nanoseconds of one thread; None: the emulator of a built folder's target, this machine for a file. eval, runs: as
    for `bench`. Raises InputError for another artifact or device, DeviceFault where the device fails.
    """
    if runs is not None and runs < 1:
        raise InputError(f"runs = {runs}: expected 1 or more")
    opened = open_artifact(artifact)
    if opened.format != OWN_FORMAT:
        raise InputError(f"{opened.path}: expected a .pack: the layers of other files are their interpreters' own")
    chosen = _device(opened, device, config)
    samples = load_samples(opened, eval, runs, preprocess)
    return _here(samples) if chosen[0] == HOST else _in_firmware(samples, chosen)


def tells_layers(format: str, name: str, settings: Settings) -> bool:
    """Whether a device can say what each layer of a file of this format costs."""
    return format == OWN_FORMAT and (name == HOST or settings.runs == "firmware")


def _device(artifact: Artifact, name: str | None, config: str | Path | None) -> Named:
    if name is None:
        return (HOST, BUILT_IN[HOST]) if artifact.record is None else emulator_of(artifact.record.target)
    chosen, settings = device_for(artifact, name, config)
    if not tells_layers(artifact.format, chosen, settings):
        raise InputError(f"device {chosen}: expected {HOST} or one that runs firmware (see: edgecompress devices)")
    return chosen, settings


def _here(samples: Samples) -> Profile:
    from edgecompress_runtime.loading.step_times import step_times

    artifact = samples.artifact
    inputs = [(t.dtype.numpy(), t.shape) for t in artifact.inputs]
    record = np.dtype([(f"f{i}", dtype, shape) for i, (dtype, shape) in enumerate(inputs)])
    rows = np.frombuffer(b"".join(samples.records), record)
    arrays = [[row[f"f{i}"].reshape(shape) for i, (_, shape) in enumerate(inputs)] for row in rows]
    try:
        times = step_times(read_pack(artifact.path).plan(), arrays)
    except RuntimeModelError as error:
        raise UnsupportedModelError(f"{artifact.path}: {error}") from error
    return _profile(
        artifact,
        (HOST, BUILT_IN[HOST]),
        times.program,
        np.median(times.nanoseconds, 0),
        unit="ns",
        runs=len(arrays),
        total=float(np.median(times.nanoseconds.sum(1))),
    )


def _in_firmware(samples: Samples, device: Named) -> Profile:
    name, settings = device
    prepared, program = profiled(samples.artifact, name, settings)
    _, run = execute(prepared, name, settings, b"".join(samples.records))
    return _profile(
        samples.artifact, device, program, run.steps, unit=run.unit, runs=len(samples.records), total=run.counts[-1]
    )


def _profile(artifact: Artifact, device: Named, program: Interface, costs: Sequence[float], **measured: Any) -> Profile:
    steps = zip(program.steps, costs, strict=True)
    layers = [
        _layer(program, operator, [float(cost) for _, cost in own])
        for operator, own in groupby(steps, lambda step: step[0])
    ]
    name, settings = device
    return Profile(
        artifact=artifact.path.name,
        device=name,
        target=settings.target or None,
        emulated=settings.emulated,
        kernels=program.family,
        layers=layers,
        **measured,
    )


def _layer(program: Interface, operator: Operator, costs: list[float]) -> LayerCost:
    tensors = program.plan.tensors
    inputs = [None if i < 0 else tensors[i] for i in operator.inputs]
    outputs = [tensors[i] for i in operator.outputs]
    constants = [t.data.nbytes for t in inputs if t is not None and t.data is not None]
    return LayerCost(
        name=outputs[0].name,
        operator=operator.kind,
        shape=outputs[0].shape,
        macs=RECORDS[operator.kind].macs(inputs, outputs, operator.options),
        constant_bytes=sum(constants),
        kernels=len(costs),
        cost=sum(costs),
    )
