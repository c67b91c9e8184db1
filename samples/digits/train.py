"""Trains the sample: a small convolutional classifier of handwritten digits.

The data are scikit-learn's digits: 1,797 grey images of 8 x 8 pixels, values 0 to 16
(a part of the "Optical Recognition of Handwritten Digits" set, UCI). Three quarters train, one
quarter tests, every class in the same share in both. The network takes the raw pixel values.

    pip install -e ".[test]"
    python samples/digits/train.py

writes beside this file, always the same:

    train.npz, test.npz   x uint8 [n, 1, 8, 8], y int64 [n]
    digits.onnx           input "pixels" float [batch, 1, 8, 8], output "logits" [batch, 10]
    digits.pt2            the same network as torch.export saves it
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
EPOCHS, BATCH = 40, 64


class Digits(nn.Module):
    """Three convolutions, one of them depthwise with a residual; 9,578 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.down = nn.Sequential(
            nn.Conv2d(16, 48, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(48 * 4, 10))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.stem(pixels)
        return self.head(self.down(F.relu(x + self.depthwise(x))))


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x_train, x_test uint8 [n, 1, 8, 8]; y_train, y_test int64 [n]."""
    digits = load_digits()
    x = digits.images.astype(np.uint8)[:, None]
    x_train, x_test, y_train, y_test = train_test_split(
        x, digits.target.astype(np.int64), test_size=0.25, random_state=0, stratify=digits.target
    )
    return x_train, x_test, y_train, y_test


def shifted(x: Tensor) -> Tensor:
    """Each image [n, 1, 8, 8] moved by -1, 0 or 1 pixel in each direction; zeros come in."""
    padded = F.pad(x, (1, 1, 1, 1))
    rows, columns = torch.randint(0, 3, (2, len(x)))
    return torch.stack([p[:, r : r + 8, c : c + 8] for p, r, c in zip(padded, rows, columns, strict=True)])


def train(x: np.ndarray, y: np.ndarray) -> Digits:
    """The trained network, in eval mode."""
    model = Digits().train()
    images, labels = torch.from_numpy(x).float(), torch.from_numpy(y)
    steps = EPOCHS * -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x)).split(BATCH):
            loss = F.cross_entropy(model(shifted(images[index])), labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model: Digits, x: np.ndarray, y: np.ndarray) -> float:
    """Top-1, in percent."""
    with torch.no_grad():
        return 100 * float((model(torch.from_numpy(x).float()).argmax(1).numpy() == y).mean())


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # sums in one order, so that the weights come out the same
    x_train, x_test, y_train, y_test = load()
    model = train(x_train, y_train)
    parameters = sum(p.numel() for p in model.parameters())
    top1 = accuracy(model, x_test, y_test)
    print(f"top-1 on {len(x_test)} test images: {top1:.2f} % ({parameters:,} parameters)")

    np.savez_compressed(HERE / "train.npz", x=x_train, y=y_train)
    np.savez_compressed(HERE / "test.npz", x=x_test, y=y_test)
    export(model, x_test)


def export(model: Digits, x: np.ndarray) -> None:
    """Writes digits.pt2 and digits.onnx, both with the batch left open."""
    batch = ({0: torch.export.Dim("batch")},)
    # Two images, as torch.export would otherwise take a batch of 1 for a constant.
    program = torch.export.export(model, (torch.from_numpy(x[:2]).float(),), dynamic_shapes=batch)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # would name this machine's folders
    torch.export.save(program, HERE / "digits.pt2")
    exported = torch.onnx.export(
        program, input_names=["pixels"], output_names=["logits"], dynamic_shapes=batch, dynamo=True, verbose=False
    )
    for item in (*exported.model.graph, *exported.model.graph.inputs, *exported.model.graph.outputs):
        item.metadata_props.clear()  # the exporter's notes, three times the size of the graph
    exported.save(HERE / "digits.onnx")


if __name__ == "__main__":
    main()
