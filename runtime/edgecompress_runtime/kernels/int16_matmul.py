"""FULLY_CONNECTED and BATCH_MATMUL of int16 activations, with sums of 64 bits."""

from __future__ import annotations

from edgecompress_runtime.kernels.arithmetic import Array, Values, activation_range, clamp, i32, i64, product_ratio
from edgecompress_runtime.kernels.convolution import bias_of, wide_channel_multipliers
from edgecompress_runtime.kernels.int16_arithmetic import requantize_wide, wide_multipliers
from edgecompress_runtime.kernels.matmul import matrix_geometry
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares_int16
from edgecompress_runtime.options import BatchMatmulOptions, FullyConnectedOptions


def fully_connected_int16(x: Array, w: Array, channels: Values, y: Array, sizes: Values, bounds: Values) -> None:
    """w: int8. channels: bias, int64, and multipliers and shifts. sizes: rows, depth, units."""
    (bias, multiplier, shift), (rows, depth, units) = channels, sizes
    for r in range(rows):
        source = i32(r * depth)
        for o in range(units):
            weights = i32(o * depth)
            acc = i64(bias[o])
            for c in range(depth):
                acc = i64(acc + i64(i32(w[i32(weights + c)]) * i32(x[i32(source + c)])))
            y[i32(r * units + o)] = clamp(requantize_wide(acc, multiplier[o], shift[o]), bounds[0], bounds[1])


def batch_matmul_int16(a: Array, b: Array, y: Array, sizes: Values, strides: Values, scaling: Values) -> None:
    """sizes, strides: of `matmul.batch_matmul`. scaling: multiplier, shift."""
    (n0, n1, n2, rows, columns, depth), (a_strides, b_strides) = sizes, strides
    for i in range(n0):
        for j in range(n1):
            for k in range(n2):
                a_matrix = i32(i * a_strides[0] + j * a_strides[1] + k * a_strides[2])
                b_matrix = i32(i * b_strides[0] + j * b_strides[1] + k * b_strides[2])
                y_matrix = i32(((i * n1 + j) * n2 + k) * rows * columns)
                for r in range(rows):
                    a_row = i32(a_matrix + r * a_strides[3])
                    for o in range(columns):
                        b_column = i32(b_matrix + o * b_strides[3])
                        acc = i64(0)
                        for c in range(depth):
                            left = i32(a[i32(a_row + c * a_strides[4])])
                            acc = i64(acc + i64(left * i32(b[i32(b_column + c * b_strides[4])])))
                        scaled = requantize_wide(acc, scaling[0], scaling[1])
                        y[i32(y_matrix + r * columns + o)] = clamp(scaled, i32(-32768), i32(32767))


@prepares_int16("FULLY_CONNECTED")
def _prepare_fully_connected(inputs: Inputs, outputs: Outputs, options: FullyConnectedOptions) -> list[Call]:
    x, w, (y,) = inputs[0], inputs[1], outputs
    units, depth = w.shape
    channels = bias_of(inputs, y), *wide_channel_multipliers(x, w, y)
    sizes = x.size // depth, depth, units
    return [call(fully_connected_int16, x, w, channels, y, sizes, activation_range(options, y))]


@prepares_int16("BATCH_MATMUL")
def _prepare_batch_matmul(inputs: Inputs, outputs: Outputs, options: BatchMatmulOptions) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    (multiplier,), (shift,) = wide_multipliers([product_ratio(a, b, y)])
    scaling = int(multiplier), int(shift)
    return [call(batch_matmul_int16, a, b, y, *matrix_geometry(a, b, y, options), scaling)]
