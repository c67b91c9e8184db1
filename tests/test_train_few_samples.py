"""What training does by default with few samples, and in short runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgecompress.recipe import Train
from edgecompress.train import Hook, TrainData, train
from edgecompress.train.augment import crop
from edgecompress.train.few_samples import batch_size, settled
from edgecompress.train.optimizer import make_optimizer


def data(shape: tuple[int, ...], labels: np.ndarray | None, count: int = 200) -> TrainData:
    labels = None if labels is None else labels[:count]
    return TrainData.from_arrays([np.zeros((count, *shape), np.float32)], labels)


CLASSES, VALUES = np.arange(3000) % 10, np.zeros((3000, 1), np.float32)


@pytest.mark.parametrize(
    "shape, labels, count, keys, expected",
    [
        ((3, 32, 32), CLASSES, 200, {}, "crop"),
        ((28, 28, 1), CLASSES, 200, {}, "crop"),
        ((1, 28, 28), None, 200, {}, "crop"),  # the teacher sees the same crop
        ((3, 32, 32), CLASSES, 2500, {}, "none"),
        ((3, 32, 32), VALUES, 200, {}, "none"),  # numbers may say where something is
        ((3, 32, 32), np.zeros((3000, 32, 32), np.int64), 200, {}, "none"),  # each pixel has a label
        ((3, 32, 32), CLASSES, 200, {"augment": "none"}, "none"),
        ((3, 32, 32), CLASSES, 200, {"augment": "flip-crop"}, "flip-crop"),
        ((3, 32, 32), None, 200, {"loss": "mine.py:loss"}, "none"),
        ((1, 8, 8), CLASSES, 200, {}, "none"),
        ((1, 49, 20), CLASSES, 200, {}, "none"),  # a spectrogram
        ((16, 32, 32), CLASSES, 200, {}, "none"),
        ((64,), CLASSES, 200, {}, "none"),
    ],
)
def test_few_images_are_cropped_where_their_labels_stay_right(shape, labels, count, keys, expected) -> None:
    found = settled(Train(**keys), data(shape, labels, count))
    assert found.augment == expected
    assert found.patience == (10 if count < 2000 else None)
    assert settled(Train(patience=3, epochs=9), data(shape, labels, count)).patience == 3


@pytest.mark.parametrize(
    "samples, given, processes, expected",
    [(200, None, 1, 20), (50, None, 1, 16), (5000, None, 1, 128), (1279, None, 1, 127), (200, 64, 1, 64),
     (250, None, 4, 24), (30, None, 32, 32)],
)  # fmt: skip
def test_an_epoch_has_ten_steps(samples: int, given: int | None, processes: int, expected: int) -> None:
    assert batch_size(Train(batch=given), samples, processes) == expected


def test_a_crop_moves_the_picture_and_repeats_its_edges() -> None:
    x = torch.rand(40, 3, 32, 32)
    moved, padded = crop(x, np.random.default_rng(0)), np.pad(x.numpy(), [(0, 0), (0, 0), (2, 2), (2, 2)], mode="edge")
    places = set()
    for image, source in zip(moved.numpy(), padded):
        windows = np.lib.stride_tricks.sliding_window_view(source, (32, 32), axis=(1, 2)).transpose(1, 2, 0, 3, 4)
        (found,) = np.argwhere((windows == image).all((2, 3, 4)))[:1]
        places.add(tuple(found))
    assert len(places) > 15  # of 25


class Rates(Hook):
    """The learning rate of each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def after_step(self, step: int, total: int) -> None:
        self.rates.append(OPTIMIZERS[-1].param_groups[0]["lr"])


OPTIMIZERS: list[torch.optim.Optimizer] = []


@pytest.mark.parametrize("epochs, warmup", [(1, 1.0), (1, 5.0), (2, 1.0), (20, 1.0), (30, 1.0)])
def test_warm_up_takes_a_tenth_of_a_run_at_most(monkeypatch, epochs: int, warmup: float) -> None:
    def made(parameters, settings):
        OPTIMIZERS.append(make_optimizer(parameters, settings))
        return OPTIMIZERS[-1]

    monkeypatch.setattr("edgecompress.train.loop.make_optimizer", made)
    x, hook = np.random.default_rng(0).normal(0, 1, (200, 4)).astype(np.float32), Rates()
    settings = Train(epochs=epochs, batch=10, lr=0.02, warmup=warmup, validation=0, patience=99)
    train(Tiny(), TrainData.from_arrays([x], (x[:, 0] > 0).astype(np.int64)), settings, hooks=[hook])
    rates, steps = np.array(hook.rates), 20 * epochs
    top = int(rates.argmax())
    assert len(rates) == steps and rates.max() == pytest.approx(0.02)
    assert top + 1 == min(round(20 * warmup), steps // 10)
    assert rates[-1] < 0.02 * 0.05 and (np.diff(rates[top:]) <= 0).all()


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.layer(x),)
