"""An onnx_ir.Model in canonical form as a torch.nn.Module that can be trained, and back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.channel_axes import shape
from edgecompress.graph.fusion import constant
from edgecompress.train.module.batch_axis import find_batch
from edgecompress.train.module.ranking import ranked
from edgecompress.train.module.torch_functions import Step, Values, can_be_trained, known, torch_function
from edgecompress.train.module.trainable import trainable


class TorchModel(nn.Module):
    """Computes what the model does, on any number of samples, and is trained through `weights`.

    Inputs and outputs are those of the model, in its order, [n, ...] where it has [1, ...]. BatchNormalization
    uses the batch's statistics in training mode. Equal to ONNX Runtime to 1e-5 in evaluation mode.
    logits: an output that is a Softmax's, LogSoftmax's or ArgMax's is what that one reads, as losses want it.
    Raises UnsupportedModelError for an operator that has no function in torch.
    """

    def __init__(self, model: ir.Model, *, logits: bool = False) -> None:
        """The weights are copies of the model's, which isn't changed."""
        super().__init__()
        graph = model.graph
        unknown = sorted({n.op_type for n in graph if not can_be_trained(n)})
        if unknown:
            raise UnsupportedModelError(
                f"the model can't be trained, because these operators have no PyTorch form: {', '.join(unknown)}"
            )
        self._source = _Source(model)
        slots = {value: i for i, value in enumerate(_values(graph), 1)}  # 0 is an absent input
        self._slots = {str(value.name): slot for value, slot in slots.items()}
        self._constants = [(slots[v], _key(name)) for name, v in graph.initializers.items()]
        learned = set(trainable(model))
        for name, value in graph.initializers.items():
            tensor = torch.from_numpy(np.array(constant(value)))  # a copy: the module's own
            if value in learned:
                self.register_parameter(_key(name), nn.Parameter(tensor))
            else:
                self.register_buffer(_key(name), tensor)
        self._weight_names = tuple(name for name, v in graph.initializers.items() if v in learned)
        self._inputs = tuple(slots[v] for v in graph.inputs)
        self._batches = tuple(shape(v)[0] if shape(v) else 0 for v in graph.inputs)
        self._outputs = tuple(slots[ranked(v).value if logits else v] for v in graph.outputs)
        self._steps = _plan(graph, slots, self._outputs)
        self._images = any(n.op_type in ("Conv", "ConvTranspose", "MaxPool") for n in graph)
        self._weight_transforms, self._value_transforms = nn.ModuleDict(), nn.ModuleDict()
        self._transformed: dict[int, str] = {}  # slot of a computed value -> key of its transform
        functions = [torch_function(n) for n in graph]
        self._layers = nn.ModuleList(f for f in functions if isinstance(f, nn.Module)).eval()
        found = find_batch(model, self._steps, functions, self._fill, self._inputs, self._outputs)
        self._layers.train()
        self._batched = found is not None
        self._functions = found or functions

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Parameters by the name of their initializer."""
        return {name: self.get_parameter(_key(name)) for name in self._weight_names}

    @property
    def weight_transforms(self) -> dict[str, nn.Module]:
        """The transforms of weights, by the name of the initializer."""
        names = self._source.model.graph.initializers
        return {n: self._weight_transforms[_key(n)] for n in names if _key(n) in self._weight_transforms}

    def set_weight_transform(self, name: str, transform: nn.Module | None) -> None:
        """Nodes read transform(weight), or of any other constant, in place of it; None: the weight itself again."""
        if name not in self._source.model.graph.initializers:
            raise KeyError(f"{name!r} is not a constant of the model")
        _set(self._weight_transforms, _key(name), transform)

    @property
    def value_transforms(self) -> dict[str, nn.Module]:
        """The transforms of values, by the name of the value."""
        return {n: self._value_transforms[_key(n)] for n in self._slots if _key(n) in self._value_transforms}

    def set_value_transform(self, name: str, transform: nn.Module | None) -> None:
        """Nodes read transform(value) in place of an input of the graph or a computed value; None: as it was."""
        if name not in self._slots or name in self._source.model.graph.initializers:
            raise KeyError(f"{name!r} is not an input or a computed value of the model")
        _set(self._value_transforms, _key(name), transform)
        self._transformed = {self._slots[n]: _key(n) for n in self.value_transforms}

    def forward(self, *inputs: Tensor, capture: Collection[str] = ()) -> Any:
        """The outputs, a tuple; with `capture` also a dict of the values of those names, as their readers get them."""
        if self._batched:
            outputs, captured = self._run(inputs, capture)
        else:  # the batch can't be told from other dimensions
            runs = [self._run(sample, capture) for sample in self._samples(inputs)]
            outputs = tuple(torch.cat(parts) for parts in zip(*(r[0] for r in runs)))
            captured = {name: torch.cat([r[1][name] for r in runs]) for name in capture}
        return (outputs, captured) if capture else outputs

    def write_back(self) -> ir.Model:
        """A copy of the model that has the weights as the nodes read them, and BatchNorm's statistics."""
        model = self._source.model.clone()
        with torch.no_grad():
            values = self._fill()
        for name, value in model.graph.initializers.items():
            if value.dtype == ir.DataType.FLOAT:
                array = known(values, self._slots[name]).detach().to("cpu", torch.float32).numpy()
                # + 0.0: what a mask makes zero has the weight's sign, and codecs find only the positive zero
                value.const_value = ir.tensor(np.array(array + 0.0, order="C"), name=name)
        return model

    def load_initializers(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Put arrays in the places of weights and other constants of these names; other names are passed over."""
        own = self.state_dict()
        with torch.no_grad():
            for name, array in arrays.items():
                if _key(name) in own:
                    own[_key(name)].copy_(torch.from_numpy(np.array(array)))

    def _run(
        self, inputs: tuple[Tensor, ...], capture: Collection[str]
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        values = self._fill()
        wanted = {self._slots[name]: name for name in capture}
        captured = {name: value for slot, name in wanted.items() if (value := values[slot]) is not None}
        transformed, transforms = self._transformed, self._value_transforms

        def made(slot: int, value: Tensor) -> None:
            seen: Tensor = transforms[transformed[slot]](value) if slot in transformed else value
            values[slot] = seen
            if slot in wanted:
                captured[wanted[slot]] = seen

        for slot, x in zip(self._inputs, inputs, strict=True):
            images = self._images and x.ndim == 4  # what torch's convolutions are fastest with
            made(slot, x.contiguous(memory_format=torch.channels_last) if images else x)
        for step, function in zip(self._steps, self._functions):
            result = function(*[values[i] for i in step.inputs])
            for slot, value in zip(step.outputs, (result,) if isinstance(result, Tensor) else result):
                made(slot, value)
            for slot in step.last:
                values[slot] = None
        return tuple(known(values, slot) for slot in self._outputs), captured

    def _fill(self) -> Values:
        """A slot for each value, with the constants in theirs."""
        values: Values = [None] * (len(self._slots) + 1)
        parameters, buffers, transforms = self._parameters, self._buffers, self._weight_transforms
        for slot, key in self._constants:
            value = parameters[key] if key in parameters else buffers[key]
            values[slot] = transforms[key](value) if key in transforms else value
        return values

    def _samples(self, inputs: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
        return zip(*(x.split(batch) if batch else (x,) for x, batch in zip(inputs, self._batches)), strict=True)


class _Source:
    """The model that the module was made from, which a copy of the module shares."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model

    def __deepcopy__(self, memo: dict) -> _Source:
        return self


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from dict.fromkeys((*graph.initializers.values(), *graph.inputs, *(v for n in graph for v in n.outputs)))


def _plan(graph: ir.Graph, slots: dict[ir.Value, int], outputs: tuple[int, ...]) -> list[Step]:
    """Steps in graph order. Constants and outputs stay to the end."""
    kept = {0, *outputs, *(slots[v] for v in graph.initializers.values())}
    rows = [(tuple(0 if v is None else slots[v] for v in n.inputs), tuple(slots[v] for v in n.outputs)) for n in graph]
    last = {slot: i for i, (inputs, outputs) in enumerate(rows) for slot in (*outputs, *inputs)}
    return [
        Step(inputs, outputs, tuple({s for s in (*inputs, *outputs) if last[s] == i and s not in kept}))
        for i, (inputs, outputs) in enumerate(rows)
    ]


def _key(name: str) -> str:
    """A name that torch takes for a parameter or a submodule: without a dot, and not an attribute's."""
    return "value " + name.replace("%", "%25").replace(".", "%2e")


def _set(modules: nn.ModuleDict, key: str, module: nn.Module | None) -> None:
    if module is not None:
        modules[key] = module
    elif key in modules:
        del modules[key]
