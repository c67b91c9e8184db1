"""The weights that schedule = "lottery" starts from: the user's own, or new random ones."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from edgecompress.errors import InputError
from edgecompress.graph.fusion import constant
from edgecompress.operators import record_of
from edgecompress.train.module.torch_model import TorchModel

NORMALISATIONS = ("BatchNormalization", "InstanceNormalization", "LayerNormalization")
FACTORS = ("Mul", "Div")
SLOPE = 0.25  # He et al. 2015, Delving Deep into Rectifiers, section 2.1
SMALL = 0.02  # standard deviation of positions and tokens (Devlin et al. 2018, BERT; Dosovitskiy et al. 2020, ViT)


def start(module: TorchModel, model: ir.Model, initial: ir.Model | None, seed: int) -> None:
    """Put initial weights into the module of a model, in place of those that it has learned.

    initial: the same model with other weights, of which statistics of BatchNormalization are taken too; None: random.
    Raises InputError, which names the weight, when it has another shape there or is missing.
    """
    if initial is None:
        initialise(module, model, seed)
        return
    found = {name: constant(value) for name, value in initial.graph.initializers.items()}
    for name in module.weights:
        mine, theirs = np.asarray(constant(model.graph.initializers[name])), found.get(name)
        if theirs is None:
            raise InputError(f"prune.initial: it has no weight {name!r} of the model's; it has to be the same network")
        if theirs.shape != mine.shape:
            raise InputError(
                f"prune.initial: weight {name!r} is {list(theirs.shape)}, and {list(mine.shape)} in the model; it has "
                "to be the same network"
            )
    module.load_initializers({name: array for name, array in found.items() if array is not None})


def initialise(module: TorchModel, model: ir.Model, seed: int) -> None:
    """New random weights: He et al.'s for what layers multiply with (uniform, by the inputs of one output), 1 for the
    scales of normalisations and of channels, small ones for positions and tokens, 0 for biases."""
    generator = torch.Generator().manual_seed(seed)
    readers = {str(v.name): n for n in reversed(list(model.graph)) for v in n.inputs if v is not None}
    with torch.no_grad():
        for name, parameter in module.weights.items():
            node, lines = readers[name], sum(n > 1 for n in parameter.shape)
            if node.op_type in NORMALISATIONS:
                parameter.fill_(float(node.inputs[1] is not None and node.inputs[1].name == name))
            elif node.op_type == "PRelu":
                parameter.fill_(SLOPE)
            elif record_of(node).weights.by_place:
                if node.op_type in FACTORS:
                    parameter.fill_(1.0)
                elif node.op_type == "Concat" or lines > 1:
                    parameter.copy_(SMALL * torch.randn(parameter.shape, generator=generator))
                else:
                    parameter.fill_(0.0)
            elif parameter.ndim > 1:
                bound = (6 / max(parameter[0].numel(), 1)) ** 0.5
                parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
            else:
                parameter.fill_(0.0)
