"""`prepare` and `finish`: compression in a training loop of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch import Tensor, nn

from edgecompress.compress.cluster import cluster
from edgecompress.compress.prune.criterion import criterion
from edgecompress.compress.prune.defaults import calibrates, for_weights
from edgecompress.compress.prune.prune_channels import prune_channels
from edgecompress.compress.prune.prune_weights import masks_of
from edgecompress.compress.prune.pruned_weights import final_sparsity
from edgecompress.compress.prune.weight_statistics import Samples
from edgecompress.compress.quantize import quantize
from edgecompress.compress.quantize.aware import FakeQuantized
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.evaluate.dataset import Dataset, load_data
from edgecompress.graph.annotations import Sparsity, set_sparsity
from edgecompress.ingest import Ingested, fold_batchnorm, load
from edgecompress.ingest.torch_export import export_module
from edgecompress.operators.rewriting import integer_parts
from edgecompress.recipe import Quantize, Recipe, load_recipe
from edgecompress.targets import load_target
from edgecompress.train import TrainData
from edgecompress.train.hook import Hook, call
from edgecompress.train.losses import task_loss
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.module.zeros import hold_zeros

SCHEDULES = ("gradual", "one-shot")


class Prepared(nn.Module):
    """A model that computes as it will once it is compressed, to be trained in any loop.

    Takes what the model takes, and returns what it returns: a tensor, or a tuple of several. In training mode gradients
    pass through rounding; in evaluation mode the outputs are those of the compressed model. `finish` makes the model
    to convert.
    """

    def __init__(
        self,
        network: TorchModel,
        hooks: Sequence[Hook],
        steps: int,
        finished: Callable[[], ir.Model],
        probes: Iterable[nn.Parameter] = (),
    ):
        """probes: parameters whose gradients `step` looks at, which loops may have set to zero by then."""
        super().__init__()
        self.network, self._hooks, self.steps, self._finished = network, hooks, steps, finished
        self.steps_done = 0
        self._probes, self._gradients = tuple(probes), dict[Tensor, Tensor]()
        for probe in self._probes:
            probe.register_post_accumulate_grad_hook(self._keep_gradient)
        call(hooks, "on_start", network)
        self._before_step()

    def forward(self, *inputs: Tensor) -> Any:
        """The outputs for [n, ...] of each input."""
        outputs = self.network(*inputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def step(self) -> None:
        """To be called once after each `optimizer.step()`: pruning goes on.

        Raises InputError when there was no backward pass for a criterion that looks at gradients.
        """
        for probe in self._probes:
            if probe.grad is None or not probe.grad.any():
                probe.grad = self._gradients.get(probe)
            if probe.grad is None:
                raise InputError(
                    "step() found no gradients: call it once after each loss.backward() and optimizer.step()"
                )
        self._gradients.clear()
        call(self._hooks, "on_gradients", self.steps_done, self.steps)
        call(self._hooks, "after_step", self.steps_done, self.steps)
        self.steps_done += 1
        self._before_step()

    def get_extra_state(self) -> dict[str, Any]:
        """What `state_dict` holds beside parameters and buffers."""
        return {"steps_done": self.steps_done, "hooks": call(self._hooks, "state_dict")}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on where the `state_dict` was taken."""
        self.steps_done = state["steps_done"]
        for hook, saved in zip(self._hooks, state["hooks"], strict=True):
            hook.load_state_dict(saved)

    def _keep_gradient(self, probe: Tensor) -> None:
        if probe.grad is not None:
            self._gradients[probe] = probe.grad.clone()

    def _before_step(self) -> None:
        if self.steps_done < self.steps:
            call(self._hooks, "before_step", self.steps_done, self.steps)


def prepare(
    module: nn.Module | ir.Model | str | Path,
    recipe: Recipe | Mapping[str, Any] | str | Path,
    example: Tensor | Sequence[Tensor] | None = None,
    *,
    steps: int = 0,
    calib: Any = None,
    train: Any = None,
    target: str = "android",
) -> Prepared:
    """A module to train in one's own loop, which computes what `module` does as the recipe compresses it.

    module: a torch.nn.Module (which is not changed), or a model that `convert` takes. recipe: as for `convert`. Its
    [prune] removes channels at once, and makes weights zero at once ("one-shot") or while training ("gradual", for
    which steps is needed); its [quantize] trains for int8 where it has `activations = "int8"`, `epochs` or weights of
    few bits; its [cluster] trains clustered weights. Everything else is up to the loop.
    example: one input of a torch.nn.Module, [1, ...], or a sequence with one for each. steps: how many optimizer steps
    the loop will take; `step()` of the result is called after each. calib: data for [quantize] and [cluster]. train:
    data for a [prune] criterion or allocation that looks at samples. Both are what `convert` takes. target: what int8
    is for.

    Raises InputError for what can't be done in one loop, UnsupportedModelError for a model that can't be trained.
    """
    asked = load_recipe(recipe)
    is_int8 = _is_int8(asked.quantize)
    _require_possible(asked, is_int8, steps, (calib, train))
    model = _loaded(module, example)
    samples = _opened(train, model, asked)
    data = None if samples is None else TrainData.from_dataset(samples, model)
    if asked.prune.is_structured:
        loss = None if data is None else task_loss(model, asked.train, data)
        model = prune_channels(model, asked.prune, data=data, loss=loss, seed=asked.seed).model
    if is_int8 or asked.cluster.is_asked_for:
        model = integer_parts(fold_batchnorm(model), integer_only=load_target(target).integer_only)
        annotated = _annotated(model, asked, _opened(calib, model, asked), is_int8)
        fake = FakeQuantized(annotated, logits=False)
        return Prepared(fake.module, [], steps, fake.annotated)
    network = TorchModel(model)
    if not asked.prune.is_asked_for:
        hold_zeros(network, model)
        return Prepared(network, [], steps, lambda: fold_batchnorm(network.write_back()))
    final = final_sparsity(asked.prune)
    rising = final if asked.prune.schedule == "gradual" else None
    evidence = None if data is None else Samples(data, task_loss(model, asked.train, data), asked.seed)
    masks = masks_of(network, model, asked.prune, evidence, rising=rising, seed=asked.seed)
    if rising is None:
        masks.update(final)

    def pruned() -> ir.Model:
        result = fold_batchnorm(network.write_back())
        for name, mask in masks.masks().items():
            set_sparsity(result.graph.initializers[name], Sparsity(mask, asked.prune.pattern))
        return result

    probes = () if masks.statistics is None else masks.statistics.probes.values()
    return Prepared(network, [masks], steps, pruned, probes)


def finish(prepared: Prepared) -> ir.Model:
    """The trained model, to be given to `convert` or to `prepare` again: what was learned of zeros, clusters and int8
    scales stays on it.

    Raises InputError when a schedule has not come to its end.
    """
    done, steps = prepared.steps_done, prepared.steps
    if not all(call(prepared._hooks, "settled", done, steps)):
        raise InputError(
            f"pruning has not come to its end: step() was called {done:,} of {steps:,} times; call it once after "
            "each optimizer.step()"
        )
    training, device = prepared.training, next(prepared.parameters()).device
    try:
        return prepared.eval().cpu()._finished()
    finally:
        prepared.train(training).to(device)


def _is_int8(settings: Quantize) -> bool:
    return settings.epochs is not None or settings.activations == "int8" or bool(settings.few_bits)


def _require_possible(recipe: Recipe, is_int8: bool, steps: int, given: tuple[Any, Any]) -> None:
    """given: data for calibration and for training, each of which may be None."""
    calib, train = given
    prune, cluster = recipe.prune, recipe.cluster
    scheduled = prune.is_asked_for and prune.schedule == "gradual"
    integers = is_int8 or cluster.is_asked_for
    rows = (
        (
            not (prune.is_structured or prune.is_asked_for or integers),
            'the recipe asks for nothing that is trained: [prune], [cluster], or [quantize] activations = "int8"',
        ),
        (
            prune.is_asked_for and integers,
            "a loop can train zeros, or int8 and clusters: prepare with [prune] first, train, and prepare the result "
            "of finish with the rest, which keeps the zeros",
        ),
        (
            prune.is_asked_for and prune.schedule not in SCHEDULES,
            f'prune.schedule = "{prune.schedule}" has loops of its own: use "gradual" or "one-shot"',
        ),
        (
            prune.is_asked_for
            and criterion(for_weights(prune, trains=train is not None).criterion).per_sample
            and train is None,
            f'prune.criterion = "{prune.criterion}" looks at gradients of single samples: give train=',
        ),
        (
            prune.is_asked_for and calibrates(prune),
            f'prune.criterion = "{prune.criterion}" prunes by calibration data alone, outside of any loop: use convert',
        ),
        (scheduled and steps < 1, 'prune.schedule = "gradual" needs steps=, the number of optimizer steps of the loop'),
        (is_int8 and calib is None, "int8 needs calibration data: give calib="),
        (recipe.distill.is_asked_for, "[distill] makes a model of its own: use convert"),
        (recipe.exit.is_asked_for, "[exit] trains exits with a loss of its own: use convert"),
        (recipe.gate.is_asked_for, "[gate] has a loop of its own: use convert"),
    )
    if faults := [text for wrong, text in rows if wrong]:
        raise InputError("prepare: " + "; ".join(faults))


def _loaded(module: Any, example: Tensor | Sequence[Tensor] | None) -> ir.Model:
    """The model, with BatchNormalization as it is."""
    if not isinstance(module, nn.Module):
        return _whole(load(module, fold_batchnorm=False))
    if example is None:
        raise InputError("prepare: a torch.nn.Module needs an example: one input, [1, ...]")
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    proto = export_module(module, inputs)
    proto.graph.name = type(module).__name__.lower()  # what artifacts are called
    return _whole(load(proto, fold_batchnorm=False))


def _whole(found: Ingested) -> ir.Model:
    if found.tail is not None:
        first = found.tail.graph.node[0]
        raise UnsupportedModelError(
            f"prepare: shapes depend on the data from {first.name or first.output[0]!r} ({first.op_type}) on: train "
            "the part of the model in front of it"
        )
    return found.model


def _opened(given: Any, model: ir.Model, recipe: Recipe) -> Dataset | None:
    return None if given is None else load_data(given, model.graph.inputs, recipe.preprocess)


def _annotated(model: ir.Model, recipe: Recipe, calibration: Dataset | None, is_int8: bool) -> ir.Model:
    reference = model
    if is_int8:
        assert calibration is not None  # _require_possible sees to it
        settings = recipe.quantize.model_copy(update={"bias_correction": False})  # training does that
        quantized = quantize(model, calibration, settings)
        model, reference = quantized.model, quantized.reference
    if not recipe.cluster.is_asked_for:
        return model
    return cluster(model, reference, calibration, recipe.cluster, seed=recipe.seed).model
