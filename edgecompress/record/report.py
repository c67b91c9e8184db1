"""The schema of report.json: what was asked, what was achieved, and how it was measured."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgecompress.record.layer_costs import LayerCosts
from edgecompress.visible import visible

SCHEMA_VERSION = 1  # raised when a field changes its meaning or goes; new fields leave it


Natural = Annotated[int, Field(ge=0)]
Bins = Annotated[list[Natural], Field(min_length=1)]


class Part(BaseModel):
    """A part of the report. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class ModelSummary(Part):
    """The model that came in."""

    path: str | None = Field(description="the input file; null when the model came as a Python object")
    format: str = Field(description="onnx, pt2, torchscript, keras, saved_model or python")
    opset: int = Field(description="ONNX opset of the input")
    sha256: str | None = Field(description="SHA-256 of the input file; null for a folder")
    bytes: Natural | None = Field(description="size of the input file; null for file.py:function, which has no weights")
    parameters: Natural
    macs: Natural = Field(description="multiply-accumulates of one inference")
    peak_activation_elements: Natural = Field(
        description="largest number of values alive at once, at the model's batch size"
    )
    max_relative_error: float = Field(
        description="largest difference of the normalised model's outputs from the input model's, in ONNX Runtime, "
        "relative to the largest output"
    )


class TargetSummary(Part):
    """The device that the artifacts are for."""

    name: str
    description: str
    integer_only: bool
    flash_bytes: Natural | None
    ram_bytes: Natural | None


class Data(Part):
    """Data that was given, and how much of it there is."""

    source: str
    samples: Natural


class Requested(Part):
    """What was asked for, once every open choice was decided."""

    formats: list[str]
    weights: str
    activations: str
    calibration: Data | None = Field(description="null without calibration data")
    evaluation: Data | None = Field(description="null without evaluation data")
    held_out: Data | None = Field(
        None, description="samples kept apart from other data to check artifacts on; null with evaluation data"
    )
    training: Data | None = Field(None, description="null without training data")
    metric: str = Field(description="what accuracy is measured by; output: metric where outputs have their own")
    max_drop: float | None = Field(description="points of the metric that may be lost")
    min_snr: float | None = Field(None, description="lowest signal-to-noise ratio of a slice of an output, in dB")
    min_equal: float | None = Field(None, description="lowest percentage of equal values in an integer output")


class Achieved(Part):
    """What was achieved."""

    encoding: Literal["int8", "dynamic", "float16", "float32"] = Field(
        description="what most of the multiply-accumulates in the files are; where files differ, the most exact"
    )
    float_layers: list[str] = Field(description="nodes kept in float, asked for or to stay within max_drop")
    float_value: float | None = Field(description="the metric of the normalised float model")
    worst_value: float | None = Field(description="the metric of the worst artifact and interpreter")
    drop: float | None = Field(
        description="points of the metric that the worst artifact lost; where several outputs have a metric, the one "
        "that lost most"
    )


class Stage(Part):
    """A step of the run: how long it took, and the size of the model after it."""

    name: str
    wall_seconds: float
    bytes: Natural | None = None
    parameters: Natural | None = None
    macs: Natural | None = None
    accuracy: float | None = None
    note: str = ""


class Goal(Part):
    """One thing that was asked of a step, and what it achieved."""

    what: str = Field(description='for example "zero weights"')
    unit: str = Field(description='"%", "bytes", "blocks", "MACs", "bits" or "dB"')
    requested: float
    achieved: float
    note: str = Field("", description="a remark on what was achieved")


class Cure(Part):
    """One kind of change that was tried because outputs were too far from the float model's."""

    what: str = Field(description='for example "int16 activations"')
    snr_before: float | None = Field(description="lowest signal-to-noise ratio of a slice, dB; null if all are exact")
    snr_after: float | None
    kept: bool
    names: list[str] = Field(description="the values or layers that it applies to")
    macs: Natural = Field(description="multiply-accumulates that take another type")
    bytes: Natural = Field(description="bytes of weights that the model grows by")


class ExitThreshold(Part):
    """What a network with early exits costs, and gives, with some thresholds."""

    thresholds: list[float] | None = Field(
        description="largest probability from which on each exit is taken; null where none is"
    )
    value: float = Field(description="percent of the validation samples that are right")
    macs: float = Field(description="mean multiply-accumulates of a sample")
    shares: list[float] = Field(description="percent of the samples that leave at each exit, and at the end")


class EarlyExits(Part):
    """Where the network may end early."""

    after: list[str] = Field(description="the values that exits stand behind")
    chosen: list[float] = Field(description="the threshold of each exit in the files: what was chosen, or asked for")
    macs: list[Natural] = Field(description="multiply-accumulates of a sample that leaves at each exit, and at the end")
    thresholds: list[ExitThreshold] = Field(
        description="on validation data: usual ones for all exits, and the chosen ones; by rising cost, never last"
    )


class Epoch(Part):
    """One pass over the training data."""

    epoch: Natural = Field(description="from 1")
    loss: float = Field(description="mean loss over the epoch's steps")
    losses: dict[str, float] = Field({}, description="what each of several outputs adds to `loss`")
    validation_loss: float | None = Field(description="null without validation samples")
    validation_losses: dict[str, float] = Field({}, description="what each of several outputs adds to validation_loss")
    validation_value: float | None = Field(description="the metric on the validation samples; null without a metric")
    learning_rate: float = Field(description="learning rate of the epoch's last step")
    seconds: float


class History(Part):
    """One run of the training loop."""

    stage: str = Field(description="the stage that trained")
    epochs: list[Epoch]
    best_epoch: Natural = Field(description="the epoch whose weights were kept, from 1")
    stopped_early: bool
    metric: str | None
    samples: Natural = Field(description="training samples, without those for validation")
    validation_samples: Natural
    samples_per_second: float = Field(description="speed of training, over all processes")
    device: str
    precision: str = Field(description="float32, bfloat16 or float16")
    processes: int


class Histogram(Part):
    """How often a layer's weights lie in each of equal bins between `low` and `high`."""

    low: float
    high: float
    before: Bins | None = Field(description="histogram of the input model's weights; null when it had no such layer")
    after: Bins = Field(description="histogram of the weights as stored, after pruning, clustering and quantization")


class Layer(Part):
    """A layer as it is stored, and the error of its output."""

    name: str
    op: str
    encoding: str = Field(description='for example "int8 per-channel"')
    bits_per_weight: float | None
    snr_db: float | None = Field(
        description="signal-to-noise ratio of the quantized output against the float one; null when not measured"
    )
    weights: Natural | None = Field(
        None, description="number of weights that the layer multiplies with; null if it has none"
    )
    sparsity: float | None = Field(None, description="share of the weights that is exactly zero; null without weights")
    sparsity_asked: float | None = Field(
        None, description="share of the weights that was to be zero, where it gave way to max_drop; else null"
    )
    histogram: Histogram | None = Field(None, description="histogram of its weights; null if it has none")
    cause: str = Field("", description="the probable reason of a low signal-to-noise ratio")


class Tensor(Part):
    """An input or output of an artifact."""

    name: str
    shape: list[int] = Field(description="-1 for a dimension that depends on the data")
    dtype: str
    layout: str = Field(description="order of the axes relative to the model's own value, for example NHWC")
    scale: float | None = None
    zero_point: int | None = None


class SliceQuality(Part):
    """How well one slice of an output follows the float model's: values of one size, such as the boxes of a detector.

    Of the three figures, `snr_db` and `exact` are for float outputs, and `equal_percent` is for integer ones.
    """

    slice: str = Field(description="the output, and the positions along one of its axes if it has several slices")
    snr_db: float | None = Field(description="signal-to-noise ratio; null when exact, or when the signal is lost")
    exact: bool = Field(description="whether all values are equal")
    equal_percent: float | None = Field(description="share of the values that are equal")


class ExitUse(Part):
    """Which early exits an artifact takes. Of each exit, and last of the whole network."""

    shares: list[float] = Field(description="percent of the samples that leave there")
    values: list[float | None] = Field(
        description="percent of these that are right, or without labels that say what the model says that came in; "
        "null where none leaves"
    )
    macs: float = Field(description="mean multiply-accumulates of a sample")
    same_percent: float = Field(description="percent of the samples that leave where they do in the float model")


class Check(Part):
    """One artifact, run in one interpreter."""

    interpreter: str
    version: str
    metric: str
    output: str | None = Field(
        None, description="the output that the metric is of: where several have one, that which lost most"
    )
    value: float | None = Field(description="null without labels")
    reference_value: float | None = Field(description="the same metric of the float model, on the same samples")
    agreement_percent: float | None = Field(
        description="share of samples on which it predicts the same as the float model"
    )
    snr_db: float | None = Field(
        description="signal-to-noise ratio of the worst slice of its float outputs; null when exact, when the signal "
        "is lost, and without float outputs"
    )
    exact: bool = Field(False, description="whether values were compared, and all are equal")
    equal_percent: float | None = Field(
        None, description="share of equal values in the worst integer output; null without any"
    )
    qualities: list[SliceQuality] = Field([], description="every slice of every output")
    samples: Natural
    arena_head_bytes: Natural | None = Field(
        None, description="activations and scratch in TFLM's arena; null in other interpreters"
    )
    arena_persistent_bytes: Natural | None = Field(
        None, description="TFLM's structures in its arena, on a machine of 64 bits; null in other interpreters"
    )
    exits: ExitUse | None = Field(
        None, description="which early exits it takes; `qualities` are then of samples that leave as in the float model"
    )
    shape: str | None = Field(None, description="the shape that it was run in, of a file that takes several")
    error: str | None = Field(description="what the interpreter said when it refused the artifact")


class Artifact(Part):
    """A file that was written, and every check of it."""

    path: str = Field(description="relative to report.json")
    format: str
    encoding: str = Field(description="what most of the multiply-accumulates in the file are")
    macs_by_type: dict[str, Natural] = Field(
        {}, description="multiply-accumulates by the type that they are computed in, counted in the file"
    )
    weight_bytes_by_type: dict[str, Natural] = Field(
        {}, description="bytes of the weights by type, before entropy coding, counted in the file"
    )
    bytes: int = Field(gt=0)
    sha256: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    shapes: list[str] = Field(
        [], description="the shapes that it takes, if several, as signatures are called; `inputs` are of the largest"
    )
    checks: list[Check]
    calibration_check: Check | None = Field(
        None, description="the file on data that calibrated it, beside `checks` on other data; null if none did"
    )


class Counts(Part):
    """Statistics over single inferences, without the warm-up."""

    unit: Literal["instructions", "cycles", "ns"] = Field(
        description="unit of the figures; an emulator counts instructions, not time"
    )
    min: Natural
    median: float | None = Field(
        description="null, like p90 and p99, where a benchmark on the device does not report it"
    )
    p90: float | None
    p99: float | None
    max: Natural
    mean: float
    spread: float = Field(description="standard deviation")

    @property
    def middle(self) -> float:
        """The median where there is one, else the mean."""
        return self.mean if self.median is None else self.median

    @property
    def middle_name(self) -> str:
        """ "median" or "mean": what `middle` is."""
        return "mean" if self.median is None else "median"


class DeviceRun(Part):
    """One artifact, run on one device."""

    artifact: str = Field(description="file name")
    format: str
    sha256: str
    bytes: Natural
    device: str = Field(description="its name in the configuration")
    driver: str
    target: str = Field(description="the device's profile")
    description: str = Field(description="what the device says it is")
    emulated: bool = Field(description="whether an emulator ran it, which measures no times")
    kernels: str | None = Field(description="family of CPUs whose kernels the program uses; null for interpreters")
    data: str
    runs: Natural = Field(description="inferences that were measured")
    warmup: Natural = Field(description="inferences that were run first and not measured")
    equal: bool | None = Field(
        description="whether every output equals this machine's bit for bit; null on this machine itself"
    )
    agrees: bool = Field(description="equal, or within tolerance where floating point is computed")
    largest_difference: float = Field(
        description="largest difference from this machine's output, relative to the largest output"
    )
    different_runs: list[int] = Field(description="indices of the inferences that are not equal, from 0")
    metric: str | None = Field(description="metric of the accuracies; null without labels")
    accuracy: float | None = Field(description="accuracy of the device's own outputs on these samples, in percent")
    host_accuracy: float | None = Field(description="accuracy of this machine's outputs on the same samples")
    counts: Counts | None = Field(description="null where the device has no counter")
    arena_bytes: Natural | None = Field(description="RAM for activations; null for interpreters")
    flash_bytes: Natural | None = Field(description="code and constants")
    text_bytes: Natural | None = Field(description="code without constants")
    stack_bytes: Natural | None = Field(description="high-water mark on the device; null where it is not known")
    energy_microjoules: float | None = Field(
        None,
        description="energy of the processor for one inference, including the program's start-up; null where the "
        "device has no counter",
    )
    wall_seconds: float = Field(description="time for deploying and running, measured on this machine")
    notes: list[str] = []


class DeviceFailure(Part):
    """One artifact that a device did not run, where others were measured."""

    artifact: str = Field(description="file name")
    format: str
    device: str = Field(description="its name in the configuration")
    driver: str
    target: str = Field(description="the device's profile")
    error: str = Field(description="the reason, in one line")


class Buffer(Part):
    """A value's place in the arena while it is needed."""

    name: str
    offset: Natural = Field(description="bytes from the arena's start")
    bytes: Natural
    first: Natural = Field(description="index of the step that writes it, from 0; for inputs the first step")
    last: Natural = Field(description="index of the last step that reads it; for outputs the last step")


class MemoryPlan(Part):
    """Where the values between layers lie in one static arena, without scratch memory of kernels."""

    bytes: Natural = Field(description="size of the arena")
    steps: list[str] = Field(description="layers in the order in which they run")
    buffers: list[Buffer]


class Report(Part):
    """The report of one run.

    `status` is "accuracy-limit-exceeded" when an artifact lost more than max_drop, "quality-below-limit" when an output
    is below min_snr or min_equal, "size-limit-exceeded" when one is larger than max_size, and "format-refused" when
    files of some formats were written, and of others could not be.
    """

    schema_version: int = SCHEMA_VERSION
    edgecompress_version: str
    command: str | None = Field(description="the command line; null from Python")
    created: datetime
    status: Literal["ok", "accuracy-limit-exceeded", "quality-below-limit", "size-limit-exceeded", "format-refused"]
    verdict: str = Field(
        "", description="what is below a limit, which layers lose most, and what can be done; empty if nothing is"
    )
    model: ModelSummary
    target: TargetSummary
    requested: Requested
    achieved: Achieved
    stages: list[Stage]
    goals: list[Goal] = Field([], description="what was asked of each step of compression, and what it achieved")
    cures: list[Cure] = Field([], description="what was tried to bring outputs nearer to the float model's")
    exits: EarlyExits | None = Field(None, description="null for a network without early exits")
    training: list[History] = Field([], description="every run of the training loop, in order")
    layers: list[Layer] = Field(description="worst signal-to-noise ratio first")
    memory: MemoryPlan | None = Field(None, description="null in reports of earlier versions")
    artifacts: list[Artifact] = Field(min_length=1)
    refused: dict[str, str] = Field({}, description="formats that could not be written, and why")
    devices: list[DeviceRun] = Field([], description="runs of the artifacts on the devices of --device")
    device_failures: list[DeviceFailure] = Field([], description="artifacts that a device of --device could not run")
    layer_costs: list[LayerCosts] = Field(
        [], description="what each layer of a .pack costs on the devices of --device that tell"
    )
    recipe: str = Field("", description="the effective recipe, as in recipe.toml")
    notes: list[str]

    def to_json(self) -> str:
        """JSON text, with each list of numbers on one line."""
        text = self.model_dump_json(indent=2)
        return re.sub(r"\[\n[-+.\deE,\s]+\]", lambda found: _one_line(found[0]), visible(text)) + "\n"


def _one_line(numbers: str) -> str:
    return "[" + " ".join(numbers[1:-1].split()) + "]"
