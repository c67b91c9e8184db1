"""Augmentation of whole batches of images, the same for the same seed, epoch and step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgecompress.errors import InputError

CHANNELS = (1, 3, 4)
Augment = Callable[[Tensor, np.random.Generator], Tensor]


Pad = Callable[[Tensor, int], Tensor]


def _moved(x: Tensor, generator: np.random.Generator, reach: int, pad: Pad, flip: bool) -> Tensor:
    """Every image at a place of its own, up to `reach` pixels off, `pad` filling up; half of them mirrored."""
    last = x.shape[1] not in CHANNELS and x.shape[-1] in CHANNELS
    x = x.movedim(-1, 1) if last else x
    n, channels, height, width = x.shape
    rows, columns = generator.integers(0, 2 * reach + 1, (2, n, 1))
    mirrored = (generator.random((n, 1)) < 0.5) & flip
    across = np.where(mirrored, np.arange(width)[::-1], np.arange(width))
    places = (rows + np.arange(height))[:, :, None] * (width + 2 * reach) + (columns + across)[:, None, :]
    index = torch.from_numpy(places.reshape(n, 1, -1)).to(x.device)
    moved = pad(x, reach).flatten(2).gather(2, index.expand(n, channels, -1)).reshape(x.shape)
    return moved.movedim(1, -1) if last else moved


def _zeros(x: Tensor, reach: int) -> Tensor:
    return F.pad(x, (reach,) * 4)


def _edges(x: Tensor, reach: int) -> Tensor:
    """The outermost pixels go on outwards. (torch's own has no integer images.)"""
    rows, columns = (torch.arange(-reach, n + reach, device=x.device).clamp(0, n - 1) for n in x.shape[-2:])
    return x[:, :, rows][:, :, :, columns]


def flip_crop(x: Tensor, generator: np.random.Generator) -> Tensor:
    """He et al., Deep Residual Learning, section 4.2: 4 pixels of padding on 32, a random crop, a random flip.

    Edges are repeated. The paper's zeros are grey, the mean being taken away before; here images are as the model
    takes them, often 0 to 255, and black bars cost MLPerf Tiny's ResNet-8 11 points of 91 on what it is to teach.
    """
    return _moved(x, generator, max(1, round(min(x.shape[-2:]) / 8)), _edges, flip=True)


def shift(x: Tensor, generator: np.random.Generator) -> Tensor:
    """Up to a 28th of the side: 1 of MNIST's 28 pixels, which also suits networks with few weights.

    Zeros come in: what is drawn on black ends at the edge.
    """
    return _moved(x, generator, max(1, round(min(x.shape[-2:]) / 28)), _zeros, flip=False)


def crop(x: Tensor, generator: np.random.Generator) -> Tensor:
    """A random crop of the image with its edges repeated by a 16th of the side: what is to be seen stays the same."""
    return _moved(x, generator, max(1, round(min(x.shape[-2:]) / 16)), _edges, flip=False)


AUGMENTS: dict[str, Augment] = {"crop": crop, "flip-crop": flip_crop, "shift": shift}


def require_images(name: str, shape: tuple[int, ...]) -> None:
    """Raises InputError when samples of this shape [channels, height, width] (or channels last) aren't images."""
    if len(shape) != 3 or not {shape[0], shape[-1]} & set(CHANNELS):
        raise InputError(
            f'[train] augment = "{name}" is for images of 1, 3 or 4 channels; samples are {list(shape)}: use "none"'
        )
