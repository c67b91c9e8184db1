"""A student made from the teacher, and from its weights: narrower, with fewer blocks, with separable convolutions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.compress.distill.depth import removable_blocks
from edgecompress.compress.distill.width import narrowed
from edgecompress.compress.prune.channel_sensitivity import remove_blocks
from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.fusion import constant
from edgecompress.ingest.normalise import normalise
from edgecompress.ingest.passes.canonical_convolution import set_attributes
from edgecompress.ingest.passes.edit import Edit, static_shape
from edgecompress.recipe import Distill
from edgecompress.support.present import present
from edgecompress.train import TrainData
from edgecompress.train.normalised import refresh_statistics, with_batchnorm

FEWEST_CHANNELS = 8  # of a convolution that is worth making separable: an image's three are not


def derive(teacher: ir.Model, settings: Distill, data: TrainData, seed: int = 0) -> ir.Model:
    """The student that the settings describe, with the teacher's weights as far as they fit.

    Of its blocks those go that matter least to the outputs, then of its channels, then convolutions are factorised.
    BatchNormalization is behind every convolution before that, so that what is left computes values of the size that
    its readers know. Labels aren't needed.

    Canonical but for the BatchNormalization. Raises UnsupportedModelError where the teacher has nothing to leave out,
    or a shape that can't be told.
    """
    model = with_batchnorm(teacher, data)
    if settings.depth < 1:
        model = refresh_statistics(shallower(model, settings.depth, data), data)
    if settings.width < 1:
        model = refresh_statistics(narrowed(model, settings.width, data, align=settings.align, seed=seed), data)
    if settings.separable:
        model = refresh_statistics(with_batchnorm(separable(model), data), data)
    return model


def shallower(model: ir.Model, share: float, data: TrainData) -> ir.Model:
    """A copy that keeps this share (rounded) of the blocks that can go (`removable_blocks`), without those that change
    the outputs least. Raises UnsupportedModelError when there is none.
    """
    count = len(removable_blocks(model.graph))
    if not count:
        raise UnsupportedModelError(
            "the model has no block that can be removed (input and output of the same shape); use [distill] "
            "width, or a student model of your own"
        )
    smaller, _ = remove_blocks(model, count - round(share * count), data)
    return smaller


def separable(model: ir.Model) -> ir.Model:
    """A copy whose convolutions are depthwise ones followed by 1 x 1 ones, which together compute the nearest to what
    the convolution does (`factorised`). Nothing is between them, as in Xception (Chollet, 2017, section 4.7).

    Those of a 1 x 1 kernel, in groups, or of an image's few channels stay.
    """
    model = model.clone()
    edit = Edit(model.graph)
    for node in list(model.graph):
        if node.op_type != "Conv":
            continue
        weight, groups = present(constant(node.inputs[1])), node.attributes.get_int("group", 1)
        inputs, *kernel = weight.shape[1:]
        if groups > 1 or inputs < FEWEST_CHANNELS or set(kernel) == {1}:
            continue
        stem = str(present(node.inputs[1]).name)
        spatial, mixing = factorised(weight)
        attributes = {k: a.value for k, a in node.attributes.items()} | {"group": inputs}
        depthwise = edit.insert(
            node,
            "Conv",
            [
                node.inputs[0],
                edit.constant(f"{stem}/depthwise", spatial),
                edit.constant(f"{stem}/depthwise_bias", np.zeros(inputs, np.float32)),
            ],
            attributes,
            shape=(1, inputs, *present(static_shape(node.outputs[0]))[2:]),
        )
        node.replace_input_with(0, depthwise)
        node.replace_input_with(1, edit.constant(f"{stem}/pointwise", mixing))
        ones, zeros = [1] * len(kernel), [0] * (2 * len(kernel))
        set_attributes(node, {"kernel_shape": ones, "strides": ones, "dilations": ones, "pads": zeros})
    return normalise(model, {}, fold_batchnorm=False)


def factorised(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 weights [inputs, 1, *kernel] of a depthwise convolution and [outputs, inputs, 1, ...] of a 1 x 1 one,
    whose product is the nearest in squared error to [outputs, inputs, *kernel]: the first singular vectors of each
    input channel's matrix [outputs, positions] (Eckart and Young, 1936)."""
    outputs, inputs, *kernel = weight.shape
    left, values, right = np.linalg.svd(weight.reshape(outputs, inputs, -1).transpose(1, 0, 2), full_matrices=False)
    size = np.sqrt(values[:, :1])
    spatial, mixing = right[:, 0] * size, (left[:, :, 0] * size).T
    return (
        spatial.reshape(inputs, 1, *kernel).astype(np.float32),
        mixing.reshape(outputs, inputs, *(1 for _ in kernel)).astype(np.float32),
    )
