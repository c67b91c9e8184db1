"""A student made from the teacher: narrower, with fewer blocks, with separable convolutions; its first weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.compress.distill.depth import shallower
from edgecompress.compress.distill.width import narrowed
from edgecompress.graph.fusion import constant
from edgecompress.ingest.normalise import normalise
from edgecompress.ingest.passes.canonical_convolution import set_attributes
from edgecompress.ingest.passes.edit import Edit, static_shape
from edgecompress.recipe import Distill
from edgecompress.support.present import present

FEWEST_CHANNELS = 8  # of a convolution that is worth making separable: an image's three are not


def derive(teacher: ir.Model, settings: Distill, seed: int = 0) -> ir.Model:
    """The student that the settings describe, with a BatchNormalization after every convolution and new weights.

    Canonical but for the BatchNormalization. Raises UnsupportedModelError where the teacher has nothing to leave out,
    or a shape that can't be told.
    """
    model = teacher.clone()
    if settings.depth < 1:
        model = shallower(model, settings.depth)
    if settings.width < 1:
        model = narrowed(model, settings.width, settings.align)
    if settings.separable:
        model = separable(model)
    model = with_batchnorm(model)
    initialise(model, seed)
    return model


def separable(model: ir.Model) -> ir.Model:
    """A copy whose convolutions are depthwise ones, Relu, and 1 x 1 ones (Howard et al., MobileNets, section 3.1).

    Those of a 1 x 1 kernel, in groups, or of an image's few channels stay.
    """
    model = model.clone()
    edit = Edit(model.graph)
    for node in list(model.graph):
        if node.op_type != "Conv":
            continue
        weight, groups = present(constant(node.inputs[1])), node.attributes.get_int("group", 1)
        outputs, inputs, *kernel = weight.shape
        if groups > 1 or inputs < FEWEST_CHANNELS or set(kernel) == {1}:
            continue
        stem = str(present(node.inputs[1]).name)
        attributes = {k: a.value for k, a in node.attributes.items()} | {"group": inputs}
        depthwise = edit.insert(
            node,
            "Conv",
            [
                node.inputs[0],
                edit.constant(f"{stem}/depthwise", np.zeros((inputs, 1, *kernel), np.float32)),
                edit.constant(f"{stem}/depthwise_bias", np.zeros(inputs, np.float32)),
            ],
            attributes,
            shape=(1, inputs, *present(static_shape(node.outputs[0]))[2:]),
        )
        relu = edit.insert(node, "Relu", [depthwise], shape=present(static_shape(depthwise)))
        node.replace_input_with(0, relu)
        pointwise = np.zeros((outputs, inputs, *(1 for _ in kernel)), np.float32)
        node.replace_input_with(1, edit.constant(f"{stem}/pointwise", pointwise))
        ones, zeros = [1] * len(kernel), [0] * (2 * len(kernel))
        set_attributes(node, {"kernel_shape": ones, "strides": ones, "dilations": ones, "pads": zeros})
    return normalise(model, {}, fold_batchnorm=False)


def with_batchnorm(model: ir.Model) -> ir.Model:
    """A copy with BatchNormalization (of no effect yet) behind every convolution that has none."""
    model = model.clone()
    edit = Edit(model.graph)
    for node in list(model.graph):
        if node.op_type != "Conv" or any(u.node.op_type == "BatchNormalization" for u in node.outputs[0].uses()):
            continue
        output, stem = node.outputs[0], str(present(node.inputs[1]).name)
        uses, channels = list(output.uses()), present(static_shape(output))[1]
        constants = [
            edit.constant(f"{stem}/{name}", np.full(channels, start, np.float32))
            for name, start in (("scale", 1), ("shift", 0), ("mean", 0), ("variance", 1))
        ]
        norm = ir.node("BatchNormalization", [output, *constants], name=f"{stem}/batchnorm")
        made = norm.outputs[0]
        made.name, made.shape, made.type = f"{output.name}/batchnorm", output.shape, output.type
        model.graph.insert_after(node, norm)
        for user, index in uses:
            user.replace_input_with(index, made)
        for i, value in enumerate(model.graph.outputs):
            if value is output:
                output.name, made.name = made.name, output.name
                model.graph.outputs[i] = made
    return model


def initialise(model: ir.Model, seed: int) -> None:
    """Fresh weights, in place: normal with variance 2 / fan-in (He et al., Delving deep into rectifiers, equation 10)
    for convolutions and fully connected layers, zero biases. Other constants stay.
    """
    generator = np.random.default_rng([seed, 3])
    for node in model.graph:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            of_weight, of_bias = present(node.inputs[1]), present(node.inputs[2])
            weight, bias = present(constant(of_weight)), present(constant(of_bias))
            fan_in = np.prod(weight.shape[1:]) if node.op_type != "ConvTranspose" else weight[:, 0].size
            spread = (2 / fan_in) ** 0.5
            fresh = generator.normal(0, spread, weight.shape).astype(np.float32)
            of_weight.const_value = ir.tensor(fresh, name=of_weight.name)
            of_bias.const_value = ir.tensor(np.zeros_like(bias), name=of_bias.name)
