"""The request for a conversion, as far as it is known before the model is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecompress.errors import InputError
from edgecompress.ingest import GivenShapes, SampleShapes
from edgecompress.recipe import Recipe
from edgecompress.recipe.effective import encoding
from edgecompress_targets import Profile

LONGEST_NAME = 100


@dataclass(frozen=True)
class ModelSource:
    """Where the model comes from: what `ingest.load` takes.

    name: what the artifacts are called; None: as the model is. Raises InputError for one that is no name of a file.
    """

    model: Any
    weights: str | Path | None = None
    input_shapes: GivenShapes | None = None
    trust_code: bool = False
    name: str | None = None
    constants: Mapping[str, object] | None = None
    sample_shapes: SampleShapes | None = None
    batch: int | None = None
    states: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        name = self.name
        if name is not None and not (
            name.isprintable() and 0 < len(name) <= LONGEST_NAME and name[0] not in ".-" and not {"/", "\\"} & set(name)
        ):
            raise InputError(
                f"name = {name!r}: expected what files can be called: 1 to {LONGEST_NAME} visible characters "
                "without / and \\, no . or - in front"
            )

    @property
    def stem(self) -> str:
        """The name of the artifacts: the one given, the file's name without its ending, or the name of the object."""
        if self.name is not None:
            return self.name
        path = source_path(self.model)
        if path is not None:
            return path.stem
        graph = getattr(self.model, "graph", None)
        return str(getattr(graph, "name", None) or type(self.model).__name__.lower()).replace("/", "_")


@dataclass(frozen=True)
class DataSources:
    """Where data comes from: what `evaluate.dataset.load_data` takes; None for data that was not given."""

    calibration: Any = None
    evaluation: Any = None
    training: Any = None

    @property
    def calibrates(self) -> bool:
        """Whether there is data to choose the ranges of activations by."""
        return self.calibration is not None or self.training is not None


@dataclass(frozen=True)
class Request:
    """Everything that a conversion was asked for.

    recipe: without open choices. recipe_if_scales_known: the same for a model that came quantized, whose activations
    can be int8 without any data. folder: of the output. resume: go on from the checkpoints of a stopped run.
    command: the command line, for the report.
    """

    source: ModelSource
    data: DataSources
    profile: Profile
    recipe: Recipe
    recipe_if_scales_known: Recipe
    folder: Path
    resume: bool = False
    command: str | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints of training, beside the output."""
        return self.folder.with_name(f"{self.folder.name}.checkpoints")

    @property
    def possible_names(self) -> list[str]:
        """Names of all artifacts that may be written; which encoding they have depends on the model."""
        kinds = dict.fromkeys((encoding(self.recipe), "int8"))
        return [f"{self.source.stem}.{kind}.{name}" for kind in kinds for name in self.recipe.emit.formats or []]


def source_path(source: Any) -> Path | None:
    """The file behind a path or "file.py:function"; None for anything else."""
    if isinstance(source, Path):
        return source
    if not isinstance(source, str):
        return None
    file, separator, _ = source.rpartition(":")
    return Path(file) if separator and file.endswith(".py") else Path(source)
