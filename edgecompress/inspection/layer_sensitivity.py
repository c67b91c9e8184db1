"""`sensitivity`: how much a model loses when one group of channels alone is pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Group
from rich.text import Text

from edgecompress.analysis.channel_groups import ChannelGroup, channel_groups, prunable
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.channel_scores import channel_scores
from edgecompress.compress.prune.channels import remove_channels
from edgecompress.compress.prune.criterion import Scores
from edgecompress.compress.prune.criterion import criterion as criterion_of
from edgecompress.conversion.trainer import require_torch
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import Dataset, load_data, sample_shapes
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.metrics import AUTO, choose, load_metric, predictions, snr_db
from edgecompress.evaluate.verify import run_dataset
from edgecompress.ingest import GivenShapes, load
from edgecompress.recipe import Preprocess
from edgecompress.record.units import count
from edgecompress.report.tables import Shown, table
from edgecompress.support.progress import progress
from edgecompress.support.validation import validated

RATIOS = (0.25, 0.5, 0.75)
SAMPLES = 1000


class GroupSensitivity(BaseModel):
    """What happens to the model when channels of one group are removed."""

    name: str = Field(description="the first layer that computes the channels")
    channels: int
    layers: int = Field(description="all layers that compute or read the channels")
    macs: list[int] = Field(description="parameters of the model without `ratios` of the channels")
    values: list[float] = Field(description="values of the metric without `ratios` of the channels")


class Sensitivity(Shown, BaseModel):
    """Shows itself as a table in terminals and notebooks; the group that loses least at half comes first."""

    model_config = ConfigDict(extra="forbid")

    path: str | None
    metric: str = Field(description='name of the metric; without labels "SNR dB", of the outputs')
    criterion: str = Field(description="name of the criterion that chooses which channels are removed")
    samples: int
    original: float | None = Field(description="the metric of the whole model; null for SNR dB")
    original_macs: int
    ratios: list[float] = Field(description="shares of the channels of one group that were removed")
    groups: list[GroupSensitivity]
    fixed: list[str] = Field(description="why some groups can't lose channels")

    def to_json(self) -> str:
        """JSON text, as `edgecompress sensitivity --json` prints it."""
        return self.model_dump_json(indent=2) + "\n"

    def __rich__(self) -> Group:
        whole = "" if self.original is None else f", {self.original:.2f} whole"
        head = Text.assemble(
            (self.path or "model", "bold"),
            f"\n{self.metric}{whole}, on {self.samples:,} samples, when a share of one group's channels is removed "
            f"({self.criterion} smallest first)",
        )
        middle, titles = len(self.ratios) // 2, [f" -{100 * r:.0f} %" for r in self.ratios]
        columns = ("Group", " Channels", f" MACs{titles[middle]}", *titles)
        rows = [(g.name, f"{g.channels}", count(g.macs[middle]), *(f"{v:.2f}" for v in g.values)) for g in self.groups]
        notes = Text("\n".join(f"- {note}" for note in self.fixed))
        return Group(head, table("", columns, rows), notes)


def sensitivity(
    model: Any,
    eval: Any,
    *,
    ratios: Sequence[float] = RATIOS,
    criterion: str = "l1",
    metric: str = AUTO,
    samples: int = SAMPLES,
    weights: str | Path | None = None,
    trust_code: bool = False,
    input_shapes: GivenShapes | None = None,
    batch: int | None = None,
    constants: Mapping[str, object] | None = None,
    preprocess: Mapping[str, Any] | None = None,
) -> Sensitivity:
    """Read a model (anything `convert` takes), and measure it with each group of channels alone pruned, not retrained.

    eval: data as for `convert`, its first `samples` are used; without labels the outputs' signal-to-noise ratio is
    what is measured. criterion: as the recipe's for channels, on the same data; those that look at gradients or
    activations need PyTorch, "taylor" labels that are classes. Raises InputError, and as `convert` does.
    """
    slims = criterion_of(criterion).slims
    if not ratios or not all(0 < r < 1 for r in ratios):
        raise InputError(f"ratios: expected shares of channels above 0 and below 1, found {list(ratios)}")
    settings = validated(Preprocess, dict(preprocess or {}), "preprocess")
    ingested = load(
        model,
        weights=weights,
        input_shapes=input_shapes,
        batch=batch,
        constants=constants,
        sample_shapes=lambda inputs: sample_shapes(eval, settings, inputs),
        trust_code=trust_code,
        fold_batchnorm=not slims,
    )
    whole = ingested.model
    data = load_data(eval, whole.graph.inputs, settings).head(samples)
    groups = channel_groups(whole)
    free = prunable(groups)
    expected = run_dataset(OnnxRuntime(whole), data)
    if metric == AUTO and data.labels is not None:
        metric = choose(expected[0], data.labels).metric
    measure = None if data.labels is None else load_metric(metric)
    original = None if measure is None or data.labels is None else measure(expected, data.labels)
    scores = _scores(whole, free, criterion, data, expected)
    found: list[GroupSensitivity] = []
    with progress("sensitivity", len(free) * len(ratios)) as advance:
        for g in free:
            order = np.argsort(scores[g], kind="stable")
            values: list[float] = []
            macs: list[int] = []
            for r in ratios:
                smaller = remove_channels(whole, {g: order[: min(round(r * g.size), g.size - 1)]})
                outputs = run_dataset(OnnxRuntime(smaller), data)
                values.append(
                    min(snr_db(a, b) for a, b in zip(expected, outputs) if a.dtype.kind == "f")
                    if measure is None or data.labels is None
                    else measure(outputs, data.labels)
                )
                macs.append(statistics(smaller).macs)
                advance(1)
            layers = len({x.node for x in (*g.made_by, *g.read_by)})
            found.append(GroupSensitivity(name=g.name, channels=g.size, layers=layers, macs=macs, values=values))
    found.sort(key=lambda g: -g.values[len(ratios) // 2])
    return Sensitivity(
        path=str(ingested.path) if ingested.path else None,
        metric="SNR dB" if measure is None else metric,
        criterion=criterion,
        samples=len(data),
        original=original,
        original_macs=statistics(whole).macs,
        ratios=list(ratios),
        groups=found,
        fixed=[f"{g.name}: all {g.size} channels stay: {g.fixed}" for g in groups if g.fixed],
    )


def _scores(
    model: ir.Model, groups: Sequence[ChannelGroup], criterion: str, data: Dataset, outputs: Sequence[np.ndarray]
) -> Scores:
    known = criterion_of(criterion)
    if not known.looks_at_data:
        return channel_scores(model, groups, criterion)
    require_torch(f"criterion {criterion!r}")
    from edgecompress.train import TrainData
    from edgecompress.train.losses import cross_entropy

    labels = data.labels
    classes = labels is not None and labels.dtype.kind in "iu" and labels.size == predictions(outputs[0]).size
    if known.labels and not classes:
        raise InputError(f'criterion "{criterion}" needs class labels; "fisher" does not')
    samples = TrainData.from_dataset(data, model)
    return channel_scores(model, groups, criterion, data=samples, loss=cross_entropy if classes else None)
