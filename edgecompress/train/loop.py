"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecompress.errors import InputError
from edgecompress.evaluate.metrics import Metric, load_metric
from edgecompress.recipe import Train
from edgecompress.record.report import Epoch, History
from edgecompress.support.log import LOGGER
from edgecompress.support.progress import progress
from edgecompress.train import checkpoint as files
from edgecompress.train import mixed_precision as precision
from edgecompress.train.augment import AUGMENTS, require_images
from edgecompress.train.distributed import processes
from edgecompress.train.few_samples import batch_size, settled
from edgecompress.train.hook import Hook, call
from edgecompress.train.losses import Loss, load_loss, losses_by_output
from edgecompress.train.optimizer import learning_rate, make_optimizer, set_learning_rate
from edgecompress.train.session import DEFAULT_SESSION, Session
from edgecompress.train.tensorboard import Board, open_board
from edgecompress.train.train_data import Batch, TrainData

WARMUP = 0.1  # of all steps at most, so that a short run too has the highest learning rate for a while
NOTE_EVERY = 10  # steps: reading the loss waits for a GPU
Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]


def train(
    module: nn.Module,
    data: TrainData,
    settings: Train,
    *,
    loss: Loss | None = None,
    hooks: Sequence[Hook] = (),
    parameters: Parameters | None = None,
    session: Session = DEFAULT_SESSION,
) -> History:
    """Train the module in place. It ends on the CPU, in evaluation mode, with the best epoch's weights.

    loss: in place of the one that the settings name. parameters: what is trained, in groups if need be
    (`make_optimizer`); by default all of the module's. A run that is resumed from its checkpoint on the CPU ends with
    the same weights, to the bit, as one that was never stopped.

    Processes that were started by torchrun share each batch. Raises InputError for settings that don't fit the data,
    a loss that isn't finite, and the checkpoint of another run.
    """
    run = _Run(module, data, settings, session, hooks)
    try:
        run.prepare(loss, parameters)
        return run()
    finally:
        run.group.unwrap(module)
        module.to("cpu").eval()


@dataclass
class _Progress:
    """What a checkpoint holds besides the module's, the optimizer's and the hooks' own states."""

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best: float = -float("inf")  # of the metric, or of the negated validation loss
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    since: int = 0  # epochs without a better one
    finished: bool = False
    stopped_early: bool = False


class _Run:
    def __init__(
        self, module: nn.Module, data: TrainData, settings: Train, session: Session, hooks: Sequence[Hook]
    ) -> None:
        self.group = group = processes()
        self.data, self.validation = data.split(settings.validation, session.seed)
        settings = settled(settings, self.data)
        self.module, self.settings, self.session, self.hooks = module, settings, session, hooks
        size = batch_size(settings, len(self.data), group.count)
        self.batch = min(size, len(self.data)) // group.count * group.count
        if self.batch == 0 or size % group.count:
            raise InputError(
                f"[train] batch = {size}, of {len(self.data)} samples, can't be divided evenly among "
                f"{group.count} processes"
            )
        if settings.augment != "none":
            require_images(settings.augment, self.data.batch(np.arange(1)).inputs[0].shape[1:])
        self.metric: Metric | None = load_metric(settings.metric) if settings.metric else None
        self.steps = len(self.data) // self.batch  # of an epoch; what is left over differs from epoch to epoch
        self.total = self.steps * settings.epochs
        self.warmup = min(round(self.steps * settings.warmup), round(WARMUP * self.total))
        self.progress = _Progress()
        self.precision = "float32"

    def prepare(self, loss: Loss | None, parameters: Parameters | None) -> None:
        """Move the module to where it is trained, and make its optimizer."""
        self.loss = loss or load_loss(self.settings.loss, self.data)
        self.module.to(self.group.device)
        call(self.hooks, "on_start", self.module)
        self.optimizer = make_optimizer(self.module.parameters() if parameters is None else parameters, self.settings)
        call(self.hooks, "on_optimizer", self.optimizer)

    def __call__(self) -> History:
        path, stage = self.session.checkpoint, self.session.stage
        state = files.load(path, self._identity()) if path is not None and self.session.resume else None
        if state is None:
            self.precision = str(self.group.from_main(self._choose_precision()))
        else:
            self._restore(state)
        self.scaler = torch.amp.GradScaler(self.group.device.type, enabled=self.precision == "float16")
        if state is not None:
            self.scaler.load_state_dict(state["scaler"])
        wrapped = self.group.wrap(self.module)
        now, done = self.progress, len(self.progress.epochs)
        rest = self.settings.epochs - done
        with open_board(self.settings.tensorboard if self.group.is_main else None) as board:
            if not now.finished and rest:
                with progress(stage, rest * self.steps * self.batch, self.group.is_main) as advance:
                    for epoch in range(done, self.settings.epochs):
                        self._epoch(wrapped, epoch, advance, board)
                        if path is not None and self.group.is_main:
                            files.save(path, self._state())
                        if now.finished:
                            break
        if now.best_weights:
            self.module.load_state_dict(now.best_weights)
        if self.group.count > 1:  # what buffers a module has of its own may differ: later stages start from the same
            self.module.load_state_dict(self.group.from_main(self.module.state_dict()))
        return self._history()

    def _epoch(self, wrapped: nn.Module, epoch: int, advance: Callable[..., None], board: Board) -> None:
        start, now, stage, metric = time.perf_counter(), self.progress, self.session.stage, self.settings.metric
        order = np.random.default_rng([self.session.seed, 1, epoch]).permutation(len(self.data))
        sums: dict[str, torch.Tensor] = {}
        rate, note = 0.0, ""
        last = f" (before: {_described(now.epochs[-1], metric)})" if now.epochs else ""
        self.module.train()
        for i in range(self.steps):
            step = epoch * self.steps + i
            rate = learning_rate(self.settings, step, self.total, self.warmup)
            set_learning_rate(self.optimizer, rate)
            for name, part in self._step(wrapped, order[i * self.batch : (i + 1) * self.batch], epoch, step).items():
                sums[name] = sums[name] + part if name in sums else part
            if i % NOTE_EVERY == 0:
                speed = (i + 1) * self.batch / (time.perf_counter() - start)
                mean = sum(part.item() for part in sums.values()) / (i + 1)
                note = f"epoch {epoch + 1}/{self.settings.epochs}: loss {mean:.4g}{last}, {speed:,.0f} samples/s"
            advance(self.batch, note)
        means = self.group.mean(torch.stack(list(sums.values())) / self.steps).tolist()
        mean = sum(means)
        if not np.isfinite(mean):
            raise InputError(f"{stage}: the loss is {mean} in epoch {epoch + 1}; try a lower [train] lr, or clip")
        trained = time.perf_counter() - start
        call(self.hooks, "on_epoch", epoch)
        held, value = self.group.from_main(self._validate() if self.group.is_main else ({}, None))
        record = Epoch(
            epoch=epoch + 1,
            loss=mean,
            losses=dict(zip(sums, means)) if len(sums) > 1 else {},
            validation_loss=sum(held.values()) if held else None,
            validation_losses=held if len(held) > 1 else {},
            validation_value=value,
            learning_rate=rate,
            seconds=trained,
        )
        now.epochs.append(record)
        self._judge(record, (epoch + 1) * self.steps)
        now.finished |= epoch + 1 == self.settings.epochs
        board.write(stage, record)
        if self.group.is_main:
            speed = self.steps * self.batch / trained
            left = (self.settings.epochs - epoch - 1) * (time.perf_counter() - start)
            (self.session.log or LOGGER.info)(
                f"{stage}: epoch {epoch + 1}/{self.settings.epochs}: {_described(record, metric)}, "
                f"{speed:,.0f} samples/s, {_time(left)} left"
            )

    def _step(self, wrapped: nn.Module, index: np.ndarray, epoch: int, step: int) -> dict[str, torch.Tensor]:
        """One update of the weights. Returns what each output added to the loss."""
        call(self.hooks, "before_step", step, self.total)
        batch = self._augmented(index, step)
        with precision.autocast(self.precision, self.group.device):
            parts = losses_by_output(self.loss, wrapped(*batch.inputs), batch.labels, batch)
            value = torch.stack(list(parts.values())).sum() if len(parts) > 1 else next(iter(parts.values()))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(value).backward()
        self.scaler.unscale_(self.optimizer)
        call(self.hooks, "on_gradients", step, self.total)
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        call(self.hooks, "after_step", step, self.total)
        return {name: part.detach() for name, part in parts.items()}

    def _augmented(self, index: np.ndarray, step: int) -> Batch:
        """This process's part. What is drawn is drawn for the whole batch, so that it doesn't depend on the parts."""
        part = self.group.part(len(index))
        if self.settings.augment == "none":
            return self.data.batch(index[part], self.group.device)
        whole = self.data.batch(index, self.group.device)
        moved = AUGMENTS[self.settings.augment](whole.inputs[0], np.random.default_rng([self.session.seed, 2, step]))
        labels = None if whole.labels is None else whole.labels[part]
        others = {name: y[part] for name, y in whole.output_labels.items()}
        return Batch((moved[part], *(x[part] for x in whole.inputs[1:])), labels, index[part], others)

    def _validate(self) -> tuple[dict[str, float], float | None]:
        """(mean loss by output, metric) on the validation samples; nothing for what can't be measured."""
        if self.validation is None:
            return {}, None
        self.module.eval()
        total: dict[str, float] = {}
        outputs = []
        with torch.no_grad(), precision.autocast(self.precision, self.group.device):
            for first in range(0, len(self.validation), self.batch):
                index = np.arange(first, min(first + self.batch, len(self.validation)))
                batch = self.validation.batch(index, self.group.device)
                results = self.module(*batch.inputs)
                for name, part in losses_by_output(self.loss, results, batch.labels, batch).items():
                    total[name] = total.get(name, 0.0) + part.item() * len(index)
                if self.metric is not None:
                    outputs.append([_array(y) for y in results])
        value = None
        if self.metric is not None and self.validation.labels is not None:
            value = self.metric([np.concatenate(parts) for parts in zip(*outputs)], self.validation.labels)
        return {name: part / len(self.validation) for name, part in total.items()}, value

    def _judge(self, record: Epoch, steps: int) -> None:
        """Keeps the weights if they are the best so far; stops when there have been none for `patience` epochs."""
        now = self.progress
        if not all(call(self.hooks, "settled", steps, self.total)):
            now.best_epoch = record.epoch
            return
        score = record.validation_value
        if score is not None and self.metric is not None:
            score = self.metric.gain(score)
        if score is None and record.validation_loss is not None:
            score = -record.validation_loss
        if score is None or score > now.best or not now.best_weights:
            now.best, now.best_epoch, now.since = (now.best if score is None else score), record.epoch, 0
            now.best_weights = {k: v.detach().to("cpu", copy=True) for k, v in self.module.state_dict().items()}
            return
        now.since += 1
        if self.settings.patience is not None and now.since >= self.settings.patience:
            now.finished = now.stopped_early = True

    def _choose_precision(self) -> str | None:
        if not self.group.is_main:
            return None
        batch = self.data.batch(np.arange(self.batch), self.group.device)
        return precision.choose(
            self.settings, self.group.device, self.module, lambda m: self.loss(m(*batch.inputs), batch.labels, batch)
        )

    def _identity(self) -> dict[str, Any]:
        settings = self.settings.model_dump(exclude={"tensorboard"})
        shapes = {k: list(v.shape) for k, v in self.module.state_dict().items()}
        return {
            "stage": self.session.stage,
            "seed": self.session.seed,
            "settings": settings,
            "samples": len(self.data),
            "model": {k: str(v) for k, v in shapes.items()},
        }

    def _state(self) -> dict[str, Any]:
        now = self.progress
        return {
            "identity": self._identity(),
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "hooks": call(self.hooks, "state_dict"),
            "random": files.random_states(),
            "precision": self.precision,
            "progress": {**vars(now), "epochs": [e.model_dump() for e in now.epochs]},
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        for hook, saved in zip([h for h in self.hooks if hasattr(h, "state_dict")], state["hooks"], strict=True):
            hook.load_state_dict(saved)
        files.restore_random_states(state["random"])
        self.precision = state["precision"]
        saved = dict(state["progress"])
        self.progress = _Progress(**{**saved, "epochs": [Epoch(**e) for e in saved["epochs"]]})

    def _history(self) -> History:
        now = self.progress
        seconds = sum(e.seconds for e in now.epochs)
        return History(
            stage=self.session.stage,
            epochs=now.epochs,
            best_epoch=now.best_epoch,
            stopped_early=now.stopped_early,
            metric=self.settings.metric,
            samples=len(self.data),
            validation_samples=0 if self.validation is None else len(self.validation),
            samples_per_second=len(now.epochs) * self.steps * self.batch / max(seconds, 1e-9),
            device=str(self.group.device),
            precision=self.precision,
            processes=self.group.count,
        )


def _array(y: torch.Tensor) -> np.ndarray:
    return (y.float() if y.is_floating_point() else y).cpu().numpy()


def _described(record: Epoch, metric: str | None) -> str:
    parts = [f"loss {record.loss:.4g}{_by_output(record.losses)}"]
    if record.validation_loss is not None:
        parts.append(f"validation {record.validation_loss:.4g}{_by_output(record.validation_losses)}")
    if record.validation_value is not None:
        parts.append(f"{metric} {record.validation_value:.4g}")
    return ", ".join(parts)


def _by_output(losses: Mapping[str, float]) -> str:
    return f" ({', '.join(f'{name} {loss:.3g}' for name, loss in losses.items())})" if losses else ""


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
