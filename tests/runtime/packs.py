"""Packs as somebody hostile would write them, and a small network of many operators to start from."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from edgecompress_runtime.operators import options_of
from edgecompress_runtime.options import Option
from edgecompress_runtime.plan import Operator, Plan, Tensor


def resigned(data: bytes | bytearray) -> bytes:
    """The file with its size, CRCs and digest made right again, as somebody hostile would."""
    data = bytearray(data)
    struct.pack_into("<Q", data, 24, len(data))
    stored, _, blobs = struct.unpack_from("<III", data, 12)
    end = 64 + 8 * blobs + stored
    for blob in range(min(blobs, (len(data) - 64) // 8)):
        start = end + -end % 64
        length = struct.unpack_from("<I", data, 64 + 8 * blob)[0]
        end = start + length
        if end <= len(data):
            struct.pack_into("<I", data, 68 + 8 * blob, zlib.crc32(data[start:end]))
    data[32:64] = hashlib.sha256(data[:32] + data[64:]).digest()
    return bytes(data)


def with_header(data: bytes, header: bytes, plain_size: int | None = None) -> bytes:
    """The file with these bytes, deflated, in place of its header."""
    stored, _, blobs = struct.unpack_from("<III", data, 12)
    old_end = 64 + 8 * blobs + stored
    packed = zlib.compress(header)
    end = 64 + 8 * blobs + len(packed)
    body = data[old_end + -old_end % 64 :]
    file = bytearray(data[: 64 + 8 * blobs] + packed + bytes(-end % 64) + body)
    struct.pack_into("<II", file, 12, len(packed), len(header) if plain_size is None else plain_size)
    return resigned(file)


def header_of(data: bytes) -> dict[str, Any]:
    stored, _, blobs = struct.unpack_from("<III", data, 12)
    return json.loads(zlib.decompress(data[64 + 8 * blobs :][:stored]))


def network() -> Plan:
    """Convolutions, pooling, movements, a sum, a layer and softmax on a 6 x 6 image: clustered, pruned weights."""
    random = np.random.default_rng(0)
    tensors: list[Tensor] = []
    operators: list[Operator] = []
    int8, scale = np.dtype(np.int8), np.float32([0.05])

    def value(shape: tuple[int, ...], data: np.ndarray | None = None, scales: int = 1) -> int:
        dtype = int8 if data is None else data.dtype
        quantized = np.repeat(scale, scales) if dtype == int8 else np.zeros(0, np.float32)
        zero = np.zeros(quantized.size, np.int32)
        axis = shape.index(scales) if scales > 1 else 0
        tensors.append(Tensor(f"t{len(tensors)}", shape, dtype, quantized, zero, axis, data))
        return len(tensors) - 1

    def weights(shape: tuple[int, ...], channels: int) -> int:
        data = random.choice(np.array([-90, -31, 7, 44], np.int8), shape) * (random.random(shape) < 0.4)
        return value(shape, data.astype(np.int8), channels)

    def ints(*numbers: int) -> int:
        return value((len(numbers),), np.array(numbers, np.int32))

    def step(kind: str, inputs: list[int], shape: tuple[int, ...], **options: Option) -> int:
        output = value(shape)
        operators.append(Operator(kind, tuple(inputs), (output,), options_of(kind, options)))
        return output

    window: dict[str, Option] = {"strideH": 1, "strideW": 1, "padding": 0}
    image = value((1, 6, 6, 3))
    x = step("CONV_2D", [image, weights((4, 3, 3, 3), 4), ints(1, 2, 3, 4)], (1, 6, 6, 4), **window)
    y = step("DEPTHWISE_CONV_2D", [x, weights((1, 3, 3, 4), 4), ints(1, 2, 3, 4)], (1, 6, 6, 4), **window)
    x = step("ADD", [x, y], (1, 6, 6, 4), fusedActivationFunction=1)
    pooled: dict[str, Option] = {"strideH": 2, "strideW": 2, "padding": 0, "filterHeight": 2, "filterWidth": 2}
    x = step("MAX_POOL_2D", [x], (1, 3, 3, 4), **pooled)
    x = step("PAD", [x, value((4, 2), np.array([[0, 0], [1, 0], [0, 1], [0, 0]], np.int32))], (1, 4, 4, 4))
    a = step("SLICE", [x, ints(0, 1, 0, 0), ints(1, 2, 4, 4)], (1, 2, 4, 4))
    b = step("STRIDED_SLICE", [x, ints(0, 0, 0, 0), ints(1, 4, 4, 4), ints(1, 2, 1, 1)], (1, 2, 4, 4))
    x = step("CONCATENATION", [a, b], (1, 2, 4, 8), axis=3)
    x = step("TRANSPOSE", [x, ints(0, 3, 1, 2)], (1, 8, 2, 4))
    x = step("GATHER", [x, ints(7, 0, 3)], (1, 3, 2, 4), axis=1, batchDims=0)
    x = step("RESIZE_BILINEAR", [x, ints(4, 5)], (1, 4, 5, 4), alignCorners=False, halfPixelCenters=True)
    x = step("MEAN", [x, ints(1)], (1, 5, 4), keepDims=False)
    x = step("RESHAPE", [x], (1, 20))
    x = step("FULLY_CONNECTED", [x, weights((5, 20), 5), ints(1, 2, 3, 4, 5)], (1, 5), fusedActivationFunction=0)
    x = step("SOFTMAX", [x], (1, 5), beta=1.0)
    tensors[x] = replace(tensors[x], scale=np.float32([1 / 256]), zero_point=np.int32([-128]))
    return Plan(tuple(tensors), tuple(operators), (image,), (x,))
