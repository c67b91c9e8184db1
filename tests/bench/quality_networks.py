"""Thirty small networks that the tests do not have, with data for each: detector heads, transformers, recurrent
networks, U-Nets, networks for sound, and others whose outputs hold several quantities.

Inputs have structure (smooth images with objects, sums of sines, random walks), and the weights are fitted for a few
steps to a function of the inputs, so that outputs are no noise.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 40


@dataclass(frozen=True)
class Case:
    """kind: of network. module: makes it. inputs: make so many samples. parts: what shares an output: for a name, the
    output's index, the axis and the positions."""

    kind: str
    module: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    parts: Mapping[str, tuple[int, int, slice]] = field(default_factory=dict)


# data -------------------------------------------------------------------------------------------------


def images(channels: int, size: int) -> Callable[[int], tuple[Tensor, ...]]:
    """Smooth fields with a bright box in each."""

    def make(n: int) -> tuple[Tensor, ...]:
        x = F.interpolate(torch.rand(n, channels, 4, 4), size=(size, size), mode="bilinear") * 0.6
        for i in range(n):
            a, b = torch.randint(0, size - size // 4, (2,)).tolist()
            x[i, :, a : a + size // 4, b : b + size // 4] += 0.4 * torch.rand(())
        return (x + 0.02 * torch.randn_like(x),)

    return make


def waves(channels: int, length: int) -> Callable[[int], tuple[Tensor, ...]]:
    """Sums of three sines with noise, as sound."""

    def make(n: int) -> tuple[Tensor, ...]:
        time = torch.arange(length) / length
        frequency, phase, size = (torch.rand(n, channels, 3, 1) for _ in range(3))
        x = (size * torch.sin(6.283 * (frequency * 30 * time + phase))).sum(2)
        return (x / 3 + 0.02 * torch.randn(n, channels, length),)

    return make


def spectra(bands: int, frames: int) -> Callable[[int], tuple[Tensor, ...]]:
    """Log-mel-like: energies that fall with frequency and swell with time, from -11 to 2."""

    def make(n: int) -> tuple[Tensor, ...]:
        swell = F.interpolate(torch.rand(n, 1, 6), size=frames, mode="linear") * 8
        tilt = torch.linspace(0, -5, bands).reshape(1, bands, 1) * torch.rand(n, 1, 1)
        return (swell + tilt - 6 + 0.5 * torch.randn(n, bands, frames),)

    return make


def walks(steps: int, features: int) -> Callable[[int], tuple[Tensor, ...]]:
    """Random walks [n, steps, features] with features of different size."""
    return lambda n: (torch.randn(n, steps, features).cumsum(1) * torch.linspace(0.2, 1.5, features) * 0.5,)


def tokens(length: int, words: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda n: ((torch.rand(n, length) ** 2 * words).long(),)


def masked(length: int, words: int) -> Callable[[int], tuple[Tensor, ...]]:
    """Tokens, and 1 where they are, 0 in the padding."""

    def make(n: int) -> tuple[Tensor, ...]:
        mask = (torch.arange(length) < torch.randint(length // 3, length + 1, (n, 1))).float()
        return (tokens(length, words)(n)[0] * mask.long(), mask)

    return make


# parts of networks ------------------------------------------------------------------------------------


def conv(a: int, b: int, stride: int = 1, act: nn.Module | None = None, groups: int = 1) -> nn.Sequential:
    layers = [nn.Conv2d(a, b, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(b), act or nn.ReLU()]
    return nn.Sequential(*layers)


def conv1(a: int, b: int, width: int = 5, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    pad = dilation * (width - 1) // 2
    layers = [nn.Conv1d(a, b, width, stride, pad, dilation, bias=False), nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*layers)


class Attention(nn.Module):
    """Multi-head attention, written out. Large parts of scores are masked where a mask is added."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.heads = heads

    def forward(self, x: Tensor, other: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        other = x if other is None else other

        def split(y: Tensor) -> Tensor:
            return y.reshape(y.shape[0], y.shape[1], self.heads, -1).transpose(1, 2)

        q, k, v = split(self.q(x)), split(self.k(other)), split(self.v(other))
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        mixed = (scores if mask is None else scores + mask).softmax(-1) @ v
        return self.o(mixed.transpose(1, 2).reshape(x.shape))


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Block(nn.Module):
    """A transformer's layer. norm: its kind. cross: attention to a second sequence too."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module] = nn.LayerNorm, cross: bool = False) -> None:
        super().__init__()
        self.attention, self.n1, self.n2 = Attention(width), norm(width), norm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.cross, self.n3 = (Attention(width), norm(width)) if cross else (None, None)

    def forward(self, x: Tensor, mask: Tensor | None = None, other: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.n1(x), mask=mask)
        if self.cross is not None and self.n3 is not None:
            x = x + self.cross(self.n3(x), other)
        return x + self.down(F.gelu(self.up(self.n2(x))))


class Whole(nn.Module):
    """A network of named parts and the function that joins them."""

    def __init__(self, forward: Callable[..., object], **parts: nn.Module) -> None:
        super().__init__()
        self.parts, self.function = nn.ModuleDict(parts), forward

    def forward(self, *inputs: Tensor) -> object:
        return self.function(self.parts, *inputs)


# detectors --------------------------------------------------------------------------------------------


def body(width: int = 16, act: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(conv(3, width, 2, act), conv(width, 2 * width, 2, act), conv(2 * width, 2 * width, 1, act))


def scores(x: Tensor) -> Tensor:
    return torch.sigmoid(x.flatten(2) - 3)


def grid(size: int, stride: int) -> Tensor:
    place = torch.arange(size) * stride + stride / 2
    return torch.stack([place.repeat(size), place.repeat_interleave(size)])[None]


def yolo8() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        f = p["body"](x)
        distance = F.softplus(p["box"](f)).flatten(2) * 40
        centre = grid(8, 80)
        boxes = torch.cat([centre - distance[:, :2], centre + distance[:, 2:]], 1)
        return torch.cat([boxes, scores(p["classes"](f))], 1)

    return Whole(forward, body=body(act=nn.SiLU()), box=nn.Conv2d(32, 4, 1), classes=nn.Conv2d(32, 20, 1))


def yolo5() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        y = p["head"](p["body"](x)).reshape(-1, 3, 13, 8, 8).permute(0, 1, 3, 4, 2).sigmoid()
        centre = grid(8, 80).reshape(1, 1, 2, 8, 8).permute(0, 1, 3, 4, 2)
        xy, wh = (y[..., :2] * 2 - 0.5) * 80 + centre, (y[..., 2:4] * 2) ** 2 * 60
        return torch.cat([xy, wh, y[..., 4:]], -1).reshape(-1, 192, 13)

    return Whole(forward, body=body(act=nn.SiLU()), head=nn.Conv2d(32, 39, 1))


def ssd() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        a = p["body"](x)
        b = p["down"](a)
        boxes = torch.cat([p["box_a"](a).flatten(2), p["box_b"](b).flatten(2)], 2) * 300
        classes = torch.cat([p["class_a"](a).flatten(2), p["class_b"](b).flatten(2)], 2).softmax(1)
        return torch.cat([boxes, classes], 1).transpose(1, 2)

    heads = {"box_a": nn.Conv2d(32, 4, 1), "box_b": nn.Conv2d(32, 4, 1), "class_a": nn.Conv2d(32, 9, 1),
             "class_b": nn.Conv2d(32, 9, 1)}  # fmt: skip
    return Whole(forward, body=body(), down=conv(32, 32, 2), **heads)


def centernet() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> tuple[Tensor, ...]:
        f = F.interpolate(p["body"](x), scale_factor=2)
        return torch.sigmoid(p["heat"](f) - 2), F.relu(p["size"](f)) * 100, p["offset"](f)

    heads = {"heat": nn.Conv2d(32, 5, 1), "size": nn.Conv2d(32, 2, 1), "offset": nn.Conv2d(32, 2, 1)}
    return Whole(forward, body=body(), **heads)


def pose() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        f = p["body"](x)
        points = p["points"](f).flatten(2).reshape(-1, 5, 3, 64)
        places, visible = points[:, :, :2] * 100 + grid(8, 80)[:, None], points[:, :, 2:].sigmoid()
        keys = torch.cat([places, visible], 2).reshape(-1, 15, 64)
        return torch.cat([p["box"](f).flatten(2).sigmoid() * 640, scores(p["score"](f)), keys], 1)

    return Whole(forward, body=body(), box=nn.Conv2d(32, 4, 1), score=nn.Conv2d(32, 1, 1), points=nn.Conv2d(32, 15, 1))


def fcos() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        f = p["body"](x)
        distance = torch.exp(p["box"](f).clamp(-4, 4)).flatten(2) * 16
        return torch.cat([distance, torch.sigmoid(p["centre"](f)).flatten(2), scores(p["classes"](f))], 1)

    return Whole(forward, body=body(), box=nn.Conv2d(32, 4, 1), centre=nn.Conv2d(32, 1, 1), classes=nn.Conv2d(32, 8, 1))


def bins() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        f = p["body"](x)
        shares = (p["box"](f).flatten(2).reshape(-1, 4, 8, 64) * 2).softmax(2)
        distance = (shares * torch.arange(8.0).reshape(1, 1, 8, 1)).sum(2) * 32
        return torch.cat([distance, scores(p["classes"](f))], 1)

    return Whole(forward, body=body(act=nn.Hardswish()), box=nn.Conv2d(32, 32, 1), classes=nn.Conv2d(32, 12, 1))


def flat() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        f = p["body"](x)
        return torch.cat([p["box"](f).sigmoid().flatten(1) * 416, torch.sigmoid(p["classes"](f) - 2).flatten(1)], 1)

    return Whole(forward, body=body(), box=nn.Conv2d(32, 4, 1), classes=nn.Conv2d(32, 6, 1))


# transformers -----------------------------------------------------------------------------------------


def text(outputs: int, norm: Callable[[int], nn.Module] = nn.LayerNorm) -> nn.Module:
    def forward(p: nn.ModuleDict, ids: Tensor, mask: Tensor) -> Tensor:
        x = p["words"](ids) + p["places"](torch.arange(ids.shape[1]))
        added = (1 - mask[:, None, None]) * -1e9
        x = p["b"](p["a"](x, added), added)
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return p["head"](pooled)

    return Whole(forward, words=nn.Embedding(64, 32), places=nn.Embedding(24, 32), a=Block(32, norm), b=Block(32, norm),
                 head=nn.Linear(32, outputs))  # fmt: skip


def language() -> nn.Module:
    causal = torch.full((16, 16), -3.4e38).triu(1)

    def forward(p: nn.ModuleDict, ids: Tensor) -> Tensor:
        x = p["words"](ids) + p["places"](torch.arange(16))
        return p["head"](p["norm"](p["b"](p["a"](x, causal), causal)))

    return Whole(forward, words=nn.Embedding(48, 32), places=nn.Embedding(16, 32), a=Block(32), b=Block(32),
                 norm=nn.LayerNorm(32), head=nn.Linear(32, 48))  # fmt: skip


def vision() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        x = p["patches"](x).flatten(2).transpose(1, 2) + p["places"](torch.arange(16))
        return p["head"](p["norm"](p["b"](p["a"](x))).mean(1))

    return Whole(forward, patches=nn.Conv2d(3, 32, 8, 8), places=nn.Embedding(16, 32), a=Block(32), b=Block(32),
                 norm=nn.LayerNorm(32), head=nn.Linear(32, 10))  # fmt: skip


def translator() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        memory = p["encoder"](p["in"](x))
        return p["head"](p["decoder"](p["out"](x[:, :8]), other=memory))

    parts = {"in": nn.Linear(12, 32), "out": nn.Linear(12, 32), "encoder": Block(32), "decoder": Block(32, cross=True),
             "head": nn.Linear(32, 20)}  # fmt: skip
    return Whole(forward, **parts)


def outliers() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        return p["norm"](p["b"](p["a"](p["in"](x))))

    parts = {"in": nn.Linear(12, 32), "a": Block(32), "b": Block(32), "norm": nn.LayerNorm(32)}
    made = Whole(forward, **parts)
    with torch.no_grad():
        parts["norm"].weight[7], parts["norm"].bias[7] = 8.0, 30.0
    return made


def forecast() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        x = p["b"](p["a"](p["in"](x)))
        gated = F.silu(p["gate"](x)) * p["up"](x)
        return p["head"](p["norm"](x + p["down"](gated))[:, -1])

    parts = {"in": nn.Linear(12, 32), "a": Block(32, RMSNorm), "b": Block(32, RMSNorm), "gate": nn.Linear(32, 64),
             "up": nn.Linear(32, 64), "down": nn.Linear(64, 32), "norm": RMSNorm(32),
             "head": nn.Linear(32, 8)}  # fmt: skip
    return Whole(forward, **parts)


# recurrent --------------------------------------------------------------------------------------------


def keywords() -> nn.Module:
    return Whole(
        lambda p, x: p["head"](p["lstm"](x)[0][:, -1]), lstm=nn.LSTM(12, 32, batch_first=True), head=nn.Linear(32, 8)
    )


def tracker() -> nn.Module:
    parts = {"gru": nn.GRU(12, 32, batch_first=True), "head": nn.Linear(32, 6)}
    return Whole(lambda p, x: p["head"](p["gru"](x)[0]), **parts)


def reader() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        f = p["b"](p["a"](x)).mean(2).transpose(1, 2)
        return p["head"](p["lstm"](f)[0])

    lstm = nn.LSTM(32, 24, batch_first=True, bidirectional=True)
    return Whole(forward, a=conv(1, 16, 2), b=conv(16, 32, 2), lstm=lstm, head=nn.Linear(48, 27))


def anomaly() -> nn.Module:
    parts = {"a": nn.LSTM(12, 24, batch_first=True), "b": nn.LSTM(24, 24, batch_first=True), "head": nn.Linear(24, 12)}
    return Whole(lambda p, x: p["head"](p["b"](p["a"](x)[0])[0]), **parts)


def pooled() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        y = p["gru"](x)[0]
        return p["head"]((p["weigh"](y).softmax(1) * y).sum(1))

    return Whole(forward, gru=nn.GRU(12, 32, batch_first=True), weigh=nn.Linear(32, 1), head=nn.Linear(32, 5))


# U-Nets -----------------------------------------------------------------------------------------------


def unet(outputs: int, last: Callable[[Tensor, Tensor], object], transposed: bool = False) -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> object:
        a = p["a"](x)
        b = p["b"](a)
        c = p["c"](b)
        c = p["up"](c) if transposed else F.interpolate(c, scale_factor=2)
        d = p["d"](torch.cat([c, b], 1))
        e = p["e"](torch.cat([F.interpolate(d, scale_factor=2), a], 1))
        return last(p["head"](e), x)

    parts = {"a": conv(3, 12), "b": conv(12, 24, 2), "c": conv(24, 32, 2), "d": conv(56, 24), "e": conv(36, 12),
             "head": nn.Conv2d(12, outputs, 1)}  # fmt: skip
    if transposed:
        parts["up"] = nn.ConvTranspose2d(32, 32, 2, 2)
    return Whole(forward, **parts)


# sound ------------------------------------------------------------------------------------------------


def speech() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        y = p["c"](p["b"](p["a"](x[:, None])))
        return p["head"](y.mean((2, 3)))

    deep = nn.Sequential(conv(24, 24, groups=24), nn.Conv2d(24, 32, 1), nn.ReLU())
    return Whole(forward, a=conv(1, 24, 2), b=deep, c=conv(32, 32, 2), head=nn.Linear(32, 12))


def denoiser() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        y = p["in"](x)
        for name in ("a", "b", "c"):
            y = y + p[name](y)
        return x - p["out"](y)

    parts = {"in": conv1(1, 24), "a": conv1(24, 24), "b": conv1(24, 24, dilation=2), "c": conv1(24, 24, dilation=4),
             "out": nn.Conv1d(24, 1, 1)}  # fmt: skip
    return Whole(forward, **parts)


def raw() -> nn.Module:
    parts = {"a": conv1(1, 16, 9, 4), "b": conv1(16, 32, 5, 4), "c": conv1(32, 32, 5, 2), "head": nn.Linear(32, 6)}
    return Whole(lambda p, x: p["head"](p["c"](p["b"](p["a"](x))).mean(2)), **parts)


def separator() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        y = p["gru"](x.transpose(1, 2))[0]
        return torch.sigmoid(p["mask"](y)).transpose(1, 2) * torch.exp(x / 4)

    return Whole(forward, gru=nn.GRU(24, 32, batch_first=True), mask=nn.Linear(32, 24))


def voice() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        power = F.relu(p["bank"](x)).square().reshape(-1, 16, 16, 16).mean(3)
        y = p["b"](p["a"](torch.log(power + 1e-4)))
        return torch.sigmoid(p["head"](y))

    parts = {"bank": nn.Conv1d(1, 16, 16, 4, 6), "a": conv1(16, 24), "b": conv1(24, 24), "head": nn.Conv1d(24, 1, 1)}
    return Whole(forward, **parts)


# others -----------------------------------------------------------------------------------------------


def face() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        y = p["body"](x).mean((2, 3))
        return torch.cat([p["age"](y).sigmoid() * 100, p["points"](y) * 50 + 112, p["smile"](y).sigmoid()], 1)

    return Whole(forward, body=body(), age=nn.Linear(32, 1), points=nn.Linear(32, 10), smile=nn.Linear(32, 3))


def embedding() -> nn.Module:
    def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
        y = p["head"](p["body"](x).mean((2, 3)))
        return y / y.norm(dim=1, keepdim=True)

    return Whole(forward, body=body(act=nn.ReLU6()), head=nn.Linear(32, 24))


def _depth(y: Tensor, x: Tensor) -> Tensor:
    return torch.cat([F.softplus(y[:, :1]) * 40, torch.tanh(y[:, 1:])], 1)


def boxes_and(first: int, axis: int = 1) -> dict[str, tuple[int, int, slice]]:
    return {"boxes": (0, axis, slice(0, first)), "scores": (0, axis, slice(first, None))}


PHOTO, SPECTRUM, SERIES = images(3, 32), spectra(24, 32), walks(16, 12)
CASES: dict[str, Case] = {
    "yolo8": Case("detector", yolo8, PHOTO, boxes_and(4)),
    "yolo5": Case("detector", yolo5, PHOTO, boxes_and(4, 2)),
    "ssd": Case("detector", ssd, PHOTO, boxes_and(4, 2)),
    "centernet": Case("detector", centernet, PHOTO),
    "pose": Case("detector", pose, PHOTO, {"boxes": (0, 1, slice(0, 4)), "score": (0, 1, slice(4, 5))}),
    "fcos": Case("detector", fcos, PHOTO, boxes_and(4)),
    "bins": Case("detector", bins, PHOTO, boxes_and(4)),
    "flat": Case("detector", flat, PHOTO, boxes_and(256)),
    "text": Case("transformer", lambda: text(4), masked(24, 64)),
    "text_rms": Case("transformer", lambda: text(6, RMSNorm), masked(24, 64)),
    "language": Case("transformer", language, tokens(16, 48)),
    "vision": Case("transformer", vision, PHOTO),
    "translator": Case("transformer", translator, SERIES),
    "outliers": Case("transformer", outliers, SERIES),
    "forecast": Case("transformer", forecast, SERIES),
    "keywords": Case("recurrent", keywords, SERIES),
    "tracker": Case("recurrent", tracker, SERIES),
    "reader": Case("recurrent", reader, images(1, 32)),
    "anomaly": Case("recurrent", anomaly, SERIES),
    "pooled": Case("recurrent", pooled, SERIES),
    "segment": Case("U-Net", lambda: unet(4, lambda y, x: y.softmax(1)), PHOTO),
    "depth": Case("U-Net", lambda: unet(4, _depth), PHOTO, {"depth": (0, 1, slice(0, 1)),
                                                           "normals": (0, 1, slice(1, 4))}),
    "clean": Case("U-Net", lambda: unet(3, lambda y, x: x - y * 0.1, transposed=True), PHOTO),
    "speech": Case("sound", speech, SPECTRUM),
    "denoiser": Case("sound", denoiser, waves(1, 256)),
    "raw": Case("sound", raw, waves(1, 1024)),
    "separator": Case("sound", separator, SPECTRUM),
    "voice": Case("sound", voice, waves(1, 1024)),
    "face": Case("other", face, PHOTO, {"age and points": (0, 1, slice(0, 11)), "smile": (0, 1, slice(11, 14))}),
    "embedding": Case("other", embedding, PHOTO),
}  # fmt: skip


def seed(name: str, what: str) -> None:
    torch.manual_seed(zlib.crc32(f"{name} {what}".encode()))


def fitted(name: str) -> nn.Module:
    """The network after STEPS steps towards outputs that follow a random projection of the inputs."""
    case = CASES[name]
    seed(name, "weights")
    module, inputs = case.module(), case.inputs(32)
    _spread(module)
    flat = torch.cat([F.adaptive_avg_pool1d(x.float().flatten(1)[:, None], 64)[:, 0] for x in inputs], 1)
    flat = (flat - flat.mean(0)) / (flat.std(0) + 1e-3)
    module.train()
    with torch.no_grad():
        first = _outputs(module, inputs)
    goals, sizes = [], []
    for y in first:
        projection = torch.randn(flat.shape[1], y[0].numel()) / flat.shape[1] ** 0.5
        size = y.std(0, keepdim=True) + 0.05 * y.std()
        goals.append(y.mean(0, keepdim=True) + size * torch.tanh(flat @ projection).reshape(y.shape))
        sizes.append(size)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        outputs = _outputs(module, inputs)
        loss = sum((((y - g) / s) ** 2).mean() for y, g, s in zip(outputs, goals, sizes, strict=True))
        loss.backward()
        optimizer.step()
    return module.eval()


def _spread(module: nn.Module) -> None:
    """Channels of different size, and an outlier in the norms of transformers, as long training leaves them."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                part.weight.mul_(torch.exp(torch.randn_like(part.weight)))
            if isinstance(part, (nn.LayerNorm, RMSNorm)):
                part.weight[torch.randint(0, len(part.weight), (2,))] *= 15.0


def _outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    outputs = module(*inputs)
    return list(outputs) if isinstance(outputs, tuple) else [outputs]
