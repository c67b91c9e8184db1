"""`convert --device`: run the artifacts of a conversion on devices, and add the results to its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgecompress.devices.artifact import open_artifact
from edgecompress.devices.bench import bench_each
from edgecompress.devices.choice import HOST, emulator_of
from edgecompress.devices.configuration import EMULATOR, find_device
from edgecompress.devices.profile import profile, tells_layers
from edgecompress.errors import EdgeCompressError, InputError
from edgecompress.recipe import Recipe
from edgecompress.recipe.effective import OWN_FORMAT
from edgecompress.record.report import Report
from edgecompress_targets import Profile

PROFILED = {False: 1, True: 20}  # inferences: counters need one, the clock of this machine more


def named(devices: Sequence[str], target: Profile) -> list[str]:
    """The names, with that of the target's emulator in place of "qemu". Raises InputError when there is none."""
    return [emulator_of(target)[0] if name == EMULATOR else name for name in devices]


def with_formats_for(recipe: Recipe, devices: Sequence[str], config: str | Path | None) -> Recipe:
    """The effective recipe with "pack" among its formats where a device runs none of them. Raises InputError for a
    device that runs no pack either."""
    formats: list[str] = list(recipe.emit.formats or [])
    for name in devices:
        runnable = find_device(name, config).formats
        if not set(formats) & set(runnable):
            if OWN_FORMAT not in runnable:
                raise InputError(f"device {name} runs only {', '.join(runnable)}: choose one of them with --format")
            formats.append(OWN_FORMAT)
    return recipe.model_copy(update={"emit": recipe.emit.model_copy(update={"formats": formats})})


def measured(
    report: Report, folder: Path, recipe: Recipe, eval: Any, devices: Sequence[str], config: str | Path | None
) -> Report:
    """The report with every artifact on every device that runs its format, and what the layers cost where the device
    can tell, or a note that it failed. Raises as `bench` does where there is one device."""
    pairs = [(name, find_device(name, config)) for name in devices]
    chosen = [
        (open_artifact(folder / artifact.path), [(n, s) for n, s in pairs if artifact.format in s.formats])
        for artifact in report.artifacts
        if any(artifact.format in s.formats for _, s in pairs)
    ]
    preprocess = recipe.preprocess.model_dump()
    found = bench_each(chosen, eval=eval, preprocess=preprocess, metric=recipe.evaluate.metric)
    ran = {(run.artifact, run.device) for run in found.results}
    costs, notes = [], list(report.notes)
    for artifact, able in chosen:
        for name, settings in able:
            if not tells_layers(artifact.format, name, settings) or (artifact.path.name, name) not in ran:
                continue
            runs = PROFILED[name == HOST]
            try:
                costs.append(profile(artifact.path, name, eval=eval, runs=runs, preprocess=preprocess, config=config))
            except EdgeCompressError as error:  # what was measured before is not lost with it
                notes.append(f"{artifact.path.name} on {name}: what its layers cost is not known: {error}")
    return report.model_copy(
        update={"devices": found.results, "device_failures": found.failures, "layer_costs": costs, "notes": notes}
    )
