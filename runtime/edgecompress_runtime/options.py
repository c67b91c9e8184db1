"""Options of a plan's operators, a dataclass for each table of TFLite's schema (schema.fbs), enumerations as integers.

A field is an option, `stride_h` for the schema's `strideH`. Fields are in the schema's order, in which a `.pack` lists
them. Values are checked when an object is made. Fields that no kernel reads are kept for whoever reads the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, Protocol, TypeVar

from edgecompress_runtime.errors import MisfitError

Option = int | float | bool | str | list | None
SAME = 0  # of schema.fbs Padding; VALID is 1
ACTIVATIONS = range(4)  # of schema.fbs ActivationFunctionType: none, RELU, RELU_N1_TO_1, RELU6
REFLECT = 0  # of schema.fbs MirrorPadMode; SYMMETRIC is 1
FLOAT_MAX = 3.4028234663852886e38  # of float32, in which kernels take factors
MOST = 1 << 20  # products with a size stay within 64 bits, and sizes within 32
TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,), "float": (int, float), "bool": (bool, int), "list | None": (list,),
    "int | tuple[int, int]": (int, tuple),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """The options of an operator without any, and the base class of all others.

    Raises MisfitError for a value that has another type than its field, or is out of its range.
    """

    def __post_init__(self) -> None:
        """Checks every field."""
        for each in fields(self):
            value, allowed = getattr(self, each.name), each.metadata.get("range")
            if type(value) not in TYPES[str(each.type)] and not (value is None and each.default is None):
                raise MisfitError(f"{_key(each.name)} is {value!r:.40}")
            too_large = each.type == "float" and not abs(value) <= FLOAT_MAX  # true for NaN
            if too_large or (allowed is not None and type(value) is int and value not in allowed):
                raise MisfitError(f"{_key(each.name)} is {value!r:.40}")

    def stored(self) -> dict[str, Option]:
        """The fields under their names in TFLite's schema, as a `.pack` has them; None is left out."""
        values = {_key(each.name): getattr(self, each.name) for each in fields(self)}
        return {key: value for key, value in values.items() if value is not None}


OptionsT = TypeVar("OptionsT", bound=Options)


def parsed(kind: type[OptionsT], given: Mapping[str, Any]) -> OptionsT:
    """Options from fields under their names in TFLite's schema. Those that `kind` does not have are ignored, and one
    that is absent or null has its default. Raises MisfitError where it has none, and as `Options`."""
    values = {each.name: given.get(_key(each.name)) for each in fields(kind)}
    for each in fields(kind):
        if values[each.name] is None and each.default is MISSING:
            raise MisfitError(f"{_key(each.name)} is missing")
    return kind(**{name: value for name, value in values.items() if value is not None})


@cache
def _key(name: str) -> str:
    """
    >>> _key("stride_h")
    'strideH'
    """
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _within(low: int, most: int, default: Any = MISSING) -> Any:
    """A field of integers from `low` to `most`."""
    metadata = {"range": range(low, most + 1)}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def _size() -> Any:
    return _within(1, MOST)


def _activation() -> Any:
    return _within(ACTIVATIONS[0], ACTIVATIONS[-1], 0)


@dataclass(frozen=True)
class WindowOptions(Options):
    """Of a window that moves over an image. padding: SAME or VALID; in a program, which no file has, also rows and
    columns in front (codegen/padded_layers.py)."""

    padding: int | tuple[int, int] = _within(0, MOST)
    stride_w: int = _size()
    stride_h: int = _size()

    @property
    def strides(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.stride_h, self.stride_w

    @property
    def dilations(self) -> tuple[int, int]:
        """(rows, columns) from one element of the window to the next."""
        return 1, 1


class Activated(Protocol):
    """Options of an operator that ends with an activation."""

    @property
    def fused_activation_function(self) -> int:
        """One of ACTIVATIONS."""


class _Dilated:
    dilation_w_factor: int
    dilation_h_factor: int

    @property
    def dilations(self) -> tuple[int, int]:
        return self.dilation_h_factor or 1, self.dilation_w_factor or 1


@dataclass(frozen=True)
class ConvolutionOptions(_Dilated, WindowOptions):
    """CONV_2D."""

    fused_activation_function: int = _activation()
    dilation_w_factor: int = _within(0, MOST, 1)
    dilation_h_factor: int = _within(0, MOST, 1)
    quantized_bias_type: int = 0


@dataclass(frozen=True)
class DepthwiseOptions(_Dilated, WindowOptions):
    """DEPTHWISE_CONV_2D; how many outputs a channel has is read from the weights' shape."""

    depth_multiplier: int = 0
    fused_activation_function: int = _activation()
    dilation_w_factor: int = _within(0, MOST, 1)
    dilation_h_factor: int = _within(0, MOST, 1)


@dataclass(frozen=True)
class TransposeConvolutionOptions(WindowOptions):
    """TRANSPOSE_CONV."""

    fused_activation_function: int = _activation()
    quantized_bias_type: int = 0


@dataclass(frozen=True)
class PoolOptions(WindowOptions):
    """MAX_POOL_2D and AVERAGE_POOL_2D."""

    filter_width: int = _size()
    filter_height: int = _size()
    fused_activation_function: int = _activation()

    @property
    def window(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.filter_height, self.filter_width


@dataclass(frozen=True)
class FullyConnectedOptions(Options):
    """FULLY_CONNECTED; which dimensions are kept is read from the output's shape."""

    fused_activation_function: int = _activation()
    weights_format: int = 0
    keep_num_dims: bool = False
    asymmetric_quantize_inputs: bool = False
    quantized_bias_type: int = 0


@dataclass(frozen=True)
class BatchMatmulOptions(Options):
    """BATCH_MATMUL. adj_x, adj_y: whether the last two dimensions of an operand are exchanged."""

    adj_x: bool = False
    adj_y: bool = False
    asymmetric_quantize_inputs: bool = False


@dataclass(frozen=True)
class ActivationOptions(Options):
    """MUL and DIV."""

    fused_activation_function: int = _activation()


@dataclass(frozen=True)
class SumOptions(ActivationOptions):
    """ADD and SUB."""

    pot_scale_int16: bool = True


@dataclass(frozen=True)
class SoftmaxOptions(Options):
    """SOFTMAX. beta: factor of the inputs."""

    beta: float


@dataclass(frozen=True)
class LeakyReluOptions(Options):
    """LEAKY_RELU. alpha: factor of negative inputs."""

    alpha: float


@dataclass(frozen=True)
class GeluOptions(Options):
    """GELU. approximate: by tanh in place of erf."""

    approximate: bool = False


@dataclass(frozen=True)
class CastOptions(Options):
    """CAST; the types are read from the tensors."""

    in_data_type: int = 0
    out_data_type: int = 0


@dataclass(frozen=True)
class ReductionOptions(Options):
    """MEAN, SUM, REDUCE_MAX and REDUCE_MIN."""

    keep_dims: bool = False


@dataclass(frozen=True)
class ArgMaxOptions(Options):
    """ARG_MAX; the type is read from the output."""

    output_type: int = 0


@dataclass(frozen=True)
class CumulativeOptions(Options):
    """CUMSUM. exclusive: without the element itself. reverse: from the end."""

    exclusive: bool = False
    reverse: bool = False


@dataclass(frozen=True)
class ConcatenationOptions(Options):
    """CONCATENATION. axis: from the end where it is negative."""

    axis: int = _within(-8, MOST)
    fused_activation_function: int = _activation()


@dataclass(frozen=True)
class SplitOptions(Options):
    """SPLIT and SPLIT_V; how many parts there are is read from the outputs."""

    num_splits: int = 0


@dataclass(frozen=True)
class StridedSliceOptions(Options):
    """STRIDED_SLICE; its masks are not looked at, edgecompress writes begin, end and step for every axis."""

    begin_mask: int = 0
    end_mask: int = 0
    ellipsis_mask: int = 0
    new_axis_mask: int = 0
    shrink_axis_mask: int = 0
    offset: bool = False


@dataclass(frozen=True)
class ReshapeOptions(Options):
    """RESHAPE; the shape is read from the output."""

    new_shape: list | None = None


@dataclass(frozen=True)
class BlockOptions(Options):
    """DEPTH_TO_SPACE and SPACE_TO_DEPTH. block_size: rows and columns that become channels, or come of them."""

    block_size: int = _size()


@dataclass(frozen=True)
class MirrorPadOptions(Options):
    """MIRROR_PAD. mode: REFLECT, or whatever else for symmetric."""

    mode: int


@dataclass(frozen=True)
class GatherOptions(Options):
    """GATHER."""

    axis: int = 0
    batch_dims: int = _within(0, 0, 0)


@dataclass(frozen=True)
class ExitOptions(Options):
    """EXIT. threshold: of the largest probability, in 256ths; none reaches 256 but a float32 one of exactly 1."""

    threshold: int = _within(1, 256)


@dataclass(frozen=True)
class ResizeOptions(Options):
    """RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR."""

    align_corners: bool = False
    half_pixel_centers: bool = False
