"""The recipe: every choice of a run, as TOML. The effective one is saved with the artifacts."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edgecompress.errors import InputError
from edgecompress.support.toml import toml_value
from edgecompress.support.user_code import is_function_spec, spec_of
from edgecompress.support.validation import read_toml, validated
from edgecompress_runtime.pack import CODECS

PRESETS = Path(__file__).parent / "presets"
# One criterion a file: their names are known without importing them.
CRITERIA = sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parents[1] / "compress/prune/criteria")]))
SLOW = {name: codec.slow for name, codec in CODECS.items() if codec.slow}  # what is gained and lost by each
CODERS = ("huffman", *SLOW)  # Huffman codes stand for all codecs that are always tried
SMALLEST, LARGEST = 1e-30, 1e30  # float32 computes with these without reaching zero or infinity


def _in_range(value: float) -> float:
    if not (value == 0 or SMALLEST <= abs(value) <= LARGEST):
        raise ValueError(f"should be 0, or between {SMALLEST:g} and {LARGEST:g} in size")
    return value


def _not_zero(value: float) -> float:
    if value == 0:
        raise ValueError("should not be zero, which would make all samples alike")
    return value


def _as_list(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return [value] if isinstance(value, (int, float)) else value


def _as_tuple(value: Any) -> Any:  # TOML has lists alone
    return tuple(value) if isinstance(value, list) else value


def _number(value: Any) -> Any:
    if isinstance(value, (bool, str)):
        raise ValueError("should be a number")
    return value


def _positive(values: list[float]) -> list[float]:
    if any(v <= 0 for v in values):
        raise ValueError("should be one positive number, or one for each channel")
    return values


# Not strict, which would refuse NumPy's numbers; `_number` refuses what isn't one.
Number = Annotated[float, Field(strict=False), BeforeValidator(_number)]
Finite = Annotated[Number, Field(allow_inf_nan=False), AfterValidator(_in_range)]
Probability = Annotated[Number, Field(gt=0, le=1)]
Probabilities = Annotated[list[Probability], Field(min_length=1), BeforeValidator(_as_list)]
Numbers = Annotated[list[Finite], Field(min_length=1), BeforeValidator(_as_list)]


def _bits(value: object) -> object:
    if value is None or value == "auto" or (type(value) is int and 1 <= value <= 8):
        return value
    raise ValueError('should be a whole number from 1 to 8, or "auto"')


def _pairs(value: Any) -> Any:
    if value in ("none", "auto") or (
        isinstance(value, list) and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in value)
    ):
        return value
    raise ValueError('should be "none", "auto", or a list of [teacher\'s value, student\'s value]')


def _places(value: Any) -> Any:
    named = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
    if value is None or value == "auto" or named or (type(value) is int and value >= 1):
        return value
    raise ValueError('should be a number of exits, "auto", or a list of names of nodes')


def _pattern(value: str) -> str:
    if not re.fullmatch(r"unstructured|[1-9]\d*:[1-9]\d*|block:[1-9]\d*x[1-9]\d*", value):
        raise ValueError('should be "unstructured", "N:M" such as "2:4", or "block:RxC" such as "block:4x1"')
    return value


def _criterion(value: str) -> str:
    if value not in ("auto", *CRITERIA) and not is_function_spec(value):
        raise ValueError(f'should be one of {", ".join(CRITERIA)}, or "auto" or "file.py:function"')
    return value


def _spec(value: Any) -> Any:
    """The name of a function that was given as an object."""
    return spec_of(value) if callable(value) else value


def _coder(value: Any) -> Any:
    if value not in CODERS:
        raise ValueError(f"input should be {' or '.join(map(repr, CODERS))}")
    return value


def _metric(value: Any) -> Any:
    value = {key: _spec(v) for key, v in value.items()} if isinstance(value, dict) else _spec(value)
    names = list(value.values()) if isinstance(value, dict) else [value]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("should be a text in quotes")
    if not names or not all(names):
        raise ValueError("should not be empty")
    return value


class Section(BaseModel):
    """A recipe table: no unknown keys, no value of another type, values checked again when changed."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_assignment=True)


class Preprocess(Section):
    """How a stored sample becomes an input of the model: x = (x * scale - mean) / std."""

    scale: Annotated[Finite, AfterValidator(_not_zero)] = Field(
        1.0, description="samples are multiplied by this first, e.g. 0.003921568627 for 0..255"
    )
    mean: Numbers = Field([0.0], description="subtracted next: one number, or one for each channel")
    std: Annotated[Numbers, AfterValidator(_positive)] = Field(
        [1.0], description="divides last: one number, or one for each channel"
    )
    resize: Annotated[
        tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None, BeforeValidator(_as_tuple)
    ] = Field(
        None, description="[height, width] that images are resized to (bilinear); unset: the size that the model takes"
    )
    layout: Literal["auto", "nchw", "nhwc"] = Field(
        "auto", description='axis order of the samples: "nchw", "nhwc", or "auto": decided by their shape'
    )


class Prune(Section):
    """Pruning: channels are removed first, then weights become zero and stay zero while the others are trained."""

    macs: Number | None = Field(
        None, gt=0, lt=1, description="share of the multiply-accumulates to keep, by removing channels; unset: all"
    )
    parameters: Number | None = Field(
        None, gt=0, lt=1, description="share of the parameters to keep, by removing channels; unset: all"
    )
    channels: Number | None = Field(
        None, gt=0, lt=1, description="share of the channels to remove; unset: follows from macs or parameters"
    )
    align: int = Field(
        1, ge=1, description="the number of channels left in a layer is a multiple of this, unless all stay"
    )
    blocks: int = Field(
        0, ge=0, description="number of blocks (such as residual blocks) to remove: those that matter least"
    )
    sparsity: Number | None = Field(
        None, gt=0, lt=1, description="share of the weights to set to zero; unset: none, or what an N:M pattern says"
    )
    pattern: Annotated[str, AfterValidator(_pattern)] = Field(
        "unstructured",
        description='which weights are pruned together: "unstructured", "N:M" (keep N of M inputs, as in "2:4"), '
        '"block:4x1" (4 output channels by 1 input)',
    )
    criterion: Annotated[str, BeforeValidator(_spec), AfterValidator(_criterion)] = Field(
        "auto",
        description='how a weight or a channel is scored (higher scores stay): a name, or "file.py:function" taking '
        '(weight, known); "wanda" and "sparsegpt" prune layer after layer, by calibration data alone; auto: decided '
        "for weights and for channels apart (docs/TRAINING.md)",
    )
    slimming: Number = Field(
        1e-4,
        ge=0,
        allow_inf_nan=False,
        description='for criterion = "scale": weight of the L1 norm of BatchNormalization\'s scales in the loss of the'
        " training that precedes it",
    )
    allocation: Literal["auto", "uniform", "global", "lamp", "sensitivity", "erk", "capacity"] = Field(
        "auto",
        description='how layers share the sparsity: "uniform" (all alike), "global" (one threshold), "lamp" '
        '(layer-adaptive magnitude), "sensitivity" (by what pruning each layer does to the outputs), '
        '"erk" (for weights: by the sum of a layer\'s dimensions), or, for channels, "capacity" (by parameters for '
        'each multiply-accumulate); for "wanda" and "sparsegpt" by shares of the error of a layer\'s outputs; auto: '
        'as for criterion, and "uniform" for those two',
    )
    schedule: Literal["one-shot", "gradual", "iterative", "lottery", "rigl", "set", "soft"] = Field(
        "gradual",
        description='"one-shot" prunes before training, "gradual" during it (cubic), "iterative" in rounds of pruning'
        ' and training, "lottery" in rounds that go back to early weights; "rigl" and "set" prune before '
        "training and move the weights that are left to other places during it, by gradients or at random; "
        '"soft" closes gates, which training can open again, and cuts in the end; channels are removed at once, '
        'in rounds with "iterative", or by gates with "soft"',
    )
    rounds: int = Field(5, ge=1, le=100, description='number of rounds of schedule = "iterative" and "lottery"')
    rewind: int = Field(
        0, ge=0, description='for schedule = "lottery": each round goes back to the weights after this many epochs'
    )
    gates: Literal["threshold", "l0"] = Field(
        "threshold",
        description='for schedule = "soft": "threshold" learns how far each layer\'s weights shrink (soft '
        'thresholding), "l0" learns each weight\'s chance to be there (hard concrete gates); they take the place of '
        "criterion and allocation; channels always have the latter, which begin as criterion and allocation say",
    )
    fresh: bool = Field(
        False,
        description='for schedule = "rigl" and "set": whether training starts from new random weights, as in the '
        "papers, in place of the model's",
    )
    initial: str | None = Field(
        None,
        min_length=1,
        description='for schedule = "lottery": file of the weights that the model was first trained from: the model '
        "with them (.onnx), or weights by name (.npz, or a state_dict in .pt); unset: new random ones",
    )
    keep: list[str] = Field([], description="names of nodes whose weights and output channels are not pruned")
    at_most: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        {},
        description="share of the weights of single layers that may be set to zero, by the names of their nodes; "
        "others have what the allocation gives them",
    )
    epochs: int | None = Field(None, ge=1, description="epochs of training, in each round; unset: as in [train]")
    lr: Finite | None = Field(None, gt=0, description="highest learning rate; unset: as in [train]")

    @property
    def is_structured(self) -> bool:
        """Whether channels or blocks are taken out."""
        return bool(self.blocks or self.macs or self.parameters or self.channels)

    @property
    def is_asked_for(self) -> bool:
        """Whether weights are pruned: an N:M pattern says itself how many."""
        return self.sparsity is not None or self.pattern[0].isdigit()


class Gate(Section):
    """Gates: blocks of channels that each sample opens or closes, trained to a budget, after pruning."""

    macs: Number | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the multiply-accumulates that samples take in the mean, gates included; unset: no gates",
    )
    layers: list[str] = Field(
        [],
        description="names of the convolutions that get a gate; empty: all behind the first whose channels only "
        "layers with weights read, as inside residual blocks",
    )
    block: Literal[4, 8] = Field(8, description="channels that open and close together: 4 or 8")
    epochs: int | None = Field(None, ge=1, description="epochs of training; unset: as in [train]")
    lr: Finite | None = Field(None, gt=0, description="highest learning rate; unset: as in [train]")

    @property
    def is_asked_for(self) -> bool:
        """Whether gates are put in."""
        return self.macs is not None


class Cluster(Section):
    """Weight clustering: few distinct values in each layer, which a .pack file holds in few bits."""

    bits: Annotated[int | Literal["auto"] | None, BeforeValidator(_bits)] = Field(
        None,
        description='2^bits values in each layer, 1 to 8; "auto", or unset with size or snr: as many as these ask '
        "for; unset without them: no clustering",
    )
    size: int | None = Field(
        None, ge=1, description="in place of bits: bytes that all weights may take, entropy coded; unset: see snr"
    )
    snr: Finite | None = Field(
        None,
        description="in place of bits and size: lowest signal-to-noise ratio of the outputs, in dB; unset, with bits "
        '= "auto" and no size: 25',
    )
    init: Literal["optimal", "linear", "density", "random"] = Field(
        "optimal", description='where k-means starts: "optimal", "linear", "density" or "random"'
    )
    per_channel: bool | None = Field(
        None,
        description="whether each output channel has a scale under the layer's values; unset: for int8 weights only",
    )
    epochs: int | None = Field(None, ge=1, description="epochs of training the values and scales; unset: none")
    lr: Finite = Field(
        1e-3, gt=0, description="highest learning rate of that training, relative to the size of each weight"
    )

    @model_validator(mode="after")
    def _one_limit(self) -> Cluster:
        given = {"size": self.size, "snr": self.snr, "bits": None if self.bits == "auto" else self.bits}
        if len(set_ones := [f"{key} = {value}" for key, value in given.items() if value is not None]) > 1:
            raise ValueError(f"{' and '.join(set_ones)} exclude each other: keep only one of them")
        return self

    @property
    def is_asked_for(self) -> bool:
        """Whether weights are clustered: a limit says so too."""
        return not (self.bits is None and self.size is None and self.snr is None)


class Quantize(Section):
    """Quantization: how weights and activations are stored."""

    weights: Literal["int8", "int4", "ternary", "binary", "float16", "float32"] = Field(
        "int8",
        description='how weights are stored: "int8", "float16", "float32", or in few bits, beside int8 activations: '
        '"int4", "ternary" or "binary", but for the first and the last layer with weights, which are int8; beside '
        'float activations "int4" has all matrices and tables of embeddings in blocks, and other weights in int8',
    )
    activations: Literal["auto", "int8", "float32"] = Field(
        "auto",
        description='how values between layers are stored: "int8", "float32", or "auto": int8 if there is calibration'
        " data, otherwise float32 (dynamic range)",
    )
    calibration: Literal["auto", "minmax", "percentile", "entropy", "mse"] = Field(
        "auto",
        description='how the range of an activation is chosen from its calibration histogram: "minmax", "percentile",'
        ' "entropy", "mse", or "auto": the one of these that measures best on a part of the calibration data',
    )
    percentile: Number = Field(
        99.99,
        gt=50,
        le=100,
        description='percentage of the values that lie inside the range, for calibration = "percentile"',
    )
    per_channel: bool = Field(True, description="whether each output channel of a weight has a scale of its own")
    equalize: bool = Field(True, description="cross-layer equalization, where it helps")
    bias_correction: bool = Field(True, description="correction of biases for the mean error, where it helps")
    float_layers: list[str] = Field([], description="names of nodes that stay in float (mixed precision)")
    dynamic_layers: list[str] = Field(
        [], description="names of nodes with int8 matrices beside float activations (dynamic range), among int8 ones"
    )
    int16_layers: list[str] = Field(
        [],
        description='names of nodes whose activations are int16, with int8 weights; "*": all that have an int16 kernel',
    )
    layer_weights: dict[str, Literal["int8", "int4", "ternary", "binary"]] = Field(
        {},
        description="how the weights of single layers are stored, by the names of their nodes, the first and the last "
        'layer among them: "int8", "int4", and beside int8 activations "ternary" or "binary"; others: as weights says',
    )
    int4_block: Literal[16, 32, 64, 128, 256, "channel"] | None = Field(
        None,
        description="how many int4 weights of an output channel, or of a row of a table, share a scale beside float "
        'activations: 16, 32, 64, 128, 256 or "channel"; unset: 32',
    )
    int4_zero_points: bool = Field(False, description="whether these blocks have a zero point as well")
    search_seconds: Number = Field(
        60.0,
        ge=0,
        description="computing time for the search of what lifts int8 outputs above [evaluate] min_snr: other scales, "
        "int16 or float layers; 0: no search, and int4 weights in blocks are rounded without GPTQ",
    )
    samples: int | None = Field(None, ge=1, description="largest number of calibration samples; unset: all")
    epochs: int | None = Field(None, ge=1, description="epochs of quantization-aware training; unset: none")
    lr: Finite = Field(
        1e-3,
        gt=0,
        description="highest learning rate of quantization-aware training, relative to the size of each weight",
    )

    @property
    def is_integer(self) -> bool:
        """Whether weights are whole numbers, of 8 bits or fewer."""
        return self.weights not in ("float16", "float32")

    @property
    def asks_for_blocks(self) -> str | None:
        """The key, if any, that says something of blocks."""
        if self.int4_block is not None:
            return "int4_block"
        return "int4_zero_points" if self.int4_zero_points else None

    @property
    def few_bits(self) -> list[str]:
        """What asks for weights of fewer than 8 bits, as it stands in the recipe."""
        asked = {
            "weights": self.weights,
            **{f"layer_weights.{name}": kind for name, kind in self.layer_weights.items()},
        }
        return [f'{key} = "{kind}"' for key, kind in asked.items() if kind in ("int4", "ternary", "binary")]


class Distill(Section):
    """Distillation: a smaller student model learns from this one, and is compressed in its place."""

    student: str | None = Field(
        None,
        min_length=1,
        description='a model file to train unchanged, or blocks to make a new one of: "separable" (depthwise and 1x1 '
        'convolutions), "mobilenet" (inverted residuals), "mobilenet-se" (with squeeze and excitation); unset: the '
        "student is derived from the model as below",
    )
    macs: Number = Field(
        0.5, gt=0, le=1, description="share of the model's multiply-accumulates that a student of new blocks may take"
    )
    width: Number = Field(1.0, gt=0, le=1, description="share of each layer's channels that the student has")
    align: int = Field(1, ge=1, description="the student's channel counts are multiples of this")
    depth: Number = Field(
        1.0, ge=0, le=1, description="share of the blocks with equal input and output shapes that the student keeps"
    )
    separable: bool = Field(
        False, description="whether the student's convolutions are replaced by depthwise ones followed by 1 x 1 ones"
    )
    temperature: Finite = Field(4.0, gt=0, description="softens the logits of both models (Hinton et al. 2015)")
    alpha: Number = Field(
        0.9, ge=0, le=1, description="weight of the teacher's part of the loss; the labels' part has 1 - alpha"
    )
    features: Annotated[
        Literal["none", "auto"] | list[Annotated[tuple[str, str], BeforeValidator(_as_tuple)]], BeforeValidator(_pairs)
    ] = Field(
        "none",
        description="values that the student imitates: [[teacher's value, student's value], ...]; \"auto\": the last "
        "value of each image size",
    )
    feature_weight: Number = Field(
        1.0, ge=0, allow_inf_nan=False, description="weight of the imitated values in the loss"
    )
    epochs: int | None = Field(None, ge=1, description="epochs of training; unset: as in [train]")
    lr: Finite | None = Field(None, gt=0, description="highest learning rate; unset: as in [train]")

    @property
    def is_asked_for(self) -> bool:
        """Whether a student is trained: some key says how it differs from the model."""
        return self.student is not None or self.width < 1 or self.depth < 1 or self.separable


class EarlyExit(Section):
    """Early exits: samples that a classifier in the middle of the network is sure of don't run the rest of it."""

    after: Annotated[int | Literal["auto"] | list[str] | None, BeforeValidator(_places)] = Field(
        None,
        description="names of the nodes that exits stand behind, or how many exits to place evenly by computation; "
        '"auto": 2; unset: none',
    )
    threshold: Probabilities | None = Field(
        None,
        description="largest probability from which on an exit is taken, rounded up to a 256th: one for all exits, or "
        "a list of each exit's; unset: those of least cost with which validation data loses at most max_drop",
    )
    max_drop: Number = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="percent of the validation samples by which exits may be right less often than the whole network "
        "(without labels: say something else)",
    )
    epochs: int | None = Field(None, ge=1, description="epochs of training; unset: as in [train]")
    lr: Finite | None = Field(None, gt=0, description="highest learning rate; unset: as in [train]")

    @property
    def is_asked_for(self) -> bool:
        """Whether the network gets exits."""
        return self.after is not None


class Train(Section):
    """Training: settings of every method that trains."""

    epochs: int = Field(30, ge=1, description="largest number of passes over the training data")
    batch: int | None = Field(
        None,
        ge=1,
        description="samples in one step, over all processes; unset: a tenth of the training data, at least 16 and at "
        "most 128",
    )
    optimizer: Literal["sgd", "adam"] = Field("sgd", description='"sgd" has Nesterov\'s momentum; "adam" is AdamW')
    lr: Finite = Field(0.01, gt=0, description="highest learning rate")
    momentum: Number = Field(0.9, ge=0, lt=1, description='momentum of optimizer = "sgd"')
    weight_decay: Number = Field(
        1e-4, ge=0, allow_inf_nan=False, description="weight decay of weights; biases have none"
    )
    schedule: Literal["cosine", "step"] = Field(
        "cosine",
        description='how the learning rate falls: "cosine" is a half cosine to 0; "step" falls to a tenth after half '
        "and again after three quarters of the epochs",
    )
    warmup: Number = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="epochs during which the learning rate rises from 0, at most a tenth of all",
    )
    clip: Number | None = Field(
        None, gt=0, allow_inf_nan=False, description="largest 2-norm of the gradient over all weights; unset: no limit"
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after this many epochs without a better validation; unset: with fewer than 2,000 samples a "
        "third of the epochs, at least 5; otherwise never",
    )
    validation: Number = Field(
        0.1,
        ge=0,
        le=0.5,
        description="share of the training data that is kept aside to choose the best epoch; 0: the last epoch is kept",
    )
    augment: Literal["auto", "none", "crop", "flip-crop", "shift"] = Field(
        "auto",
        description='"none"; "crop" moves images by up to a 16th of the side; "flip-crop" mirrors and moves them (for '
        'photos); "shift" moves them a little (for digits); "auto": "crop" for fewer than 2,000 images that have a '
        'class each or no labels, otherwise "none"',
    )
    precision: Literal["auto", "float32", "mixed"] = Field(
        "auto",
        description='"mixed" uses bfloat16 or float16 where that is faster; "auto": mixed on a GPU, float32 on a CPU',
    )
    loss: Annotated[str, BeforeValidator(_spec)] = Field(
        "auto",
        min_length=1,
        description='"cross-entropy", "binary-cross-entropy", "mse", or "file.py:function" taking (outputs, labels, '
        'batch); "auto": by the output and its labels. Without labels "cross-entropy" says that the first output holds '
        "scores of classes, and labels are None to a function",
    )
    freeze: list[str] = Field(
        [], description="names of nodes and constants that training (and pruning of weights) leaves as they are"
    )
    trainable: list[str] = Field(
        [],
        description="names of nodes and constants that are trained although their place in the model says that they "
        "were not learned, such as a normalisation in front of the first layer",
    )
    metric: Annotated[str | None, BeforeValidator(_spec)] = Field(
        None,
        min_length=1,
        description="metric that chooses the best epoch, written as in [evaluate]; unset: the validation loss chooses",
    )
    tensorboard: str | None = Field(
        None, min_length=1, description="folder for TensorBoard's files; unset: none are written"
    )


class Evaluate(Section):
    """What accuracy is, and how much of it may be lost."""

    metric: Annotated[str | dict[str, str], BeforeValidator(_metric)] = Field(
        "auto",
        description='a name from the table of metrics in docs/RECIPE.md, "file.py:function" taking (outputs, labels) '
        'for a number of which more is better, or {output = "metric"} for each of several; "auto": by the labels',
    )
    max_drop: Number | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="points of the metric that an artifact may lose against the float model, strictly; unset: with "
        "labels 1 (for a function, 1 % of the float model's value), or more where chance explains it on so few samples",
    )
    min_snr: Number = Field(
        20.0,
        ge=0,
        allow_inf_nan=False,
        description="lowest signal-to-noise ratio, in dB, of any slice of a float output that no metric decides on; "
        "0: no limit",
    )
    min_equal: Number = Field(
        99.0, ge=0, le=100, description="lowest percentage of equal values in an integer output likewise; 0: no limit"
    )


class Emit(Section):
    """What is written."""

    formats: list[Literal["onnx", "tflite", "pack"]] | None = Field(
        None,
        min_length=1,
        description='artifact formats, any of "tflite", "onnx" and "pack"; unset: those that runtimes on the target '
        "load",
    )
    max_size: int | None = Field(
        None,
        ge=1,
        description="bytes that an artifact may have; pruning and clustering are chosen to meet it, and beside float "
        "activations, with calibration data, which weights of an .onnx file are int4; unset: no limit",
    )
    coder: Annotated[str, BeforeValidator(_coder)] = Field(
        CODERS[0],
        description="; ".join(["entropy coder of a .pack file", *(f'"{name}" {gain}' for name, gain in SLOW.items())]),
    )
    io: Literal["auto", "int8", "float32"] = Field(
        "auto",
        description='type of the inputs and outputs of a .tflite or .pack file: "int8" (int16 where an int16 layer '
        'reads or makes them), "float32", or "auto": what the target\'s profile says',
    )


class Recipe(Section):
    """All choices of a run. The same recipe, model and data give the same artifacts."""

    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of everything random")
    preprocess: Preprocess = Field(default_factory=Preprocess, description=str(Preprocess.__doc__))
    distill: Distill = Field(default_factory=Distill, description=str(Distill.__doc__))
    train: Train = Field(default_factory=Train, description=str(Train.__doc__))
    prune: Prune = Field(default_factory=Prune, description=str(Prune.__doc__))
    exit: EarlyExit = Field(default_factory=EarlyExit, description=str(EarlyExit.__doc__))
    gate: Gate = Field(default_factory=Gate, description=str(Gate.__doc__))
    cluster: Cluster = Field(default_factory=Cluster, description=str(Cluster.__doc__))
    quantize: Quantize = Field(default_factory=Quantize, description=str(Quantize.__doc__))
    evaluate: Evaluate = Field(default_factory=Evaluate, description=str(Evaluate.__doc__))
    emit: Emit = Field(default_factory=Emit, description=str(Emit.__doc__))

    def to_toml(self) -> str:
        """TOML text that `load_recipe` reads back: every key with its description, unset ones as comments."""
        lines = _key_lines(self, [k for k, v in self if not isinstance(v, Section)])
        for name, value in self:
            if isinstance(value, Section):
                lines += ["", f"# {value.__doc__}", f"[{name}]"]
                lines += _key_lines(value, list(type(value).model_fields))
        return "\n".join(lines) + "\n"


def load_recipe(given: Recipe | Mapping[str, Any] | str | Path | None) -> Recipe:
    """Read and validate a recipe file, one of the PRESETS by its name, or a dict of a recipe's tables; None gives the
    defaults.

    Raises InputError naming the file and the key at fault (and the nearest right one for an unknown key).
    """
    if given is None or isinstance(given, Recipe):
        return given or Recipe()
    if isinstance(given, Mapping):
        return validated(Recipe, dict(given), "recipe")
    return read_toml(Recipe, recipe_file(given))


def recipe_file(path: str | Path) -> Path:
    """Where a recipe is: the path, or the preset of that name. Raises InputError for a word that is neither."""
    preset, file = PRESETS / f"{path}.toml", Path(path)
    is_word = file.name == str(path) and not file.suffix
    if is_word and preset.is_file():
        return preset
    if is_word and not file.exists():
        presets = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise InputError(f"recipe {str(path)!r}: neither a file nor a preset; the presets are {presets}")
    return file


def _key_lines(section: BaseModel, names: list[str]) -> list[str]:
    lines = []
    for name in names:
        value = getattr(section, name)
        lines.append(f"# {type(section).model_fields[name].description}")
        lines.append(f"# {name} =" if value is None else f"{name} = {toml_value(value)}")
    return lines
