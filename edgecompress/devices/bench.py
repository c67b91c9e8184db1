"""`bench`: run artifacts on devices, measure them, and compare their outputs with this machine's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType

from edgecompress.devices.artifact import Artifact, open_artifact
from edgecompress.devices.choice import HOST, Named, device_for, has_program_for_host, usual_device
from edgecompress.devices.device_lock import locked
from edgecompress.devices.programs import Prepared, prepare
from edgecompress.devices.samples import Accuracy, Samples, load_samples
from edgecompress.errors import DeviceFault, EdgeCompressError, InputError
from edgecompress.evaluate.measures import Metrics
from edgecompress.evaluate.metrics import AUTO
from edgecompress.record.report import Counts, DeviceFailure, DeviceRun
from edgecompress.report.device_table import comparison, detail
from edgecompress.report.tables import Shown
from edgecompress.support.progress import progress
from edgecompress_targets.connection.driver import Advance, Driver, Found, Measured, Summary
from edgecompress_targets.drivers.driver_table import BUILT_IN
from edgecompress_targets.drivers.settings import Settings
from edgecompress_targets.tools import ToolError

TOLERANCE = 1e-3  # of the largest output, where floating point is computed
WARMUP = 3  # inferences, where time is measured


@dataclass(frozen=True)
class Runs:
    """How artifacts are run. most: at most so many samples; None: all. warmup: inferences before those; None: WARMUP
    where time is measured, none on emulators. threads: of interpreters."""

    most: int | None = None
    warmup: int | None = None
    threads: int = 1


EVERYTHING = Runs()


class Bench(Shown, BaseModel):
    """One result or failure for each artifact on each device. Shows itself as tables in terminals and notebooks."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 2
    results: list[DeviceRun]
    failures: list[DeviceFailure] = []

    @property
    def ok(self) -> bool:
        """Whether everything was measured and all outputs agree with this machine's."""
        return not self.failures and all(result.agrees for result in self.results)

    def to_json(self) -> str:
        """JSON text, as `edgecompress bench --json` prints it."""
        return self.model_dump_json(indent=2) + "\n"

    def __rich__(self) -> RenderableType:
        several = len(self.results) + len(self.failures) > 1
        return Group(*map(detail, self.results), *([comparison(self.results, self.failures)] if several else []))


def bench(
    artifacts: str | Path | Sequence[str | Path],
    devices: str | Sequence[str] = (),
    *,
    eval: Any = None,
    runs: int | None = None,
    warmup: int | None = None,
    threads: int = 1,
    preprocess: Mapping[str, Any] | None = None,
    metric: Metrics = AUTO,
    config: str | Path | None = None,
) -> Bench:
    """Run each artifact (.pack, .tflite, .onnx, or a folder of `edgecompress build`) on each device.

    devices: names, see `edgecompress devices`, or "qemu": the emulator of an artifact's target; none: that of a built
    folder, this machine for files.
    eval: as `convert` takes it; None: random inputs. runs: at most so many samples. warmup: inferences before them,
    default none on emulators. threads: of interpreters. metric: a recipe's.
    Raises InputError for bad arguments. What can't be run on a device, or fails there, is among the failures; where
    there is one device and nothing could be measured on it, its error is raised (DeviceFault, InputError).
    """
    if runs is not None and runs < 1:
        raise InputError(f"runs = {runs}: expected 1 or more")
    names = [devices] if isinstance(devices, str) else list(devices)
    opened = [open_artifact(path) for path in ([artifacts] if isinstance(artifacts, (str, Path)) else artifacts)]
    chosen = [(a, [device_for(a, name, config) for name in names] or [usual_device(a)]) for a in opened]
    how = Runs(runs, warmup, threads)
    return bench_each(chosen, eval=eval, how=how, preprocess=preprocess, metric=metric)


def bench_each(
    chosen: Sequence[tuple[Artifact, Sequence[Named]]],
    *,
    eval: Any,
    how: Runs = EVERYTHING,
    preprocess: Mapping[str, Any] | None = None,
    metric: Metrics = AUTO,
) -> Bench:
    """Like `bench`, with each artifact on devices of its own."""
    loaded = [
        load_samples(artifact, eval, how.most, preprocess, metric) for artifact, _ in chosen
    ]  # all, before any runs
    results: list[DeviceRun] = []
    failures: list[DeviceFailure] = []
    errors: list[EdgeCompressError] = []
    for samples, (artifact, devices) in zip(loaded, chosen, strict=True):
        here = cache(partial(on_host, samples, how.threads))
        for device in devices:
            name, settings = device
            try:
                itself = name == HOST and not has_program_for_host(artifact)
                prepared = prepare(_file_of(artifact) if itself else artifact, name, settings, threads=how.threads)
                results.append(measure(samples, prepared, device, None if itself else here, how))
            except EdgeCompressError as error:
                errors.append(error)
                failures.append(_failure(artifact, name, settings, error))
    if not results and len({failure.device for failure in failures}) == 1:
        raise errors[0]
    return Bench(results=results, failures=failures)


def _failure(artifact: Artifact, name: str, settings: Settings, error: Exception) -> DeviceFailure:
    return DeviceFailure(
        artifact=artifact.path.name,
        format=artifact.format,
        device=name,
        driver=settings.driver,
        target=settings.target,
        error=" ".join(str(error).split()),
    )


def on_host(samples: Samples, threads: int = 1) -> Measured:
    """Run the artifact on this machine."""
    settings = BUILT_IN[HOST]
    program = prepare(_file_of(samples.artifact), HOST, settings, threads=threads)
    return execute(program, HOST, settings, b"".join(samples.records))[1]


def measure(
    samples: Samples, prepared: Prepared, device: Named, here: Callable[[], Measured] | None, how: Runs = EVERYTHING
) -> DeviceRun:
    """One artifact on one device, for which it was prepared. here: gives this machine's run of the same samples; None
    where the device is this machine. Raises DeviceFault."""
    (name, settings), artifact, begun = device, samples.artifact, time.perf_counter()
    own = prepared.program.benchmark  # which makes its own inputs, and has its own warm-up
    before = 0 if own is not None else how.warmup if how.warmup is not None else 0 if settings.emulated else WARMUP
    before = 0 if artifact.keeps_states else before
    inputs = samples.records[0] * before + b"".join(samples.records)
    with progress(name, before + len(samples.records)) as advance:
        found, run = execute(prepared, name, settings, inputs, advance)
    expected = None if here is None or own is not None else here()
    outputs = run.outputs[before * artifact.output_bytes :]
    accuracy = samples.accuracy(outputs) if own is None else Accuracy()
    notes = list(accuracy.notes)
    if how.most is not None and how.most > len(samples.records):
        notes = [*notes, f"--runs {how.most}: there are {len(samples.records)} samples, and each was run once"]
    if how.threads > 1 and prepared.record is not None:
        notes = [*notes, f"--threads {how.threads}: applies to interpreters only; a compiled program has one thread"]
    difference = _Difference.between(samples, outputs, None if expected is None else expected.outputs)
    host = accuracy if expected is None or accuracy.value is None else samples.accuracy(expected.outputs)
    record = prepared.record
    return DeviceRun(
        artifact=artifact.path.name,
        format=artifact.format,
        sha256=artifact.digest,
        bytes=len(artifact.content),
        device=name,
        driver=settings.driver,
        target=settings.target,
        description=found.description,
        emulated=settings.emulated,
        kernels=None if record is None else record.kernels,
        data=samples.data.source,
        runs=len(samples.records),
        warmup=before if own is None else own.warmup,
        equal=None if expected is None else not difference.runs,
        agrees=not difference.runs or (not artifact.exact and difference.largest <= TOLERANCE),
        largest_difference=difference.largest,
        different_runs=difference.runs,
        metric=accuracy.metric,
        accuracy=accuracy.value,
        host_accuracy=host.value,
        counts=_counts(run.counts[-len(samples.records) :], run.unit) if run.summary is None else _said(run.summary),
        arena_bytes=None if record is None else record.arena_bytes,
        flash_bytes=None if record is None else record.flash_bytes,
        text_bytes=None if record is None else record.text_bytes,
        stack_bytes=run.stack,
        energy_microjoules=None if run.energy is None else round(run.energy / max(len(run.counts), 1), 3),
        wall_seconds=round(time.perf_counter() - begun, 3),
        notes=[*notes, *run.notes],
    )


def execute(
    prepared: Prepared, name: str, settings: Settings, inputs: bytes, advance: Advance | None = None
) -> tuple[Found, Measured]:
    """Deploy, run, and leave the device as it was. inputs: records. Raises DeviceFault."""
    driver: Driver = settings.open(name)
    try:
        with locked(name, settings.resource):
            found = driver.probe()
            try:
                driver.deploy(prepared.program)
                return found, driver.run(prepared.program, inputs, advance)
            finally:
                driver.remove(prepared.program)
    except ToolError as error:
        raise DeviceFault(str(error)) from error
    finally:
        driver.close()


def _file_of(artifact: Artifact) -> Artifact:
    """The artifact without what `build` made of it."""
    return replace(artifact, folder=None, record=None)


@dataclass(frozen=True)
class _Difference:
    """runs: inferences whose outputs are not equal. largest: difference over the largest output."""

    runs: list[int]
    largest: float

    @classmethod
    def between(cls, samples: Samples, outputs: bytes, expected: bytes | None) -> _Difference:
        if expected is None or outputs == expected:
            return cls([], 0.0)
        size = samples.artifact.output_bytes
        starts = range(0, len(expected), size)
        runs = [i for i, at in enumerate(starts) if outputs[at : at + size] != expected[at : at + size]]
        pairs = zip(samples.outputs(outputs), samples.outputs(expected), strict=True)
        return cls(runs, max((_relative(a, b) for a, b in pairs), default=0.0))


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    if not np.isfinite(a).all():
        return float("inf")
    return float(np.max(np.abs(a - b), initial=0.0) / max(float(np.max(np.abs(b), initial=0.0)), 1e-30))


def _said(summary: Summary) -> Counts:
    return Counts(
        unit="ns",
        min=round(summary.min),
        max=round(summary.max),
        mean=summary.mean,
        spread=summary.spread,
        median=summary.median,
        p90=None,
        p99=None,
    )


def _counts(values: Sequence[int], unit: Any) -> Counts | None:
    if not values:
        return None
    array = np.array(values, np.float64)
    median, p90, p99 = (float(np.percentile(array, p)) for p in (50, 90, 99))
    return Counts(
        unit=unit,
        min=int(array.min()),
        median=median,
        p90=p90,
        p99=p99,
        max=int(array.max()),
        mean=round(float(array.mean()), 3),
        spread=round(float(array.std()), 3),
    )
