"""Small convolutional torch networks whose output is an image or a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.convolutional import block


class UNet(nn.Module):
    """Two levels: one comes back up by ConvTranspose, the other by Resize."""

    def __init__(self, upsample: nn.Module) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = block(3, 8), block(8, 16), block(16, 24)
        self.up2 = nn.ConvTranspose2d(24, 16, 2, stride=2)
        self.merge2, self.up1, self.merge1 = block(32, 16), upsample, block(24, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        x = self.bottom(F.max_pool2d(b, 2))
        x = self.merge2(torch.cat([self.up2(x), b], 1))
        return self.head(self.merge1(torch.cat([a, self.up1(x)], 1)))


class Resizes(nn.Module):
    """Bilinear with both align_corners, nearest, up and down, by odd factors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(x)
        return (
            F.interpolate(x, size=(23, 31), mode="bilinear", align_corners=True),
            F.interpolate(x, scale_factor=3, mode="bilinear", align_corners=False),
            F.interpolate(x, size=(8, 24), mode="nearest"),
        )


class PixelShuffle(nn.Module):
    """Super-resolution: SpaceToDepth in, DepthToSpace out, a skip through Resize."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2), block(12, 16), block(16, 16), nn.Conv2d(16, 48, 3, padding=1), nn.PixelShuffle(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + F.interpolate(x, scale_factor=2, mode="nearest")


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.InstanceNorm2d(16, affine=True),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.GroupNorm(4, 16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.InstanceNorm2d(16),
            nn.Conv2d(16, 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Segmentation(nn.Module):
    """Softmax over channels of a 4-D map."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 16), block(16, 16, dilation=2, padding=2), nn.Conv2d(16, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).softmax(1)


class Upconvolutions(nn.Module):
    """ConvTranspose with output_padding, with pads, with the stride and kernel unequal, with a dilation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 8, 3, stride=1, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 3, (5, 2), stride=(3, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class GroupedUpconvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 8, 2, stride=2, groups=4),
            nn.Conv2d(8, 3, 1),
        )
        self.time = nn.ConvTranspose1d(3 * 24, 4, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.time(self.body(x).transpose(2, 3).flatten(1, 2))


class ChannelsLast(nn.Module):
    """As TensorFlow exporters leave a model: NHWC in, NHWC out, Transposes at the edges."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 8, stride=2), block(8, 16), nn.Conv2d(16, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Arithmetic2d(nn.Module):
    """Broadcasts against maps: per channel, per row, per image; Min and Max of maps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = block(3, 8), block(3, 8)
        self.register_buffer("row", torch.linspace(0.5, 1.5, 16))
        self.register_buffer("channel", torch.linspace(-1, 1, 8)[:, None, None])
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        y = torch.maximum(a, b) * self.row + self.channel
        y = y - torch.minimum(a, 0.5 * b) * torch.sigmoid(y.mean((2, 3), keepdim=True))
        return self.head(F.relu(y))
